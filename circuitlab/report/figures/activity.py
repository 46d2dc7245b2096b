"""Heat maps of activity: neurons by samples before and after learning, or neurons over time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from circuitlab.record.reader import Run
from circuitlab.report.figures.base import (
    INK,
    Choice,
    Page,
    axis_label,
    capital,
    chosen_population,
    example,
    refuse,
    sample_columns,
    subset,
    whole_numbers,
)
from circuitlab.report.figures.recorded import FRAMES, SAMPLES, UNITS, Recorded, evenly, of_neurons, with_ends

VARIABLES = ("rate", "soma", "control", "apical", "basal", "controller")
"""Which recorded variable of a population is shown, the first that there is."""
WORDS = {
    "rate": "firing rate",
    "soma": "somatic potential",
    "basal": "basal potential",
    "apical": "apical potential",
    "control": "control",
    "controller": "controller",
}
POPULATIONS, TRACES = 3, 3
"""Populations of a figure, and samples of a simulation, at most."""
CLASSES = 40
"""Classes beyond which labels are no classes to sort by."""


def draw(run: Run, choice: Choice) -> Figure:
    """Heat maps of one recorded variable of each population."""
    shown = chosen(run, choice)
    if not shown:
        of = f" of '{choice.population}'" if choice.population else ""
        raise refuse(
            "activity",
            run,
            f"has no recorded activity{of} in several samples or at several times",
            f"add a probe such as {example(run, 'rate', ', samples: [0, 1, 2, 3], of: test', choice.population)}",
        )
    left_out = len({r.population for r in shown}) - POPULATIONS
    shown = shown[:POPULATIONS]
    page = Page(f"Activity: {run.path.stem}", 7.5 if len(shown) < 3 else 9.5)
    places = np.atleast_1d(np.asarray(page.figure.subfigures(len(shown), 1, squeeze=False)).ravel())
    said: dict[str, None] = {}
    for place, one in zip(places, shown, strict=True):
        for sentence in panel(place, one, choice, one is shown[-1]):
            said[sentence] = None
    if left_out > 0:
        said[f"{left_out} more populations are recorded; --population shows another."] = None
    return page.caption(*said)


def chosen(run: Run, choice: Choice) -> list[Recorded]:
    """One recording of each population, or those asked for."""
    population = chosen_population("activity", run, choice)
    known = [
        r
        for r in of_neurons(run)
        if "point" not in r.dims and (r.sizes["sample"] > 1 or r.sizes.get("frame", 1) > 1)
    ]
    if choice.probe is not None:
        return [r for r in known if choice.probe in (r.name, r.path)]
    found: dict[str, Recorded] = {}
    for variable in VARIABLES:
        for r in known:
            if r.variable == variable and r.phase != "controlled" and r.path.startswith("equilibria/"):
                found.setdefault(r.population, r)
        for r in known:
            if r.variable == variable:
                found.setdefault(r.population, r)
    if population is not None:
        return [found[population]] if population in found else []
    return sorted(found.values(), key=lambda r: (VARIABLES.index(r.variable), -r.sizes["unit"]))


def panel(place: Figure | SubFigure, one: Recorded, choice: Choice, last: bool = True) -> list[str]:
    """The maps of one recording, side by side.

    Args:
        last: whether no other maps stand below, which would say what lies along the lower axis.

    Returns:
        Sentences of the caption.
    """
    if one.phase == "real time":
        return _over_time(place, one, choice, last)
    kept = evenly(one.sizes["sample"], SAMPLES)
    if choice.samples:
        kept = np.array(sample_columns(one, choice.samples))
    units = evenly(one.sizes["unit"], UNITS)
    labels = None if one.labels is None else one.labels[kept]
    order, edges, names = by_class(labels, len(kept))
    maps = [
        (when, values[np.ix_(order, np.arange(len(units)))].T) for when, values in _maps(one, kept, units)
    ]
    neurons = by_preference(maps[-1][1], edges)
    axes = np.atleast_1d(np.asarray(place.subplots(1, len(maps), sharey=True)))
    for index, (ax, (when, values)) in enumerate(zip(axes, maps, strict=True)):
        image = heat(ax, values[neurons], [values for _, values in maps])
        ax.set_title(capital(when))
        mark_classes(ax, edges, names)
        if last:
            ax.set_xlabel("samples, by class" if names else "samples")
        if index == 0:
            ax.set_ylabel(f"{one.population}\n{len(units):,} neurons")
    bar = place.colorbar(image, ax=list(axes), fraction=0.04, pad=0.01)
    bar.set_label(WORDS.get(one.variable, one.variable))
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    sort = "by the class they prefer" if names else "by their mean"
    return [
        "Rows: neurons, sorted "
        + sort
        + (" after learning" if "frame" in one.dims else "")
        + "; columns: samples.",
        "" if one.fixed else "The samples differ from frame to frame.",
        subset("neurons", len(units), one.sizes["unit"]),
        "" if choice.samples else subset("samples", len(kept), one.sizes["sample"]),
    ]


def _maps(one: Recorded, samples: NDArray, units: NDArray) -> list[tuple[str, NDArray]]:
    """What is shown side by side, [sample, unit] each: frames before and after, or free and controlled."""
    if "frame" in one.dims:
        frames = [0, one.sizes["frame"] - 1] if one.sizes["frame"] > 1 else [0]
        return [(one.frame_word(f), one.read(frame=f, sample=samples, unit=units)) for f in frames]
    found = [(f"{one.phase} equilibrium", one.read(sample=samples, unit=units))]
    if one.phase == "free":
        for other in of_neurons(one.run):
            same = (other.population, other.variable) == (one.population, one.variable)
            if same and other.phase == "controlled" and other.path.startswith("equilibria/"):
                found.append(("controlled equilibrium", other.read(sample=samples, unit=units)))
    return found


def _over_time(place: Figure | SubFigure, one: Recorded, choice: Choice, last: bool) -> list[str]:
    """Neurons over the time of a simulation, one map for each of up to three samples."""
    frames, units = with_ends(one.sizes["frame"], FRAMES), evenly(one.sizes["unit"], UNITS)
    samples = sample_columns(one, choice.samples) or list(range(min(TRACES, one.sizes["sample"])))
    samples = samples[:TRACES]
    maps = [one.read(frame=frames, sample=s, unit=units).T for s in samples]
    time = one.frames[1][frames]
    order = np.argsort(np.nanargmax(np.nan_to_num(np.abs(maps[0])), axis=1), kind="stable")
    axes = np.atleast_1d(np.asarray(place.subplots(1, len(maps), sharey=True)))
    for index, (ax, values, sample) in enumerate(zip(axes, maps, samples, strict=True)):
        image = heat(ax, values[order], maps, extent=(time[0], time[-1], len(units) - 0.5, -0.5))
        ax.set_title(f"Sample {int(one.sample_ids[sample])}")
        if last:
            ax.set_xlabel(axis_label("ms"))
        if index == 0:
            ax.set_ylabel(f"{one.population}\n{len(units):,} neurons")
    bar = place.colorbar(image, ax=list(axes), fraction=0.04, pad=0.01)
    bar.set_label(WORDS.get(one.variable, one.variable))
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return [
        "Rows: neurons, sorted by when they are farthest from zero in the first map.",
        subset("neurons", len(units), one.sizes["unit"]),
        subset("moments", len(frames), one.sizes["frame"]),
        "" if choice.samples else subset("samples", len(samples), one.sizes["sample"]),
    ]


def heat(
    axes: Axes, values: NDArray, all_: list[NDArray], extent: tuple[float, float, float, float] | None = None
):
    """An image on one scale for all maps: from zero upwards, or symmetric about zero where some values are below."""
    known = np.concatenate([v[np.isfinite(v)].ravel() for v in all_])
    limit = max(float(np.abs(known).max(initial=0.0)), 1e-12)
    signed = bool((known < 0).any())
    axes.set_yticks([])
    whole_numbers(axes)
    return axes.imshow(
        values,
        aspect="auto",
        interpolation="nearest",
        rasterized=True,
        cmap="RdBu_r" if signed else "viridis",
        vmin=-limit if signed else 0.0,
        vmax=limit,
        extent=extent,
    )


def mark_classes(axes: Axes, edges: list[int], names: list[str]) -> None:
    """Lines between the classes, and their names below."""
    if not names:
        return
    for edge in edges[1:-1]:
        axes.axvline(edge - 0.5, color=INK, linewidth=0.8)
    axes.set_xticks([(a + b - 1) / 2 for a, b in pairwise(edges)], names)
    axes.tick_params(axis="x", length=0)


def by_class(labels: NDArray | None, count: int) -> tuple[NDArray, list[int], list[str]]:
    """Order of the samples, where each class begins (and the end), and the classes' names if known."""
    if labels is None or len(labels) != count or len(set(labels.tolist())) > CLASSES:
        return np.arange(count), [0, count], []
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    return order, [*starts.tolist(), count], [str(name) for name in classes]


def by_preference(rates: NDArray, edges: list[int]) -> NDArray:
    """Order of the neurons, by the class they prefer, then by how strongly; by their mean where there is one class.

    Args:
        rates: [unit, sample], samples by class.
    """
    rates = np.nan_to_num(rates)
    means = np.stack([rates[:, a:b].mean(1) for a, b in pairwise(edges)], axis=1)
    if means.shape[1] == 1:
        return np.argsort(-means[:, 0], kind="stable")
    means = means - means.mean(1, keepdims=True)
    return np.lexsort((-means.max(1), means.argmax(1)))
