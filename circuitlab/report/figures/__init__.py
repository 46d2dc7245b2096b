"""Figures of run files: one module to a kind, and one dictionary from a kind's name to what draws it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from circuitlab.errors import RunFileError
from circuitlab.record.reader import Run
from circuitlab.report.figures import (
    activity,
    convergence,
    curves,
    neuron,
    overview,
    receptive_fields,
    settling,
    spectrum,
    weights,
)
from circuitlab.report.figures.base import TALK, Choice
from circuitlab.report.plots import check_suffix, save
from circuitlab.report.readings import Reading

DPI = 120


@dataclass(frozen=True)
class Kind:
    """A kind of figure.

    Args:
        draw: makes the figure. takes: options that choose what it shows. several: whether it draws several runs.
        about: what it shows, in a few words.
    """

    draw: Callable[[Sequence[Run], Sequence[Reading], Choice], Figure]
    takes: tuple[str, ...]
    several: bool
    about: str


_NEURONS = ("--population", "--neuron", "--sample")
KINDS: dict[str, Kind] = {
    "overview": Kind(
        lambda runs, readings, _: overview.draw(runs[0], readings), (), True, "the whole run on one page"
    ),
    "activity": Kind(
        lambda runs, _, choice: activity.draw(runs[0], choice),
        ("--population", "--sample", "PATH"),
        False,
        "heat maps of neurons by samples, or over time",
    ),
    "neuron": Kind(
        lambda runs, _, choice: neuron.draw(runs[0], choice),
        _NEURONS,
        False,
        "one neuron's soma, basal and apical potential side by side",
    ),
    "settling": Kind(
        lambda runs, _, choice: settling.draw(runs[0], choice),
        (*_NEURONS, "PATH"),
        False,
        "potentials and residual on the way to an equilibrium",
    ),
    "weights": Kind(
        lambda runs, _, choice: weights.draw(runs[0], choice),
        ("--projection",),
        False,
        "histograms before and after learning, and how synapses moved",
    ),
    "receptive_fields": Kind(
        lambda runs, _, choice: receptive_fields.draw(runs[0], choice),
        ("--population", "--neuron", "--projection"),
        False,
        "incoming weights of neurons as images",
    ),
    "curves": Kind(
        lambda runs, readings, _: curves.draw(runs[0], readings),
        (),
        True,
        "learning curves of seeds and conditions",
    ),
    "convergence": Kind(
        lambda runs, readings, _: convergence.draw(runs[0], readings[0]),
        (),
        False,
        "whether samples settle, and which never do",
    ),
    "spectrum": Kind(
        lambda runs, _1, _2: spectrum.draw(runs[0]), (), False, "eigenvalues of the recurrent weights"
    ),
}
"""Every kind of figure by its name."""
OPTIONS = ("--population", "--neuron", "--sample", "--projection", "PATH")


def given(choice: Choice) -> list[str]:
    """Options that a choice was made by."""
    values = (choice.population, choice.neurons, choice.samples, choice.projection, choice.probe)
    return [name for name, value in zip(OPTIONS, values, strict=True) if value not in (None, ())]


def draw(kind: str, runs: Sequence[Run], readings: Sequence[Reading], choice: Choice) -> Figure:
    """Draw a figure of open run files.

    Args:
        kind: a name in `KINDS`. readings: of the runs, in their order.

    Raises:
        RunFileError: the file does not hold what the figure shows, or there is nothing of what was chosen; one line.
    """
    known = KINDS.get(kind)
    if known is None:
        raise RunFileError(f"--figure: no figure '{kind}'; allowed: {', '.join(KINDS)}")
    if extra := [name for name in given(choice) if name not in known.takes]:
        takes = f"it takes {', '.join(known.takes)}" if known.takes else "it takes no option of this kind"
        raise RunFileError(f"--figure {kind}: {extra[0]} chooses nothing in it; {takes}")
    if len(runs) > 1 and not known.several:
        several = ", ".join(name for name, one in KINDS.items() if one.several)
        raise RunFileError(f"--figure {kind}: shows one run; with --compare there are {several}")
    with mpl.rc_context(TALK):
        return known.draw(runs, readings, choice)


def plot(
    kind: str, runs: Sequence[Run], readings: Sequence[Reading], choice: Choice, path: str | Path
) -> None:
    """Draw a figure into a file: .png, .svg or .pdf.

    Raises:
        RunFileError: as of `draw`, or the file cannot be written; nothing is left behind.
    """
    check_suffix(Path(path))
    save(draw(kind, runs, readings, choice), Path(path), TALK, DPI)


__all__ = ["KINDS", "OPTIONS", "Choice", "Kind", "draw", "given", "plot"]
