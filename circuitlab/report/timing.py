"""Honest times: what is compared runs alternately in one process, so that a busy machine slows all of it alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SHORTEST = 2e-3
"""Seconds that one reading lasts at least: quicker work is done several times within it."""


@dataclass(frozen=True)
class Spread:
    """Some readings of one quantity in three numbers.

    Args:
        median, least: of the readings, in their unit.
        spread: interquartile range over the median, dimensionless.
        count: number of readings.
    """

    median: float
    least: float
    spread: float
    count: int

    @classmethod
    def of(cls, readings: Sequence[float]) -> Spread:
        """The spread of at least one reading."""
        low, middle, high = np.quantile(np.asarray(readings, dtype=float), [0.25, 0.5, 0.75])
        spread = float((high - low) / middle) if middle else 0.0
        return cls(float(middle), float(np.min(readings)), spread, len(readings))


def alternate(
    work: Mapping[str, Callable[[], object]], repeats: int, most_seconds: float = float("inf")
) -> dict[str, list[float]]:
    """Seconds of one call of each function, read in turn: all once, then all once more, and so on.

    Args:
        work: functions by name; each is called once before anything is read.
        repeats: readings of each, at least 3 of them unless `repeats` is less.
        most_seconds: no further round begins once all rounds together have lasted this long.

    Returns:
        readings by name, all of the same number.
    """
    loops = {}
    for name, function in work.items():
        function()
        loops[name] = max(1, round(SHORTEST / max(_seconds(function, 1), 1e-7)))
    found: dict[str, list[float]] = {name: [] for name in work}
    begun = time.perf_counter()
    for number in range(repeats):
        if number >= min(3, repeats) and time.perf_counter() - begun > most_seconds:
            break
        for name, function in work.items():
            found[name].append(_seconds(function, loops[name]))
    return found


def _seconds(function: Callable[[], object], loops: int) -> float:
    begun = time.perf_counter()
    for _ in range(loops):
        function()
    return (time.perf_counter() - begun) / loops
