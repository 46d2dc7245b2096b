"""A circuit written as a folder that circuitlab runs: circuit.yaml, its neurons as CSV, its edges as npz or CSV."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from circuitlab.errors import CircuitlabError, FormatError
from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit, Population, Projection
from circuitlab.graph.edges import Edges, coalesce
from circuitlab.graph.foreign.options import NAME, TAKEN
from circuitlab.graph.foreign.sonata_weights import row_weights
from circuitlab.graph.tables import write_table
from circuitlab.spec.circuit import load_circuit
from circuitlab.spec.quantities import time_text

NEURON_COLUMNS = ("name", "x", "y", "z", "bias")
EDGE_COLUMNS = ("source", "target", "pre", "post", "weight", "multiplicity")
ORIGIN = "origin.json"


def write_folder(circuit: Circuit, folder: Path, edges: str = "npz", readout: int | None = None) -> None:
    """Write a circuit into an empty folder, and read it back to be sure that it is the same.

    Args:
        edges: npz or csv, the kind of the edge files.
        readout: adds an output population of this size, all_to_all from every population that is not an input or
            inhibitory.

    Raises:
        FormatError: the circuit has what a circuit file cannot hold.
    """
    circuit = _as_built(circuit)
    for name, population in circuit.populations.items():
        _check_population(name, population)
    (folder / "neurons").mkdir()
    (folder / "edges").mkdir()
    data: dict[str, Any] = {"circuit": circuit.name}
    if circuit.description:
        data["description"] = circuit.description
    data["seed"] = int(circuit.seed)
    lacking = {"input", "output"} - {p.type for p in circuit.populations.values()}
    origin = circuit.origin
    if origin is None and lacking - ({"output"} if readout else set()):
        origin = {"format": "graph"}
    if origin is not None:
        (folder / ORIGIN).write_text(json.dumps(origin, ensure_ascii=False) + "\n", encoding="utf-8")
        data["origin"] = ORIGIN
    populations = {name: _population(p, folder) for name, p in circuit.populations.items()}
    projections = {name: _projection(p, circuit, folder, edges) for name, p in circuit.projections.items()}
    if readout is not None:
        _add_readout(circuit, populations, projections, readout)
    if layers := _layers(circuit):
        data["layers"] = _lines(layers)
    data["populations"] = _lines(populations)
    data["projections"] = _lines(projections)
    (folder / "circuit.yaml").write_text(_yaml(data), encoding="utf-8")
    _verify(circuit, folder)


def _as_built(circuit: Circuit) -> Circuit:
    """The circuit with what a file says in one way only: no plastic bias where there is none, rows that add up."""
    populations = {
        name: p if p.bias is not None else replace(p, bias_plastic=False)
        for name, p in circuit.populations.items()
    }
    projections = {}
    for name, p in circuit.projections.items():
        if p.edges.rows is not None:
            e, rows = p.edges, p.edges.rows
            made = coalesce(
                e.source[rows.edge],
                e.target[rows.edge],
                row_weights(e),
                rows.multiplicity,
                rows.attributes,
                keep_rows=True,
            )
            p = replace(p, edges=made)
        projections[name] = p
    return replace(circuit, populations=populations, projections=projections)


def _check_population(name: str, p: Population) -> None:
    where = f"populations.{name}"
    if not NAME.fullmatch(name) or name in TAKEN:
        raise FormatError(
            f"{where}: is not a name that circuit files take: letters, digits, _ and -, a letter first"
        )
    if p.size < 1:
        raise FormatError(f"{where}: has no neurons; a circuit file needs one at least")
    for attribute in p.attributes:
        if attribute in NEURON_COLUMNS:
            raise FormatError(
                f"{where}: attribute '{attribute}' has a name that circuit files use; rename it"
            )
    if p.names is not None and len(set(p.names)) < p.size:
        twice = next(each for each in p.names if p.names.count(each) > 1)
        raise FormatError(f"{where}: the name '{twice}' appears twice; names differ")


def _population(p: Population, folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = {"type": p.type}
    data |= {"size": p.size} if p.shape is None else {"shape": list(p.shape)}
    columns: dict[str, Any] = {}
    file = f"neurons/{p.name}.csv"
    if p.type != "input":
        data |= {"activation": p.activation, "tau": time_text(float(p.tau_ms))}
        data |= {"gain": p.gain} if p.gain != 1 else {}
        data |= {"threshold": p.threshold} if p.threshold != 0 else {}
        data |= (
            {}
            if p.noise is None
            else {"noise": {"std": p.noise.std, "tau": time_text(float(p.noise.tau_ms))}}
        )
        data |= {} if p.controlled else {"controlled": False}
        if p.bias is None:
            data["bias"] = False
        elif np.asarray(p.bias).any():
            columns["bias"] = np.asarray(p.bias, dtype=np.float64)
            data["bias"] = {"file": file} | ({} if p.bias_plastic else {"plastic": False})
        elif not p.bias_plastic:
            data["bias"] = {"plastic": False}
    if p.sign is not None:
        data["sign"] = p.sign
    if p.layer is not None:
        data["layer"] = p.layer
    if p.names is not None:
        columns["name"] = np.array(p.names, dtype=np.str_)
        data["names"] = file
    if p.positions is not None:
        columns |= {axis: p.positions[:, i] for i, axis in enumerate("xyz"[: p.positions.shape[1]])}
        data["positions"] = file
    if p.attributes:
        columns |= p.attributes
        data["attributes"] = file
    if columns:
        first = {key: columns[key] for key in NEURON_COLUMNS if key in columns}
        write_table(folder / file, first | columns)
    return data


def _layers(circuit: Circuit) -> dict[str, dict[str, float]]:
    """The layers that populations name, as deep as the neurons in them lie; depth is the last axis."""
    found: dict[str, list[NDArray]] = {}
    for p in circuit.populations.values():
        if p.layer is not None:
            found.setdefault(p.layer, []).extend([] if p.positions is None else [p.positions[:, -1]])
    layers = {}
    for name, depths in found.items():
        depth = np.concatenate(depths) if depths else np.array([0.0, 1.0])
        low, high = float(depth.min()), float(depth.max())
        layers[name] = {"from": low, "to": high if high > low else low + 1.0}
    return layers


def _projection(p: Projection, circuit: Circuit, folder: Path, kind: str) -> dict[str, Any]:
    if not NAME.fullmatch(p.name):
        raise FormatError(
            f"projections.{p.name}: is not a name that circuit files take: letters, digits, _ and -, a letter first"
        )
    data: dict[str, Any] = {"source": p.source, "target": p.target, "site": p.site}
    data |= {} if p.carries == "rate" else {"carries": p.carries}
    data |= {} if p.kind == "chemical" else {"kind": p.kind}
    data |= {} if not p.delay_ms else {"delay": time_text(float(p.delay_ms))}
    edges = p.edges
    if p.geometry is None and p.rank is None:
        file = f"edges/{p.name}.{kind}"
        _write_edges(p, circuit, folder / file)
        data["connect"] = {"rule": "explicit", "file": file}
    else:
        file = f"edges/{p.name}.npy"
        if edges.attributes or edges.rows is not None:
            raise FormatError(
                f"projections.{p.name}: attributes of edges with shared or factored weights cannot be written"
            )
        np.save(folder / file, edges.weight if edges.parameters is None else edges.parameters)
        data["connect"] = _rule(p)
        data["weights"] = {"file": file}
    data["plastic"] = bool(p.plastic)
    data |= {} if p.kernel == "auto" else {"kernel": p.kernel}
    data |= {} if p.rank is None else {"rank": p.rank}
    return data


def _rule(p: Projection) -> dict[str, Any]:
    """The rule of a convolution, a pooling, or weights of a given rank."""
    if p.geometry is None:
        return {"rule": "all_to_all"}
    window = {key: [int(side) for side in p.geometry[key]] for key in ("kernel", "stride")}
    if p.edges.parameters is None:
        return {"rule": "pool", **window}
    return {"rule": "convolution", **window, "padding": [int(side) for side in p.geometry["padding"]]}


def _write_edges(p: Projection, circuit: Circuit, path: Path) -> None:
    edges: Edges = p.edges
    owner, pick = (edges, slice(None)) if edges.rows is None else (edges.rows, edges.rows.edge)
    for name in owner.attributes:
        if name in EDGE_COLUMNS:
            raise FormatError(
                f"projections.{p.name}: attribute '{name}' has a name that edge files use; rename it"
            )
    ends = (("source", p.source, edges.source), ("target", p.target, edges.target))
    columns: dict[str, NDArray] = {
        end: _neurons(circuit.populations[population], index[pick], path.suffix == ".csv")
        for end, population, index in ends
    }
    columns["weight"] = np.asarray(owner.weight, dtype=np.float64)
    if (np.asarray(owner.multiplicity) != 1).any():
        columns["multiplicity"] = np.asarray(owner.multiplicity, dtype=np.int64)
    columns |= owner.attributes
    if path.suffix == ".csv":
        write_table(path, columns)
    else:
        np.savez_compressed(path, **columns)  # type: ignore[arg-type]


def _neurons(population: Population, index: NDArray, by_name: bool) -> NDArray:
    """Neurons by name where they have names that a reader could take for others' indices, or in CSV; else by index."""
    names = population.names
    if names is None or not (by_name or any(name.isdecimal() for name in names)):
        return index.astype(np.int64)
    return np.array(names, dtype=np.str_)[index]


def _add_readout(
    circuit: Circuit, populations: dict[str, Any], projections: dict[str, Any], size: int
) -> None:
    """An output population that reads every population that is no input, output or inhibitory (else every one)."""
    units = [p for p in circuit.populations.values() if p.type not in ("input", "output")]
    senders = [p for p in units if p.sign != "inhibitory"] or units
    if not senders:
        raise FormatError("--readout: there is no population to read out: all are inputs or outputs")
    if "readout" in populations:
        raise FormatError("--readout: there is a population 'readout' already")
    populations["readout"] = {"type": "output", "size": size}
    for p in senders:
        name = f"{p.name}_readout"
        if name in projections:
            raise FormatError(f"--readout: there is a projection '{name}' already")
        projections[name] = {"source": p.name, "target": "readout"}


def _lines(items: Mapping[str, Mapping[str, Any]]) -> CommentedMap:
    """One line for each population or projection."""
    found = CommentedMap()
    for name, data in items.items():
        line = CommentedMap(data)
        line.fa.set_flow_style()
        found[name] = line
    return found


def _yaml(data: Mapping[str, Any]) -> str:
    yaml = YAML()
    yaml.width = 1_000_000
    text = io.StringIO()
    yaml.dump(CommentedMap(data), text)
    return text.getvalue()


def _verify(circuit: Circuit, folder: Path) -> None:
    """Read the folder back; what a circuit file could not hold is named."""
    try:
        back = build(load_circuit(folder / "circuit.yaml"))
    except CircuitlabError as error:
        first = str(error).splitlines()[0].replace(f"{folder}/", "")
        raise FormatError(f"this circuit cannot be written as a circuit file: {first}") from error
    for section in ("populations", "projections"):
        for name, item in getattr(circuit, section).items():
            if not item.equals(getattr(back, section)[name]):
                raise FormatError(f"{section}.{name}: has properties that a circuit file cannot hold exactly")
