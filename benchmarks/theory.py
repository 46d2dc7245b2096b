"""The theory's figures: each command prints its table, and draws (--plot FILE) and writes (--json FILE) what it found.

    python benchmarks/theory.py lcp-figure-s1     gradient error against equilibrium error, feedforward 3x300, MNIST
    python benchmarks/theory.py lcp-figure-2      loss and control after learning, by width of a recurrent layer, MNIST
    python benchmarks/theory.py lcp-figure-s3     alignment of learned feedback with -dH while it learns, MNIST
    python benchmarks/theory.py lcp-table-s1      test accuracy by leak of the controller, feedforward, MNIST
    python benchmarks/theory.py dfc-figure-3      deep feedback control's conditions and angles, student and teacher
    python benchmarks/theory.py dfc-figure-4      angle with the minimum-norm updates by lambda and alpha

LCP is the least-control paper, DFC the one on deep feedback control. Each command's --help says what it takes; nothing
is run longer than it says. docs/theory.md shows what they print, and how near the papers it is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from figures import deep_feedback, gradient_errors, learned_feedback, width_and_leak
from figures.drawing import strict

from circuitlab.errors import CircuitlabError
from circuitlab.report.plots import save

Options = dict[str, tuple[Any, str]]
"""Default and meaning of each option; a list takes any number of values."""
WATCHED: Options = {
    "processes": (1, "experiments at a time, each with its threads"),
    "samples": (20, "samples measured on"),
    "every": (20, "updates between two measurements"),
    "window": (5, "measurements in a window, of which mean and standard deviation are drawn"),
}
REGRESSION: Options = {
    "epochs": (20, "passes over the samples"),
    "limit": (0, "samples of the teacher, 0 for all"),
}
COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], dict[str, Any]], Options]] = {
    "lcp-figure-s1": (
        gradient_errors.figure_s1,
        {
            "samples": (100, "MNIST images"),
            "draws": (200, "random perturbations"),
            "steps": (10_000, "steps of the dynamics"),
        },
    ),
    "lcp-figure-2": (
        width_and_leak.figure_2,
        {
            "widths": ([23, 32, 45, 64, 91, 128, 181, 256], "widths"),
            "samples": (2000, "training images"),
            "epochs": (20, "passes over them"),
            "alpha": (0.1, "leak of the controller"),
        },
    ),
    "lcp-figure-s3": (
        learned_feedback.figure_s3,
        {
            **WATCHED,
            "epochs": (2, "passes over the images"),
            "limit": (20_000, "training images"),
            "only": ([], "rows whose name has one of these words in it"),
        },
    ),
    "lcp-table-s1": (
        width_and_leak.table_s1,
        {
            "alphas": ([0.0, 0.01, 0.1, 0.64, 1.0, 6.4, 64.0], "leaks"),
            "samples": (4000, "training images, 0 for all"),
            "epochs": (4, "passes over them"),
            "seeds": ([0], "seeds"),
        },
    ),
    "dfc-figure-3": (
        deep_feedback.figure_3,
        {**WATCHED, **REGRESSION, "only": ([], "variants; the paper's six unless given")},
    ),
    "dfc-figure-4": (
        deep_feedback.figure_4,
        {
            **WATCHED,
            **REGRESSION,
            "nudges": ([1e-3, 1e-2, 1e-1, 0.5], "lambda"),
            "alphas": ([1e-4, 1e-3, 1e-2, 1e-1], "alpha"),
            "rule": ("deep_feedback_control_ss", "the rule"),
        },
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = parser.add_subparsers(dest="command", required=True)
    for name, (run, options) in COMMANDS.items():
        command = choices.add_parser(name, help=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("--plot", type=Path, help="draw into this file (.png, .svg, .pdf)")
        command.add_argument("--json", type=Path, help="write all numbers into this file")
        command.add_argument("--threads", type=int, default=1)
        if "seeds" not in options:
            command.add_argument("--seed", type=int, default=0)
        for key, (value, words) in options.items():
            many = isinstance(value, list)
            kind = (type(value[0]) if value else str) if many else type(value)
            extra: dict[str, Any] = {"nargs": "*"} if many else {}
            command.add_argument(f"--{key}", type=kind, default=value, help=f"{words} ({value})", **extra)
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    try:
        found = given.run(given)
        figure = found.pop("figure")
        if given.plot is not None:
            given.plot.parent.mkdir(parents=True, exist_ok=True)
            save(figure, given.plot)
        if given.json is not None:
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(
                json.dumps(strict({"command": given.command, **found}), indent=1, allow_nan=False),
                encoding="utf-8",
            )
    except CircuitlabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
