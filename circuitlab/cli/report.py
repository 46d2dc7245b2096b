"""`circuitlab report`: one HTML page of one or more runs, that opens offline."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from circuitlab.cli.common import memory, say
from circuitlab.errors import CircuitlabError


def report(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="RUN.h5...", help="Run files of any kind; they may still be growing."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE.html", help="Where to write; a page there is replaced."),
    ],
    neuron: Annotated[
        list[str] | None,
        typer.Option(
            "--neuron",
            metavar="POP:NEURON",
            help="A neuron that must be in the page, by index or name, such as l23:17. Give it as often as you like.",
        ),
    ] = None,
    neurons: Annotated[
        int | None, typer.Option("--neurons", metavar="N", min=1, help="The most neurons of a population.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option("--frames", metavar="N", min=1, help="The most frames of a recording.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", metavar="N", min=1, help="The most samples of a recording.")
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            "--budget",
            metavar="SIZE",
            help="The most data in the page, such as 8MB; 5 MB of program come on top.",
        ),
    ] = "6MB",
) -> None:
    """Make one HTML page of runs: circuit, learning curves, every neuron's compartments, weights, convergence.

    The page holds everything it needs and opens without a network. Runs that differ in their seed alone are one
    condition; several conditions stand side by side. Of large recordings it holds evenly spaced frames, samples and
    neurons, as many as fit into the budget, and says so (docs/report.md).
    """
    from circuitlab.report.page.choice import Limits
    from circuitlab.report.page.runs import Options, write_report

    limits = Limits(frame=frames, sample=samples, unit=neurons)
    write_report(files, output, Options(size(budget), limits, tuple(neuron or ())))
    say(f"report: {output} ({memory(output.stat().st_size)})")


def size(text: str) -> int:
    """Bytes from text such as 8MB, 500 kB or 2000000.

    Raises:
        CircuitlabError: it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(k|M|G)?B?\s*", text, re.IGNORECASE)
    if not match:
        raise CircuitlabError(f"--budget: '{text}' is no size; allowed: such as 8MB or 500kB")
    return int(float(match[1]) * {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}[(match[2] or "").lower()])
