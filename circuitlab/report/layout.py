"""Where a circuit's populations stand in its drawing, and the way each projection takes between them.

Lengths are in inches, x to the right, y upwards. Columns follow the flow of rates from the inputs (left)
to the outputs (right); interneurons stand beside the population they mainly inhibit.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

import networkx as nx
import numpy as np

from circuitlab.graph.circuit import Circuit, Population, Projection

SOMA_HEIGHT, DENDRITE_HEIGHT = 0.6, 0.26
APICAL_STEM, BASAL_STEM = 0.18, 0.1
ROW_GAP, COLUMN_GAP, MAX_ROWS = 0.42, 0.9, 8
LETTER, SMALL_LETTER, LANE = 0.092, 0.071, 0.08
MOST_CURVES = 24
"""Projections up to which a circuit without layers is drawn with curves."""

Point = tuple[float, float]


@dataclass
class Cell:
    """One population in the drawing; x, y are the centre of its soma.

    Args:
        rank: its place in the flow of rates, 0 for inputs. column: the column it is drawn in.
        soma, apical, basal: heights of its compartments.
    """

    name: str
    pyramidal: bool
    rank: int
    column: int = 0
    x: float = 0.0
    y: float = 0.0
    width: float = 1.3
    soma: float = SOMA_HEIGHT
    apical: float = DENDRITE_HEIGHT
    basal: float = DENDRITE_HEIGHT

    @property
    def above(self) -> float:
        """Height from the soma's centre to the top."""
        return self.soma / 2 + (APICAL_STEM + self.apical if self.pyramidal else 0.0)

    @property
    def below(self) -> float:
        """Height from the soma's centre to the bottom."""
        return self.soma / 2 + (BASAL_STEM + self.basal if self.pyramidal else 0.0)

    def box(self, site: str) -> tuple[float, float, float, float]:
        """Centre x, centre y, width and height of a compartment; others than pyramidal cells are one soma."""
        if not self.pyramidal or site == "soma":
            return self.x, self.y, self.width, self.soma
        stem, height = (APICAL_STEM, self.apical) if site == "apical" else (BASAL_STEM, self.basal)
        up = self.soma / 2 + stem + height / 2
        return self.x, self.y + (up if site == "apical" else -up), 0.62 * self.width, height


@dataclass
class Arrow:
    """One projection in the drawing.

    Args:
        kind: feedforward, lateral, feedback, inhibitory or electrical.
        start, end: sides of source and target, -1 left, +1 right.
        points: the way from source to target, alternating between column edges; the drawing rounds it.
        angular: the points are corners of a way along lanes. faint: weak beside what else its target receives.
    """

    projection: Projection
    kind: str
    start: int
    end: int
    points: list[Point] = field(default_factory=list)
    angular: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Band:
    """A layer of the circuit file, drawn as a band across: its name, bottom and top."""

    name: str
    bottom: float
    top: float


@dataclass
class Layout:
    """The whole drawing: cells by name, arrows in file order, its width and height, and what is named at its edges.

    Args:
        bands: layers. headers: areas, each with its left and right.
        order: the populations in the order in which one reads them. blocks: which stand together, by number.
    """

    cells: dict[str, Cell]
    arrows: list[Arrow]
    width: float
    height: float
    bands: list[Band] = field(default_factory=list)
    headers: list[tuple[str, float, float]] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    blocks: dict[str, int] = field(default_factory=dict)


def layout(circuit: Circuit) -> Layout:
    """Place every population and route every projection."""
    ranks = ranks_of(circuit)
    cells = {name: Cell(name, p.type == "pyramidal", ranks[name]) for name, p in circuit.populations.items()}
    columns = columns_of(circuit, ranks, list(circuit.populations))
    width = width_of(circuit)
    arrows = [_arrow(circuit, p, ranks) for p in circuit.projections.values()]
    crowd = Counter(cells[a.projection.target].rank for a in arrows if a.start == a.end)
    x = 0.0
    for index, column in enumerate(columns):
        gap = COLUMN_GAP + 0.05 * min(12, len(column) + crowd[ranks[column[0]]])
        x += gap / 2
        heights = [cells[name].above + cells[name].below for name in column]
        top = (sum(heights) + ROW_GAP * (len(column) - 1)) / 2
        for name, height in zip(column, heights, strict=True):
            cell = cells[name]
            cell.column, cell.width, cell.x, cell.y = index, width, x + width / 2, top - cell.above
            top -= height + ROW_GAP
        x += width + gap / 2
    _route(cells, columns, arrows)
    ys = [y for arrow in arrows for _, y in arrow.points]
    top = max([*ys, *(c.y + c.above for c in cells.values())]) + 0.25
    bottom = min([*ys, *(c.y - c.below for c in cells.values())]) - 0.25
    for cell in cells.values():
        cell.y -= bottom
    for arrow in arrows:
        arrow.points = [(px, py - bottom) for px, py in arrow.points]
    return Layout(cells, arrows, x, top - bottom)


def subtitle(population: Population) -> str:
    """The second line in a cell: what it is, and how many neurons."""
    unit = population.type == "unit" and population.sign is not None
    return (
        f"{population.sign} unit, {population.size:,}" if unit else f"{population.type}, {population.size:,}"
    )


def width_of(circuit: Circuit) -> float:
    """The width of the cells, in which every name and every second line fits."""
    names = max(len(name) for name in circuit.populations)
    words = max(len(subtitle(p)) for p in circuit.populations.values())
    return max(1.3, 0.35 + LETTER * names, 0.22 + SMALL_LETTER * words)


def ranks_of(circuit: Circuit) -> dict[str, int]:
    """Place of every population in the flow of rates: longest way from the inputs, cycles cut."""
    graph = nx.DiGraph()
    graph.add_nodes_from(circuit.populations)
    drive = nx.DiGraph(graph)
    for p in circuit.projections.values():
        graph.add_edge(p.source, p.target)
        inhibits = _inhibits(circuit, p.source) or circuit.populations[p.source].type == "interneuron"
        drives = p.carries == "rate" and p.site != "apical" and p.kind == "chemical" and not inhibits
        if p.source != p.target and drives:
            drive.add_edge(p.source, p.target)
    starts = set(circuit.inputs) or {next(iter(circuit.populations))}
    depth = dict.fromkeys(graph, len(graph))
    for steps in (graph, drive):
        depth |= {
            name: int(n)
            for name, n in nx.multi_source_dijkstra_path_length(steps, starts, weight=None).items()
        }
    for group in list(nx.strongly_connected_components(drive)):
        inside = [(a, b) for a, b in drive.edges if a in group and b in group and depth[b] <= depth[a]]
        drive.remove_edges_from(inside)
    ranks = {name: rank for rank, names in enumerate(nx.topological_generations(drive)) for name in names}
    for name, population in circuit.populations.items():
        if population.type != "input" and not drive.in_degree(name):
            ranks[name] = min(depth[name], 1 + max(ranks.values()))
    ranks |= dict.fromkeys(circuit.inputs, 0)
    _seat_interneurons(circuit, ranks)
    inner = [rank for name, rank in ranks.items() if circuit.populations[name].type != "output"]
    ranks |= dict.fromkeys(circuit.outputs, max(inner, default=-1) + 1)
    packed = {rank: index for index, rank in enumerate(sorted(set(ranks.values())))}
    return {name: packed[rank] for name, rank in ranks.items()}


def _seat_interneurons(circuit: Circuit, ranks: dict[str, int]) -> None:
    """Give interneurons the rank of the population they reach with most synapses, directly or by others."""
    waiting = {name for name in circuit.populations if is_inner(circuit, name)}
    while waiting:
        seated = {}
        for name in waiting:
            hosts = Counter()
            for p in circuit.projections.values():
                if p.source == name and p.target not in waiting and p.kind == "chemical":
                    hosts[p.target] += len(p.edges) + 1
            if hosts:
                seated[name] = ranks[max(hosts, key=hosts.__getitem__)]
        if not seated:
            return
        ranks |= seated
        waiting -= set(seated)


def _inhibits(circuit: Circuit, name: str) -> bool:
    return circuit.populations[name].sign == "inhibitory"


def columns_of(circuit: Circuit, ranks: dict[str, int], names: list[str]) -> list[list[str]]:
    """Some populations by column, top to bottom, so that arrows between columns cross little."""
    neighbours = defaultdict(set)
    for p in circuit.projections.values():
        neighbours[p.source].add(p.target)
        neighbours[p.target].add(p.source)
    columns = [[n for n in names if ranks[n] == rank] for rank in range(max(ranks.values()) + 1)]
    columns = [column for column in columns if column]
    inner = {name for name in names if is_inner(circuit, name)}
    place: dict[str, float] = {}
    for column in columns:
        place |= {name: (index + 0.5) / len(column) for index, name in enumerate(column)}
    for sweep in range(6):
        for column in columns[:: 1 if sweep % 2 == 0 else -1]:
            side = -1 if sweep % 2 == 0 else 1
            means = {}
            for name in column:
                near = [place[n] for n in neighbours[name] if n in place and ranks[n] == ranks[name] + side]
                means[name] = sum(near) / len(near) if near else place[name]
            column.sort(key=lambda name: means[name])
            mains = [name for name in column if name not in inner]
            for name in [n for n in column if n in inner] if mains else []:
                host = next((n for n in mains if n in neighbours[name]), mains[-1])
                column.remove(name)
                after = [
                    i
                    for i, n in enumerate(column)
                    if n == host or (n in inner and i and host in neighbours[n])
                ]
                column.insert(after[-1] + 1, name)
            place |= {name: (index + 0.5) / len(column) for index, name in enumerate(column)}
    split = []
    for column in columns:
        parts = -(-len(column) // MAX_ROWS)
        rows = -(-len(column) // parts)
        split += [column[start : start + rows] for start in range(0, len(column), rows)]
    return split


def is_inner(circuit: Circuit, name: str) -> bool:
    """Whether a population is drawn beside another: interneurons, and plain units that inhibit."""
    population = circuit.populations[name]
    return population.type == "interneuron" or (population.type == "unit" and population.sign == "inhibitory")


NAMED_LAYER = re.compile(
    r"(?:^|_)(?:l|layer_?)(?P<number>23|2_3|56|[1-6])(?P<part>[ab]?)(?=_|$|(?:e|i|pv|sst|vip)(?:_|$))",
    re.IGNORECASE,
)


def layering(circuit: Circuit) -> dict[str, str]:
    """The layer of every population that has one: as the circuit file says; where it says none, and there are too many
    projections for curves, as names such as `l23_e`, `L4I` or `v1_layer5` do, if most inner populations have such."""
    said = {name: p.layer for name, p in circuit.populations.items() if p.layer is not None}
    if said or len(circuit.projections) <= MOST_CURVES:
        return said
    found = {name: _label(match) for name in circuit.populations if (match := NAMED_LAYER.search(name))}
    inner = [name for name, p in circuit.populations.items() if p.type not in ("input", "output")]
    enough = 2 * len(found) > len(inner) and len(set(found.values())) > 1
    return {name: found[name] for name in inner if name in found} if enough else {}


def _label(match: re.Match[str]) -> str:
    number = match["number"].replace("_", "")
    return f"L{'/'.join(number)}{match['part'].lower()}"


def layers_of(circuit: Circuit) -> list[str]:
    """Names of the layers from the top: in the order in which the file's populations name them, else by number."""
    names = list(dict.fromkeys(layering(circuit).values()))
    return names if any(p.layer for p in circuit.populations.values()) else sorted(names)


def areas_of(circuit: Circuit, ranks: dict[str, int]) -> dict[str, int]:
    """Number of the area of every population with a layer, in the flow of rates; none where there is one area only.

    Areas are told apart by what stands before the first `_` of the names, where at least two have two layers each.
    """
    layered = layering(circuit)
    inside: dict[str, list[str]] = defaultdict(list)
    for name in layered:
        inside[name.partition("_")[0]].append(name)
    if len(inside) < 2 or any(len({layered[n] for n in names}) < 2 for names in inside.values()):
        return {}
    order = sorted(inside, key=lambda area: sum(ranks[n] for n in inside[area]) / len(inside[area]))
    return {name: number for number, area in enumerate(order) for name in inside[area]}


def kind_of(circuit: Circuit, projection: Projection, ranks: dict[str, int], areas: dict[str, int]) -> str:
    """What a projection is in the drawing: electrical, inhibitory by its source's sign, else by the flow of rates from
    area to area, and within one; bursts are feedback."""
    if projection.kind == "electrical":
        return "electrical"
    if _inhibits(circuit, projection.source):
        return "inhibitory"
    if projection.carries == "burst":
        return "feedback"
    step = ranks[projection.target] - ranks[projection.source]
    if projection.source in areas and projection.target in areas:
        step = areas[projection.target] - areas[projection.source] or step
    return "feedforward" if step > 0 else "feedback" if step < 0 else "lateral"


def strength(projection: Projection) -> float:
    """Summed magnitude of a projection's weights onto all its targets."""
    return float(np.abs(projection.edges.weight).sum(dtype=np.float64))


def _arrow(circuit: Circuit, projection: Projection, ranks: dict[str, int]) -> Arrow:
    step = ranks[projection.target] - ranks[projection.source]
    kind = kind_of(circuit, projection, ranks, {})
    side = -1 if step == 0 and kind == "inhibitory" else 1
    return Arrow(projection, kind, side if step >= 0 else -1, side if step == 0 else (-1 if step > 0 else 1))


def _route(cells: dict[str, Cell], columns: list[list[str]], arrows: list[Arrow]) -> None:
    """Give every arrow its ports and, where it passes columns, a lane between the cells there."""
    lanes: Counter[tuple[int, float]] = Counter()
    ports = defaultdict(list)
    for arrow in arrows:
        source, target = cells[arrow.projection.source], cells[arrow.projection.target]
        if source.column != target.column and source.rank == target.rank:
            arrow.start = 1 if target.column > source.column else -1
            arrow.end = -arrow.start
        ports[source.name, "soma", arrow.start].append((target.y, id(arrow), "out"))
        site = arrow.projection.site if target.pyramidal else "soma"
        ports[target.name, site, arrow.end].append((source.y, id(arrow), "in"))
    places: dict[tuple[int, str], Point] = {}
    for (name, site, side), ends in ports.items():
        x, y, width, height = cells[name].box(site)
        ends.sort(key=lambda end: (end[0], end[2]))
        for index, (_, arrow_id, way) in enumerate(ends):
            share = (index + 1) / (len(ends) + 1) - 0.5
            places[arrow_id, way] = (x + side * width / 2, y + share * height * 0.9)
    for arrow in arrows:
        source, target = cells[arrow.projection.source], cells[arrow.projection.target]
        start, end = places[id(arrow), "out"], places[id(arrow), "in"]
        arrow.points = [start]
        step = 1 if target.column > source.column else -1
        for index in (
            range(source.column + step, target.column, step) if source.column != target.column else ()
        ):
            column = [cells[name] for name in columns[index]]
            share = (column[0].x - start[0]) / (end[0] - start[0])
            lane = _lane(column, start[1] + share * (end[1] - start[1]))
            used = lanes[index, lane]
            lanes[index, lane] += 1
            y = lane + LANE * ((used + 1) // 2) * (-1 if used % 2 else 1)
            half = column[0].width / 2
            arrow.points += [(column[0].x - step * half, y), (column[0].x + step * half, y)]
        arrow.points.append(end)


def _lane(column: list[Cell], wanted: float) -> float:
    """Height of the free space in a column that is nearest to the height wanted."""
    spaces = [column[0].y + column[0].above + ROW_GAP / 2, column[-1].y - column[-1].below - ROW_GAP / 2]
    spaces += [(a.y - a.below + b.y + b.above) / 2 for a, b in pairwise(column)]
    return min(spaces, key=lambda y: abs(y - wanted))
