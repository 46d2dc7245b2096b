"""A drawing of a circuit: cells with their compartments, and arrows that end at the site of a projection.

Small circuits are drawn with curves (`layout`), larger ones and those with layers on a grid with lanes (`schematic`);
beyond `MATRIX_FROM` projections a matrix of the populations (`matrix`) stands below, beyond `MOST_ARROWS` alone.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import Path as FilePath
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.legend_handler import HandlerBase
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyBboxPatch, Patch, PathPatch, Polygon, Rectangle
from matplotlib.path import Path
from matplotlib.transforms import Transform

from circuitlab.graph.circuit import Circuit, Population
from circuitlab.report.layout import (
    APICAL_STEM,
    BASAL_STEM,
    MOST_CURVES,
    Arrow,
    Cell,
    Layout,
    Point,
    layers_of,
    layout,
    subtitle,
)
from circuitlab.report.matrix import Matrix, matrix
from circuitlab.report.pictures import COLOURS, GREY, INK, WORDS, write
from circuitlab.report.schematic import FAINT, schematic
from circuitlab.report.statistics import junctions

MATRIX_FROM = 40
"""Projections from which a matrix of all of them stands below the arrows."""
MOST_ENDS = 6
"""Lines that leave or reach one side of a cell, up to which curves can be told apart."""
MOST_ARROWS, MOST_CELLS = 200, 60
"""Projections and populations beyond which arrows could not be followed, and the matrix stands alone."""
FILLS = {
    "input": "#ECECEC",
    "unit": "#E3EEF8",
    "pyramidal": "#E3EEF8",
    "interneuron": "#FBE5D6",
    "output": "#FFF6CC",
}
BULB, TIP, CORNER = 0.05, 0.13, 0.07
FADED = 0.55
"""Share of white in faint lines."""


def draw(circuit: Circuit, path: str | FilePath) -> None:
    """Draw a circuit into a file; its suffix says the kind: svg, png or pdf.

    Feedforward, lateral, feedback and inhibitory projections and gap junctions differ in colour and head; bursts are
    dashed.

    Raises:
        CircuitError: the suffix is none of these, or the file cannot be written.
    """
    write(lambda: picture(circuit), FilePath(path))


def plan_of(circuit: Circuit) -> Layout | None:
    """Where everything stands in a circuit's drawing; None where it has too many projections for arrows."""
    count = len(circuit.projections)
    if count > MOST_ARROWS or len(circuit.populations) > MOST_CELLS:
        return None
    if count <= MOST_CURVES and len(layers_of(circuit)) < 2:
        plan = layout(circuit)
        ends = Counter((a.projection.source, "soma", a.start) for a in plan.arrows)
        ends.update((a.projection.target, a.projection.site, a.end) for a in plan.arrows)
        if max(ends.values(), default=0) <= MOST_ENDS:
            return plan
    return schematic(circuit)


def picture(circuit: Circuit) -> Figure:
    """The drawing as a matplotlib figure."""
    plan = plan_of(circuit)
    table = matrix(circuit, plan) if plan is None or len(circuit.projections) > MATRIX_FROM else None
    side = 0.35 if plan is not None and plan.bands else 0.0
    width = max(6.4, side + (plan.width if plan else 0.0), table.width if table else 0.0)
    lines = textwrap.wrap(circuit.description or "", int(width / 0.085))[:3]
    head, foot = 0.62 + 0.19 * len(lines), 0.55
    below = table.height if table else 0.0
    upper = plan.height + (0.3 if plan.headers else 0.0) if plan else 0.0
    height = upper + below + head + foot
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(-foot - below, upper + head))
    axes.set_axis_off()
    if plan is not None:
        _draw_plan(axes, circuit, plan, side + (width - side - plan.width) / 2)
    neurons = sum(population.size for population in circuit.populations.values())
    top = upper + head - 0.3
    title = axes.text(0.3, top, circuit.name, fontsize=13, fontweight="bold", color=INK, va="center")
    title.set_gid("title")
    electrical = [p for p in circuit.projections.values() if p.kind == "electrical"]
    synapses = circuit.synapses - sum(len(p.edges) for p in electrical)
    counts = f"{len(circuit.populations)} populations, {neurons:,} neurons, {synapses:,} synapses"
    if electrical:
        counts += f", {sum(map(junctions, electrical)):,} gap junctions"
    axes.text(width - 0.3, top, counts, fontsize=9, color=GREY, va="center", ha="right")
    for index, line in enumerate(lines):
        axes.text(0.3, top - 0.26 - 0.19 * index, line, fontsize=9, color=GREY, va="center")
    if table is not None:
        table.draw(axes, (width - table.width) / 2, -0.05)
    _legend(axes, plan, table, width, -foot - below)
    return figure


def _draw_plan(axes: Axes, circuit: Circuit, plan: Layout, shift: float) -> None:
    for number, band in enumerate(plan.bands):
        corner, height = (shift - 0.3, band.bottom), band.top - band.bottom
        shade = "#F4F4F4" if number % 2 == 0 else "#FAFAFA"
        axes.add_patch(Rectangle(corner, plan.width + 0.35, height, facecolor=shade, linewidth=0, zorder=0))
        axes.text(
            shift - 0.15,
            (band.bottom + band.top) / 2,
            band.name,
            fontsize=10,
            color=GREY,
            rotation=90,
            ha="center",
            va="center",
        )
    for name, left, right in plan.headers:
        middle = shift + (left + right) / 2
        axes.text(middle, plan.height + 0.12, name, fontsize=11, color=GREY, ha="center", va="center")
    for cell in plan.cells.values():
        cell.x += shift
        _draw_cell(axes, cell, circuit.populations[cell.name])
    for arrow in plan.arrows:
        arrow.points = [(x + shift, y) for x, y in arrow.points]
        _draw_arrow(axes, arrow)


def _draw_cell(axes: Axes, cell: Cell, population: Population) -> None:
    inhibits = population.type == "unit" and population.sign == "inhibitory"
    fill = FILLS["interneuron" if inhibits else population.type]
    if cell.pyramidal:
        for site, stem in (("apical", APICAL_STEM), ("basal", BASAL_STEM)):
            x, y, width, height = cell.box(site)
            ends = [cell.y + cell.soma / 2, cell.y + cell.soma / 2 + stem]
            if site == "basal":
                ends = [2 * cell.y - end for end in ends]
            axes.plot([x, x], ends, color=INK, linewidth=2.4, solid_capstyle="butt", zorder=3)
            _box(axes, cell.name, (x, y, width, height), fill, 1.0, rounding=min(0.13, height / 2))
            axes.text(x, y, site, fontsize=7, color=INK, ha="center", va="center", zorder=5)
    rounding = {"interneuron": 0.28, "pyramidal": 0.16, "unit": 0.16}.get(population.type, 0.02)
    _box(axes, cell.name, cell.box("soma"), fill, 2.2 if population.type == "output" else 1.2, rounding)
    axes.text(
        cell.x,
        cell.y + 0.1,
        cell.name,
        fontsize=9.5,
        fontweight="bold",
        color=INK,
        ha="center",
        va="center",
        zorder=5,
    )
    axes.text(
        cell.x,
        cell.y - 0.13,
        subtitle(population),
        fontsize=7.5,
        color=GREY,
        ha="center",
        va="center",
        zorder=5,
    )


def _box(
    axes: Axes, name: str, box: tuple[float, float, float, float], fill: str, line: float, rounding: float
) -> None:
    """A compartment: centre x, centre y, width and height."""
    x, y, width, height = box
    patch = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle=f"round,pad=0,rounding_size={rounding}",
        facecolor=fill,
        edgecolor=INK,
        linewidth=line,
        zorder=4,
    )
    patch.set_gid(f"population {name}")
    axes.add_patch(patch)


def _draw_arrow(axes: Axes, arrow: Arrow) -> None:
    points = list(arrow.points)
    x, y = points[-1]
    head = {"inhibitory": 2 * BULB, "electrical": 0.0}.get(arrow.kind, TIP)
    points[-1] = (x + arrow.end * head, y)
    curve = _rounded(points) if arrow.angular else _curve(points, arrow.start, arrow.end)
    burst = arrow.projection.carries == "burst"
    patches = _line_and_head(curve, points[-1], (x, y), arrow.kind, burst, arrow.faint)
    if arrow.kind == "electrical":
        patches += _bars(arrow.points[0], arrow.start, arrow.faint) + _bars((x, y), arrow.end, arrow.faint)
    for patch in patches:
        patch.set_gid(f"projection {arrow.projection.name}")
        axes.add_patch(patch)


def _colour(kind: str, faint: bool) -> str:
    """The colour of a kind, mixed with white where it is faint."""
    mixed = (part + FADED * (1 - part) if faint else part for part in to_rgb(COLOURS[kind]))
    return to_hex(tuple(mixed))


def _bars(at: Point, side: int, faint: bool = False, half: float = 0.034) -> list[Patch]:
    """The two bars of a gap junction, across the end of its line."""
    colour = _colour("electrical", faint)
    return [
        PathPatch(
            Path([(at[0] + side * x, at[1] - half), (at[0] + side * x, at[1] + half)]),
            edgecolor=colour,
            facecolor="none",
            linewidth=1.6,
            zorder=6,
        )
        for x in (0.05, 0.1)
    ]


def _line_and_head(
    line: Path, base: Point, tip: Point, kind: str, burst: bool, faint: bool = False
) -> list[Patch]:
    """The line of an arrow, and its head from `base` to `tip`."""
    colour = _colour(kind, faint)
    dashes = (0, (4, 2.2)) if burst else "solid"
    below = 1.8 if faint else 2
    shaft = PathPatch(line, edgecolor=colour, facecolor="none", linewidth=1.4, linestyle=dashes, zorder=below)
    (x0, y0), (x1, y1) = base, tip
    length = x1 - x0
    if kind == "electrical":
        return [shaft]
    if kind == "inhibitory":
        middle = ((x0 + x1) / 2, y1)
        return [shaft, Circle(middle, abs(length) / 2, facecolor=colour, edgecolor=colour, zorder=6)]
    half = 0.36 * abs(length)
    if kind == "lateral":
        barbs = Path([(x0, y0 + half), tip, (x0, y0 - half), base, tip], [1, 2, 2, 1, 2])
        return [shaft, PathPatch(barbs, edgecolor=colour, facecolor="none", linewidth=1.4, zorder=6)]
    face = "white" if kind == "feedback" else colour
    corners = [(x0, y0 + half), tip, (x0, y0 - half)]
    return [shaft, Polygon(corners, closed=True, facecolor=face, edgecolor=colour, linewidth=1.2, zorder=6)]


def _rounded(points: list[Point]) -> Path:
    """Straight pieces from corner to corner, the corners rounded."""
    vertices, codes = [points[0]], [Path.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        ends = []
        for other in (before, after):
            length = abs(other[0] - corner[0]) + abs(other[1] - corner[1])
            share = min(CORNER / length, 0.5) if length else 0.0
            ends.append(tuple(c + share * (o - c) for c, o in zip(corner, other, strict=True)))
        vertices += [ends[0], corner, ends[1]]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path([*vertices, points[-1]], [*codes, Path.LINETO])


def _curve(points: list[Point], start: int, end: int) -> Path:
    """A smooth way: level where it leaves and arrives, straight along the lanes."""
    vertices, codes = [points[0]], [Path.MOVETO]
    if start == end:
        (x0, y0), (x1, y1) = points
        reach = 0.34 + 0.13 * abs(y1 - y0)
        edge = max(x0, x1) + reach if start > 0 else min(x0, x1) - reach
        return Path([*vertices, (edge, y0), (edge, y1), points[-1]], [*codes, *[Path.CURVE4] * 3])
    for index in range(0, len(points) - 1, 2):
        (x0, y0), (x1, y1) = points[index], points[index + 1]
        middle = (x0 + x1) / 2
        vertices += [(middle, y0), (middle, y1), (x1, y1)]
        codes += [Path.CURVE4] * 3
        if index + 2 < len(points):
            vertices.append(points[index + 2])
            codes.append(Path.LINETO)
    return Path(vertices, codes)


class _ArrowHandler(HandlerBase):
    """Draws one kind of arrow in the legend."""

    def create_artists(
        self,
        legend: Legend,
        orig_handle: Any,
        xdescent: float,
        ydescent: float,
        width: float,
        height: float,
        fontsize: float,
        trans: Transform,
    ) -> list[Artist]:
        """A level line with the head of its kind at its end."""
        kind, burst = orig_handle
        x, y = width - xdescent, height / 2 - ydescent
        if burst:
            line = Line2D(
                [-xdescent, x], [y, y], color=GREY, linewidth=1.5, linestyle=(0, (4, 2.2)), transform=trans
            )
            return [line]
        head = {"inhibitory": 6.0, "electrical": 0.0}.get(kind, 8.0)
        patches = _line_and_head(
            Path([(-xdescent, y), (x - head, y)]), (x - head, y), (x, y), kind, burst=False
        )
        if kind == "electrical":
            for at, side in ((-xdescent, 1), (x, -1)):
                patches += [
                    PathPatch(
                        Path([(at + side * d, y - 3.5), (at + side * d, y + 3.5)]),
                        edgecolor=INK,
                        linewidth=1.6,
                    )
                    for d in (3.0, 6.0)
                ]
        for patch in patches:
            patch.set_transform(trans)
        return list(patches)


def _legend(axes: Axes, plan: Layout | None, table: Matrix | None, width: float, bottom: float) -> None:
    """What colours, heads and lines mean, in a row at the bottom."""
    if plan is None:
        assert table is not None
        kinds, bursts, faint = table.kinds, False, False
    else:
        kinds = {arrow.kind for arrow in plan.arrows}
        bursts = any(arrow.projection.carries == "burst" for arrow in plan.arrows)
        faint = any(arrow.faint for arrow in plan.arrows)
    keys = [(kind, False) for kind in COLOURS if kind in kinds]
    words = [WORDS[kind] for kind, _ in keys]
    if bursts:
        keys.append(("", True))
        words.append("carries bursts")
    if faint:
        words[-1] += f"      faint: below {100 * FAINT:g}% of its target's strongest"
    if keys:
        axes.legend(
            keys,  # pyright: ignore[reportArgumentType] (any object with a handler of its own)
            words,
            loc="lower center",
            bbox_to_anchor=(width / 2, bottom),
            bbox_transform=axes.transData,
            ncols=len(keys),
            frameon=False,
            fontsize=8.5,
            handlelength=2.8,
            handler_map={tuple: _ArrowHandler()},
            columnspacing=1.4,
            borderaxespad=0.6,
        )
