"""The way to an equilibrium: potentials along iterations or real time, and how fast each sample still moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from circuitlab.record.reader import Run
from circuitlab.report.figures.base import (
    COLOURS,
    GREY,
    Choice,
    Page,
    axis_label,
    capital,
    chosen_population,
    columns_of,
    example,
    log_axis,
    neuron_ids,
    refuse,
    sample_columns,
    whole_numbers,
)
from circuitlab.report.figures.recorded import FRAMES, Recorded, evenly, of_neurons, recordings, with_ends

NEURONS, SAMPLES, UNITS = 6, 60, 300
"""Neurons drawn, and samples and neurons of the speed, at most."""
VARIABLES = ("soma", "rate", "basal", "control", "apical", "controller")
WORDS = {"soma": "somatic potential", "rate": "firing rate", "control": "control", "controller": "controller",
         "basal": "basal potential", "apical": "apical potential"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Way:
    """Trajectories of one moment of training.

    Args:
        when: in words. at: along the way, [point]. traces: of the chosen neurons of one sample, [point, neuron].
        distance: residual, or how fast it still moves, of each sample, [point, sample].
    """

    when: str
    at: NDArray
    traces: NDArray
    distance: NDArray


def draw(run: Run, choice: Choice) -> Figure:
    """Potentials of a few neurons of one sample, and below how fast every sample still moves, or its residual."""
    one = _chosen(run, choice)
    name, at = one.points or ("point", np.arange(1))
    points = with_ends(len(at), FRAMES)
    samples = (
        np.array(sample_columns(one, choice.samples))
        if choice.samples
        else evenly(one.sizes["sample"], SAMPLES)
    )
    frames: list[int | None] = [None]
    if "point" in one.dims and "frame" in one.dims:
        last = one.sizes["frame"] - 1
        frames = [0, last] if last else [0]
    residual = _residual(run, one)
    units = _units(one, choice, frames[-1], samples[0])
    ways = [_way(one, residual, f, points, samples, units) for f in frames]
    word = WORDS.get(one.variable, one.variable)
    sample, classes = int(one.sample_ids[samples[0]]), one.labels
    of = "" if classes is None else f" (class {classes[samples[0]]})"
    page = Page(f"Settling of {one.population}, sample {sample}{of}: {run.path.stem}", 8.2)
    axes = np.asarray(page.figure.subplots(2, len(ways), sharex=True, sharey="row", squeeze=False))
    for column, way in enumerate(ways):
        _traces(axes[0, column], way, one, units)
        axes[0, column].set_title(capital(way.when) if way.when else capital(word))
        _distances(axes[1, column], way, residual is not None, one, samples)
        axes[1, column].set_xlabel({"iteration": "iterations"}.get(name, axis_label(name)))
    axes[0, 0].set_ylabel(word)
    axes[1, 0].set_title(
        "Residual of each sample" if residual is not None else "How fast each sample still moves"
    )
    axes[1, 0].set_ylabel("residual" if residual is not None else f"change per {name}")
    handles = [
        Line2D([], [], color=colour, linewidth=2.6, label=one.neuron_word(unit))
        for unit, colour in zip(units, COLOURS, strict=False)
    ]
    axes[0, -1].legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=12.5, handlelength=1.0
    )
    if classes is not None and len(set(classes[samples].tolist())) <= len(COLOURS):
        known = sorted(set(classes[samples].tolist()))
        handles = [
            Line2D([], [], color=c, linewidth=2, label=f"class {k}")
            for k, c in zip(known, COLOURS, strict=False)
        ]
        axes[1, -1].legend(
            handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=12.5, handlelength=1.0
        )
    measure = (
        "Below: the residual as recorded."
        if residual is not None
        else f"Below: change of the recorded neurons from one point to the next, root mean square, per {name}."
    )
    return page.caption(
        "Above: neurons that move most." if not choice.neurons else "Above: the chosen neurons.",
        measure,
        f"Drawn: {len(points):,} of {len(at):,} points." if len(points) < len(at) else "",
        f"Drawn: {len(samples):,} of {one.sizes['sample']:,} samples."
        if len(samples) < one.sizes["sample"] and not choice.samples
        else "",
    )


def _chosen(run: Run, choice: Choice) -> Recorded:
    population = chosen_population("settling", run, choice)
    ways = [r for r in of_neurons(run) if r.points is not None and r.variable in VARIABLES]
    if choice.probe is not None:
        ways = [r for r in ways if choice.probe in (r.name, r.path)]
    found = [r for r in ways if population in (None, r.population)]
    if not found:
        of = f" of '{population}'" if population else ""
        more = ", along: {iterations: 5}, samples: [0, 1, 2], of: test"
        raise refuse(
            "settling",
            run,
            f"has no probe along the settling{of}",
            f"add one such as {example(run, 'soma', more, population)}",
        )
    return min(found, key=lambda r: (VARIABLES.index(r.variable), -r.sizes["unit"]))


def _residual(run: Run, one: Recorded) -> Recorded | None:
    """The residual recorded along the same way, [.., point, sample]."""
    for r in recordings(run):
        same = r.dims == one.dims[:-1] and all(r.sizes[d] == one.sizes[d] for d in r.dims)
        if r.variable == "residual" and "point" in r.dims and same and r.phase == one.phase:
            return r
    return None


def _units(one: Recorded, choice: Choice, frame: int | None, sample: int) -> list[int]:
    """Columns of the neurons drawn: those asked for, or those that move most in one sample."""
    if choice.neurons:
        return columns_of(one, one.population, neuron_ids(one.run, one.population, choice.neurons))[:NEURONS]
    units = evenly(one.sizes["unit"], UNITS)
    values = _read(
        one, frame, with_ends(one.sizes["point" if "point" in one.dims else "frame"], 60), sample, units
    )
    moved = np.ptp(np.nan_to_num(values), axis=0)
    return sorted(units[np.argsort(-moved, kind="stable")[:NEURONS]].tolist())


def _read(one: Recorded, frame: int | None, points: NDArray, sample: int | NDArray, units) -> NDArray:
    at: dict = {"sample": sample, "unit": units, ("point" if "point" in one.dims else "frame"): points}
    if frame is not None:
        at["frame"] = frame
    return one.read(**at)


def _way(
    one: Recorded,
    residual: Recorded | None,
    frame: int | None,
    points: NDArray,
    samples: NDArray,
    units: list[int],
) -> Way:
    assert one.points is not None
    traces = _read(one, frame, points, int(samples[0]), np.array(units))
    if residual is not None:
        at: dict = {"point": points, "sample": samples}
        if frame is not None:
            at["frame"] = frame
        distance = residual.read(**at)
    else:
        few = evenly(one.sizes["unit"], UNITS)
        at_points = one.points[1][points]
        distance = np.stack(
            [speed_of(at_points, _read(one, frame, points, int(s), few)) for s in samples], axis=1
        )
    when = "" if frame is None else one.frame_word(frame)
    return Way(when, one.points[1][points], traces, distance)


def speed_of(at: NDArray, values: NDArray) -> NDArray:
    """How fast potentials [point, unit] change from each point to the next: root mean square over units, per ms or
    iteration; NaN at the first point."""
    apart = np.diff(at.astype(float))
    with np.errstate(invalid="ignore", divide="ignore"):
        speed = np.sqrt(np.mean(np.diff(values.astype(float), axis=0) ** 2, axis=1)) / apart
    return np.concatenate([[np.nan], speed])


def _traces(axes: Axes, way: Way, one: Recorded, units: list[int]) -> None:
    for column, colour in zip(range(len(units)), COLOURS, strict=False):
        axes.plot(way.at, way.traces[:, column], color=colour, linewidth=2.4)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.margins(x=0)


def _distances(axes: Axes, way: Way, is_residual: bool, one: Recorded, samples: NDArray) -> None:
    labels = one.labels
    known = [] if labels is None else sorted(set(labels[samples].tolist()))
    coloured = labels is not None and len(known) <= len(COLOURS)
    for column, sample in enumerate(samples):
        colour = COLOURS[known.index(labels[sample])] if coloured and labels is not None else GREY
        values = np.where(way.distance[:, column] > 0, way.distance[:, column], np.nan)
        axes.plot(way.at, values, color=colour, linewidth=1.2, alpha=0.8)
    shown = way.distance[np.isfinite(way.distance) & (way.distance > 0)]
    axes.set_yscale("log")
    log_axis(axes.yaxis, shown)
    if one.points is not None and one.points[0] != "ms":
        whole_numbers(axes)
    axes.margins(x=0)
