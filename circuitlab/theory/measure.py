"""A measured quantity: its value on every sample, mean and standard error, and what the theory asks of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

HOLDS, ROUGHLY, FAILS = "holds", "roughly", "fails"
Judge = Callable[[float, float, np.ndarray], str]
"""From mean, standard error and the values there are to a verdict."""


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


@dataclass(frozen=True)
class Row:
    """How a measure is shown: see Measure; `judge` gives the verdict from mean, standard error and values."""

    key: str
    title: str
    units: str
    description: str
    asks: str = ""
    judge: Judge | None = None
    note: str = ""

    def of(self, values: np.ndarray | None, why: str = "") -> Measure:
        """The measure with these values, [sample], or why there are none."""
        if values is not None and not np.isfinite(values).any():
            values, why = None, why or "no sample has a value"
        if values is None:
            return self.without(why)
        mean, error = mean_and_error(values)
        return self._with(values, mean, error)

    def of_mean(self, mean: float, error: float) -> Measure:
        """The measure of what belongs to all samples together."""
        if np.isnan(mean):
            return self.without("no sample has a value")
        return self._with(None, mean, error)

    def without(self, why: str) -> Measure:
        """The measure where it does not apply."""
        return Measure(self.key, self.title, None, self.units, self.description, self.asks, inapplicable=why)

    def _with(self, values: np.ndarray | None, mean: float, error: float) -> Measure:
        single = np.array([mean]) if values is None else values[np.isfinite(values)]
        verdict = "" if self.judge is None else self.judge(mean, error, single)
        return Measure(
            self.key,
            self.title,
            values,
            self.units,
            self.description,
            self.asks,
            mean,
            error,
            verdict,
            self.note,
        )


def large(good: float, fair: float) -> Judge:
    """The mean should be large."""
    return lambda mean, error, values: HOLDS if mean >= good else ROUGHLY if mean >= fair else FAILS


def small(good: float, fair: float) -> Judge:
    """The mean should be small."""
    return lambda mean, error, values: HOLDS if mean <= good else ROUGHLY if mean <= fair else FAILS


def below(bound: float) -> Judge:
    """Every sample should lie below a bound."""

    def judge(mean: float, error: float, values: np.ndarray) -> str:
        return HOLDS if values.max() < bound else ROUGHLY if np.median(values) < bound else FAILS

    return judge


def above(bound: float) -> Judge:
    """Every sample should lie above a bound."""
    other = below(-bound)
    return lambda mean, error, values: other(-mean, error, -values)


def positive(mean: float, error: float, values: np.ndarray) -> str:
    """Whether an update descends, beyond its standard error."""
    return HOLDS if mean > 2 * (0 if np.isnan(error) else error) else ROUGHLY if mean > 0 else FAILS
