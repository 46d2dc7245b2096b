"""Edges from SONATA files (HDF5), such as a run file of circuitlab, for the rule `explicit`."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import FormatError, suggestion
from circuitlab.graph.foreign.hdf5 import item, opened, subgroups
from circuitlab.graph.foreign.sonata_tables import read_edge_list


def read_sonata_edges(path: Path, population: str | None) -> dict[str, NDArray]:
    """Arrays `source`, `target`, `weight` (where there is one), `multiplicity` and attributes, shape [edge] each.

    Reads /edges/<population>/source_node_id, target_node_id and the attributes of all edge groups; neurons by index.
    The weight is `syn_weight`, times `nsyns` where the file has it, which is then the multiplicity. Type tables are not
    read: a network that needs them is imported.

    Args:
        population: which edge population; needed only where the file holds more than one.

    Raises:
        FormatError: not a SONATA edge file, damaged, or weights on some edges only.
    """
    with opened(path) as file:
        name, group = _edges(path, file, population)
        edges = read_edge_list(path, name, group, need_populations=False)
    entries = edges.entries
    arrays = {"source": edges.source_ids, "target": edges.target_ids}
    columns = dict(entries.columns)
    weight, count = columns.pop("syn_weight", None), columns.pop("nsyns", None)
    for key, values in (("syn_weight", weight), ("nsyns", count)):
        if values is not None and not entries.having(key).all():
            lacking = int(np.count_nonzero(~entries.having(key)))
            raise FormatError(
                f"{path}: /edges/{name}: {lacking} of {entries.rows} edges have no {key}; type tables are not "
                "read here: import the network (circuitlab import)"
            )
    if weight is not None:
        arrays["weight"] = weight
    if count is not None and "multiplicity" not in columns:
        if count.dtype.kind not in "iu" or (count < 1).any():
            raise FormatError(f"{path}: /edges/{name}: nsyns counts synapses, whole numbers from 1")
        arrays["multiplicity"] = count
        if weight is not None:
            arrays["weight"] = weight * count
    return arrays | columns


def _edges(path: Path, file: h5py.File, population: str | None) -> tuple[str, h5py.Group]:
    root = item(path, file, "edges")
    edges = subgroups(path, root) if isinstance(root, h5py.Group) else {}
    if not edges:
        raise FormatError(f"{path}: is not a SONATA edge file: it has no group /edges")
    if population is None and len(edges) > 1:
        raise FormatError(
            f"{path}: holds the edge populations {', '.join(edges)}; choose one by 'population'"
        )
    name = str(population or next(iter(edges)))
    if name not in edges:
        near = suggestion(name, edges)
        raise FormatError(f"{path}: no edge population '{name}'; there are {', '.join(edges)}.{near}")
    return name, edges[name]
