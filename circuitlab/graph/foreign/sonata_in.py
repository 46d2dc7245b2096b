"""A circuit from SONATA files: node populations, edge populations, type tables, circuit config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import FormatError, suggestion
from circuitlab.graph.circuit import Circuit, Population, Projection
from circuitlab.graph.edges import Edges
from circuitlab.graph.exchange import TYPES
from circuitlab.graph.foreign.header import Header, read_header
from circuitlab.graph.foreign.options import Imported, Options, check_asked, stem
from circuitlab.graph.foreign.sonata_config import Pair, find_config, pair_files, read_config
from circuitlab.graph.foreign.sonata_edges import projections_of
from circuitlab.graph.foreign.sonata_nodes import Cells, cells
from circuitlab.graph.foreign.sonata_tables import EdgeList, Nodes, read_edges, read_nodes
from circuitlab.graph.foreign.type_tables import read_types
from circuitlab.graph.memory import refuse_too_large
from circuitlab.graph.weights import SIGNS

HEADER = "circuitlab.json"
"""Beside circuit_config.json: what circuitlab itself wrote of a circuit that SONATA has no place for."""


def read_sonata(files: Sequence[Path], options: Options) -> Imported:
    """A circuit from a circuit_config.json, a folder, or bare files of nodes, edges and types.

    Every node population becomes a population (several where it is split), `virtual` nodes an input. Every edge
    population becomes a projection for each pair of populations that it joins. Edges point from source_node_id to
    target_node_id.

    Raises:
        FormatError: one line: file, dataset or line, what is wrong, what is allowed.
    """
    first = files[0]
    config = first if first.suffix == ".json" else find_config(first) if first.is_dir() else None
    notes: list[str] = []
    if config is not None:
        if len(files) > 1:
            raise FormatError(f"{config}: a circuit config names all its files; give no others beside it")
        pairs, header = read_config(config, options.allow_outside), read_header(config.parent / HEADER)
        name = stem(config.parent) if config.name in ("circuit_config.json", "config.json") else stem(config)
    else:
        listed = _files_in(first) if first.is_dir() else list(files)
        pairs, unused = pair_files(listed, without_types=options.without_types)
        if unused and not first.is_dir():
            raise FormatError(f"{unused[0]}: belongs to no HDF5 file among those given")
        notes += [f"{table.name}: not used, as its HDF5 file is not there" for table in unused]
        header = None
        name = stem(first) if first.is_dir() else stem(first.parent)
    asked = replace(options, name=options.name or name)
    try:
        circuit, more = _circuit(pairs, header, asked, str(first))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if header is None:
            raise
        raise FormatError(
            f"{header.path}: is damaged, or does not belong to these files: {error!r}"
        ) from error
    if options.name is not None:
        circuit = replace(circuit, name=options.name)
    return Imported(circuit, tuple(notes + more), "SONATA")


def is_sonata_folder(folder: Path) -> bool:
    """Whether a folder looks like a SONATA network."""
    return find_config(folder) is not None or bool(_h5(folder))


def _h5(folder: Path) -> list[Path]:
    return sorted(file for place in (folder, folder / "network") for file in place.glob("*.h5"))


def _files_in(folder: Path) -> list[Path]:
    tables = [file for place in (folder, folder / "network") for file in place.glob("*_types.csv")]
    return [*_h5(folder), *sorted(tables)]


def _circuit(
    pairs: Sequence[Pair], header: Header | None, options: Options, where: str
) -> tuple[Circuit, list[str]]:
    nodes, edges = _read(pairs)
    if not nodes:
        raise FormatError(f"{where}: no file of nodes; edges alone do not say how many neurons there are")
    check_asked("--split", options.split, nodes, where)
    groups = {name: _cells(each, header, options) for name, each in nodes.items()}
    parts = _unique_parts(groups, where)
    check_asked("--type", options.types, [*nodes, *parts], where)
    counts = {name: ("SONATA edges", each.entries.rows) for name, each in edges.items()}
    refuse_too_large(counts)
    notes: list[str] = []
    types = _types(groups, edges, options, notes)
    known = {} if header is None else header.projection_names()
    projections: dict[str, Projection] = {}
    origin: dict[str, Any] = {"format": "sonata", "nodes": {}, "edges": {}}
    for name, each in edges.items():
        own = header is not None and header.owns("edges", name)
        scale = 1.0 if own else options.weight_scale
        made = projections_of(each, groups, types, scale, known.get(name, {}), set(projections), own)
        projections |= {projection.name: projection for projection in made.projections}
        if not own:
            origin["edges"][name] = made.origin
        notes += made.notes
    populations: dict[str, Population] = {}
    for name, group in groups.items():
        own = header is not None and header.owns("nodes", name)
        if not own:
            origin["nodes"][name] = group.origin | {"populations": list(group.parts)}
        for part in range(len(group.parts)):
            population = _population(group, part, types, projections.values(), own, notes)
            populations[population.name] = population
    kept = origin if origin["nodes"] or origin["edges"] else None
    circuit = Circuit(str(options.name), "", 0, populations, projections, kept)
    if header is not None:
        circuit = header.applied(circuit, keep_types=set(options.types))
    return circuit, notes


def _read(pairs: Sequence[Pair]) -> tuple[dict[str, Nodes], dict[str, EdgeList]]:
    nodes: dict[str, Nodes] = {}
    edges: dict[str, EdgeList] = {}
    for pair in pairs:
        types = None if pair.types is None else read_types(pair.types, f"{pair.kind[:-1]}_type_id")
        chosen = None if pair.populations is None else list(pair.populations)
        found = read_nodes(pair.file, chosen) if pair.kind == "nodes" else read_edges(pair.file, chosen)
        for each in found:
            if each.name in (nodes if pair.kind == "nodes" else edges):
                raise FormatError(
                    f"{pair.file}: the {pair.kind[:-1]} population '{each.name}' is in two files"
                )
            if isinstance(each, Nodes):
                said = None if pair.populations is None else pair.populations[each.name].get("type")
                nodes[each.name] = replace(
                    each, types=types, virtual=None if said is None else said == "virtual"
                )
            else:
                edges[each.name] = replace(each, types=types)
    return nodes, edges


def _cells(nodes: Nodes, header: Header | None, options: Options) -> Cells:
    if not nodes.entries.rows:
        raise FormatError(f"{nodes.entries.path}: population '{nodes.name}' has no nodes")
    given, names = (None, None)
    if header is not None and nodes.name not in options.split:
        given, names = header.parts_of(nodes.name, nodes.entries.rows)
    return cells(nodes, options.split.get(nodes.name), given, names)


def _unique_parts(groups: Mapping[str, Cells], where: str) -> list[str]:
    parts = [part for group in groups.values() for part in group.parts]
    for part in parts:
        if parts.count(part) > 1:
            raise FormatError(
                f"{where}: two populations would be called '{part}'; rename one, or split by another column"
            )
    return parts


def _types(
    groups: Mapping[str, Cells], edges: Mapping[str, EdgeList], options: Options, notes: list[str]
) -> dict[str, str]:
    """Type of each of the circuit's populations: as asked, else input for virtual nodes and unit for others."""
    reached: set[str] = set()
    for each in edges.values():
        if each.target in groups and each.entries.rows:
            group = groups[each.target]
            rows = group.rows(each.target_ids, f"{each.entries.path}: /edges/{each.name}/target_node_id")
            reached |= {group.parts[part] for part in np.unique(group.part[rows]).tolist()}
    types = {}
    for name, group in groups.items():
        for part, label in enumerate(group.parts):
            asked = options.types.get(label, options.types.get(name))
            if asked is not None and asked not in TYPES:
                raise FormatError(
                    f"--type: no type '{asked}'; allowed: {', '.join(TYPES)}.{suggestion(asked, TYPES)}"
                )
            virtual = group.virtual(part)
            if asked == "input" and label in reached:
                raise FormatError(
                    f"--type: '{label}' cannot be an input: edges end there, and inputs are clamped"
                )
            if asked is None and virtual and label in reached:
                notes.append(f"{label}: its nodes are virtual, but edges end there; it becomes a unit")
            types[label] = asked or ("input" if virtual and label not in reached else "unit")
    return types


def _population(
    group: Cells,
    part: int,
    types: Mapping[str, str],
    projections: Any,
    own: bool,
    notes: list[str],
) -> Population:
    label, members = group.parts[part], np.flatnonzero(group.part == part)
    kind = types[label]
    sign = _sign(label, group.sign[members], [p for p in projections if p.source == label], own, notes)
    bias = None
    if kind != "input":
        bias = np.zeros(len(members)) if group.bias is None else group.bias[members]
    return Population(
        name=label,
        type=kind,
        size=len(members),
        activation="linear" if kind in ("input", "output") else "tanh",
        sign=sign,
        controlled=kind != "input",
        bias=bias,
        bias_plastic=kind != "input",
        names=None if group.names is None else tuple(group.names[row] for row in members.tolist()),
        positions=None if group.positions is None else group.positions[members],
        attributes={name: values[members] for name, values in group.attributes.items()},
    )


def _sign(
    label: str, signs: NDArray[np.int8], outgoing: Sequence[Projection], own: bool, notes: list[str]
) -> str | None:
    """Dale's law of a population whose neurons all have the same `ei`, where its weights agree."""
    if own or not signs.size or (signs != signs[0]).any() or signs[0] == 0:
        return None
    sign = "excitatory" if signs[0] > 0 else "inhibitory"
    for projection in outgoing:
        edges: Edges = projection.edges
        if (edges.weight * SIGNS[sign] < 0).any():
            notes.append(
                f"{label}: its neurons are {sign}, but {projection.name} has weights of the other sign; "
                "it gets no sign"
            )
            return None
    return sign
