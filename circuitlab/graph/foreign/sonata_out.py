"""A circuit written as SONATA: node and edge populations with indices, type tables, circuit_config.json.

What came from SONATA goes back into its own populations, ids, groups and type tables; everything else becomes a
population of its own.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from circuitlab.errors import CircuitError, FormatError
from circuitlab.graph import circuit as graph
from circuitlab.graph.circuit import Circuit
from circuitlab.graph.foreign.header import circuit_data, write_header
from circuitlab.graph.foreign.sonata_back import EdgesBack, NodesBack, edges_back, nodes_back
from circuitlab.graph.foreign.sonata_in import HEADER
from circuitlab.graph.foreign.sonata_weights import row_weights
from circuitlab.graph.foreign.sonata_write import Dataset, Population, write_population
from circuitlab.graph.foreign.type_tables import MISSING, TypeTable

NETWORK = "network"


def write_sonata(circuit: Circuit, folder: Path) -> None:
    """Write a circuit as SONATA files into an empty folder.

    Raises:
        FormatError: an attribute or name that SONATA cannot hold.
    """
    (folder / NETWORK).mkdir()
    nodes = _nodes_back(circuit)
    edges = _edges_back(circuit, nodes)
    back = {part for each in nodes.values() for part in each.parts}
    back_edges = {name for each in edges.values() for name in each.projections}
    files = _Files(folder)
    data = circuit_data(circuit)
    data["parts"], data["own"] = {}, {"nodes": [], "edges": []}
    data["populations"] = {
        name: fields | {"has_bias": circuit.populations[name].bias is not None}
        for name, fields in data["populations"].items()
    }
    for name, each in nodes.items():
        _put_nodes(files, each)
        part = each.part.tolist() if len(each.parts) > 1 else []
        data["parts"][name] = {"populations": list(each.parts), "part": part}
    for number, population in enumerate(p for p in circuit.populations.values() if p.name not in back):
        if population.name in nodes:
            raise FormatError(f"two node populations would be called '{population.name}'; rename one")
        files.add("nodes", population.name, *_own_nodes(population, 100 + number), kind=_kind(population))
        data["parts"][population.name] = {"populations": [population.name], "part": []}
        data["own"]["nodes"].append(population.name)
    where = {
        part: (each.population.name, each.ids_of[part]) for each in nodes.values() for part in each.parts
    }
    sizes = {
        name: int(each.population.ids.max()) + 1
        for name, each in nodes.items()
        if each.population.ids is not None
    }
    sizes |= {p.name: p.size for p in circuit.populations.values() if p.name not in back}
    owner = {}
    for name, each in edges.items():
        files.add("edges", name, each.population, each.types, each.file, each.types_file)
        owner |= dict.fromkeys(each.projections, name)
    for number, projection in enumerate(p for p in circuit.projections.values() if p.name not in back_edges):
        if projection.name in edges:
            raise FormatError(f"two edge populations would be called '{projection.name}'; rename one")
        files.add("edges", projection.name, *_own_edges(projection, 100 + number, where, sizes))
        owner[projection.name] = projection.name
        data["own"]["edges"].append(projection.name)
    data["projections"] = {
        name: {key: value for key, value in fields.items() if key != "rows"}
        | {"edge_population": owner[name]}
        for name, fields in data["projections"].items()
    }
    write_header(folder / HEADER, data)
    files.write_config()


def _origin(circuit: Circuit) -> Mapping[str, Any] | None:
    """What is known of the SONATA files that a circuit came from, or None."""
    return circuit.origin if circuit.origin is not None and circuit.origin.get("format") == "sonata" else None


def _nodes_back(circuit: Circuit) -> dict[str, NodesBack]:
    origin = _origin(circuit)
    with _fits_origin():
        return {} if origin is None else nodes_back(circuit, origin)


def _edges_back(circuit: Circuit, nodes: Mapping[str, NodesBack]) -> dict[str, EdgesBack]:
    origin = _origin(circuit)
    with _fits_origin():
        return {} if origin is None else edges_back(circuit, origin, nodes)


@contextmanager
def _fits_origin() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CircuitError(
            f"origin: what is known of the SONATA files does not fit this circuit: {error!r}"
        ) from error


def node_places(circuit: Circuit) -> dict[str, tuple[str, np.ndarray | None]]:
    """Of every population: the node population that it is written into, and its node ids.

    Returns:
        Ids of shape [unit]; None where they are the neurons' own numbers.
    """
    back = {
        part: (each.population.name, each.ids_of[part].astype(np.int64))
        for each in _nodes_back(circuit).values()
        for part in each.parts
    }
    return {name: back.get(name, (name, None)) for name in circuit.populations}


def edge_places(circuit: Circuit) -> dict[str, tuple[str, np.ndarray | None]]:
    """Of every projection: the edge population that it is written into, and the edge id of each of its edges.

    Returns:
        Ids of shape [edge]; None where an edge stands for several rows of the file.
    """
    back = {
        name: (each.population.name, rows)
        for each in _edges_back(circuit, _nodes_back(circuit)).values()
        for name, rows in each.rows_of.items()
    }
    own = {
        name: (name, np.arange(len(p.edges), dtype=np.int64) if p.edges.rows is None else None)
        for name, p in circuit.projections.items()
        if name not in back
    }
    return back | own


def _put_nodes(files: _Files, each: NodesBack) -> None:
    files.add(
        "nodes", each.population.name, each.population, each.types, each.file, each.types_file, each.kind
    )


class _Files:
    """The files of a SONATA folder, and the config that names them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, dict[str, dict[str, Any]]] = {"nodes": {}, "edges": {}}
        self.tables: dict[str, TypeTable] = {}

    def add(
        self,
        what: str,
        name: str,
        population: Population,
        types: TypeTable | None,
        file: str | None = None,
        types_file: str | None = None,
        kind: str | None = None,
    ) -> None:
        """Write a population with its types, and note them for the config."""
        one = what[:-1]
        table = None
        if types is not None:
            table = next(
                each
                for each in self._names(types_file, f"{name}_{one}_types", ".csv")
                if each not in self.tables or self.tables[each].plain() == types.plain()
            )
            if table not in self.tables:
                types.write(self.folder / NETWORK / table)
                self.tables[table] = types
        entries = self.entries[what]
        others = self.entries["edges" if what == "nodes" else "nodes"]
        named = None if table is None else self._named(table)
        for path in self._names(file, f"{name}_{what}", ".h5"):
            if path not in others and (path not in entries or entries[path][f"{one}_types_file"] == named):
                break
        entry = entries.setdefault(
            path, {f"{what}_file": self._named(path), f"{one}_types_file": named, "populations": {}}
        )
        entry["populations"][name] = {"type": kind or "chemical"}
        write_population(self.folder / NETWORK / path, population)

    def _names(self, wanted: str | None, own: str, suffix: str) -> Iterator[str]:
        """Names of a file: the one it had, one of its own, and others while these are taken."""
        yield from [] if wanted is None else [wanted]
        yield f"{own}{suffix}"
        for number in itertools.count(2):
            yield f"{own}_{number}{suffix}"

    def _named(self, file: str) -> str:
        return f"$NETWORK_DIR/{file}"

    def write_config(self) -> None:
        """circuit_config.json, with every file and population."""
        networks = {what: list(entries.values()) for what, entries in self.entries.items()}
        config = {"version": 2, "manifest": {"$NETWORK_DIR": f"./{NETWORK}"}, "networks": networks}
        (self.folder / "circuit_config.json").write_text(
            json.dumps(config, indent=2) + "\n", encoding="utf-8"
        )


def _kind(population: graph.Population) -> str:
    return "virtual" if population.type == "input" else "point_neuron"


def _own_nodes(p: graph.Population, type_id: int) -> tuple[Population, TypeTable]:
    """A population of the circuit's own as SONATA nodes of one type."""
    columns: dict[str, Dataset] = {}
    if p.names is not None:
        columns["name"] = Dataset(np.array(p.names, dtype=np.str_))
    if p.positions is not None:
        columns |= {axis: Dataset(p.positions[:, i]) for i, axis in enumerate("xyz"[: p.positions.shape[1]])}
    if p.bias is not None:
        columns["bias"] = Dataset(np.asarray(p.bias, dtype=np.float64))
    for name, values in p.attributes.items():
        if name in columns or name in ("x", "y", "z", "name", "bias"):
            raise FormatError(
                f"populations.{p.name}: attribute '{name}' has a name of SONATA's own; rename it"
            )
        columns[name] = Dataset(values)
    nodes = Population(
        kind="node",
        name=p.name,
        type_ids=np.full(p.size, type_id, dtype=np.int64),
        group_ids=np.zeros(p.size, dtype=np.int64),
        groups={"0": columns},
        ids=np.arange(p.size, dtype=np.int64),
    )
    said = {
        "node_type_id": str(type_id),
        "model_type": _kind(p),
        "model_name": p.name,
        "ei": {"excitatory": "e", "inhibitory": "i"}.get(p.sign or "", MISSING),
        "type": p.type,
        "activation": p.activation,
        "tau": repr(float(p.tau_ms)),
    }
    return nodes, _table("node_type_id", said)


def _own_edges(
    p: graph.Projection,
    type_id: int,
    where: Mapping[str, tuple[str, np.ndarray]],
    sizes: Mapping[str, int],
) -> tuple[Population, TypeTable]:
    """A projection of the circuit's own as SONATA edges of one type; parallel rows of an edge file one by one."""
    edges, rows = p.edges, p.edges.rows
    pick = slice(None) if rows is None else rows.edge
    owner = edges if rows is None else rows
    count = len(owner)
    columns = {"syn_weight": Dataset(row_weights(edges))}
    if (np.asarray(owner.multiplicity) != 1).any():
        columns["multiplicity"] = Dataset(np.asarray(owner.multiplicity, dtype=np.int64))
    if edges.parameter_index is not None:
        columns["parameter_index"] = Dataset(edges.parameter_index)
    for name, values in owner.attributes.items():
        if name in columns or name in ("syn_weight", "multiplicity", "parameter_index", "nsyns"):
            raise FormatError(
                f"projections.{p.name}: attribute '{name}' has a name of SONATA's own; rename it"
            )
        columns[name] = Dataset(values)
    ends, nodes = {}, {}
    for end, population, indices in (("source", p.source, edges.source), ("target", p.target, edges.target)):
        name, ids = where.get(population, (population, None))
        ends[end] = name, (indices[pick].astype(np.int64) if ids is None else ids[indices[pick]])
        nodes[end] = sizes[name]
    made = Population(
        kind="edge",
        name=p.name,
        type_ids=np.full(count, type_id, dtype=np.int64),
        group_ids=np.zeros(count, dtype=np.int64),
        groups={"0": columns},
        ends=ends,
        nodes=nodes,
    )
    said = {
        "edge_type_id": str(type_id),
        "model_name": p.name,
        "site": p.site,
        "carries": p.carries,
        "kind": p.kind,
        "plastic": str(bool(p.plastic)).lower(),
        "delay": repr(float(p.delay_ms)),
    }
    return made, _table("edge_type_id", said)


def _table(key: str, said: Mapping[str, str]) -> TypeTable:
    return TypeTable(Path(), key, {name: [text] for name, text in said.items()}, [2])
