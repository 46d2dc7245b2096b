"""SONATA networks as another program writes them (h5py alone), and what an independent reader finds in a folder."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

TOP = Path(__file__).resolve().parents[2]
EXAMPLES = {
    "300_intfire": ("", (90 + 30 + 300, 17160 + 9000 + 61560)),
    "300_pointneurons": ("circuit_config.json", (300 + 100, 27588 + 20844)),
    "9_cells": ("circuit_config.json", (9 + 10 + 10, 659 + 630)),
    "layer4_sample": ("", (449 + 9000, 47020)),
}
"""Published example networks: their config, if they have one, and the numbers of nodes and edges in their files."""


def places() -> list[Path]:
    """Where data is looked for."""
    named = [Path(os.environ["CIRCUITLAB_DATA"])] if os.environ.get("CIRCUITLAB_DATA") else []
    return [*named, TOP / "data", TOP.parent / "shared" / "data"]


def example(name: str) -> Path | None:
    """A published example network, where it lies on this machine."""
    found = [place / "sonata_mouse_v1" / "examples" / name for place in places()]
    return next((folder for folder in found if folder.is_dir()), None)


def write_nodes(path: Path, name: str, types: list[int], groups: dict[str, Any], **datasets: Any) -> None:
    """Node population with one group of attributes, or as `groups` and `datasets` say."""
    with h5py.File(path, "a") as file:
        file.attrs["magic"], file.attrs["version"] = np.uint32(0x0A7A), np.array([0, 1], dtype=np.uint32)
        group = file.create_group(f"nodes/{name}")
        count = len(types)
        plain = {
            "node_id": np.arange(count, dtype=np.uint64),
            "node_group_id": np.zeros(count, dtype=np.uint32),
            "node_group_index": np.arange(count, dtype=np.uint64),
        }
        group["node_type_id"] = np.array(types, dtype=np.uint32)
        for key, values in (plain | datasets).items():
            group[key] = values
        write_groups(group, groups)


def write_groups(group: h5py.Group, groups: dict[str, Any]) -> None:
    """Groups of attributes; text as strings of any length."""
    for key, columns in (groups or {"0": {}}).items():
        inner = group.create_group(key)
        for name, values in columns.items():
            array = np.asarray(values)
            if array.dtype.kind == "U":
                inner.create_dataset(name, data=array.astype(object), dtype=h5py.string_dtype("utf-8"))
            else:
                inner[name] = array


def write_edges(
    path: Path,
    name: str,
    ends: tuple[tuple[str, Any], tuple[str, Any]],
    types: Any,
    groups: dict[str, Any],
    **datasets: Any,
) -> None:
    """Edge population with one group of attributes, or as `groups` and `datasets` say."""
    with h5py.File(path, "a") as file:
        file.attrs["magic"], file.attrs["version"] = np.uint32(0x0A7A), np.array([0, 1], dtype=np.uint32)
        group = file.create_group(f"edges/{name}")
        for end, (population, ids) in zip(("source", "target"), ends, strict=True):
            group[f"{end}_node_id"] = np.asarray(ids, dtype=np.uint64)
            group[f"{end}_node_id"].attrs["node_population"] = population
        count = len(ends[0][1])
        plain = {
            "edge_group_id": np.zeros(count, dtype=np.uint16),
            "edge_group_index": np.arange(count, dtype=np.uint32),
        }
        group["edge_type_id"] = np.broadcast_to(np.asarray(types, dtype=np.uint32), (count,))
        for key, values in (plain | datasets).items():
            group[key] = values
        write_groups(group, groups)


def plain_network(folder: Path) -> Path:
    """E and I cells in one population, an input population; weights by type and `nsyns`; bare files."""
    folder.mkdir()
    (folder / "cells_node_types.csv").write_text(
        "node_type_id ei model_type model_name note\n"
        '100 e point_process exc NULL\n101 i point_process inh "two words"\n'
    )
    (folder / "lgn_node_types.csv").write_text("node_type_id model_type ei\n7 virtual e\n")
    (folder / "cells_cells_edge_types.csv").write_text(
        "edge_type_id target_query source_query delay syn_weight\n"
        "200 model_name=='exc' \"ei=='e' & note=='x'\" 2.0 0.3\n201 * ei=='i' 2.0 0.15\n9 * * 2.0 7\n"
    )
    (folder / "lgn_cells_edge_types.csv").write_text("edge_type_id delay\n5 1.5\n")
    write_nodes(
        folder / "cells_nodes.h5",
        "cells",
        [100, 100, 101, 100, 101],
        {
            "0": {
                "x": [0.1, 0.2, 0.3, 0.4, 0.5],
                "y": [1.0, 2, 3, 4, 5],
                "angle": np.float32([1, 2, 3, 4, 0.1]),
            }
        },
    )
    write_nodes(folder / "lgn_nodes.h5", "lgn", [7, 7, 7], {"0": {}})
    write_edges(
        folder / "cells_cells_edges.h5",
        "cells_to_cells",
        (("cells", [0, 0, 2, 4, 1, 3]), ("cells", [1, 2, 0, 3, 4, 0])),
        [200, 200, 201, 201, 200, 200],
        {"0": {"nsyns": np.uint16([10, 3, 7, 1, 2, 9])}},
    )
    write_edges(
        folder / "lgn_cells_edges.h5",
        "lgn_to_cells",
        (("lgn", [0, 1, 2, 2]), ("cells", [4, 3, 0, 1])),
        5,
        {"0": {"syn_weight": [0.5, -0.25, 0.1, 1e-3], "sec_id": np.int8([1, -2, 3, 4])}},
    )
    return folder


def odd_network(folder: Path) -> Path:
    """All that SONATA allows: a config with variables, ids out of order, groups, enumerations, parallel rows."""
    network = folder / "deep" / "network"
    network.mkdir(parents=True)
    (folder / "circuit_config.json").write_text(
        """{"manifest": {"$BASE_DIR": "${configdir}", "$NET": "$BASE_DIR/deep/network", "$OUT": "../elsewhere"},
        "networks": {
          "nodes": [{"nodes_file": "$NET/all_nodes.h5", "node_types_file": "$NET/types.csv"},
                    {"nodes_file": "deep/network/off.h5", "node_types_file": null, "enabled": false}],
          "edges": [{"edges_file": "$NET/edges.h5", "edge_types_file": "$NET/edge_types.csv", "enabled": true}]}}"""
    )
    (network / "types.csv").write_text(
        'node_type_id  ei  model_type  size label\n3 e virtual NULL ""\n1 i biophysical 2.5 "a ""b"" c"\n'
        "12 e biophysical 3 plain\n"
    )
    (network / "edge_types.csv").write_text(
        "edge_type_id syn_weight delay kind\n4 0.5 1.0 a\n8 NULL 3.0 b\n77 0.25 NULL c\n"
    )
    rng = np.random.default_rng(3)
    nodes = network / "all_nodes.h5"
    write_nodes(
        nodes,
        "cortex",
        [1, 12, 12, 1, 12, 1],
        {
            "0": {
                "x": [1.0, 2, 3],
                "y": [4.0, 5, 6],
                "z": [7.0, 8, 9],
                "tuned": np.int16([1, 2, 3]),
                "size": [9.0, 8, 7],
            },
            "1": {
                "x": [-1.0, -2, -3],
                "y": [0.0, 0, 0],
                "z": [0.5, 0.5, 0.5],
                "tag": np.array(["p", "q r", ""]),
            },
        },
        node_id=np.uint64([15, 10, 12, 30, 11, 20]),
        node_group_id=np.uint32([1, 0, 0, 1, 1, 0]),
        node_group_index=np.uint64([2, 1, 0, 0, 1, 2]),
    )
    write_nodes(
        nodes, "thalamus", [3, 3], {"0": {"name": np.array(["left", "right"]), "rank": np.uint8([0, 1])}}
    )
    with h5py.File(nodes, "a") as file:
        file["nodes/thalamus/0"].create_dataset(
            "@library/rank", data=["low", "high"], dtype=h5py.string_dtype("utf-8")
        )
        file["nodes/cortex/0/dynamics_params/tau"] = np.array([1.5, 2.5, 3.5])
    edges = network / "edges.h5"
    ids = np.array([10, 11, 12, 15, 20, 30])
    source, target = rng.choice(ids, 40), rng.choice(ids, 40)
    source[7:12], target[7:12] = 15, 30
    ends = (("cortex", source), ("cortex", target))
    second = np.arange(40) % 3 == 0
    index = np.empty(40, dtype=np.uint32)
    index[~second], index[second] = rng.permutation((~second).sum()), np.arange(second.sum())
    write_edges(
        edges,
        "recurrent",
        ends,
        rng.choice([4, 8, 77], 40),
        {
            "0": {
                "syn_weight": rng.random((~second).sum()).astype(np.float32),
                "pos": rng.normal(size=(~second).sum()),
                "weight": np.arange((~second).sum()),
            },
            "1": {"nsyns": np.uint8(1 + np.arange(second.sum()) % 4)},
        },
        edge_group_id=second.astype(np.uint16),
        edge_group_index=index,
    )
    write_edges(
        edges, "feed", (("thalamus", [1, 0, 1, 1]), ("cortex", [30, 10, 11, 30])), [4, 4, 8, 4], {"0": {}}
    )
    write_edges(
        edges, "empty", (("thalamus", []), ("cortex", [])), np.empty(0), {"0": {"syn_weight": np.empty(0)}}
    )
    return folder


GENERATED: dict[str, Callable[[Path], Path]] = {"plain": plain_network, "odd": odd_network}


def names() -> list[str]:
    """The generated networks, and the published ones that lie on this machine."""
    return [*GENERATED, *(name for name in EXAMPLES if example(name))]


class Found:
    """What plain h5py and csv find in a folder: every population, its attributes row by row, and every type table.

    Attributes:
        nodes, edges: population -> column -> values of every row; rows of groups without a column have None.
        types: every type table by its file's name, as rows of texts by type id.
    """

    def __init__(self, folder: Path) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self.edges: dict[str, dict[str, Any]] = {}
        self.types: dict[str, dict[str, dict[str, str]]] = {}
        for path in sorted(folder.rglob("*.h5")):
            with h5py.File(path, "r") as file:
                for kind, found in (("node", self.nodes), ("edge", self.edges)):
                    for name, group in file.get(f"{kind}s", {}).items():
                        found[name] = dict(self._columns(group, kind))
        for path in sorted(folder.rglob("*types.csv")):
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file, delimiter=" ", skipinitialspace=True))
            key = next(name for name in rows[0] if name.endswith("_type_id"))
            self.types[path.name] = {row[key]: {k: v for k, v in row.items() if k} for row in rows}

    def _columns(self, group: h5py.Group, kind: str) -> Iterator[tuple[str, Any]]:
        for name, item in group.items():
            if isinstance(item, h5py.Dataset) and name != f"{kind}_group_index":
                yield name, item[()].tolist()
            for key, value in item.attrs.items():
                yield f"{name}@{key}", value
        rows, index = group[f"{kind}_group_id"][()], group[f"{kind}_group_index"][()]
        for key in (key for key in group if key.isdecimal()):
            members = np.flatnonzero(rows == int(key))
            found: dict[str, h5py.Dataset] = {}
            group[key].visititems(
                lambda name, item, found=found: (
                    found.update({name: item}) if isinstance(item, h5py.Dataset) else None
                )
            )
            for name, item in found.items():
                text = h5py.check_string_dtype(item.dtype) is not None
                values = (item.asstr() if text else item)[()]
                library = name.startswith("@library")
                yield (
                    f"{key}/{name}",
                    list(values) if library else [repr(values[index[row]]) for row in members],
                )
                yield f"{key}/{name}:type", "text" if text else item.dtype.str
