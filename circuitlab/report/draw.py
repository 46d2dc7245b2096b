"""A drawing of a circuit: cells with their compartments, and arrows that end at the site of a projection."""

from __future__ import annotations

import textwrap
from pathlib import Path as FilePath
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.legend_handler import HandlerBase
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyBboxPatch, Patch, PathPatch, Polygon
from matplotlib.path import Path
from matplotlib.transforms import Transform

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit, Population
from circuitlab.report.layout import APICAL_STEM, BASAL_STEM, SOMA_HEIGHT, Arrow, Cell, Point, layout

SUFFIXES = ("svg", "png", "pdf")
COLOURS = {"feedforward": "#0072B2", "lateral": "#009E73", "feedback": "#AA4499", "inhibitory": "#D55E00"}
WORDS = {
    "feedforward": "feedforward",
    "lateral": "lateral, recurrent",
    "feedback": "feedback",
    "inhibitory": "inhibitory",
}
FILLS = {
    "input": "#ECECEC",
    "unit": "#E3EEF8",
    "pyramidal": "#E3EEF8",
    "interneuron": "#FBE5D6",
    "output": "#FFF6CC",
}
INK, GREY = "#222222", "#666666"
BULB, TIP = 0.05, 0.13


def draw(circuit: Circuit, path: str | FilePath) -> None:
    """Draw a circuit into a file; its suffix says the kind: svg, png or pdf.

    Feedforward, lateral, feedback and inhibitory projections differ in colour and head; bursts are dashed.

    Raises:
        CircuitError: the suffix is none of these, or the file cannot be written.
    """
    path = FilePath(path)
    if path.suffix.lower().lstrip(".") not in SUFFIXES:
        raise CircuitError(f"{path}: a drawing is a file ending in {', '.join('.' + s for s in SUFFIXES)}")
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "circuitlab", "font.family": "sans-serif"}):
        figure = picture(circuit)
        # Without dates in it, the same circuit makes the same file.
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(path.suffix.lower().lstrip("."))
        try:
            figure.savefig(path, dpi=150, metadata=metadata)
        except OSError as error:
            raise CircuitError(
                f"{path}: cannot be written ({(error.strerror or str(error)).lower()})"
            ) from None


def picture(circuit: Circuit) -> Figure:
    """The drawing as a matplotlib figure."""
    plan = layout(circuit)
    width = max(plan.width, 6.4)
    lines = textwrap.wrap(circuit.description or "", int(width / 0.085))[:3]
    head, foot = 0.62 + 0.19 * len(lines), 0.5
    height = plan.height + head + foot
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(-foot, plan.height + head))
    axes.set_axis_off()
    shift = (width - plan.width) / 2
    for cell in plan.cells.values():
        cell.x += shift
        _draw_cell(axes, cell, circuit.populations[cell.name])
    for arrow in plan.arrows:
        arrow.points = [(x + shift, y) for x, y in arrow.points]
        _draw_arrow(axes, arrow)
    neurons = sum(population.size for population in circuit.populations.values())
    top = plan.height + head - 0.3
    axes.text(0.3, top, circuit.name, fontsize=13, fontweight="bold", color=INK, va="center")
    counts = f"{len(circuit.populations)} populations, {neurons:,} neurons, {circuit.synapses:,} synapses"
    axes.text(width - 0.3, top, counts, fontsize=9, color=GREY, va="center", ha="right")
    for index, line in enumerate(lines):
        axes.text(0.3, top - 0.26 - 0.19 * index, line, fontsize=9, color=GREY, va="center")
    _legend(axes, plan.arrows)
    return figure


def _draw_cell(axes: Axes, cell: Cell, population: Population) -> None:
    fill = FILLS[population.type]
    if cell.pyramidal:
        for site, stem in (("apical", APICAL_STEM), ("basal", BASAL_STEM)):
            x, y, width, height = cell.box(site)
            ends = [cell.y + SOMA_HEIGHT / 2, cell.y + SOMA_HEIGHT / 2 + stem]
            if site == "basal":
                ends = [2 * cell.y - end for end in ends]
            axes.plot([x, x], ends, color=INK, linewidth=2.4, solid_capstyle="butt", zorder=3)
            _box(axes, x, y, width, height, fill, 1.0, rounding=height / 2)
            axes.text(x, y, site, fontsize=7, color=INK, ha="center", va="center", zorder=5)
    rounding = {"interneuron": 0.28, "pyramidal": 0.16, "unit": 0.16}.get(population.type, 0.02)
    _box(axes, *cell.box("soma"), fill, 2.2 if population.type == "output" else 1.2, rounding)
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
    kind = f"{population.sign} unit" if population.type == "unit" and population.sign else population.type
    axes.text(
        cell.x,
        cell.y - 0.13,
        f"{kind}, {population.size:,}",
        fontsize=7.5,
        color=GREY,
        ha="center",
        va="center",
        zorder=5,
    )


def _box(
    axes: Axes, x: float, y: float, width: float, height: float, fill: str, line: float, rounding: float
) -> None:
    style = f"round,pad=0,rounding_size={rounding}"
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(
        FancyBboxPatch(
            corner, width, height, boxstyle=style, facecolor=fill, edgecolor=INK, linewidth=line, zorder=4
        )
    )


def _draw_arrow(axes: Axes, arrow: Arrow) -> None:
    points = list(arrow.points)
    x, y = points[-1]
    points[-1] = (x + arrow.end * (2 * BULB if arrow.kind == "inhibitory" else TIP), y)
    curve = _curve(points, arrow.start, arrow.end)
    for patch in _line_and_head(curve, points[-1], (x, y), arrow.kind, arrow.projection.carries == "burst"):
        axes.add_patch(patch)


def _line_and_head(line: Path, base: Point, tip: Point, kind: str, burst: bool) -> list[Patch]:
    """The line of an arrow, and its head from `base` to `tip`."""
    colour = COLOURS[kind]
    dashes = (0, (4, 2.2)) if burst else "solid"
    shaft = PathPatch(line, edgecolor=colour, facecolor="none", linewidth=1.5, linestyle=dashes, zorder=2)
    (x0, y0), (x1, y1) = base, tip
    length = x1 - x0
    if kind == "inhibitory":
        return [
            shaft,
            Circle(((x0 + x1) / 2, y1), abs(length) / 2, facecolor=colour, edgecolor=colour, zorder=6),
        ]
    half = 0.42 * abs(length)
    if kind == "lateral":
        barbs = Path([(x0, y0 + half), tip, (x0, y0 - half), base, tip], [1, 2, 2, 1, 2])
        return [shaft, PathPatch(barbs, edgecolor=colour, facecolor="none", linewidth=1.5, zorder=6)]
    face = "white" if kind == "feedback" else colour
    corners = [(x0, y0 + half), tip, (x0, y0 - half)]
    return [shaft, Polygon(corners, closed=True, facecolor=face, edgecolor=colour, linewidth=1.3, zorder=6)]


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
        base = (x - (6.0 if kind == "inhibitory" else 8.0), y)
        patches = _line_and_head(Path([(-xdescent, y), base]), base, (x, y), kind, burst=False)
        for patch in patches:
            patch.set_transform(trans)
        return list(patches)


def _legend(axes: Axes, arrows: list[Arrow]) -> None:
    keys = [(kind, False) for kind in COLOURS if any(arrow.kind == kind for arrow in arrows)]
    if any(arrow.projection.carries == "burst" for arrow in arrows):
        keys.append(("", True))
    if keys:
        words = [WORDS.get(kind, "carries bursts") for kind, _ in keys]
        axes.legend(
            keys,  # pyright: ignore[reportArgumentType] (any object with a handler of its own)
            words,
            loc="lower center",
            ncols=len(keys),
            frameon=False,
            fontsize=8.5,
            handlelength=2.8,
            handler_map={tuple: _ArrowHandler()},
            columnspacing=1.8,
            borderaxespad=0.4,
        )
