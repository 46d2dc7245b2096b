"""Where the populations of a large circuit stand in its drawing, and the lanes that its projections run in.

Between the columns of cells of the grid lie gutters, between its bands corridors; projections run in their lanes and
never through a cell. Projections of one kind from one population share their lanes and part where their targets lie,
so that a line can be followed from its cell to every head. Lengths are in inches, x to the right, y upwards.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from circuitlab.graph.circuit import Circuit, Projection
from circuitlab.report.grid import Place, places_of, reading
from circuitlab.report.layout import (
    DENDRITE_HEIGHT,
    SOMA_HEIGHT,
    Arrow,
    Band,
    Cell,
    Layout,
    Point,
    areas_of,
    kind_of,
    ranks_of,
    strength,
    width_of,
)

PORT = 0.085
"""Distance of lines that leave or reach one side of a cell; those to its right lie half of it off those to its left."""
LANE, CORRIDOR_LANE = 0.075, 0.085
MARGIN, CORRIDOR_MARGIN = 0.27, 0.12
STACK_GAP, BAND_PAD = 0.26, 0.12
ORDER = ("feedback", "inhibitory", "electrical", "lateral", "feedforward")
"""Lanes of one kind lie together, in this order."""
FAINT = 0.05
"""Projections with less than this share of the strongest one onto the same population are drawn faintly."""


@dataclass
class Net:
    """The projections of one kind from one population.

    Args:
        side: of the source that they leave, -1 left, +1 right. gutter: the one there.
        ends: of each projection the side of the target that it reaches, and the gutter there.
        corridor: in which it goes to other gutters, None where there are none.
        lanes: its lane in each gutter it uses. level: its lane in the corridor.
    """

    source: Cell
    kind: str
    projections: list[Projection]
    side: int = 1
    gutter: int = 0
    ends: list[tuple[int, int]] = field(default_factory=list)
    corridor: int | None = None
    lanes: dict[int, int] = field(default_factory=dict)
    level: int = 0
    start: float = 0.0
    stops: list[float] = field(default_factory=list)

    @property
    def gutters(self) -> set[int]:
        """Every gutter that it uses."""
        return {self.gutter, *(gutter for _, gutter in self.ends)}


def schematic(circuit: Circuit) -> Layout:
    """Place every population and route every projection."""
    ranks = ranks_of(circuit)
    places, bands, headers = places_of(circuit, ranks)
    cells = {name: Cell(name, p.type == "pyramidal", ranks[name]) for name, p in circuit.populations.items()}
    width = width_of(circuit)
    for name, cell in cells.items():
        cell.column, cell.width = places[name].column, width
    nets = _nets(circuit, cells, ranks)
    _sides(nets, cells)
    _heights(nets, cells)
    count = 1 + max(place.column for place in places.values())
    rows = 1 + max(place.band for place in places.values())
    _stand(cells, places, [10 * PORT] * (rows + 1))
    levels = _corridors(nets, cells, places, rows)
    heights = [PORT * round((2 * CORRIDOR_MARGIN + CORRIDOR_LANE * n) / PORT) for n in levels]
    edges = _stand(cells, places, heights)
    _ports(nets, cells)
    lanes = _gutters(nets, edges, heights, count)
    xs, ends = [], 0.0
    for column in range(count + 1):
        xs.append(ends)
        ends += 2 * MARGIN + LANE * max(0, lanes[column] - 1) + (width if column < count else 0)
    for cell in cells.values():
        gutter = cell.column
        cell.x = xs[gutter] + 2 * MARGIN + LANE * max(0, lanes[gutter] - 1) + width / 2
    strengths = {name: strength(p) for name, p in circuit.projections.items()}
    strongest: dict[str, float] = {}
    for name, p in circuit.projections.items():
        strongest[p.target] = max(strongest.get(p.target, 0.0), strengths[name])
    arrows = []
    for net in nets:
        for p, (side, gutter), stop in zip(net.projections, net.ends, net.stops, strict=True):
            points = _way(net, cells[p.target], p, side, gutter, stop, xs, edges, heights)
            faint = strengths[p.name] < FAINT * strongest[p.target]
            arrows.append(Arrow(p, net.kind, net.side, side, points, angular=True, faint=faint))
    order = {name: number for number, name in enumerate(circuit.projections)}
    arrows.sort(key=lambda arrow: order[arrow.projection.name])
    stripes = [
        Band(name, bottom, top) for name, (top, bottom) in zip(bands, edges, strict=True) if name is not None
    ]
    tops = [(name, *_extent(cells, places, columns)) for name, columns in headers.items()]
    order, blocks = reading(circuit, places, headers)
    return Layout(cells, arrows, ends, edges[0][0] + heights[0], stripes, tops, order, blocks)


def _extent(cells: dict[str, Cell], places: dict[str, Place], columns: set[int]) -> tuple[float, float]:
    xs = [cell.x for name, cell in cells.items() if places[name].column in columns]
    half = next(iter(cells.values())).width / 2
    return min(xs) - half, max(xs) + half


def _nets(circuit: Circuit, cells: dict[str, Cell], ranks: dict[str, int]) -> list[Net]:
    nets: dict[tuple[str, str, bool, str], Net] = {}
    areas = areas_of(circuit, ranks)
    for p in circuit.projections.values():
        kind = kind_of(circuit, p, ranks, areas)
        own = p.name if kind == "electrical" else ""
        key = p.source, kind, p.carries == "burst", own
        if key not in nets:
            nets[key] = Net(cells[p.source], kind, [])
        nets[key].projections.append(p)
    return list(nets.values())


def _sides(nets: list[Net], cells: dict[str, Cell]) -> None:
    """From which side lines leave and reach cells: by the shortest way between gutters."""
    for net in nets:
        home = net.source.column
        away = [cells[p.target].column - home for p in net.projections]
        right, left = sum(d > 0 for d in away), sum(d < 0 for d in away)
        beside = any(other.column == home + 1 for other in cells.values())
        others = any(cells[p.target] is not net.source for p in net.projections)
        plain = -1 if net.kind == "inhibitory" or (beside and others) else 1
        net.side = 1 if right > left else -1 if left > right else plain
        net.gutter = home + (net.side > 0)
        for p in net.projections:
            column = cells[p.target].column
            net.ends.append((-1, column) if column >= net.gutter else (1, column + 1))


def _heights(nets: list[Net], cells: dict[str, Cell]) -> None:
    """Make room for the ports of every site."""
    for (name, site), ways in _busy(nets, cells).items():
        count = max(len(ends) for ends in ways.values())
        cell, need = cells[name], PORT * (count + 1.5)
        if site == "soma":
            cell.soma = max(SOMA_HEIGHT - 0.08, need)
        elif site == "apical":
            cell.apical = max(DENDRITE_HEIGHT, need)
        else:
            cell.basal = max(DENDRITE_HEIGHT, need)
    for cell in cells.values():
        cell.soma = max(cell.soma, SOMA_HEIGHT - 0.08)


End = tuple[int, int]
"""Number of a net, and of its projection, or -1 for where it leaves."""


def _busy(nets: list[Net], cells: dict[str, Cell]) -> dict[tuple[str, str], dict[int, list[End]]]:
    """Which ends of lines lie at each site of each cell, by side."""
    found: dict[tuple[str, str], dict[int, list[End]]] = defaultdict(lambda: defaultdict(list))
    for number, net in enumerate(nets):
        found[net.source.name, "soma"][net.side].append((number, -1))
        for index, (p, (side, _)) in enumerate(zip(net.projections, net.ends, strict=True)):
            site = p.site if cells[p.target].pyramidal else "soma"
            found[p.target, site][side].append((number, index))
    return found


def _stand(
    cells: dict[str, Cell], places: dict[str, Place], corridors: list[float]
) -> list[tuple[float, float]]:
    """Give every cell its y; the top and bottom of every band, from the top. Corridor 0 lies above band 0."""
    stacks: dict[tuple[int, int], list[str]] = defaultdict(list)
    for name, place in sorted(places.items(), key=lambda item: item[1].row):
        stacks[place.column, place.band].append(name)

    def tall(stack: list[str]) -> float:
        return sum(cells[n].above + cells[n].below for n in stack) + STACK_GAP * (len(stack) - 1)

    heights = []
    for band in range(len(corridors) - 1):
        most = max((tall(stack) for (_, b), stack in stacks.items() if b == band), default=0.3)
        heights.append(PORT * -(-(most + 2 * BAND_PAD) // PORT))
    top = sum(heights) + sum(corridors[1:])
    edges = []
    for band, height in enumerate(heights):
        for (_, b), stack in stacks.items():
            if b == band:
                y = top - (height - tall(stack)) / 2
                for name in stack:
                    cells[name].y = y - cells[name].above
                    y -= cells[name].above + cells[name].below + STACK_GAP
        edges.append((top, top - height))
        top -= height + corridors[band + 1]
    return edges


def _corridors(nets: list[Net], cells: dict[str, Cell], places: dict[str, Place], rows: int) -> list[int]:
    """Choose the corridor of every net that changes gutters, nearest to its ends; number of lanes in each."""
    levels: dict[int, list[Run]] = defaultdict(list)
    for number, net in enumerate(nets):
        if len(net.gutters) > 1:
            bands = [places[net.source.name].band, *(places[p.target].band for p in net.projections)]
            far = [b for b, (_, g) in zip(bands[1:], net.ends, strict=True) if g != net.gutter] + bands[:1]
            # below the source where targets lie lower, above where they lie higher, below at the same height
            net.corridor = min(range(rows + 1), key=lambda c: (sum(abs(c - 0.5 - b) for b in far), -c))
            levels[net.corridor].append((ORDER.index(net.kind), min(net.gutters), max(net.gutters), number))
    counts = [0] * (rows + 1)
    for corridor, runs in levels.items():
        lanes, counts[corridor] = _side_by_side(runs, 0.5)
        for number, lane in lanes.items():
            nets[number].level = lane
    return counts


Run = tuple[int, float, float, int]
"""Kind, beginning, end and number of a net that runs along a gutter or a corridor."""


def _side_by_side(runs: list[Run], apart: float) -> tuple[dict[int, int], int]:
    """A lane for every net by its number, so that none overlap and each kind has lanes of its own; and their number."""
    lanes: dict[int, int] = {}
    taken: list[tuple[int, float]] = []
    for kind, low, high, number in sorted(runs):
        free = (n for n, (of, until) in enumerate(taken) if of == kind and until < low - apart)
        lane = next(free, len(taken))
        taken[lane : lane + 1] = [(kind, high)]
        lanes[number] = lane
    return lanes, len(taken)


def _ports(nets: list[Net], cells: dict[str, Cell]) -> None:
    """The height at which every line leaves and reaches its cells, by where its other end lies."""
    for net in nets:
        net.stops = [0.0] * len(net.projections)
    for (name, site), sides in _busy(nets, cells).items():
        _, y, _, _ = cells[name].box(site)
        for side, ends in sides.items():

            def other(end: End) -> tuple[float, int]:
                net = nets[end[0]]
                if end[1] >= 0:
                    return net.source.y, end[0]
                ys = [cells[p.target].y for p in net.projections]
                return sum(ys) / len(ys), end[0]

            ends.sort(key=other)
            offset = 0.0 if side > 0 else 0.5
            first = round(y / PORT - (len(ends) - 1) / 2 - offset)
            for index, (number, which) in enumerate(ends):
                at = PORT * (first + index + offset)
                if which < 0:
                    nets[number].start = at
                else:
                    nets[number].stops[which] = at


def _level(net: Net, edges: list[tuple[float, float]], heights: list[float]) -> float:
    """Height of a net's lane in its corridor."""
    assert net.corridor is not None
    top = edges[net.corridor][0] + heights[net.corridor] if net.corridor < len(edges) else edges[-1][1]
    return top - CORRIDOR_MARGIN - CORRIDOR_LANE * net.level


def _gutters(
    nets: list[Net], edges: list[tuple[float, float]], heights: list[float], columns: int
) -> list[int]:
    """Give every net a lane in every gutter that it uses; number of lanes in each."""
    runs: dict[int, list[Run]] = defaultdict(list)
    for number, net in enumerate(nets):
        for gutter in net.gutters:
            ys = [stop for stop, (_, g) in zip(net.stops, net.ends, strict=True) if g == gutter]
            ys += [net.start] if gutter == net.gutter else []
            ys += [_level(net, edges, heights)] if net.corridor is not None else []
            runs[gutter].append((ORDER.index(net.kind), min(ys), max(ys), number))
    counts = [0] * (columns + 1)
    for gutter, found in runs.items():
        lanes, counts[gutter] = _side_by_side(found, PORT / 4)
        for number, lane in lanes.items():
            nets[number].lanes[gutter] = lane
    return counts


def _way(
    net: Net,
    target: Cell,
    p: Projection,
    side: int,
    gutter: int,
    stop: float,
    xs: list[float],
    edges: list[tuple[float, float]],
    heights: list[float],
) -> list[Point]:
    """The corners of a projection's way, from the edge of its source to the edge of its target's site."""
    x, _, width, _ = net.source.box("soma")
    points = [(x + net.side * width / 2, net.start)]
    lane = xs[net.gutter] + MARGIN + LANE * net.lanes[net.gutter]
    points.append((lane, net.start))
    if gutter != net.gutter:
        level = _level(net, edges, heights)
        other = xs[gutter] + MARGIN + LANE * net.lanes[gutter]
        points += [(lane, level), (other, level)]
        lane = other
    points.append((lane, stop))
    x, _, width, _ = target.box(p.site if target.pyramidal else "soma")
    return [*points, (x + side * width / 2, stop)]
