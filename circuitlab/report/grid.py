"""The grid that the populations of a large circuit stand on: columns of cells, and bands across.

A column is a place in the flow of rates, or an area; a band is a layer of the circuit file, or no more than a row. A
population's interneurons stand beside it, in a column of their own to its right.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from circuitlab.graph.circuit import Circuit
from circuitlab.report.layout import areas_of, columns_of, is_inner, layering, layers_of


@dataclass(frozen=True)
class Place:
    """Column of cells, band, and place from the top within both."""

    column: int
    band: int
    row: int


def places_of(
    circuit: Circuit, ranks: dict[str, int]
) -> tuple[dict[str, Place], list[str | None], dict[str, set[int]]]:
    """Place of every population, the name of every band (none without layers), and columns of every area."""
    hosts = _hosts(circuit)
    guests: dict[str, list[str]] = defaultdict(list)
    for name, host in hosts.items():
        guests[host].append(name)
    mains = [name for name in circuit.populations if name not in hosts]
    said = layering(circuit)
    layer = {name: said[name] for name in mains if name in said}
    names = layers_of(circuit)
    if len(names) > 1:
        grid, headers = _layered(circuit, mains, layer, names, ranks)
        bands: list[str | None] = list(names)
    else:
        columns = columns_of(circuit, ranks, mains)
        most = max(len(column) for column in columns)
        grid = {
            name: (number, (most - len(column)) // 2 + row)
            for number, column in enumerate(columns)
            for row, name in enumerate(column)
        }
        bands, headers = [None] * most, {}
    used = sorted({column for column, _ in grid.values()})
    start, first = 0, {}
    for column in used:
        first[column] = start
        start += 2 if any(guests[name] for name, (c, _) in grid.items() if c == column) else 1
    places: dict[str, Place] = {}
    seats: Counter[tuple[int, int]] = Counter()
    for name, (column, band) in grid.items():
        places[name] = Place(first[column], band, seats[first[column], band])
        seats[first[column], band] += 1
        for guest in sorted(guests[name], key=lambda guest: _height_of(circuit, guest, name)):
            places[guest] = Place(first[column] + 1, band, seats[first[column] + 1, band])
            seats[first[column] + 1, band] += 1
    second = {places[guest].column for guest in hosts}
    named = {
        area: {c for column in columns for c in {first[column]} | ({first[column] + 1} & second)}
        for area, columns in headers.items()
    }
    return places, bands, named


def _layered(
    circuit: Circuit, mains: list[str], layer: dict[str, str], names: list[str], ranks: dict[str, int]
) -> tuple[dict[str, tuple[int, int]], dict[str, set[int]]]:
    """Column and band of every main population where populations have layers, and the columns of named areas."""
    areas = areas_of(circuit, ranks)
    grid: dict[str, tuple[int, int]] = {}
    inner: dict[str, set[int]] = defaultdict(set)
    wide = Counter()
    for name in sorted(layer, key=lambda n: ranks[n]):
        area = areas.get(name, 0)
        column = 1000 * (1 + area) + wide[area, layer[name]]
        wide[area, layer[name]] += 1
        grid[name] = column, names.index(layer[name])
        if areas:
            inner[name.partition("_")[0]].add(column)
    last = max(column for column, _ in grid.values())
    seats: Counter[int] = Counter()
    for name in mains:
        if name in layer:
            continue
        kind = circuit.populations[name].type
        early = ranks[name] < min(ranks[other] for other in layer)
        column = 0 if kind == "input" else last + 2 if kind == "output" else 1 if early else last + 1
        row = seats[column] % len(names)
        grid[name] = column, row
        seats[column] += 1
    for column, count in seats.items():
        shift = max(0, (len(names) - count) // 2)
        for name, (c, row) in list(grid.items()):
            if c == column and name not in layer:
                grid[name] = c, min(row + shift, len(names) - 1)
    return grid, inner


def _hosts(circuit: Circuit) -> dict[str, str]:
    """Beside which population each inner population stands: of its layer, the one it reaches with most synapses, or
    that reaches it."""
    said = layering(circuit)
    waiting = {name for name in circuit.populations if is_inner(circuit, name)}
    hosts: dict[str, str] = {}
    while waiting:
        seated = {}
        for name in sorted(waiting):
            votes: Counter[str] = Counter()
            for p in circuit.projections.values():
                for one, other, weight in ((p.source, p.target, 4), (p.target, p.source, 1)):
                    if (
                        one == name
                        and other not in waiting
                        and circuit.populations[other].type not in ("input", "output")
                    ):
                        same = said.get(name) == said.get(other)
                        votes[hosts.get(other, other)] += weight * (len(p.edges) + 1) * (10**6 if same else 1)
            if votes:
                seated[name] = max(sorted(votes), key=votes.__getitem__)
        if not seated:
            break
        hosts |= seated
        waiting -= set(seated)
    return hosts


def _height_of(circuit: Circuit, guest: str, host: str) -> tuple[int, str]:
    """Interneurons onto apical sites stand above those onto the soma, others below."""
    sites = {p.site for p in circuit.projections.values() if (p.source, p.target) == (guest, host)}
    return (0 if "apical" in sites else 1 if sites else 2), guest


def reading(
    circuit: Circuit, places: dict[str, Place], headers: dict[str, set[int]]
) -> tuple[list[str], dict[str, int]]:
    """The populations in the order in which one reads them: by area, then block by block; and the number of each block.

    A block is a population with its interneurons; without layers blocks go by column, with them by band.
    """
    hosts = _hosts(circuit)
    said, layered = layering(circuit), len(layers_of(circuit)) > 1
    inner = min((places[name].column for name in said), default=0)
    area = {column: number for number, inner in enumerate(headers.values(), 1) for column in inner}

    def of(name: str) -> tuple[int, ...]:
        place = places[hosts.get(name, name)]
        along = (place.band, place.column) if layered else (place.column, place.band)
        outside = layered and hosts.get(name, name) not in said
        if outside:
            return (-1 if place.column < inner else len(area) + 1, *along, place.row)
        return (area.get(place.column, 0), *along, place.row)

    number = {at: index for index, at in enumerate(sorted({of(name) for name in places}))}
    order = sorted(places, key=lambda name: (of(name), name in hosts, places[name].row))
    return order, {name: number[of(name)] for name in places}
