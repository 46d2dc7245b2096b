"""The whole run on one page: how it learned, how much control it still needs, and what its neurons do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from circuitlab.errors import RunFileError
from circuitlab.record.reader import Run
from circuitlab.report.figures import activity, compartments, convergence, diagnosis, neuron, simulation
from circuitlab.report.figures.base import GREY, PERCENT, Choice, Page, capital, whole_numbers
from circuitlab.report.figures.conditions import Condition, conditions, lines, seeds_sentence
from circuitlab.report.figures.curves import control_cost, learning
from circuitlab.report.figures.recorded import of_neurons
from circuitlab.report.figures.settled import Settled, settled
from circuitlab.report.readings import Reading

Panel = tuple[float, Callable[[SubFigure], list[str] | None]]
"""A panel's share of its row's width, and the function that draws it and returns sentences of the caption."""


def draw(run: Run, readings: Sequence[Reading]) -> Figure:
    """The page of a training, of equilibria, of a simulation or of a diagnosis.

    Raises:
        RunFileError: there is nothing to draw yet.
    """
    recorded = of_neurons(run)
    if recorded and all(r.phase == "real time" for r in recorded):
        if len(readings) > 1:
            raise RunFileError("--compare: two simulations are not drawn together; draw one at a time")
        return simulation.draw(run)
    if diagnosis.measures(run):
        if len(readings) > 1:
            raise RunFileError("--compare: two diagnoses are not drawn together; draw one at a time")
        return diagnosis.draw(run)
    found = conditions(readings)
    rows = [row for row in (_curve_panels(found), _neuron_panels(run)) if row]
    if not rows:
        raise RunFileError(f"{run.path}: holds no training metrics and no recorded neurons; nothing to draw")
    page = Page(readings[0].title, 8.333 if len(rows) == 2 else 5.2)
    bands = np.atleast_1d(np.asarray(page.figure.subfigures(len(rows), 1)))
    said: dict[str, None] = dict.fromkeys([seeds_sentence(found)])
    for band, row in zip(bands, rows, strict=True):
        places = np.atleast_1d(band.subfigures(1, len(row), width_ratios=[share for share, _ in row]))
        for place, (_, work) in zip(places, row, strict=True):
            for sentence in work(place) or []:
                said[sentence] = None
    if len(found) > 1 or not readings[0].title:
        handles = [Line2D([], [], color=c.colour, linewidth=3.2, label=c.label) for c in found]
        page.legend(handles)
    if len(found) > 1 and len(rows) == 2:
        said[f"Neurons: of {run.path.name}."] = None
    return page.caption(*said)


def _curve_panels(found: list[Condition]) -> list[Panel]:
    panels: list[Panel] = []
    for metric in ("accuracy", "loss"):
        if any(c.curves(f"{split}_{metric}") for c in found for split in ("test", "validation", "train")):
            panels.append((1.0, lambda sub, metric=metric: learning(sub.subplots(), found, metric)))
    if any(c.curves("control_cost") for c in found):
        panels.append((1.0, lambda sub: _control(sub, found)))
    return panels


def _control(sub: SubFigure, found: list[Condition]) -> None:
    """The control still needed, and below it the share of samples that did not settle, where it was counted."""
    counted = [c for c in found if c.curves("unconverged")]
    if not counted:
        control_cost(sub.subplots(), found)
        return
    axes, strip = np.asarray(sub.subplots(2, 1, sharex=True, height_ratios=[3.2, 1.0]))
    control_cost(axes, found)
    axes.set_xlabel("")
    unconverged(strip, counted)


def unconverged(axes: Axes, found: Sequence[Condition]) -> None:
    """Share of the samples whose equilibrium was not reached while learning."""
    highest = 0.0
    for condition in found:
        lines(axes, condition, "unconverged", width=2.2)
        highest = max([highest, *(float(values.max()) for _, values in condition.curves("unconverged"))])
    axes.set(xlabel="epochs finished", ylabel="unsettled")
    axes.set_ylim(0, max(0.01, 1.2 * highest))
    axes.yaxis.set_major_locator(MaxNLocator(2))
    axes.yaxis.set_major_formatter(PERCENT)
    whole_numbers(axes)
    if highest == 0:
        axes.text(0.98, 0.6, "none", transform=axes.transAxes, ha="right", color=GREY)


def _neuron_panels(run: Run) -> list[Panel]:
    panels: list[Panel] = []
    maps = activity.chosen(run, Choice())
    if maps:
        panels.append((2.1, lambda sub: activity.panel(sub, maps[0], Choice())))
    groups = [
        g for g in compartments.groups(run) if "soma" in g.parts and g.one.fixed and "point" not in g.one.dims
    ]
    if groups:
        panels.append((1.0, lambda sub: _neuron(sub, run, groups[0])))
    how = [s for s in settled(run) if s.phase and s.frames == 1 and s.iterations is not None]
    if how:
        panels.append((0.9, lambda sub: _iterations(sub.subplots(), how)))
    return panels


def _iterations(axes: Axes, how: Sequence[Settled]) -> None:
    convergence.iterations(axes, how)
    axes.set(title="Iterations", xlabel="to the equilibrium")


def _neuron(sub: SubFigure, run: Run, group: compartments.Group) -> list[str]:
    """One neuron over training, samples of different classes; or at an equilibrium, sample by sample."""
    column = compartments.most_driven(group)
    title = capital(group.one.neuron_word(column))
    return neuron.gaps(sub, group, column, title)


__all__ = ["draw"]
