"""What neurons listen to: their incoming weights as images, at the places of the sources, or one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from circuitlab.errors import RunFileError
from circuitlab.record.integrity import part_of
from circuitlab.record.reader import Run
from circuitlab.record.storage import link_name
from circuitlab.record.weights import weights_at
from circuitlab.report.figures.base import (
    AFTER,
    BEFORE,
    GREY,
    Choice,
    Page,
    chosen_population,
    neuron_ids,
    panels,
    refuse,
)
from circuitlab.report.figures.recorded import evenly, names_of, populations, projections
from circuitlab.report.figures.synapses import Synapses, chosen_projection, synapses

NEURONS, BARS, SOURCES, LOOKED_AT = 8, 4, 10, 400
"""Neurons drawn as images and as bars, sources of each bar chart, and neurons searched for strong weights, at most."""


@dataclass(frozen=True, eq=False)
class Field:
    """Incoming weights of one neuron.

    Args:
        neuron: its number. sources: [synapse]. before, after: weights, [synapse]; `after` None where nothing learned.
    """

    neuron: int
    sources: NDArray
    before: NDArray
    after: NDArray | None

    @property
    def last(self) -> NDArray:
        """The weights after learning, or the only ones."""
        return self.before if self.after is None else self.after


def draw(run: Run, choice: Choice) -> Figure:
    """Incoming weights of up to eight neurons, before and after learning."""
    one = _projection(run, choice)
    size = int(populations(run)[one.target].get("size", 0))
    if choice.neurons:
        fields = [field_of(one, n) for n in neuron_ids(run, one.target, choice.neurons)[:NEURONS]]
    else:
        found = [field_of(one, int(n)) for n in evenly(size, LOOKED_AT)]
        strongest = sorted(found, key=lambda f: -float(np.linalg.norm(np.nan_to_num(f.last))))[:NEURONS]
        fields = sorted(strongest, key=lambda f: f.neuron)
    said = populations(run)[one.source]
    shape = shape_of(said)
    places = None if shape is not None else positions(run, one.source)
    rows = 2 if fields[0].after is not None else 1
    page = Page(
        f"Incoming weights of {one.target} from {one.source}", _height(rows, len(fields), shape, places)
    )
    limit = max(float(np.abs(v[np.isfinite(v)]).max(initial=0.0)) for f in fields for v in (f.before, f.last))
    limit = limit or 1.0
    names = names_of(run, one.target)
    plain = shape is None and places is None
    image = None
    if plain:
        fields = fields[:BARS]
        senders = names_of(run, one.source)
        for ax, f in zip(panels(page.figure, len(fields), len(fields)), fields, strict=True):
            _bars(ax, one, f, senders)
            ax.set_title(names[f.neuron] if names is not None else f"neuron {f.neuron}", fontsize=14)
        if rows == 2:
            page.legend(
                [Patch(color=BEFORE, label="before learning"), Patch(color=AFTER, label="after learning")]
            )
        grid = np.empty((0, 0))
    else:
        grid = np.asarray(page.figure.subplots(rows, len(fields), squeeze=False))
        for column, f in enumerate(fields):
            for row, weights in enumerate([f.before, f.after][:rows]):
                assert weights is not None
                image = _picture(grid[row, column], f, weights, shape, places, limit)
            name = names[f.neuron] if names is not None else f"neuron {f.neuron}"
            grid[0, column].set_title(name, loc="center", fontsize=14)
        for row, when in enumerate(("before", "after") if rows == 2 else ()):
            grid[row, 0].set_ylabel(f"{when}\nlearning", fontsize=14)
    if image is not None:
        bar = page.figure.colorbar(image, ax=[ax for row in grid for ax in row], fraction=0.02, pad=0.01)
        bar.set_label(one.word)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    how = (
        f"Each pixel: the weight from one neuron of {one.source} ({' x '.join(str(n) for n in shape if n > 1)}); grey:"
        " no synapse."
        if shape is not None
        else f"Each dot: the weight from one neuron of {one.source}, at its place."
        if places is not None
        else f"Each bar: the weight from one neuron of {one.source}; the {SOURCES} strongest of each neuron."
    )
    chosen = (
        ""
        if choice.neurons
        else f"The {len(fields)} neurons of {min(size, LOOKED_AT):,} with the strongest weights; --neuron shows others."
    )
    return page.caption(how, f"Projection {one.name}.", chosen)


def _height(rows: int, columns: int, shape: tuple[int, int, int] | None, places: NDArray | None) -> float:
    """Inches of a page whose tiles leave no empty rows."""
    if shape is None and places is None:
        return 6.0
    wide = 11.2 / columns
    tall = wide if shape is None else wide * shape[1] / (shape[0] * shape[2])
    return float(np.clip(1.75 + rows * (tall + 0.2), 3.6, 8.0))


def _projection(run: Run, choice: Choice) -> Synapses:
    """The projection asked for; else one from an input that can be drawn as an image, else any into the population."""
    population = chosen_population("receptive_fields", run, choice)
    known, asked = populations(run), chosen_projection(run, choice.projection)
    if asked is not None:
        one = synapses(run, asked)
        if population not in (None, one.target):
            raise RunFileError(
                f"--projection: '{asked}' leads to '{one.target}', not to '{population}'; name one of the two"
            )
        return _with_synapses(run, one)
    into = [
        name
        for name, said in projections(run).items()
        if population in (None, str(said.get("target")))
        and str(said.get("carries", "rate")) == "rate"
        and len(run.datasets[f"edges/{link_name(name)}/source_node_id"])
    ]
    if not into:
        which = f"of '{population}'" if population else "of any neuron"
        raise refuse(
            "receptive_fields", run, f"has no incoming synapses {which}", "choose another --population"
        )

    def rank(name: str) -> tuple:
        said = projections(run)[name]
        source = known[str(said["source"])]
        an_image = str(source.get("type", "")) == "input" and shape_of(source) is not None
        return not an_image, not bool(said.get("plastic", False)), -synapses(run, name).count

    return synapses(run, min(into, key=rank))


def _with_synapses(run: Run, one: Synapses) -> Synapses:
    if not one.count:
        raise refuse(
            "receptive_fields", run, f"has no synapses in '{one.name}'", "choose another --projection"
        )
    return one


def shape_of(said: dict) -> tuple[int, int, int] | None:
    """Channels, rows and columns of a population that is an image: its shape, or an input's square; else None.

    Channels are drawn side by side.
    """
    shape, size = said.get("shape"), int(said.get("size", 0))
    if shape is not None and len(shape) >= 2:
        sides = [int(n) for n in shape]
        return math.prod(sides[:-2]), sides[-2], sides[-1]
    side = math.isqrt(size)
    if str(said.get("type", "")) == "input" and side * side == size and side > 2:
        return 1, side, side
    return None


def positions(run: Run, population: str) -> NDArray | None:
    """Places of a population's neurons, [unit, 2], or None."""
    paths = [f"nodes/{link_name(population)}/0/{axis}" for axis in "xy"]
    if not all(path in run.datasets for path in paths):
        return None
    return np.stack([run.read(path) for path in paths], axis=1)


def field_of(one: Synapses, neuron: int) -> Field:
    """The incoming weights of one neuron: its rows of /edges alone are read, which are sorted by target."""
    run = one.run
    try:
        targets = run.datasets[f"{one.edge_path}/target_node_id"]
        start, stop = _first(targets, neuron), _first(targets, neuron + 1)
        rows = slice(start, stop)
        sources = part_of(run.datasets[f"{one.edge_path}/source_node_id"], (rows,))
        if one.shared:
            index = part_of(run.datasets[f"{one.edge_path}/0/parameter_index"], (rows,))
            before, after = (weights_at(run, one.name, s)[index] for s in (0, -1))
        elif one.snapshots:
            path = f"weights/{link_name(one.name)}"
            item = run.datasets.get(path)
            if item is not None and item.ndim == 2:
                before, after = (part_of(item, (s, rows)) for s in (0, len(item) - 1))
            else:
                before, after = (weights_at(run, one.name, s)[rows] for s in (0, -1))
        else:
            before, after = part_of(run.datasets[f"{one.edge_path}/0/syn_weight"], (rows,)), None
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
        raise RunFileError(f"{run.path}: edges/{one.name}: is damaged and cannot be read") from error
    return Field(neuron, sources, before, after if one.snapshots > 1 else None)


def _first(targets, neuron: int) -> int:
    """Row of the first edge onto a neuron or one after it, by halving."""
    low, high = 0, len(targets)
    while high - low > 4096:
        middle = (low + high) // 2
        if int(targets[middle]) < neuron:
            low = middle + 1
        else:
            high = middle
    return low + int(np.searchsorted(np.asarray(targets[low:high]), neuron))


def _picture(
    axes: Axes,
    f: Field,
    weights: NDArray,
    shape: tuple[int, int, int] | None,
    places: NDArray | None,
    limit: float,
):
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if shape is not None:
        channels, rows, columns = shape
        image = np.full(channels * rows * columns, np.nan)
        image[f.sources] = weights
        axes.set_facecolor("#e4e4e4")
        return axes.imshow(
            image.reshape(shape).transpose(1, 0, 2).reshape(rows, -1),
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            interpolation="nearest",
            rasterized=True,
        )
    assert places is not None
    axes.plot(places[:, 0], places[:, 1], ".", color="#d4d4d4", markersize=3)
    axes.set_aspect("equal", adjustable="datalim")
    at = places[f.sources]
    return axes.scatter(at[:, 0], at[:, 1], c=weights, s=28, cmap="RdBu_r", vmin=-limit, vmax=limit)


def _bars(axes: Axes, one: Synapses, f: Field, names: list[str] | None) -> None:
    """The strongest sources from above, before learning in grey."""
    order = np.argsort(-np.abs(np.nan_to_num(f.last)), kind="stable")[:SOURCES][::-1]
    place = np.arange(len(order))
    if f.after is not None:
        axes.barh(place + 0.2, f.before[order], 0.34, color=BEFORE)
        axes.barh(place - 0.2, f.after[order], 0.34, color=AFTER)
    else:
        axes.barh(place, f.before[order], 0.6, color=AFTER)
    words = [names[s] if names is not None else str(s) for s in f.sources[order]]
    axes.set_yticks(place, words, fontsize=12.5)
    axes.tick_params(axis="y", length=0)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_xlabel(one.word)
    axes.xaxis.set_major_locator(MaxNLocator(4))
