"""SONATA populations written to HDF5: what libsonata reads, uncompressed, with indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import FormatError
from circuitlab.graph.foreign.hdf5_out import writable
from circuitlab.graph.foreign.sonata_tables import LIBRARY, TEXT, Column

MAGIC, VERSION = np.uint32(0x0A7A), np.array([0, 1], dtype=np.uint32)
MOST_UNUSED = 1 << 20
"""Node ids without a node up to which indices are written; they have a row for every id."""


@dataclass
class Dataset:
    """One attribute: values of all rows, and its type in the file."""

    values: NDArray
    kind: Column | None = None


@dataclass
class Population:
    """A node or edge population to write.

    Args:
        kind: node or edge. name: of the population. type_ids: shape [row]. group_ids: shape [row].
        groups: group -> name -> attribute of all rows; only those of the group's own rows are written.
        ids: node ids, shape [row]; of edges None.
        ends: of edges: source and target -> (node population, node ids of shape [row]).
        nodes: of edges: how many node ids there are at each end.
    """

    kind: str
    name: str
    type_ids: NDArray[np.int64]
    group_ids: NDArray[np.int64]
    groups: dict[str, dict[str, Dataset]]
    ids: NDArray[np.int64] | None = None
    ends: Mapping[str, tuple[str, NDArray[np.int64]]] = field(default_factory=dict)
    nodes: Mapping[str, int] = field(default_factory=dict)


def write_population(path: Path, population: Population) -> None:
    """Add a population to a SONATA file, which is made where it is missing."""
    if "/" in population.name or population.name in ("", "."):
        raise FormatError(f"{path}: '{population.name}' cannot be the name of a SONATA population; rename it")
    kind = population.kind
    with writable(path) as file:
        file.attrs["magic"], file.attrs["version"] = MAGIC, VERSION
        group = file.create_group(f"{kind}s/{population.name}")
        types = population.type_ids
        group[f"{kind}_type_id"] = types if types.size and types.min() < 0 else types.astype(np.uint64)
        group[f"{kind}_group_id"] = population.group_ids.astype(np.uint32)
        index = np.zeros(len(types), dtype=np.uint64)
        for key in population.groups:
            members = np.flatnonzero(population.group_ids == int(key))
            index[members] = np.arange(len(members))
        group[f"{kind}_group_index"] = index
        if population.ids is not None:
            group["node_id"] = population.ids.astype(np.uint64)
        for end, (name, ids) in population.ends.items():
            group[f"{end}_node_id"] = ids.astype(np.uint64)
            group[f"{end}_node_id"].attrs["node_population"] = name
        for key, columns in population.groups.items():
            inner = group.create_group(key)
            members = population.group_ids == int(key)
            for name, dataset in columns.items():
                _write(path, inner, name, dataset.values[members], dataset.kind)
        if population.ends:
            _write_indices(group, population)


def _write(path: Path, group: h5py.Group, name: str, values: NDArray, kind: Column | None) -> None:
    if kind is not None and kind.library is not None:
        place = {word: number for number, word in enumerate(kind.library)}
        try:
            numbers = [place[word] for word in values.tolist()]
        except KeyError as error:
            raise FormatError(f"{path}: {group.name}/{name} has no word {error} in its {LIBRARY}") from error
        group[name] = np.array(numbers, dtype=np.dtype(kind.dtype))
        library = group.require_group(LIBRARY)
        library.create_dataset(name, data=list(kind.library), dtype=h5py.string_dtype("utf-8"))
        return
    if kind is not None and kind.dtype != TEXT:
        values = _as(values, np.dtype(kind.dtype))
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.dtype.kind == "U":
        group.create_dataset(name, data=values.astype(object), dtype=h5py.string_dtype("utf-8"))
    else:
        group[name] = values


def _as(values: NDArray, dtype: np.dtype) -> NDArray:
    """Values in the type that they came in, unless they no longer fit it."""
    try:
        with np.errstate(all="ignore"):
            cast = values.astype(dtype)
        back = cast.astype(values.dtype) if values.dtype.kind != "U" else values
    except (ValueError, OverflowError):
        return values
    return cast if np.array_equal(back, values, equal_nan=values.dtype.kind == "f") else values


def _write_indices(group: h5py.Group, population: Population) -> None:
    """For every node the ranges of edges that leave or reach it, as pairs [begin, end)."""
    for end, direction in (("source", "source_to_target"), ("target", "target_to_source")):
        ids, nodes = population.ends[end][1], population.nodes[end]
        if nodes - len(np.unique(ids)) > MOST_UNUSED + 10 * len(ids):
            continue
        ranges, edges = index_of(ids, nodes)
        group[f"indices/{direction}/node_id_to_range"] = ranges
        # The same dataset under the name that libsonata looks for.
        group[f"indices/{direction}/node_id_to_ranges"] = group[f"indices/{direction}/node_id_to_range"]
        group[f"indices/{direction}/range_to_edge_id"] = edges


def index_of(ids: NDArray[np.int64], nodes: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Runs of neighbouring edges of one node.

    Args:
        ids: node of every edge, shape [edge]. nodes: number of node ids.

    Returns:
        node_id_to_range, [node, 2]: which runs are a node's; range_to_edge_id, [run, 2]: which edges are a run's.
    """
    if not ids.size:
        return np.zeros((nodes, 2), dtype=np.uint64), np.zeros((0, 2), dtype=np.uint64)
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    begins = np.flatnonzero(np.concatenate(([True], (np.diff(ordered) != 0) | (np.diff(order) != 1))))
    ends = np.append(begins[1:], len(order)) - 1
    runs = np.stack([order[begins], order[ends] + 1], axis=1).astype(np.uint64)
    stops = np.cumsum(np.bincount(ordered[begins], minlength=nodes))
    return np.stack([np.append(0, stops[:-1]), stops], axis=1).astype(np.uint64), runs


def plain_column(data: Mapping[str, Any]) -> Column:
    """The type of a dataset as an import kept it."""
    library = data.get("library")
    return Column(str(data["dtype"]), None if library is None else tuple(library))
