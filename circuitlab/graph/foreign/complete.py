"""Graphs of other programs, completed to what a circuit needs: populations, types, names, whole columns."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import networkx as nx

from circuitlab.errors import FormatError, suggestion
from circuitlab.graph.exchange import EDGE_KEYS, NODE_KEYS, TYPES, is_point
from circuitlab.graph.foreign.options import Options, check_asked, safe_name

NEURONS = "neurons"
"""The population of nodes that do not say one."""
AXES, ENDS = ("x", "y", "z"), ("source", "target", "pre", "post")
FIELDS = ("site", "carries", "plastic", "kind", "delay_ms")


def complete(
    graph: nx.Graph, path: Path, options: Options
) -> tuple[nx.MultiDiGraph | nx.MultiGraph, list[str]]:
    """A copy of a graph whose nodes have a population and a type, and whose columns are whole.

    Nodes without `population` are the population `neurons`; `split` parts it by a column. Nodes without `type` are
    units, or what the user asks. The name of a neuron is its `name`, else its node's, unless nodes are counted from 0.
    Numbers that some nodes or edges lack are nan, texts empty. Parallel edges stay single rows of one projection.

    Raises:
        FormatError: populations on some nodes only, edges onto inputs, weights on some edges only.
    """
    notes: list[str] = []
    if not graph.number_of_nodes():
        raise FormatError(f"{path}: the graph has no nodes")
    nodes = {node: dict(data) for node, data in graph.nodes(data=True)}
    _name_populations(nodes, path, options)
    _name_types(nodes, path, options, notes)
    _name_neurons(nodes)
    for members in _grouped(nodes, lambda data: data["population"]).values():
        _name_places(members)
    _fill(_grouped(nodes, lambda data: data["population"]), NODE_KEYS, str(path))
    made = nx.MultiDiGraph(**graph.graph) if graph.is_directed() else nx.MultiGraph(**graph.graph)
    made.add_nodes_from(nodes.items())
    edges = _edges(graph, nodes, path)
    inputs = {data["population"] for data in nodes.values() if data["type"] == "input"}
    for source, target, data in edges:
        reached = [target] if graph.is_directed() else [source, target]
        for end in reached:
            if nodes[end]["population"] in inputs:
                raise FormatError(
                    f"{path}: the edge {source!r} - {target!r} ends in the input '{nodes[end]['population']}'; "
                    "inputs are clamped"
                )
        made.add_edge(source, target, **data)
    if not graph.is_directed():
        notes.append("the graph is undirected: every edge became a synapse in each direction")
    return made, notes


def _name_populations(nodes: Mapping[Hashable, dict[str, Any]], path: Path, options: Options) -> None:
    with_population = [node for node, data in nodes.items() if "population" in data]
    if with_population and len(with_population) < len(nodes):
        lacking = next(node for node, data in nodes.items() if "population" not in data)
        raise FormatError(
            f"{path}: node {lacking!r} has no 'population', but others do; every node says one, or none"
        )
    names: dict[str, str] = {}
    for data in nodes.values():
        name = str(data.get("population", NEURONS))
        if name not in names:
            names[name] = safe_name(name, names.values())
        data["population"] = names[name]
    check_asked("--split", options.split, names.values(), str(path))
    for population, column in options.split.items():
        members = [data for data in nodes.values() if data["population"] == population]
        found = {key for data in members for key in data} - {"population"}
        if column not in found:
            raise FormatError(
                f"{path}: no attribute '{column}' to split '{population}' by; there are "
                f"{', '.join(sorted(found)) or 'none'}.{suggestion(column, found)}"
            )
        labels: dict[str, str] = {}
        for data in members:
            value = str(data.get(column, "none")) or "none"
            if value not in labels:
                labels[value] = safe_name(f"{population}_{value}", labels.values())
            data["population"] = labels[value]


def _name_types(
    nodes: Mapping[Hashable, dict[str, Any]], path: Path, options: Options, notes: list[str]
) -> None:
    foreign = {str(data["type"]) for data in nodes.values() if "type" in data} - set(TYPES)
    if foreign:
        for data in nodes.values():
            if "type" in data:
                data["node_type"] = data.pop("type")
        notes.append(
            f"the nodes' 'type' ({', '.join(sorted(foreign)[:3])}) is none of circuitlab's; it is kept as 'node_type'"
        )
    populations = {data["population"] for data in nodes.values()}
    whole = {
        name: population for population in populations for name in (population, *_before(population, options))
    }
    check_asked("--type", options.types, whole, str(path))
    for name, kind in options.types.items():
        if kind not in TYPES:
            raise FormatError(
                f"--type: no type '{kind}'; allowed: {', '.join(TYPES)}.{suggestion(kind, TYPES)}"
            )
        for data in nodes.values():
            if data["population"] == name or name in _before(data["population"], options):
                data["type"] = kind
    for data in nodes.values():
        data.setdefault("type", "unit")


def _before(population: str, options: Options) -> list[str]:
    """The population that was split into this one."""
    return [name for name in options.split if population.startswith(f"{name}_")]


def _name_neurons(nodes: Mapping[Hashable, dict[str, Any]]) -> None:
    counted = [str(node) for node in nodes] == [str(number) for number in range(len(nodes))]
    for members in _grouped(nodes, lambda data: data["population"]).values():
        names = [data.get("name") for data in members]
        usable = all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names)
        if usable:
            continue
        for data in members:
            if "name" in data:
                data["label"] = str(data.pop("name"))
    if counted:
        return
    for node, data in nodes.items():
        data.setdefault("name", str(node))


def _name_places(members: list[dict[str, Any]]) -> None:
    """Positions of a population's neurons from `pos`, or from x, y and z where all have them as finite numbers."""
    if all("position" not in data and is_point(data.get("pos")) for data in members):
        for data in members:
            data["position"] = tuple(data.pop("pos"))
    axes = []
    for axis in AXES:
        values = [data.get(axis) for data in members]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            break
        axes.append(axis)
    if axes and not any("position" in data for data in members):
        for data in members:
            data["position"] = tuple(float(data.pop(axis)) for axis in axes)
    for data in members:
        for axis in AXES:
            if axis in data:
                data[f"{axis}_attribute"] = data.pop(axis)


def _grouped(nodes: Mapping[Hashable, dict[str, Any]], key: Any) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for data in nodes.values():
        groups.setdefault(key(data), []).append(data)
    return groups


def _fill(groups: Mapping[str, list[dict[str, Any]]], own: frozenset[str], where: str) -> None:
    """Give every member of a group every attribute of the group, and one kind of value for each."""
    for name, members in groups.items():
        for key in {key: None for data in members for key in data}:
            if key in own:
                continue
            values = [data[key] for data in members if key in data]
            kinds = {type(value) for value in values}
            if not kinds <= {bool, int, float, str}:
                odd = next(value for value in values if type(value) not in (bool, int, float, str))
                raise FormatError(
                    f"{where}: '{name}': '{key}' is {odd!r}; attributes are numbers, truth values or text"
                )
            text = str in kinds or (bool in kinds and (len(kinds) > 1 or len(values) < len(members)))
            for data in members:
                if text:
                    data[key] = str(data.get(key, ""))
                elif kinds != {bool} and (len(values) < len(members) or float in kinds):
                    data[key] = float(data.get(key, "nan"))


def _edges(
    graph: nx.Graph, nodes: Mapping[Hashable, Mapping[str, Any]], path: Path
) -> list[tuple[Any, Any, dict[str, Any]]]:
    """Edges with whole columns; text keys of multigraphs are ids, unless every edge says its projection."""
    edges = [(source, target, dict(data)) for source, target, data in graph.edges(data=True)]
    groups: dict[str, list[dict[str, Any]]] = {}
    for source, target, data in edges:
        data.pop("id", None)
        for key in ENDS:
            if key in data:
                data[f"{key}_attribute"] = data.pop(key)
        between = f"{nodes[source]['population']}_{nodes[target]['population']}"
        name = safe_name(str(data.get("projection", between)))
        if graph.is_directed() or "projection" in data:
            data["projection"] = name
        groups.setdefault(name, []).append(data)
    for name, members in groups.items():
        for key in ("weight", "multiplicity", *FIELDS):
            having = sum(key in data for data in members)
            if 0 < having < len(members):
                raise FormatError(
                    f"{path}: projection '{name}': {having} of {len(members)} edges have '{key}', others not"
                )
    _fill(groups, EDGE_KEYS, str(path))
    return edges
