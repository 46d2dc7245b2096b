"""LCP figure S3: how learned feedback aligns with the gradient of the control cost while it learns."""

from __future__ import annotations

import argparse
from typing import Any

from circuitlab.errors import CircuitError
from figures.drawing import experiment
from figures.follow import compare, follow_all


def figure_s3(given: argparse.Namespace) -> dict[str, Any]:
    """LCP figure S3."""
    common = [f"data.limit={given.limit}", f"learn.epochs={given.epochs}", f"control.controller.alpha={given.alpha}",
              f"seed={given.seed}", f"threads={given.threads}"]  # fmt: skip
    own = {
        "linear feedback, learned": ["control.pathway=linear_feedback", "control.feedback=random",
                                     "learn.rule=least_control_gated", "learn.feedback=anti_hebbian"],
        "Kolen-Pollack": ["control.feedback=kolen_pollack", "learn.feedback=kolen_pollack"],
        "linear feedback, random": ["control.pathway=linear_feedback", "control.feedback=random"],
    }  # fmt: skip
    for word in given.only:
        if not any(word in name for name in own):
            raise CircuitError(f"--only: no row '{word}'; there are {', '.join(own)}")
    rows = {
        name: (lambda sets=sets: experiment("mnist_recurrent", *common, *sets))
        for name, sets in own.items()
        if not given.only or any(word in name for word in given.only)
    }
    keys = {
        "cosine_control_gradient": "update of a sample and -d(H + L/alpha), cosine",
        "cosine_control_gradient_mean": "means over samples, cosine",
        "control_share": "control in row space of J, share",
        "distance": "distance from optimal control, relative",
    }
    return compare(follow_all(rows, given.every, given.samples), keys, given.window)
