"""A circuit as a networkx graph, and a circuit from any networkx graph that says enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, get_args

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import CircuitError, suggestion
from circuitlab.graph.circuit import Circuit, Noise, Population, Projection
from circuitlab.graph.edges import Edges, coalesce
from circuitlab.graph.junctions import check_junctions
from circuitlab.graph.weights import check_weights
from circuitlab.spec.populations import PopulationType

TYPES: tuple[str, ...] = get_args(PopulationType)
POPULATION_FIELDS = (
    *(
        "type",
        "size",
        "shape",
        "activation",
        "gain",
        "threshold",
        "tau_ms",
        "sign",
        "controlled",
        "bias_plastic",
        "layer",
    ),
)
PROJECTION_FIELDS = (
    *("source", "target", "site", "carries", "plastic", "kernel", "geometry", "rank", "kind", "delay_ms"),
)


NODE_KEYS = frozenset({"population", "index", "type", "name", "position", "bias", "sign"})
EDGE_KEYS = frozenset(
    {
        *("weight", "multiplicity", "parameter_index", "site", "carries", "plastic", "projection", "key"),
        *("kind", "delay_ms"),
    }
)


def _key(name: str, taken: frozenset[str]) -> str:
    """Name of a user's attribute in the graph, apart from those that circuits give a meaning."""
    return f"{name}_attribute" if name in taken else name


def to_networkx(circuit: Circuit) -> nx.MultiDiGraph:
    """One node a neuron, one edge a unique pair of each projection; see `Circuit.to_networkx`."""
    graph = nx.MultiDiGraph(
        name=circuit.name,
        description=circuit.description,
        seed=circuit.seed,
        populations={
            name: {
                **{key: getattr(p, key) for key in POPULATION_FIELDS},
                "noise": None if p.noise is None else asdict(p.noise),
                "attributes": tuple(p.attributes),
            }
            for name, p in circuit.populations.items()
        },
        projections={
            name: {
                **{key: getattr(p, key) for key in PROJECTION_FIELDS},
                "parameters": None if p.edges.parameters is None else p.edges.parameters.copy(),
                "attributes": {key: array.dtype.str for key, array in p.edges.attributes.items()},
            }
            for name, p in circuit.projections.items()
        },
    )
    for name, p in circuit.populations.items():
        for index in range(p.size):
            data: dict[str, Any] = {
                _key(key, NODE_KEYS): array[index].item() for key, array in p.attributes.items()
            }
            data |= {"population": name, "index": index, "type": p.type}
            if p.names is not None:
                data["name"] = p.names[index]
            if p.positions is not None:
                data["position"] = tuple(p.positions[index].tolist())
            if p.bias is not None:
                data["bias"] = float(p.bias[index])
            graph.add_node(f"{name}/{index}", **data)
    for name, p in circuit.projections.items():
        e = p.edges
        common: dict[str, Any] = {"site": p.site, "carries": p.carries, "plastic": p.plastic}
        common |= {"kind": p.kind} if p.kind != "chemical" else {}
        common |= {"delay_ms": p.delay_ms} if p.delay_ms else {}
        columns = {_key(key, EDGE_KEYS): array.tolist() for key, array in e.attributes.items()}
        columns |= {"weight": e.weight.tolist(), "multiplicity": e.multiplicity.tolist()}
        if e.parameter_index is not None:
            columns["parameter_index"] = e.parameter_index.tolist()
        rows = zip(e.source.tolist(), e.target.tolist(), *columns.values(), strict=True)
        for i, j, *values in rows:
            graph.add_edge(
                f"{p.source}/{i}",
                f"{p.target}/{j}",
                key=name,
                **common,
                **dict(zip(columns, values, strict=True)),
            )
    return graph


def from_networkx(graph: nx.Graph) -> Circuit:
    """A circuit from `to_networkx`, or from another graph whose nodes have `population` and `type`.

    Of another graph: neurons are numbered by `index`, else in the order of the nodes; `name`, `position`,
    `bias` and `sign` are read where every neuron of a population has them. An edge's text key, or its
    attribute `projection`, is its projection; edges without one are grouped by their two populations into
    `source_target`. The weight is 1 unless given. An undirected edge is one synapse in each direction.

    Raises:
        CircuitError: names the node or edge that lacks something or contradicts another.
    """
    known_populations = graph.graph.get("populations", {})
    known_projections = graph.graph.get("projections", {})
    members: dict[str, list[Any]] = {name: [] for name in known_populations}
    for node, data in graph.nodes(data=True):
        for key in ("population", "type"):
            if key not in data:
                raise CircuitError(
                    f"node {node!r} has no '{key}'; every neuron needs the attributes 'population' and 'type'"
                )
        members.setdefault(str(data["population"]), []).append(node)
    if not members:
        raise CircuitError("the graph has no nodes")
    populations, place = {}, {}
    for name, nodes in members.items():
        ordered = _ordered(graph, name, nodes)
        place.update({node: (name, index) for index, node in enumerate(ordered)})
        populations[name] = _population(
            name, [graph.nodes[node] for node in ordered], known_populations.get(name)
        )
    projections = _projections(graph, place, populations, known_projections)
    return Circuit(
        name=str(graph.graph.get("name") or "graph"),
        description=str(graph.graph.get("description", "")),
        seed=int(graph.graph.get("seed", 0)),
        populations=populations,
        projections=projections,
    )


def _ordered(graph: nx.Graph, name: str, nodes: list[Any]) -> list[Any]:
    """The nodes of a population by their `index`, which counts from 0, or as they come."""
    found = [graph.nodes[node].get("index") for node in nodes]
    if all(index is None for index in found):
        return nodes
    at = {index: node for index, node in zip(found, nodes, strict=True) if isinstance(index, int)}
    if at.keys() != set(range(len(nodes))):
        raise CircuitError(
            f"population '{name}': 'index' must count its {len(nodes)} nodes from 0, each once"
        )
    return [at[index] for index in range(len(nodes))]


def _population(name: str, nodes: list[Mapping[str, Any]], known: Mapping[str, Any] | None) -> Population:
    kinds = {str(node["type"]) for node in nodes} or {str((known or {}).get("type"))}
    kind = min(kinds)
    if len(kinds) > 1:
        raise CircuitError(f"population '{name}' has neurons of several types: {', '.join(sorted(kinds))}")
    if kind not in TYPES:
        near = suggestion(kind, TYPES)
        raise CircuitError(f"population '{name}' has the type '{kind}'; there are {', '.join(TYPES)}.{near}")
    names, positions, bias = (_every(name, nodes, key) for key in ("name", "position", "bias"))
    activation = "linear" if kind in ("input", "output") else "tanh"
    fields: dict[str, Any] = {"activation": activation, "controlled": kind != "input"}
    if known is not None:
        fields = {
            key: known[key] for key in POPULATION_FIELDS if key in known and key not in ("type", "size")
        }
        fields["noise"] = Noise(**known["noise"]) if known.get("noise") else None
        attributes = known["attributes"]
    else:
        signs = set(_every(name, nodes, "sign") or [None])
        if len(signs) > 1 or not signs <= {None, "excitatory", "inhibitory"}:
            found = ", ".join(sorted(map(str, signs)))
            raise CircuitError(f"population '{name}' has the sign {found}; it is excitatory or inhibitory")
        fields["sign"] = signs.pop()
        first = nodes[0] if nodes else {}
        attributes = [key for key in first if key not in NODE_KEYS and all(key in node for node in nodes)]
    return Population(
        name=name,
        type=kind,
        size=len(nodes),
        names=None if names is None else tuple(map(str, names)),
        positions=None if positions is None else _numbers(f"population '{name}': position", positions, 2),
        bias=None if bias is None else _numbers(f"population '{name}': bias", bias, 1),
        attributes={key: np.array([node[_key(key, NODE_KEYS)] for node in nodes]) for key in attributes},
        **fields,
    )


def _every(population: str, nodes: list[Mapping[str, Any]], key: str) -> list[Any] | None:
    """An attribute of every neuron of a population, None where none has it."""
    found = [node[key] for node in nodes if key in node]
    if found and len(found) < len(nodes):
        raise CircuitError(
            f"population '{population}': only {len(found)} of {len(nodes)} neurons have '{key}'"
        )
    return found or None


def _numbers(what: str, values: list[Any], dimensions: int) -> NDArray[np.float64]:
    try:
        array = np.array(values, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise CircuitError(f"{what} is not a number for each neuron: {error}") from error
    if array.ndim != dimensions or not np.isfinite(array).all():
        raise CircuitError(f"{what} must be finite numbers, as many for each neuron")
    return array


def _projections(
    graph: nx.Graph,
    place: Mapping[Any, tuple[str, int]],
    populations: Mapping[str, Population],
    known: Mapping[str, Any],
) -> dict[str, Projection]:
    edges = [(a, b, "", data) for a, b, data in graph.edges(data=True)]
    if isinstance(graph, nx.MultiGraph | nx.MultiDiGraph):
        edges = [(a, b, key, data) for a, b, key, data in graph.edges(keys=True, data=True)]
    if not graph.is_directed():
        edges += [(b, a, key, data) for a, b, key, data in edges if a != b]
    groups: dict[str, list[tuple[Any, Any, Mapping[str, Any]]]] = {name: [] for name in known}
    for a, b, key, data in edges:
        between = f"{place[a][0]}_{place[b][0]}"
        name = key if isinstance(key, str) and key else str(data.get("projection", between))
        groups.setdefault(name, []).append((a, b, data))
    return {
        name: _projection(name, group, place, populations, known.get(name)) for name, group in groups.items()
    }


def _projection(
    name: str,
    group: list[tuple[Any, Any, Mapping[str, Any]]],
    place: Mapping[Any, tuple[str, int]],
    populations: Mapping[str, Population],
    known: Mapping[str, Any] | None,
) -> Projection:
    if known is None:
        pairs = {(place[a][0], place[b][0]) for a, b, _ in group}
        if len(pairs) > 1:
            joined = ", ".join(f"{a} to {b}" for a, b in sorted(pairs))
            raise CircuitError(
                f"projection '{name}' joins several pairs of populations: {joined}; it needs one"
            )
        source, target = pairs.pop()
        fields: dict[str, Any] = {"source": source, "target": target, "kernel": "auto", "geometry": None}
        for key in ("kind", "site", "carries", "plastic", "delay_ms"):
            default = _default(key, fields.get("kind"), populations[target].type)
            values = {data.get(key, default) for _, _, data in group}
            if len(values) > 1:
                raise CircuitError(
                    f"projection '{name}' has edges with different '{key}': {sorted(map(str, values))}"
                )
            fields[key] = values.pop()
    else:
        fields = {key: known[key] for key in PROJECTION_FIELDS if key in known}
    if populations[fields["target"]].type == "input":
        raise CircuitError(f"projection '{name}' reaches the input '{fields['target']}'; inputs are clamped")
    source, target = populations[fields["source"]], populations[fields["target"]]
    made = Projection(name=name, edges=_edges(name, group, place, known), **fields)
    if made.kind not in ("chemical", "electrical"):
        raise CircuitError(
            f"projection '{name}' is of the kind '{made.kind}'; there are chemical, electrical"
        )
    if made.kind == "electrical":
        check_weights(replace(source, sign=None), target, made.edges, made.edges.weight)
        try:
            check_junctions(made, source, target)
        except CircuitError as error:
            raise CircuitError(f"projection '{name}': {error}") from error
    else:
        check_weights(source, target, made.edges, made.edges.weight)
    return made


def _default(key: str, kind: Any, target: str) -> Any:
    """What an edge without a key has, of this kind and onto neurons of this type."""
    junction = kind == "electrical"
    site = "basal" if target == "pyramidal" and not junction else "soma"
    return {"kind": "chemical", "site": site, "carries": "rate", "plastic": not junction, "delay_ms": 0.0}[
        key
    ]


def _edges(
    name: str,
    group: list[tuple[Any, Any, Mapping[str, Any]]],
    place: Mapping[Any, tuple[str, int]],
    known: Mapping[str, Any] | None,
) -> Edges:
    data = [attributes for _, _, attributes in group]
    parameters = None if known is None else known["parameters"]
    columns = {} if known is None else known["attributes"]
    try:
        return coalesce(
            np.array([place[a][1] for a, _, _ in group], dtype=np.int32),
            np.array([place[b][1] for _, b, _ in group], dtype=np.int32),
            np.array([d.get("weight", 1.0) for d in data], dtype=np.float64),
            np.array([d.get("multiplicity", 1) for d in data], dtype=np.int32),
            {k: np.array([d[_key(k, EDGE_KEYS)] for d in data], dtype=kind) for k, kind in columns.items()},
            None if parameters is None else np.array([d["parameter_index"] for d in data], dtype=np.int64),
            parameters,
        )
    except (ValueError, TypeError, KeyError) as error:
        raise CircuitError(
            f"projection '{name}': weight and multiplicity must be numbers on every edge: {error}"
        ) from error
