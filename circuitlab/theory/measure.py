"""A measured quantity: its value on every sample, mean and standard error, and what the theory asks of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HOLDS, ROUGHLY, FAILS = "holds", "roughly", "fails"


@dataclass(frozen=True)
class Measure:
    """One row of a diagnosis.

    Args:
        key: its name in files, such as `column_space`.
        title: its name in tables.
        values: of every sample, [sample]; NaN where a sample has none. None for what is of all samples together.
        units: of the values.
        description: what it is, with its equation.
        asks: what the theory asks of it, short; empty where it asks nothing.
        mean, error: over the samples that have a value, and the standard error of the mean (NaN for one sample).
        verdict: `holds`, `roughly`, `fails`, or empty where there is no criterion.
        note: a short remark.
        inapplicable: why it does not apply here; it has no value then.
    """

    key: str
    title: str
    values: np.ndarray | None
    units: str
    description: str
    asks: str = ""
    mean: float = float("nan")
    error: float = float("nan")
    verdict: str = ""
    note: str = ""
    inapplicable: str = ""

    @property
    def count(self) -> int:
        """Samples that have a value."""
        return 0 if self.values is None else int(np.isfinite(self.values).sum())


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error over the samples that have a value."""
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    error = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else float("nan")
    return float(known.mean()), error


def at_least(value: float, good: float, fair: float) -> str:
    """The verdict on a value that should be large."""
    return "" if np.isnan(value) else HOLDS if value >= good else ROUGHLY if value >= fair else FAILS


def at_most(value: float, good: float, fair: float) -> str:
    """The verdict on a value that should be small."""
    return "" if np.isnan(value) else HOLDS if value <= good else ROUGHLY if value <= fair else FAILS
