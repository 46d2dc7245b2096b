"""Populations that came from SONATA, put back into the node and edge populations that they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitlab.graph import circuit as graph
from circuitlab.graph.circuit import Circuit
from circuitlab.graph.foreign.sonata_edges import RESERVED as EDGE_NAMES
from circuitlab.graph.foreign.sonata_nodes import AXES, IDS, _signs
from circuitlab.graph.foreign.sonata_weights import row_weights, synapse_of, weight_of
from circuitlab.graph.foreign.sonata_write import Dataset, Population, plain_column
from circuitlab.graph.foreign.type_tables import MISSING, TypeTable


@dataclass
class NodesBack:
    """A node population as it came: what to write, and where each of the circuit's populations is in it.

    Args:
        parts: the circuit's populations; part: which of them each node belongs to, shape [node].
        ids_of: node ids of each part, shape [unit].
    """

    population: Population
    types: TypeTable | None
    parts: tuple[str, ...]
    part: NDArray[np.int64]
    ids_of: Mapping[str, NDArray[np.int64]]
    file: str
    types_file: str | None
    kind: str


@dataclass
class EdgesBack:
    """An edge population as it came, and the projections that it became.

    Args:
        rows_of: row of every edge of each projection, [edge]; None where an edge stands for several.
    """

    population: Population
    types: TypeTable | None
    projections: tuple[str, ...]
    file: str
    types_file: str | None
    rows_of: Mapping[str, NDArray[np.int64] | None]


def nodes_back(circuit: Circuit, origin: Mapping[str, Any]) -> dict[str, NodesBack]:
    """The node populations of the SONATA files, from the populations that are still there."""
    found = {}
    for name, known in origin["nodes"].items():
        parts = [
            circuit.populations[part]
            for part in known["populations"]
            if part in circuit.populations and "node_id" in circuit.populations[part].attributes
        ]
        if parts:
            found[name] = _nodes(name, known, parts)
    return found


def _nodes(name: str, known: Mapping[str, Any], parts: list[graph.Population]) -> NodesBack:
    ids = np.concatenate([p.attributes["node_id"] for p in parts])
    part = np.concatenate([np.full(p.size, number, dtype=np.int64) for number, p in enumerate(parts)])
    if len(parts) == 1:
        order = np.arange(len(ids))
    else:
        by_row = all("node_row" in p.attributes for p in parts)
        key = np.concatenate([p.attributes["node_row"] for p in parts]) if by_row else ids
        order = np.argsort(key, kind="stable")

    def whole(attribute: str, default: int | None = None) -> NDArray:
        values = [
            p.attributes[attribute]
            if default is None
            else p.attributes.get(attribute, np.full(p.size, default))
            for p in parts
        ]
        return np.concatenate(values)[order]

    groups: dict[str, dict[str, Dataset]] = {}
    own = _own_columns(parts, order)
    placed = set()
    for group, columns in known["groups"].items():
        groups[group] = {}
        for dataset, kind in columns.items():
            place = kind["as"]
            placed.add(place)
            if place.startswith("="):
                values = own.get(place[1:])
            elif all(place in p.attributes for p in parts):
                values = whole(place)
            else:
                values = None
            if values is not None:
                groups[group][dataset] = Dataset(values, plain_column(kind))
    shared = set(parts[0].attributes).intersection(*(p.attributes for p in parts))
    taken = {*placed, *IDS, *known["type_attributes"]}
    more = {key: whole(key) for key in parts[0].attributes if key in shared and key not in taken}
    more |= {
        key: values for key, values in own.items() if f"={key}" not in placed and _says_more(key, values)
    }
    for columns in groups.values():
        columns |= {key: Dataset(values) for key, values in more.items()}
    group_ids = whole("node_group_id", int(next(iter(known["groups"]), "0")))
    population = Population(
        kind="node",
        name=name,
        type_ids=whole("node_type_id", -1),
        group_ids=group_ids,
        groups=groups or {"0": {key: Dataset(values) for key, values in more.items()}},
        ids=ids[order],
    )
    virtual = all(p.type == "input" for p in parts)
    return NodesBack(
        population=population,
        types=_types(known, "node_type_id"),
        parts=tuple(p.name for p in parts),
        part=part[order],
        ids_of={p.name: p.attributes["node_id"] for p in parts},
        file=known["file"],
        types_file=known["types_file"],
        kind="virtual" if virtual else "point_neuron",
    )


def _own_columns(parts: list[graph.Population], order: NDArray[np.intp]) -> dict[str, NDArray]:
    """Names, positions and biases of all parts, where every part has them."""
    found: dict[str, NDArray] = {}
    if all(p.names is not None for p in parts):
        found["name"] = np.concatenate([np.array(p.names, dtype=np.str_) for p in parts])[order]
    positions = [p.positions for p in parts if p.positions is not None]
    if len(positions) == len(parts) and len({each.shape[1] for each in positions}) == 1:
        joined = np.concatenate(positions)[order]
        found |= {axis: joined[:, i] for i, axis in enumerate(AXES[: joined.shape[1]])}
    if any(p.bias is not None for p in parts):
        biases = [np.zeros(p.size) if p.bias is None else np.asarray(p.bias, dtype=np.float64) for p in parts]
        found["bias"] = np.concatenate(biases)[order]
    return found


def _says_more(key: str, values: NDArray) -> bool:
    """Whether something that the files did not have is worth writing: a bias only where it is not zero."""
    return key != "bias" or bool(values.any())


def _types(known: Mapping[str, Any], key: str) -> TypeTable | None:
    return (
        None
        if known["types"] is None
        else TypeTable.of_plain(Path(str(known["types_file"])), key, known["types"])
    )


def edges_back(
    circuit: Circuit, origin: Mapping[str, Any], nodes: Mapping[str, NodesBack]
) -> dict[str, EdgesBack]:
    """The edge populations of the SONATA files, from the projections that are still there."""
    place = {part: each for each in nodes.values() for part in each.parts}
    found = {}
    for name, known in origin["edges"].items():
        projections = [
            circuit.projections[key]
            for key in known["projections"]
            if key in circuit.projections and _came_from(circuit.projections[key], known, place)
        ]
        if (projections or not known["projections"]) and {known["source"], known["target"]} <= nodes.keys():
            found[name] = _edges(name, known, projections, circuit, nodes)
    return found


def _came_from(
    projection: graph.Projection, known: Mapping[str, Any], place: Mapping[str, NodesBack]
) -> bool:
    ends = [place.get(end) for end in (projection.source, projection.target)]
    if any(end is None for end in ends) or "edge_row" not in projection.edges.attributes:
        return False
    return [end.population.name for end in ends if end is not None] == [known["source"], known["target"]]


@dataclass
class _Rows:
    """Rows of one projection's part of an edge population."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    weight: NDArray[np.floating]
    count: NDArray[np.int64]
    attributes: Mapping[str, NDArray]
    inhibitory: NDArray[np.bool_]
    delay: float


def _rows(
    projection: graph.Projection, circuit: Circuit, nodes: Mapping[str, NodesBack], known: Any
) -> _Rows:
    edges, rows = projection.edges, projection.edges.rows
    owner, pick = (edges, slice(None)) if rows is None else (rows, rows.edge)
    source, target = edges.source[pick], edges.target[pick]
    sender = circuit.populations[projection.source]
    return _Rows(
        source=nodes[known["source"]].ids_of[projection.source][source],
        target=nodes[known["target"]].ids_of[projection.target][target],
        weight=row_weights(edges),
        count=np.asarray(owner.multiplicity, dtype=np.int64),
        attributes=owner.attributes,
        inhibitory=(_signs(sender.attributes, sender.size) < 0)[source],
        delay=float(projection.delay_ms),
    )


def _edges(
    name: str,
    known: Mapping[str, Any],
    projections: list[graph.Projection],
    circuit: Circuit,
    nodes: Mapping[str, NodesBack],
) -> EdgesBack:
    types = _types(known, "edge_type_id")
    parts = [_rows(projection, circuit, nodes, known) for projection in projections]
    order = np.argsort(_joined([part.attributes["edge_row"] for part in parts]), kind="stable")

    def whole(attribute: str, default: int | None = None) -> NDArray:
        values = [
            part.attributes[attribute]
            if default is None
            else part.attributes.get(attribute, np.full(len(part.weight), default))
            for part in parts
        ]
        return _joined(values)[order]

    weight, count = (_joined([getattr(part, key) for part in parts])[order] for key in ("weight", "count"))
    flip = _joined([part.inhibitory for part in parts]).astype(bool)[order] & bool(known["flip"])
    type_ids = whole("edge_type_id", -1).astype(np.int64)
    first = int(next(iter(known["groups"]), "0"))
    group_ids = whole("edge_group_id", first).astype(np.int64)
    if parts and all("synapse_weight" in part.attributes for part in parts):
        before = whole("synapse_weight").astype(np.float64)
    else:
        before = _of_types(types, "syn_weight", type_ids, 1.0)
    same = weight == weight_of(before, count, flip, known["scale"])
    synapse = np.where(same, before, synapse_of(weight, count, flip, known["scale"]))
    groups: dict[str, dict[str, Dataset]] = {}
    for group, columns in known["groups"].items():
        groups[group] = {}
        for dataset, kind in columns.items():
            place = kind["as"]
            if dataset == "syn_weight":
                values = synapse
            elif dataset == "nsyns":
                values = count
            elif all(place in part.attributes for part in parts):
                values = whole(place)
            else:
                continue
            groups[group][dataset] = Dataset(values, plain_column(kind))
        if "syn_weight" not in groups[group] and not same[group_ids == int(group)].all():
            groups[group]["syn_weight"] = Dataset(synapse)
    _put_delays(groups, parts, projections, types, type_ids, order, whole)
    _put_more(groups, parts, known, whole)
    ends = {
        end: (known[end], _joined([getattr(part, end) for part in parts])[order].astype(np.int64))
        for end in ("source", "target")
    }
    sizes = {}
    for end in ("source", "target"):
        ids = nodes[known[end]].population.ids
        assert ids is not None
        sizes[end] = int(ids.max()) + 1
    population = Population(
        kind="edge",
        name=name,
        type_ids=type_ids,
        group_ids=group_ids,
        groups=groups or {"0": {}},
        ends=ends,
        nodes=sizes,
    )
    row_of = np.empty(len(order), dtype=np.int64)
    row_of[order] = np.arange(len(order))
    begins = np.cumsum([0, *(len(part.weight) for part in parts)])
    rows_of = {
        p.name: row_of[begins[i] : begins[i + 1]] if p.edges.rows is None else None
        for i, p in enumerate(projections)
    }
    return EdgesBack(
        population,
        types,
        tuple(p.name for p in projections),
        known["file"],
        known["types_file"],
        rows_of,
    )


def _joined(parts: list[NDArray]) -> NDArray:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def _of_types(
    types: TypeTable | None, name: str, ids: NDArray[np.int64], default: float
) -> NDArray[np.float64]:
    """A number of each row's type, the default where the table has none."""
    if types is None or name not in types.columns or not ids.size:
        return np.full(len(ids), default)
    numbers = np.array([default if text == MISSING else float(text) for text in types.columns[name]])
    return numbers[types.rows(ids, "edge_type_id")]


def _put_delays(
    groups: dict[str, dict[str, Dataset]],
    parts: list[_Rows],
    projections: list[graph.Projection],
    types: TypeTable | None,
    type_ids: NDArray[np.int64],
    order: NDArray[np.intp],
    whole: Any,
) -> None:
    """Delays that the user changed since the import, into the groups; the type table stays as it was."""
    if not parts:
        return
    now = _joined([np.full(len(part.weight), part.delay) for part in parts])[order]
    if all("delay" in part.attributes for part in parts) and parts[0].attributes["delay"].dtype.kind in "iuf":
        before = whole("delay").astype(np.float64)
    else:
        before = _of_types(types, "delay", type_ids, 0.0)
    before = np.nan_to_num(before)
    owner = _joined([np.full(len(part.weight), number) for number, part in enumerate(parts)])[order]
    changed = np.zeros(len(now), dtype=bool)
    for number in range(len(projections)):
        members = owner == number
        uniform = np.unique(before[members])
        if len(uniform) == 1 or now[members].any():
            changed[members] = now[members] != before[members]
    if changed.any():
        values = np.where(changed, now, before)
        for columns in groups.values():
            columns["delay"] = Dataset(values)


def _put_more(
    groups: dict[str, dict[str, Dataset]], parts: list[_Rows], known: Mapping[str, Any], whole: Any
) -> None:
    """Attributes that the user added since the import."""
    placed = {kind["as"] for columns in known["groups"].values() for kind in columns.values()}
    own = {"edge_row", "edge_type_id", "edge_group_id", "synapse_weight", "delay"}
    names = [key for key in (parts[0].attributes if parts else ()) if key not in placed | own | EDGE_NAMES]
    for key in names:
        if all(key in part.attributes for part in parts):
            for columns in groups.values():
                columns[key] = Dataset(whole(key))
