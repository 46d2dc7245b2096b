"""Several runs as conditions: runs of one experiment that differ in their seed alone are one condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from circuitlab.errors import RunFileError
from circuitlab.report.plots import COLOURS
from circuitlab.report.readings import Reading

Dashes = Any


@dataclass(frozen=True, eq=False)
class Condition:
    """Runs that differ in their seed alone.

    Args:
        label: what tells the condition from the others. colour: of its lines.
    """

    label: str
    colour: str
    runs: tuple[Reading, ...]

    def curves(self, metric: str) -> list[tuple[NDArray, NDArray]]:
        """Epochs (or steps) and values of each run that measured a metric."""
        return [curve for run in self.runs if (curve := run.curve(metric))]

    def spread(self, metric: str) -> tuple[NDArray, NDArray, NDArray] | None:
        """Epochs that all its runs measured, mean and standard deviation over the runs (n - 1; zero of one run)."""
        found = self.curves(metric)
        if not found:
            return None
        at = found[0][0]
        for other, _ in found[1:]:
            at = np.intersect1d(at, other)
        if not len(at):
            return None
        values = np.stack([v[np.searchsorted(x, at)] for x, v in found])
        deviation = values.std(0, ddof=1) if len(values) > 1 else np.zeros(len(at))
        return at, values.mean(0), deviation


def conditions(runs: Sequence[Reading]) -> list[Condition]:
    """The runs by condition, in the order given.

    Raises:
        RunFileError: there are more than colours to tell them apart.
    """
    found: dict[Any, list[Reading]] = {}
    for number, run in enumerate(runs):
        key: Any = tuple(sorted(run.settings.items())) if run.settings else number
        same = found.get(key)
        if same is not None and run.seed in {other.seed for other in same}:
            key = (number, key)  # the same seed again is no further sample
        found.setdefault(key, []).append(run)
    members = list(found.values())
    if len(members) > len(COLOURS):
        raise RunFileError(
            f"--compare: {len(members)} conditions; up to {len(COLOURS)} are told apart by their colours"
        )
    labels = _labels(members)
    return [
        Condition(label, colour, tuple(group))
        for label, colour, group in zip(labels, COLOURS, members, strict=False)
    ]


def _labels(members: list[list[Reading]]) -> list[str]:
    """The shortest words that tell all conditions apart: rules, experiments, the settings that differ, or files."""
    firsts = [group[0] for group in members]
    settings = [run.settings for run in firsts]
    known = sorted({key for one in settings for key in one})
    differ = [k for k in known if len({one.get(k, "") for one in settings}) > 1]
    stems = [run.stem for run in firsts]
    told = [
        ", ".join(
            f"{key.rsplit('.', 1)[-1].replace('_', ' ')} {one.get(key) or 'none'}".replace("_", " ")
            for key in differ[:2]
        )
        for one in settings
    ]
    titles = [run.title.replace("_", " ") for run in firsts]
    rules = [run.label for run in firsts]
    choices = [rules, titles, *([told] if 0 < len(differ) <= 2 else []), stems]
    for words in choices:
        if len(set(words)) == len(words):
            return words
    return [f"{stem} ({number})" for number, stem in enumerate(stems, 1)]


def lines(
    axes: Axes,
    condition: Condition,
    metric: str,
    dashes: Dashes = "-",
    width: float = 2.8,
    label: str | None = None,
) -> bool:
    """Draws one metric of a condition: every seed thin, mean and band where there are several.

    Returns:
        Whether it was measured.
    """
    spread = condition.spread(metric)
    curves = condition.curves(metric)
    if not curves:
        return False
    if len(curves) > 1:
        for at, values in curves:
            axes.plot(at, values, color=condition.colour, linestyle=dashes, linewidth=0.8, alpha=0.6)
    if spread is not None:
        at, mean, deviation = spread
        marker = "o" if len(at) == 1 else None
        axes.plot(
            at, mean, color=condition.colour, linestyle=dashes, linewidth=width, marker=marker, label=label
        )
        if len(curves) > 1:
            low, high = mean - deviation, mean + deviation
            axes.fill_between(at, low, high, color=condition.colour, alpha=0.15, linewidth=0)
    return True


def seeds_sentence(found: Sequence[Condition]) -> str:
    """What thin and thick lines mean; empty where every condition has one run."""
    counts = [len(c.runs) for c in found]
    if max(counts) == 1:
        return ""
    each = (
        f"{counts[0]}"
        if len(set(counts)) == 1
        else ", ".join(f"{c.label} {n}" for c, n in zip(found, counts, strict=True))
    )
    return f"Thin: every seed ({each}); thick: their mean; band: standard deviation over seeds."


def learned_range(curves: list[tuple[NDArray, NDArray]]) -> tuple[float, float] | None:
    """Limits of an axis of accuracies without the value before learning, which would squeeze all that follows."""
    learned = [values[at > 0] for at, values in curves if (at > 0).any()]
    if not learned:
        return None
    lowest = min(float(values.min()) for values in learned)
    return max(0.0, lowest - 0.1 * (1 - lowest)), 1.005


__all__ = ["Condition", "conditions", "learned_range", "lines", "seeds_sentence"]
