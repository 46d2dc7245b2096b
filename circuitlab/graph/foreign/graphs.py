"""Circuits as GraphML and node-link JSON, and from them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import networkx as nx

from circuitlab.errors import CircuitError, FormatError
from circuitlab.graph.circuit import Circuit
from circuitlab.graph.exchange import from_networkx, header, to_networkx
from circuitlab.graph.foreign.complete import complete
from circuitlab.graph.foreign.header import FORMAT, VERSION, decode, encode
from circuitlab.graph.foreign.options import Imported, Options, refuse_split, stem
from circuitlab.graph.formats import read_graphml
from circuitlab.graph.tables import read_json

GRAPHML, JSON = "circuit.graphml", "circuit.json"
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\ufffe\uffff\ud800-\udfff]")
"""Characters that XML cannot hold, or not give back."""
AXES = ("x", "y", "z")


def write_graphml(circuit: Circuit, folder: Path) -> None:
    """Write circuit.graphml: neurons and edges for any program, and all else as JSON in the attribute `circuitlab`.

    Raises:
        FormatError: text with characters that XML cannot hold.
    """
    whole = to_networkx(circuit)
    graph = nx.MultiDiGraph(name=_text(circuit.name, "circuit"), circuitlab=json.dumps(_head(circuit)))
    for node, data in whole.nodes(data=True):
        graph.add_node(_text(node, "populations"), **_flat(data, node))
    for number, (source, target, key, data) in enumerate(whole.edges(keys=True, data=True)):
        graph.add_edge(
            source, target, key=f"e{number}", projection=_text(key, "projections"), **_flat(data, key)
        )
    nx.write_graphml_xml(graph, folder / GRAPHML)


def _head(circuit: Circuit) -> dict[str, Any]:
    origin = {} if circuit.origin is None else {"origin": dict(circuit.origin)}
    return encode({"format": FORMAT, "version": VERSION, **header(circuit), **origin})


def _text(text: str, where: str) -> str:
    if FORBIDDEN.search(text):
        raise FormatError(
            f"{where}: the text {text!r} has characters that XML cannot hold; export to json instead"
        )
    return text


def _flat(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Attributes as GraphML has them: numbers, truth values and text; a position as x, y, z."""
    found = {key: _text(value, where) if isinstance(value, str) else value for key, value in data.items()}
    position = found.pop("position", None)
    for axis, value in zip(AXES, position or (), strict=False):
        found[f"{axis}_attribute" if axis in found else axis] = value
    return {_text(key, where): value for key, value in found.items()}


def write_json(circuit: Circuit, folder: Path) -> None:
    """Write circuit.json, networkx's node-link form; what JSON cannot hold is marked and comes back the same."""
    graph = to_networkx(circuit)
    data = {
        "directed": True,
        "multigraph": True,
        "graph": {"name": circuit.name, "circuitlab": _head(circuit)},
        "nodes": [{**encode(data), "id": node} for node, data in graph.nodes(data=True)],
        "edges": [
            {**encode(data), "source": source, "target": target, "key": key}
            for source, target, key, data in graph.edges(keys=True, data=True)
        ],
    }
    (folder / JSON).write_text(json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_graph(path: Path, options: Options) -> Imported:
    """A circuit from a GraphML file or node-link JSON, of circuitlab or of any other program.

    Raises:
        FormatError: one line: file, line or entry, what is wrong, what is allowed.
    """
    graph = _node_link(path) if path.suffix == ".json" else read_graphml(path)
    return circuit_of(graph, path, options, "node-link JSON" if path.suffix == ".json" else "GraphML")


def circuit_of(graph: nx.Graph, path: Path, options: Options, what: str) -> Imported:
    """A circuit from a graph that was read from a file."""
    said = graph.graph.pop("circuitlab", None)
    notes: list[str] = []
    if said is not None:
        refuse_split(path, options)
        graph = _restored(graph, path, said)
    else:
        graph.graph.setdefault("name", stem(path))
        graph, notes = complete(graph, path, options)
    try:
        circuit = from_networkx(graph)
    except CircuitError as error:
        raise FormatError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if said is None:
            raise
        raise FormatError(f"{path}: what circuitlab wrote in it is damaged: {error!r}") from error
    return Imported(circuit, tuple(notes), what)


def _restored(graph: nx.Graph, path: Path, said: Any) -> nx.MultiDiGraph:
    """The graph that `to_networkx` made, from the flat one and the data that circuitlab wrote with it."""
    try:
        head = decode(json.loads(said) if isinstance(said, str) else said)
        if head["format"] != FORMAT or not isinstance(head["version"], int):
            raise FormatError(f"{path}: the graph's attribute 'circuitlab' was not written by circuitlab")
        if head["version"] > VERSION:
            raise FormatError(f"{path}: has version {head['version']}; this circuitlab reads up to {VERSION}")
        known = head["populations"]
        whole = nx.MultiDiGraph(
            **{key: value for key, value in head.items() if key not in ("format", "version")}
        )
        for node, data in graph.nodes(data=True):
            data = dict(data)
            attributes = known[data["population"]]["attributes"] if data.get("population") in known else {}
            axes = [axis if axis not in attributes else f"{axis}_attribute" for axis in AXES]
            if "position" not in data and axes[0] in data:
                data["position"] = tuple(data.pop(axis) for axis in axes if axis in data)
            whole.add_node(node, **_finite(data))
        for source, target, key, data in nx.MultiDiGraph(graph).edges(keys=True, data=True):
            data = {name: value for name, value in data.items() if name != "id"}
            whole.add_edge(source, target, key=data.pop("projection", key), **_finite(data))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: what circuitlab wrote in it is damaged: {error!r}") from error
    return whole


def _finite(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: decode(value) for key, value in data.items()}


def _node_link(path: Path) -> nx.Graph:
    """A graph from node-link JSON; nodes and links are checked one by one."""
    data = read_json(path)
    links = data.get("links", data.get("edges"))
    nodes = data.get("nodes")
    if not isinstance(nodes, list) or not isinstance(links, list):
        keys = ", ".join(list(data)[:8]) or "none"
        raise FormatError(
            f"{path}: is not node-link JSON: it needs the lists 'nodes' and 'edges' (or 'links'); its keys are {keys}"
        )
    for key in ("directed", "multigraph"):
        if not isinstance(data.get(key, False), bool):
            raise FormatError(f"{path}: {key}: is {data[key]!r}; allowed: true, false")
    head = data.get("graph", {})
    if not isinstance(head, dict):
        raise FormatError(f"{path}: graph: is not an object")
    graph = nx.MultiDiGraph(**head) if data.get("directed", False) else nx.MultiGraph(**head)
    for number, node in enumerate(nodes):
        where = f"{path}: nodes[{number}]"
        if not isinstance(node, dict) or "id" not in node:
            raise FormatError(f"{where}: is not an object with an 'id'")
        name = _plain_id(node["id"], where)
        if name in graph:
            raise FormatError(f"{where}: the id {name!r} stands twice; ids differ")
        graph.add_node(name, **_values({key: value for key, value in node.items() if key != "id"}, where))
    for number, link in enumerate(links):
        where = f"{path}: {'links' if 'links' in data else 'edges'}[{number}]"
        if not isinstance(link, dict) or not {"source", "target"} <= link.keys():
            raise FormatError(f"{where}: is not an object with 'source' and 'target'")
        ends = [_plain_id(link[end], where) for end in ("source", "target")]
        for end in ends:
            if end not in graph:
                raise FormatError(f"{where}: no node has the id {end!r}")
        rest = {key: value for key, value in link.items() if key not in ("source", "target", "key")}
        graph.add_edge(
            *ends, key=link.get("key") if isinstance(link.get("key"), str) else None, **_values(rest, where)
        )
    return graph


def _plain_id(value: Any, where: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise FormatError(
            f"{where}: the id {value!r} is no text or number; edges join two nodes (no hypergraphs)"
        )
    return value


def _values(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Attributes of a node or edge; numbers that are not finite are left to the column's check."""
    marked = {"__float__"}
    for key, value in data.items():
        if key in ("position", "pos") and (
            isinstance(value, list) or (isinstance(value, dict) and "__tuple__" in value)
        ):
            continue
        if isinstance(value, list | dict) and not (isinstance(value, dict) and value.keys() == marked):
            raise FormatError(f"{where}: '{key}' is {value!r}; attributes are numbers, truth values or text")
        if key == "weight" and isinstance(value, float) and not math.isfinite(value):
            raise FormatError(f"{where}: the weight is {value}; weights are finite numbers")
    return dict(data)
