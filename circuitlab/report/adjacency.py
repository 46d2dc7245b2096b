"""The adjacency picture of a circuit: a dot for every pair of neurons that is joined; rows are targets.

Small circuits show every weight, its sign by colour and its magnitude by intensity. Where neurons outnumber the points
of the picture, a point stands for many pairs, and its intensity is the share of them that are joined.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from circuitlab.graph.circuit import Circuit, Projection
from circuitlab.graph.edges import coalesce
from circuitlab.report.pictures import GREY, INK, write
from circuitlab.report.statistics import BLOCK, Rows

DPI = 150
POINTS = 1200
"""Points along a side of the matrix, at most, unless neurons are named."""
LEAST, BIN_POINTS = 15, 2
"""Points that a population takes at least where it is shown in bins, and points along a side of a bin."""
NAMED, NAMED_IN_ALL, NAME_POINTS = 60, 200, 17
"""Neurons of each population, and of all, up to which they are named on the axes; and the points that a name takes."""
DRAWN = 2_000_000
"""Edges of a projection beyond which so many, drawn at random, stand for all."""
EXCITE, INHIBIT, JOIN = "#0072B2", "#D55E00", "#222222"
PALEST = 0.35
QUANTILE = 0.98
"""Of the magnitudes of the weights: they have full colour from there on."""
GAP, LABEL, LETTER, SMALL_LETTER, KEY = 0.5, 0.15, 0.078, 0.047, 3.7


@dataclass(frozen=True)
class Axis:
    """Where populations stand along one side, in points.

    Args:
        names: of populations. starts: first point of each, and the end. bins: into which each is divided.
    """

    names: tuple[str, ...]
    starts: NDArray[np.int64]
    bins: dict[str, int]

    @property
    def points(self) -> int:
        """Length of the side."""
        return int(self.starts[-1])

    def span(self, name: str) -> tuple[int, int]:
        """First point of a population, and the one after its last."""
        index = self.names.index(name)
        return int(self.starts[index]), int(self.starts[index + 1])


def draw_adjacency(circuit: Circuit, path: str | Path) -> None:
    """Draw the synapses among a circuit's neurons into a file; its suffix says the kind: svg, png or pdf.

    Raises:
        CircuitError: the suffix is none of these, or the file cannot be written.
    """
    write(lambda: adjacency(circuit), Path(path), DPI)


def axis_of(circuit: Circuit, names: tuple[str, ...], named: bool) -> Axis:
    """Share out the points of a side among populations: whole points for every neuron where there are enough."""
    sizes = np.array([circuit.populations[name].size for name in names])
    total = int(sizes.sum())
    if named:
        lengths = sizes * NAME_POINTS
    elif total <= POINTS:
        lengths = sizes * max(1, POINTS // max(total, 60))
    else:
        lengths = np.maximum(LEAST, np.floor(sizes * (POINTS / total)).astype(np.int64))
    wide = 1 if named or total <= POINTS else BIN_POINTS
    bins = {
        n: int(min(size, -(-length // wide))) for n, size, length in zip(names, sizes, lengths, strict=True)
    }
    return Axis(names, np.concatenate(([0], np.cumsum(lengths))).astype(np.int64), bins)


def adjacency(circuit: Circuit) -> Figure:
    """The picture as a matplotlib figure."""
    columns = tuple(sorted(circuit.populations, key=lambda name: _group(circuit, name)))
    rows = tuple(name for name in columns if circuit.populations[name].type != "input")
    sizes = [circuit.populations[name].size for name in columns]
    named = (
        all(p.names is not None or p.type in ("input", "output") for p in circuit.populations.values())
        and any(p.names is not None for p in circuit.populations.values())
        and max(sizes) <= NAMED
        and sum(sizes) <= NAMED_IN_ALL
    )
    across, down = axis_of(circuit, columns, named), axis_of(circuit, rows, named)
    panels = [("chemical", "Synapses")]
    if any(p.kind == "electrical" for p in circuit.projections.values()):
        panels.append(("electrical", "Gap junctions"))
    letters = max(len(name) for name in columns)
    left, top = 0.45 + LETTER * letters, 1.0 + LETTER * letters
    if named:
        own = max(len(n) for p in circuit.populations.values() for n in p.names or ("",)) * SMALL_LETTER + 0.1
        left, top = left + own, top + own
    else:
        own = 0.0
    wide, tall = across.points / DPI, down.points / DPI
    pitch = left + max(wide, KEY) + GAP
    width = max(6.4, len(panels) * pitch - GAP + 0.3)
    height = top + tall + 0.75
    figure = Figure(figsize=(width, height), facecolor="white", dpi=DPI)
    FigureCanvasAgg(figure)
    page = figure.add_axes((0, 0, 1, 1))
    page.set(xlim=(0, width), ylim=(0, height))
    page.set_axis_off()
    neurons = sum(sizes)
    page.text(0.3, height - 0.3, circuit.name, fontsize=13, fontweight="bold", color=INK, va="center")
    page.text(
        width - 0.3,
        height - 0.3,
        f"{neurons:,} neurons; rows: targets, columns: sources",
        fontsize=9,
        color=GREY,
        va="center",
        ha="right",
    )
    binned = any(across.bins[name] < circuit.populations[name].size for name in columns)
    for number, (kind, title) in enumerate(panels):
        x0, y0 = left + number * pitch, 0.75
        own_projections = [p for p in circuit.projections.values() if p.kind == kind]
        image, most, mixed = _image(circuit, own_projections, across, down, binned)
        axes = figure.add_axes((x0 / width, y0 / height, wide / width, tall / height))
        axes.imshow(image, interpolation="nearest", aspect="auto", extent=(0, across.points, down.points, 0))
        axes.set_axis_off()
        if len(panels) > 1:
            page.text(x0 + wide / 2, height - 0.62, title, fontsize=10, color=INK, ha="center", va="center")
        _frame(axes, across, down)
        _names(page, circuit, across, down, x0, y0, tall, own, named)
        _key(page, kind, most, x0, binned, mixed)
    return figure


def _group(circuit: Circuit, name: str) -> tuple[int, int]:
    """Inputs first, outputs last, else the order of the file."""
    kind = {"input": 0, "output": 2}.get(circuit.populations[name].type, 1)
    return kind, list(circuit.populations).index(name)


def counts_of(
    circuit: Circuit, p: Projection, across: Axis, down: Axis, values: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What excites and what inhibits between two populations, each [bin of targets, bin of sources].

    Args:
        values: sums of weights' magnitudes; else shares of the pairs. Gap junctions go both ways: in a population both
            entries of a pair are set.
    """
    targets, sources = circuit.populations[p.target].size, circuit.populations[p.source].size
    shape = down.bins[p.target], across.bins[p.source]
    rows, found = Rows(p.edges, targets), np.zeros((2, *shape))
    count = len(p.edges)
    if count > DRAWN:
        drawn = np.random.default_rng(0).integers(count, size=DRAWN)
        parts, times = [drawn], count / DRAWN
    else:
        parts, times = [slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)], 1.0
    for part in parts:
        target, source = rows.pairs(part)
        weight = np.asarray(p.edges.weight[part], dtype=np.float64)
        ends = [(target, source)]
        if p.kind == "electrical" and p.source == p.target:
            new = ~rows.have(source, target)
            ends.append((np.where(new, source, -1), target))
        for row, column in ends:
            known = row >= 0
            at = (row[known] * shape[0] // targets) * shape[1] + column[known] * shape[1] // sources
            for sign in (0, 1):
                here = weight[known] < 0 if sign else weight[known] >= 0
                what = np.abs(weight[known][here]) if values else None
                found[sign] += np.bincount(at[here], what, minlength=shape[0] * shape[1]).reshape(shape)
    if not values:
        sizes = [
            np.bincount(np.arange(n) * b // n, minlength=b)
            for n, b in ((targets, shape[0]), (sources, shape[1]))
        ]
        found *= times / np.outer(*sizes)
    return found[0], found[1]


def _image(
    circuit: Circuit, projections: list[Projection], across: Axis, down: Axis, binned: bool
) -> tuple[NDArray[np.float64], float, bool]:
    """The points' colours, [row, column, 3], the weight or density of full colour, and whether some points are both."""
    excite, inhibit = (np.zeros((down.points, across.points)) for _ in range(2))
    for p in projections:
        two = counts_of(circuit, p, across, down, values=not binned)
        ways = [(p.target, p.source, two)]
        if p.kind == "electrical" and p.source != p.target and p.source in down.names:
            ways.append(
                (p.source, p.target, counts_of(circuit, _turned(circuit, p), across, down, not binned))
            )
        for target, source, (up, low) in ways:
            (top, bottom), (left, right) = down.span(target), across.span(source)
            row = np.arange(bottom - top) * up.shape[0] // (bottom - top)
            column = np.arange(right - left) * up.shape[1] // (right - left)
            excite[top:bottom, left:right] += up[np.ix_(row, column)]
            inhibit[top:bottom, left:right] += low[np.ix_(row, column)]
    total = excite + inhibit
    present = total[total > 0]
    most = float(np.quantile(present, QUANTILE)) if present.size else 1.0
    share = np.divide(inhibit, total, out=np.zeros_like(total), where=total > 0)[..., None]
    electrical = bool(projections) and projections[0].kind == "electrical"
    colours = [np.array(to_rgb(c)) for c in ((JOIN, JOIN) if electrical else (EXCITE, INHIBIT))]
    colour = (1 - share) * colours[0] + share * colours[1]
    strength = np.sqrt(np.clip(total / most, 0, 1))
    alpha = np.where(total > 0, PALEST + (1 - PALEST) * strength, 0.0)[..., None]
    mixed = bool(((share[..., 0] > 0.2) & (share[..., 0] < 0.8)).any())
    return 1 - alpha * (1 - colour), most, mixed


def _turned(circuit: Circuit, p: Projection) -> Projection:
    """The same gap junctions, seen from the other population."""
    e = p.edges
    edges = coalesce(e.target, e.source, np.asarray(e.weight, dtype=np.float64), e.multiplicity)
    return replace(p, source=p.target, target=p.source, edges=edges)


def _frame(axes: Axes, across: Axis, down: Axis) -> None:
    """Lines between the populations."""
    style = {"color": "#777777", "linewidth": 0.7, "zorder": 5, "clip_on": False}
    for start in across.starts:
        axes.plot([start, start], [0, down.points], **style)
    for start in down.starts:
        axes.plot([0, across.points], [start, start], **style)


def _names(
    page: Axes,
    circuit: Circuit,
    across: Axis,
    down: Axis,
    x0: float,
    y0: float,
    tall: float,
    own: float,
    named: bool,
) -> None:
    """Names of populations at the left and above, moved apart where they would overlap; and of neurons."""
    for axis, vertical in ((down, True), (across, False)):
        middles = (axis.starts[:-1] + axis.starts[1:]) / 2 / DPI
        places = apart(middles, LABEL)
        edge, near = 0.06 + own, 0.14
        for name, middle, place in zip(axis.names, middles, places, strict=True):
            moved = abs(place - middle) > 0.01
            if vertical:
                at, line = (
                    (x0 - edge - near, y0 + tall - place),
                    ([x0 - edge - near + 0.03, x0 - edge + 0.03], [y0 + tall - place, y0 + tall - middle]),
                )
                page.text(*at, name, fontsize=8.5, color=INK, ha="right", va="center")
            else:
                top = y0 + tall + edge
                at, line = (
                    (x0 + place, top + near),
                    ([x0 + place, x0 + middle], [top + near - 0.03, top - 0.03]),
                )
                page.text(*at, name, fontsize=8.5, color=INK, ha="center", va="bottom", rotation=90)
            if moved:
                page.plot(*line, color="#999999", linewidth=0.5)
        for name in axis.names if named else ():
            start, stop = axis.span(name)
            for number, neuron in enumerate(circuit.populations[name].names or ()):
                at = (start + (number + 0.5) * (stop - start) / circuit.populations[name].size) / DPI
                if vertical:
                    page.text(
                        x0 - 0.05, y0 + tall - at, neuron, fontsize=6, color=GREY, ha="right", va="center"
                    )
                else:
                    page.text(
                        x0 + at,
                        y0 + tall + 0.05,
                        neuron,
                        fontsize=6,
                        color=GREY,
                        ha="center",
                        va="bottom",
                        rotation=90,
                    )


def apart(places: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Ascending places moved as little as needed to be at least so far from each other."""
    groups: list[list[float]] = []
    for place in places:
        groups.append([place, 1])  # centre, members
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < least * (groups[-1][1] + groups[-2][1]) / 2:
            (b, n), (a, m) = groups.pop(), groups.pop()
            groups.append([(a * m + b * n) / (m + n), m + n])
    return np.concatenate([c + least * (np.arange(int(n)) - (n - 1) / 2) for c, n in groups])


def _key(page: Axes, kind: str, most: float, x0: float, binned: bool, mixed: bool) -> None:
    """What colours and intensities mean, below the matrix."""
    what = "share of the pairs joined" if binned else "conductance" if kind == "electrical" else "weight"
    words: list[tuple[str, Any]] = (
        [("gap junction", JOIN)] if kind == "electrical" else [("excites", EXCITE), ("inhibits", INHIBIT)]
    )
    if mixed:
        both = (np.array(to_rgb(EXCITE)) + np.array(to_rgb(INHIBIT))) / 2
        words.append(("both in one point", tuple(both)))
    x = x0
    for text, colour in words:
        page.add_patch(Rectangle((x, 0.42), 0.16, 0.12, facecolor=colour, linewidth=0))
        page.text(x + 0.22, 0.48, text, fontsize=8.5, color=INK, va="center")
        x += 0.4 + LETTER * len(text)
    strength = np.sqrt(np.linspace(0, 1, 40))
    for number, value in enumerate(strength):
        shade = PALEST + (1 - PALEST) * value
        grey = tuple(1 - shade * (1 - part) for part in to_rgb(JOIN))
        page.add_patch(Rectangle((x0 + 0.02 * number, 0.2), 0.021, 0.1, facecolor=grey, linewidth=0))
    page.text(x0 + 0.88, 0.25, f"{what}: above 0 to {most:.2g} or more", fontsize=8.5, color=INK, va="center")
