"""Circuits from files of any kind, run files among them: as the run began, or as it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote

import h5py
import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import FormatError, RunFileError
from circuitlab.graph.circuit import Circuit, Noise, Population, Projection
from circuitlab.graph.edges import Edges, Rows
from circuitlab.graph.foreign.formats import HDF5, read_foreign
from circuitlab.record import superblock
from circuitlab.record.examine import is_marked
from circuitlab.record.reader import Run, open_run
from circuitlab.record.storage import link_name
from circuitlab.record.weights import recorded, snapshot_count, weights_at
from circuitlab.spec.populations import Activation, PopulationType
from circuitlab.spec.projections import Site

WEIGHTS = ("initial", "final")
_NODE_FIELDS = ("bias", "name", "x", "y", "z")
_EDGE_FIELDS = ("syn_weight", "multiplicity", "parameter_index")
_ROW_FIELDS = ("edge", "syn_weight", "multiplicity")
_WRONG = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, AssertionError)
"""What comes of parts that are missing or of another form."""


def load(*files: str | Path, weights: str = "final") -> Circuit:
    """A circuit from a file of any kind: a circuit file, a run file, or another program's.

    Args:
        files: one file or folder; or the several files of a SONATA network, or the CSV tables of edges and nodes.
        weights: of a run file: initial, or final, those of its last snapshot.

    Raises:
        CircuitlabError: one line: the file, what is wrong, what is allowed.
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise FormatError("load: no file is named")
    if len(paths) == 1 and is_run_file(paths[0]):
        return circuit_of_run(paths[0], weights)
    return read_foreign(paths).circuit


def is_run_file(path: Path) -> bool:
    """Whether a file is HDF5 with circuitlab's own mark."""
    if path.suffix not in HDF5 or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(superblock.SIZE)
    except OSError:
        return False
    return superblock.is_superblock(head) and is_marked(path)


def circuit_of_run(path: Path, weights: str = "final") -> Circuit:
    """The circuit of a run file.

    Args:
        weights: initial, as the run began; or final, the last snapshot under /weights.

    Raises:
        RunFileError: no such file, damaged, or without the weights asked for.
    """
    if weights not in WEIGHTS:
        raise RunFileError(f"{path}: no weights '{weights}'; allowed: {', '.join(WEIGHTS)}")
    with open_run(path) as run:
        circuit = initial_circuit(run)
        try:
            return circuit if weights == "initial" else _with_snapshot(run, circuit)
        except _WRONG as error:
            raise RunFileError(f"{path}: /weights is damaged: {_said(error)}") from error


def initial_circuit(run: Run) -> Circuit:
    """The circuit as a run began: with its manipulations, its connections and initial weights as they were drawn.

    Raises:
        RunFileError: /nodes, /edges or /spec/circuit is damaged.
    """
    try:
        circuit = _initial(run)
        _check(circuit)
        return circuit
    except _WRONG as error:
        raise RunFileError(f"{run.path}: /nodes or /edges is damaged: {_said(error)}") from error


def _said(error: Exception) -> str:
    """The first line of what Python said."""
    text = str(error).strip() or type(error).__name__
    return (
        f"{text.splitlines()[0][:200]} is missing"
        if isinstance(error, KeyError)
        else text.splitlines()[0][:200]
    )


def _known(what: str, value: str, allowed: Any) -> None:
    if value not in get_args(allowed):
        raise ValueError(f"{what} '{value[:40]}' is none of {', '.join(get_args(allowed))}")


def _check(circuit: Circuit) -> None:
    """Sizes that fit together, and edges between neurons that are there: what compiled loops rely on."""
    for name, p in circuit.populations.items():
        _known(f"population {name}: type", p.type, PopulationType)
        _known(f"population {name}: activation", p.activation, Activation)
        if p.size < 0 or p.sign not in (None, "excitatory", "inhibitory") or not 0 < p.tau_ms < np.inf:
            raise ValueError(f"population {name}: size, sign or tau_ms is none")
        for what, values in (("bias", p.bias), ("names", p.names), ("positions", p.positions)):
            if values is not None and len(values) != p.size:
                raise ValueError(f"population {name}: {len(values)} {what} for {p.size} neurons")
    for name, p in circuit.projections.items():
        _known(f"projection {name}: site", p.site, Site)
        if (
            p.carries not in ("rate", "burst")
            or p.kind not in ("chemical", "electrical")
            or not p.delay_ms >= 0
        ):
            raise ValueError(f"projection {name}: carries, kind or delay_ms is none")
        edges, ends = p.edges, {"source": p.source, "target": p.target}
        for side, ids in (("source", edges.source), ("target", edges.target)):
            size = circuit.populations[ends[side]].size
            if ids.ndim != 1 or len(ids) != len(edges.weight) or len(ids) != len(edges.multiplicity):
                raise ValueError(f"projection {name}: its columns have different lengths")
            if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < size:
                raise ValueError(
                    f"projection {name}: a {side} is not among the {size} neurons of {ends[side]}"
                )
        place = edges.target.astype(np.int64) * circuit.populations[p.source].size + edges.source
        if (np.diff(place) <= 0).any():
            raise ValueError(f"projection {name}: edges are not sorted by target, then source")
        if not np.isfinite(edges.weight).all():
            raise ValueError(f"projection {name}: weights that are no numbers")
        index = edges.parameter_index
        if index is not None and index.size and (index.shape != ids.shape or int(index.min()) < 0):
            raise ValueError(f"projection {name}: parameter_index does not fit its edges")


def snapshots(path: Path) -> int:
    """How many snapshots of its weights a run file holds.

    Raises:
        RunFileError: no such file, or damaged.
    """
    with open_run(path) as run:
        return len(run.datasets["weights/step"]) if "weights/step" in run.datasets else 0


def _initial(run: Run) -> Circuit:
    spec: Any = run.specification("circuit")
    nodes, edges = (_groups(run, kind) for kind in ("nodes", "edges"))
    origin = json.loads(str(run.read("spec/origin"))) if "spec/origin" in run.datasets else None
    return Circuit(
        name=str(spec["circuit"]),
        description=str(spec.get("description", "")),
        seed=int(spec.get("seed", run.attributes.get("seed", 0))),
        populations={
            name: _population(run, name, link) for name, link in _in_order(nodes, spec["populations"])
        },
        projections={
            name: _projection(run, name, link, spec["projections"].get(name, {}))
            for name, link in _in_order(edges, spec["projections"])
        },
        origin=origin,
    )


def _groups(run: Run, kind: str) -> dict[str, str]:
    """Name of every population or projection, and its path in the file."""
    group = run.file[kind]
    assert isinstance(group, h5py.Group)
    return {_name(link): f"{kind}/{link}" for link in map(str, group)}


def _name(link: str) -> str:
    """What `link_name` quoted."""
    return "" if link == "%" else unquote(link)


def _in_order(found: Mapping[str, str], order: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = [*(name for name in order if name in found), *(name for name in found if name not in order)]
    return [(name, found[name]) for name in names]


def _columns(run: Run, group: str, own: Sequence[str]) -> dict[str, NDArray]:
    """Attributes in a group, in the file's order, without the run file's own."""
    found = {}
    for path in run.datasets:
        if path.startswith(f"{group}/") and "/" not in path[len(group) + 1 :]:
            name = _name(path[len(group) + 1 :])
            if name not in own:
                found[name] = _array(run, path)
    return found


def _array(run: Run, path: str) -> NDArray:
    values = np.asarray(run.read(path))
    return values.astype(np.str_) if values.dtype.kind == "O" else values


def _optional(run: Run, path: str) -> NDArray | None:
    return _array(run, path) if path in run.datasets else None


def _attributes(run: Run, path: str) -> dict[str, Any]:
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in run.file[path].attrs.items()
    }


def _population(run: Run, name: str, path: str) -> Population:
    said = _attributes(run, path)
    axes = [values for axis in "xyz" if (values := _optional(run, f"{path}/0/{axis}")) is not None]
    names = _optional(run, f"{path}/0/name")
    noise = said.get("noise_std")
    return Population(
        name=name,
        type=str(said["type"]),
        size=int(said["size"]),
        shape=tuple(int(side) for side in said["shape"]) if "shape" in said else None,
        activation=str(said["activation"]),
        tau_ms=float(said["tau_ms"]),
        sign=str(said["sign"]) or None,
        controlled=bool(said["controlled"]),
        bias=_optional(run, f"{path}/0/bias"),
        bias_plastic=bool(said["bias_plastic"]),
        names=None if names is None else tuple(names.tolist()),
        positions=np.stack(axes, axis=1) if axes else None,
        attributes=_columns(run, f"{path}/0", _NODE_FIELDS),
        gain=float(said.get("gain", 1.0)),
        threshold=float(said.get("threshold", 0.0)),
        layer=str(said["layer"]) if "layer" in said else None,
        noise=None if noise is None else Noise(float(noise), float(said["noise_tau_ms"])),
    )


def _projection(run: Run, name: str, path: str, asked: Mapping[str, Any]) -> Projection:
    """A projection, with the kernel that the circuit file asked for: the file's is the one that was chosen."""
    said = _attributes(run, path)
    weight, index = run.read(f"{path}/0/syn_weight"), _optional(run, f"{path}/0/parameter_index")
    parameters = None
    if index is not None:
        parameters = _parameters(run, name, weight, index)
    geometry = json.loads(said["geometry"]) if "geometry" in said else None
    rows = None
    if f"{path}/rows/edge" in run.datasets:
        rows = Rows(
            run.read(f"{path}/rows/edge"),
            run.read(f"{path}/rows/syn_weight"),
            run.read(f"{path}/rows/multiplicity"),
            _columns(run, f"{path}/rows", _ROW_FIELDS),
        )
    return Projection(
        name=name,
        source=str(said["source"]),
        target=str(said["target"]),
        site=str(said["site"]),
        carries=str(said["carries"]),
        plastic=bool(said["plastic"]),
        kernel=str(asked.get("kernel", said["kernel"])),
        edges=Edges(
            source=run.read(f"{path}/source_node_id").astype(np.int32),
            target=run.read(f"{path}/target_node_id").astype(np.int32),
            weight=weight,
            multiplicity=run.read(f"{path}/0/multiplicity").astype(np.int32),
            parameter_index=index,
            parameters=parameters,
            attributes=_columns(run, f"{path}/0", _EDGE_FIELDS),
            rows=rows,
        ),
        geometry=None if geometry is None else {key: tuple(value) for key, value in geometry.items()},
        rank=int(said["rank"]) if "rank" in said else None,
        kind=str(said.get("kind", "chemical")),
        delay_ms=float(said.get("delay_ms", 0.0)),
    )


def _parameters(run: Run, name: str, weight: NDArray, index: NDArray) -> NDArray:
    """Shared weights [parameter]; those that no edge uses are in the snapshots alone."""
    count = int(index.max()) + 1 if index.size else 0
    if count > 16 * max(1, index.size) + 4096:
        raise ValueError(f"projection {name}: {count} shared weights for {index.size} edges")
    parameters = np.zeros(count)
    if link_name(name) in recorded(run) and snapshot_count(run, name):
        first = weights_at(run, name, 0)
        if first.ndim == 1 and len(first) > count:
            parameters = first.astype(np.float64)
    parameters[index] = weight
    return parameters


def _with_snapshot(run: Run, circuit: Circuit) -> Circuit:
    """The circuit with the weights and biases of the last snapshot; those that do not learn stay as they were."""
    found = recorded(run)
    if not found:
        raise RunFileError(
            f"{run.path}: holds no weights after training; take the initial ones (--weights initial)"
        )
    last = {_name(name): weights_at(run, name) for name in found if snapshot_count(run, name)}
    populations, projections = dict(circuit.populations), dict(circuit.projections)
    for name, p in circuit.populations.items():
        if f"{name}_bias" in last and p.bias is not None:
            populations[name] = replace(p, bias=_learned(np.asarray(p.bias), last[f"{name}_bias"]))
    for name, p in circuit.projections.items():
        if name not in last:
            continue
        index, before = p.edges.parameter_index, p.edges.parameters
        before = p.edges.weight if before is None else before
        if last[name].shape != before.shape:
            raise RunFileError(
                f"{run.path}: weights/{name}: has {last[name].size} values; {before.size} are needed"
            )
        values = _learned(before, last[name])
        if index is not None:
            edges = replace(p.edges, weight=values[index], parameters=values)
        else:
            edges = replace(p.edges, weight=values)
        projections[name] = replace(p, edges=edges)
    return replace(circuit, populations=populations, projections=projections)


def _learned(before: NDArray, last: NDArray) -> NDArray[np.float64]:
    """Values of the last snapshot; those that did not change keep all digits that the run's precision took."""
    return np.where(last == before.astype(last.dtype), before, last).astype(np.float64)
