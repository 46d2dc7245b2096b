"""LCP figure S3: how learned feedback aligns with the gradient of the control cost while it learns."""

from __future__ import annotations

import argparse
from typing import Any

from circuitlab.errors import CircuitError
from figures.drawing import experiment
from figures.follow import compare, follow_all

ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "linear feedback": ("mnist_recurrent_linear_feedback", ()),
    "linear feedback, from random": (
        "mnist_recurrent_linear_feedback",
        ("control.feedback=random", "control.scale=0.2", "learn.feedback.optimizer.lr=5"),
    ),
    "Kolen-Pollack": ("mnist_recurrent_kolen_pollack", ()),
    "fixed random feedback": ("mnist_recurrent_random_feedback", ()),
}
"""File, and what differs from it."""


def figure_s3(given: argparse.Namespace) -> dict[str, Any]:
    """LCP figure S3."""
    for word in given.only:
        if not any(word in name for name in ROWS):
            raise CircuitError(f"--only: no row '{word}'; there are {', '.join(ROWS)}")
    common = [f"data.limit={given.limit}", f"learn.epochs={given.epochs}", f"seed={given.seed}",
              f"threads={given.threads}"]  # fmt: skip
    rows = {
        name: experiment(file, *common, *sets)
        for name, (file, sets) in ROWS.items()
        if not given.only or any(word in name for word in given.only)
    }
    keys = {
        "cosine_control_gradient": "update of a sample and -d(H + L/alpha), cosine",
        "cosine_control_gradient_mean": "means over samples, cosine",
        "control_share": "control in row space of J, share",
        "distance": "distance from optimal control, relative",
    }
    return compare(follow_all(rows, given), keys, given.window)
