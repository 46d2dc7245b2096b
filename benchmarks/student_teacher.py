"""The data of Deep Feedback Control's student-teacher regression: a random network's answers to random inputs.

    python benchmarks/student_teacher.py [-o experiments/data/student_teacher.npz] [--samples 1000] [--seed 0]

A teacher with the student's layers (15-10-10-5, tanh, linear output), normal weights of standard deviation
2/sqrt(inputs of the unit) and normal biases of 0.1, answers inputs uniform in [-1, 1]; answers are scaled to standard
deviation 1. An experiment sets a share of the samples aside for testing by `data.test: 0.2`.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np

SIZES = (15, 10, 10, 5)


def teacher(samples: int, seed: int) -> dict[str, np.ndarray]:
    """Inputs `x` [sample, 15] and targets `y` [sample, 5], float32."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (samples, SIZES[0]))
    rate = x
    for number, (before, after) in enumerate(pairwise(SIZES)):
        weights = 2 * rng.standard_normal((after, before)) / before**0.5
        rate = rate @ weights.T + 0.1 * rng.standard_normal(after)
        if number < len(SIZES) - 2:
            rate = np.tanh(rate)
    return {"x": x.astype(np.float32), "y": (rate / rate.std()).astype(np.float32)}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("experiments/data/student_teacher.npz"))
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    np.savez_compressed(given.output, **teacher(given.samples, given.seed))


if __name__ == "__main__":
    main()
