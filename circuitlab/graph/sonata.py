"""Edges from SONATA files (HDF5), such as a run file of circuitlab."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import FormatError, suggestion
from circuitlab.graph.memory import available_memory, gigabytes


def read_sonata_edges(path: Path, population: str | None) -> dict[str, NDArray]:
    """Arrays `source`, `target`, `weight` (of `syn_weight`, where there is one) and attributes, shape [edge] each.

    Reads /edges/<population>/source_node_id, target_node_id and the attributes of edge group 0; neurons by index.

    Args:
        population: which edge population; needed only where the file holds more than one.

    Raises:
        FormatError: not a SONATA edge file, or one with several edge groups.
    """
    try:
        with h5py.File(path, "r") as file:
            return _arrays(path, _edges(path, file, population))
    except FileNotFoundError as error:
        raise FormatError(f"{path}: cannot be read: No such file or directory") from error
    except (OSError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise FormatError(f"{path}: is not a readable SONATA file: {reason}") from error


def _edges(path: Path, file: h5py.File, population: str | None) -> h5py.Group:
    edges = file.get("edges")
    if not isinstance(edges, h5py.Group) or not len(edges):
        raise FormatError(f"{path}: is not a SONATA edge file: it has no group /edges")
    if population is None and len(edges) > 1:
        raise FormatError(
            f"{path}: holds the edge populations {', '.join(edges)}; choose one by 'population'"
        )
    name = str(population or next(iter(edges)))
    group = edges.get(name)
    if not isinstance(group, h5py.Group):
        near = suggestion(name, edges)
        raise FormatError(f"{path}: no edge population '{name}'; there are {', '.join(edges)}.{near}")
    return group


def _arrays(path: Path, group: h5py.Group) -> dict[str, NDArray]:
    if "1" in group:
        raise FormatError(f"{path}: '{group.name}' has several edge groups; only group 0 is read")
    attributes = group.get("0")
    found = {"source": group.get("source_node_id"), "target": group.get("target_node_id")}
    if isinstance(attributes, h5py.Group):
        found |= {("weight" if name == "syn_weight" else name): item for name, item in attributes.items()}
    size = 0
    for name, item in list(found.items()):
        if not isinstance(item, h5py.Dataset):
            if name in ("source", "target"):
                raise FormatError(f"{path}: '{group.name}' has no {name}_node_id")
            del found[name]
            continue
        size += item.size * item.dtype.itemsize
    if size > available_memory():
        raise FormatError(f"{path}: holds {gigabytes(size)}; {gigabytes(available_memory())} are available")
    read = {name: np.asarray(item[()]) for name, item in found.items() if isinstance(item, h5py.Dataset)}
    return {
        name: array.astype(np.str_) if array.dtype.kind in "OS" else array for name, array in read.items()
    }
