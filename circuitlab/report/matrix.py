"""A circuit's populations as a matrix: which projects to which, of what kind, and how densely; targets are rows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import Polygon, Rectangle

from circuitlab.graph.circuit import Circuit
from circuitlab.report.layout import Layout, areas_of, kind_of, layering, layers_of, ranks_of
from circuitlab.report.pictures import COLOURS, GREY, INK

LARGE, SMALL, NUMBERED = 0.42, 0.2, 14
"""Sides of an entry, and populations up to which entries are large enough to hold their density."""
LETTER, TITLE = 0.075, 0.15
PALEST = 0.22


@dataclass(frozen=True)
class Entry:
    """One projection in the matrix.

    Args:
        row, column: of its target and source. part, parts: its place among those of the same pair.
    """

    name: str
    kind: str
    row: int
    column: int
    part: int
    parts: int
    density: float
    apical: bool
    burst: bool


@dataclass(frozen=True)
class Matrix:
    """The matrix, ready to be drawn.

    Args:
        names: of populations in order. entries: one for each projection. groups: where a new layer or area begins.
        lines: what is said above it.
    """

    names: list[str]
    entries: list[Entry]
    groups: list[int]
    lines: list[str]
    side: float

    @property
    def margin(self) -> float:
        """Room for names at its left and top, in inches."""
        return 0.3 + LETTER * max(len(name) for name in self.names)

    @property
    def width(self) -> float:
        """In inches."""
        return max(self.margin + self.side * len(self.names) + 0.4, 6.4)

    @property
    def height(self) -> float:
        """In inches."""
        return TITLE + 0.2 * len(self.lines) + self.margin + self.side * len(self.names) + 0.1

    @property
    def kinds(self) -> set[str]:
        """Kinds of projections in it."""
        return {entry.kind for entry in self.entries}

    def draw(self, axes: Axes, left: float, top: float) -> None:
        """Draw it with its upper left corner there, in inches."""
        for number, line in enumerate(self.lines):
            size, colour = (10, INK) if number == 0 else (8, GREY)
            axes.text(left + 0.3, top - 0.2 - 0.2 * number, line, fontsize=size, color=colour, va="center")
        count, side = len(self.names), self.side
        x0, y0 = left + self.margin, top - self.height + side * count + 0.05
        font = 8.5 if side > 0.3 else 7
        for number, name in enumerate(self.names):
            middle = (number + 0.5) * side
            axes.text(x0 - 0.08, y0 - middle, name, fontsize=font, color=INK, ha="right", va="center")
            axes.text(
                x0 + middle, y0 + 0.08, name, fontsize=font, color=INK, ha="center", va="bottom", rotation=90
            )
        for number in range(count + 1):
            strong = number in self.groups or number in (0, count)
            style = {"color": GREY if strong else "#E6E6E6", "linewidth": 0.9 if strong else 0.5, "zorder": 1}
            at = number * side
            axes.plot([x0, x0 + count * side], [y0 - at] * 2, **style)
            axes.plot([x0 + at] * 2, [y0, y0 - count * side], **style)
        for entry in self.entries:
            self._entry(axes, entry, x0, y0)

    def _entry(self, axes: Axes, entry: Entry, x0: float, y0: float) -> None:
        inset = 0.04 * self.side
        wide = (self.side - 2 * inset) / entry.parts
        x = x0 + entry.column * self.side + inset + entry.part * wide
        y = y0 - (entry.row + 1) * self.side + inset
        tall = self.side - 2 * inset
        colour, alpha = COLOURS[entry.kind], PALEST + (1 - PALEST) * entry.density**0.5
        box = Rectangle((x, y), wide, tall, facecolor=colour, alpha=alpha, linewidth=0, zorder=2)
        if entry.burst:
            box = Rectangle(
                (x, y),
                wide,
                tall,
                facecolor="none",
                edgecolor=colour,
                linewidth=1,
                linestyle=(0, (2, 1.2)),
                zorder=2,
            )
        box.set_gid(f"entry {entry.name}")
        axes.add_patch(box)
        if entry.apical:
            half = 0.16 * min(wide, tall)
            high = y + tall - 0.5 * tall + (0.28 * tall if self.side > 0.3 else half)
            middle = x + wide / 2
            corners = [(middle - half, high - half), (middle + half, high - half), (middle, high + half)]
            axes.add_patch(Polygon(corners, facecolor=INK, linewidth=0, zorder=4))
        if self.side > 0.3 and entry.parts == 1:
            white = alpha > 0.6 and not entry.burst
            plain = entry.density >= 0.01 or not entry.density
            text = f"{entry.density:.2g}" if plain else f"{entry.density:.0e}".replace("e-0", "e-")
            axes.text(
                x + wide / 2,
                y + tall * (0.36 if entry.apical else 0.5),
                text.removeprefix("0") if text != "0" else text,
                fontsize=7.5,
                color="white" if white else INK,
                ha="center",
                va="center",
                zorder=5,
            )


def matrix(circuit: Circuit, plan: Layout | None) -> Matrix:
    """The populations' matrix, in the order in which they stand in the drawing, by area, layer and column."""
    ranks = ranks_of(circuit)
    names, groups = _order(circuit, ranks, plan)
    place = {name: number for number, name in enumerate(names)}
    pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for p in circuit.projections.values():
        pairs[p.target, p.source].append(p.name)
    entries, areas = [], areas_of(circuit, ranks)
    for p in circuit.projections.values():
        beside = pairs[p.target, p.source]
        entries.append(
            Entry(
                p.name,
                kind_of(circuit, p, ranks, areas),
                place[p.target],
                place[p.source],
                beside.index(p.name),
                len(beside),
                circuit.density(p.name),
                p.site == "apical",
                p.carries == "burst",
            )
        )
    count = len(names)
    side = LARGE if count <= NUMBERED else max(SMALL, min(0.3, 10 / count))
    lines = [f"All {len(entries)} projections: targets are rows, sources are columns"]
    said = "The darker, the denser" + (", as the number says" if side > 0.3 else "")
    if any(e.apical for e in entries):
        said += "; triangle: onto the apical site"
    if any(e.burst for e in entries):
        said += "; dashed: carries bursts"
    lines.append(said)
    if plan is None:
        lines.append("No arrows: there are too many projections to follow them")
    return Matrix(names, entries, groups, lines, side)


def _order(circuit: Circuit, ranks: dict[str, int], plan: Layout | None) -> tuple[list[str], list[int]]:
    """Names of the populations in order, and where groups begin: inputs, then areas and layers, then outputs."""
    file = {name: number for number, name in enumerate(circuit.populations if plan is None else plan.order)}
    said, layers = layering(circuit), layers_of(circuit)

    def key(name: str) -> tuple[int, ...]:
        population = circuit.populations[name]
        kind = {"input": 0, "output": 2}.get(population.type, 1)
        if plan is None and layers:
            layer = said.get(name, "")
            return kind, layers.index(layer) if layer in layers else len(layers), file[name]
        if plan is None:
            return kind, ranks[name], file[name]
        return kind, plan.blocks.get(name, 0) if kind == 1 else 0, file[name]

    names = sorted(file, key=key)
    keys = [key(name)[:2] for name in names]
    return names, [n for n in range(1, len(names)) if keys[n] != keys[n - 1]]
