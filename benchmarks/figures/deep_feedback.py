"""DFC figures 3 and 4, on the regression of experiments/student_teacher_dfc.yaml: a 15-10-10-5 student, whose feedback
weights learn or are fixed, and a random teacher (benchmarks/student_teacher.py)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from circuitlab.errors import CircuitError
from figures.drawing import COLOURS, experiment, panels
from figures.follow import compare, curve, follow_all, table

FILE = "student_teacher_dfc"
FIXED = ("learn.feedback=null", "control.feedback=jacobian")
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "DFC": ("deep_feedback_control", ()),
    "DFC-SS": ("deep_feedback_control_ss", ()),
    "DFC-SSA": ("deep_feedback_control_ssa", ()),
    "DFC (fixed)": ("deep_feedback_control", FIXED),
    "DFC-SS (fixed)": ("deep_feedback_control_ss", FIXED),
    "DFC-SSA (fixed)": ("deep_feedback_control_ssa", FIXED),
    "DFC-SS (random)": ("deep_feedback_control_ss", ("learn.feedback=null",)),
    "eq. 9": ("least_control", ()),
    "eq. 9 (fixed)": ("least_control", FIXED),
}
"""Rule, and what differs from the file, where Q learns from a random start. Eq. 9 is DFC-SS without the nonlinearity,
psi r^T, as in the theorems."""
PAPER = tuple(VARIANTS)[:6]
"""Those of the paper's figure."""


def variants(only: list[str]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """The variants that were asked for."""
    unknown = [name for name in only if name not in VARIANTS]
    if unknown:
        raise CircuitError(f"--only: no variant '{unknown[0]}'; allowed: {', '.join(VARIANTS)}")
    for name, (rule, sets) in VARIANTS.items():
        if name in (only or PAPER):
            yield name, rule, sets


def common(given: argparse.Namespace) -> list[str]:
    """What the command line changes in every experiment."""
    sets = [f"learn.epochs={given.epochs}", f"seed={given.seed}", f"threads={given.threads}", "dtype=float64"]
    return sets + ([f"data.limit={given.limit}"] if given.limit else [])


def figure_3(given: argparse.Namespace) -> dict[str, Any]:
    """DFC figure 3."""
    keys = {
        "column_space_free": "A: Q in the row space of J, share of norm",
        "angle_minimum_norm": "B: angle with minimum norm, degrees",
        "norm_spread": "C: spread of layer norms, deviation / mean",
        "angle_gauss_newton": "D: angle with Gauss-Newton, degrees",
        "largest_real_part": "E: largest real part, 1/ms",
        "angle_steady": "F: angle with DFC-SSA, degrees",
    }
    rows = {
        name: experiment(FILE, f"learn.rule={rule}", *common(given), *sets)
        for name, rule, sets in variants(given.only)
    }
    found = follow_all(rows, given, steady="deep_feedback_control_ssa")
    return compare(found, keys, given.window)


def figure_4(given: argparse.Namespace) -> dict[str, Any]:
    """DFC figure 4."""
    spec = experiment(FILE)
    nudge, alpha = spec.control.nudge, spec.control.controller.alpha
    rate = spec.learn.optimizer.lr * nudge  # updates are of the size of lambda
    settings = {f"lambda {value:g}": (value, alpha) for value in given.nudges}
    settings |= {f"alpha {value:g}": (nudge, value) for value in given.alphas}

    rows = {
        name: experiment(
            FILE, f"learn.rule={given.rule}", f"control.nudge={one:g}", f"control.controller.alpha={other:g}",
            f"learn.optimizer.lr={rate / one:g}", *common(given),
        )
        for name, (one, other) in settings.items()
    }  # fmt: skip
    found = follow_all(rows, given)
    columns, shown = table(
        found, {"angle_minimum_norm": "angle with minimum norm, degrees", "free_loss": "loss"}, given.window
    )
    figure, axes = panels(2)
    titles = {"lambda": f"A: by lambda, alpha {alpha:g}", "alpha": f"B: by alpha, lambda {nudge:g}"}
    for axis, (word, title) in zip(axes, titles.items(), strict=True):
        some = {name: steps for name, steps in found.items() if name.startswith(word)}
        for (name, steps), colour in zip(some.items(), COLOURS, strict=False):
            curve(axis, steps, "angle_minimum_norm", given.window, color=colour, label=name)
        axis.set(xlabel="updates", ylabel="angle with minimum norm, degrees", title=title, ylim=(0, 90))
        axis.legend()
    return {"columns": columns, "rows": shown, "steps": found, "figure": figure}
