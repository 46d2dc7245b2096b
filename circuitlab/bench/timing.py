"""Readings compared: ratios of pairs, and the least of repeats. What reads them is `report.timing`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from circuitlab.report.timing import Spread, alternate

__all__ = ["Spread", "alternate", "least_of_each", "paired_ratio"]


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median of the ratios of readings that belong together (same batch, same moment), dimensionless.

    A pair whose lower number is not above zero, or not finite, is left out; NaN where no pair is left.
    """
    pairs = [a / b for a, b in zip(above, below, strict=True) if b > 0 and np.isfinite(a) and np.isfinite(b)]
    return float(np.median(pairs)) if pairs else float("nan")


def least_of_each(readings: Sequence[float], repeats: int) -> list[float]:
    """The least of every `repeats` readings that follow each other: what other programs add is mostly left out."""
    return [min(readings[start : start + repeats]) for start in range(0, len(readings), repeats)]
