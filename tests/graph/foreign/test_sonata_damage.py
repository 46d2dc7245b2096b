"""Damaged or unsupported SONATA files: one line that says where and what, exit code 1, and nothing written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from circuitlab.cli.main import main


def put(file: str, name: str, values: object) -> Callable[[Path], None]:
    """A dataset with other content."""

    def change(folder: Path) -> None:
        with h5py.File(folder / file, "a") as opened:
            attributes = dict(opened[name].attrs) if name in opened else {}
            if name in opened:
                del opened[name]
            opened[name] = values
            opened[name].attrs.update(attributes)

    return change


def entry(file: str, name: str, row: int, value: object) -> Callable[[Path], None]:
    """A dataset with one other value."""

    def change(folder: Path) -> None:
        with h5py.File(folder / file, "a") as opened:
            opened[name][row] = value

    return change


def without(file: str, name: str) -> Callable[[Path], None]:
    """A file without one of its datasets."""

    def change(folder: Path) -> None:
        with h5py.File(folder / file, "a") as opened:
            del opened[name]

    return change


def text(file: str, old: str, new: str) -> Callable[[Path], None]:
    """A text file with one place changed."""

    def change(folder: Path) -> None:
        path = folder / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return change


def cut(file: str, share: float) -> Callable[[Path], None]:
    """A file that ends early."""

    def change(folder: Path) -> None:
        path = folder / file
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return change


def remove(file: str) -> Callable[[Path], None]:
    """A folder without a file."""
    return lambda folder: (folder / file).unlink()


def linked(folder: Path) -> None:
    """Weights in another file."""
    with h5py.File(folder / "elsewhere.hdf5", "w") as other:
        other["w"] = np.ones(4)
    with h5py.File(folder / "lgn_cells_edges.h5", "a") as file:
        del file["edges/lgn_to_cells/0/syn_weight"]
        file["edges/lgn_to_cells/0/syn_weight"] = h5py.ExternalLink("elsewhere.hdf5", "w")
    (folder / "elsewhere.hdf5").rename(folder.parent / "elsewhere.hdf5")


def stored_elsewhere(folder: Path) -> None:
    """A dataset whose bytes lie in another file."""
    (folder.parent / "bytes.bin").write_bytes(np.ones(4).tobytes())
    with h5py.File(folder / "lgn_cells_edges.h5", "a") as file:
        del file["edges/lgn_to_cells/0/syn_weight"]
        file["edges/lgn_to_cells/0"].create_dataset(
            "syn_weight", shape=(4,), dtype="f8", external=[(str(folder.parent / "bytes.bin"), 0, 32)]
        )


def huge(folder: Path) -> None:
    """A dataset that claims a hundred gigabytes without having them."""
    with h5py.File(folder / "lgn_cells_edges.h5", "a") as file:
        del file["edges/lgn_to_cells/0/syn_weight"]
        file["edges/lgn_to_cells/0"].create_dataset(
            "syn_weight", shape=(10**10,), chunks=(10**6,), dtype="f8"
        )


def population_attribute(value: object) -> Callable[[Path], None]:
    """Edges that name other nodes."""

    def change(folder: Path) -> None:
        with h5py.File(folder / "lgn_cells_edges.h5", "a") as file:
            attributes = file["edges/lgn_to_cells/target_node_id"].attrs
            del attributes["node_population"]
            if value is not None:
                attributes["node_population"] = value

    return change


CELLS, EDGES, LGN = "cells_nodes.h5", "cells_cells_edges.h5", "lgn_cells_edges.h5"
RECURRENT, FEED = "/edges/cells_to_cells", "/edges/lgn_to_cells"
DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (cut(EDGES, 0.6), rf"{EDGES}: is truncated or damaged: "),
    "empty": (cut(EDGES, 0), rf"{EDGES}: is not an HDF5 file: it is empty"),
    "no HDF5": (lambda f: (f / CELLS).write_text("hello, world"), rf"{CELLS}: is not an HDF5 file"),
    "no nodes or edges": (
        put("more.h5", "data", 1),
        r"more.h5: is not a SONATA file: it has neither /nodes nor",
    ),
    "no target": (
        without(EDGES, f"{RECURRENT}/target_node_id"),
        rf"{EDGES}: {RECURRENT} has no dataset 'target_node_id'",
    ),
    "target too short": (
        put(EDGES, f"{RECURRENT}/target_node_id", np.arange(5)),
        rf"{EDGES}: {RECURRENT}/target_node_id has 5 rows, but 6 are needed",
    ),
    "no such source": (
        entry(EDGES, f"{RECURRENT}/source_node_id", 3, 99),
        rf"{EDGES}: {RECURRENT}/source_node_id is 99 in row 3, but population 'cells' has 5 nodes with ids from 0 to 4",
    ),
    "negative target": (
        put(EDGES, f"{RECURRENT}/target_node_id", np.array([0, 1, 2, -3, 0, 1])),
        rf"{EDGES}: {RECURRENT}/target_node_id is -3 in row 3; it counts from 0",
    ),
    "ids that are no whole numbers": (
        put(EDGES, f"{RECURRENT}/source_node_id", np.zeros(6)),
        r"source_node_id holds float64; whole numbers are needed",
    ),
    "unknown population": (
        population_attribute("cell"),
        rf"{LGN}: {FEED}/target_node_id: no node population 'cell'; there are cells, lgn. Did you mean 'cells'\?",
    ),
    "no population": (
        population_attribute(None),
        rf"{LGN}: {FEED}/target_node_id has no attribute 'node_population'",
    ),
    "unknown edge type": (
        entry(EDGES, f"{RECURRENT}/edge_type_id", 2, 203),
        rf"{EDGES}: {RECURRENT}/edge_type_id is 203 in row 2, and cells_cells_edge_types.csv has no such type",
    ),
    "unknown node type": (
        entry(CELLS, "/nodes/cells/node_type_id", 4, 1),
        rf"{CELLS}: /nodes/cells/node_type_id is 1 in row 4, and cells_node_types.csv has no such type",
    ),
    "node twice": (
        entry(CELLS, "/nodes/cells/node_id", 4, 1),
        rf"{CELLS}: /nodes/cells/node_id has 1 twice; ids differ",
    ),
    "unknown group": (
        entry(EDGES, f"{RECURRENT}/edge_group_id", 5, 4),
        rf"{RECURRENT}/edge_group_id is 4 in row 5, but there is no such group",
    ),
    "index beyond the group": (
        entry(EDGES, f"{RECURRENT}/edge_group_index", 5, 6),
        rf"{RECURRENT}/edge_group_index is 6 in row 5, but {RECURRENT}/0/nsyns has 6 rows",
    ),
    "group without index": (
        without(EDGES, f"{RECURRENT}/edge_group_index"),
        rf"{EDGES}: {RECURRENT} has no dataset 'edge_group_index'",
    ),
    "weight not a number": (
        entry(LGN, f"{FEED}/0/syn_weight", 1, np.nan),
        rf"{LGN}: {FEED}: syn_weight is nan in row 1; weights are finite numbers",
    ),
    "weight infinite": (
        entry(LGN, f"{FEED}/0/syn_weight", 3, np.inf),
        rf"{LGN}: {FEED}: syn_weight is inf in row 3; weights are finite numbers",
    ),
    "type's weight infinite": (
        text("cells_cells_edge_types.csv", "2.0 0.15", "2.0 inf"),
        r"cells_cells_edge_types.csv:3: syn_weight is inf; it must be a finite number",
    ),
    "type's weight text": (
        text("cells_cells_edge_types.csv", "2.0 0.15", "2.0 heavy"),
        r"cells_cells_edge_types.csv:3: syn_weight is 'heavy', not a number",
    ),
    "negative delay": (
        text("cells_cells_edge_types.csv", "2.0 0.15", "-2.0 0.15"),
        rf"{EDGES}: {RECURRENT}: the delay is -2 ms in row 2",
    ),
    "no synapses": (
        entry(EDGES, f"{RECURRENT}/0/nsyns", 2, 0),
        rf"{RECURRENT}: nsyns is 0 in row 2; it is a whole number",
    ),
    "matrix as attribute": (
        put(CELLS, "/nodes/cells/0/x", np.zeros((5, 2))),
        r"/nodes/cells/0/x has shape \[5, 2\]; datasets with one value a row are read",
    ),
    "type table missing": (
        remove("lgn_node_types.csv"),
        r"lgn_nodes.h5: its type table is missing: lgn_node_types.csv beside it",
    ),
    "type table with commas": (
        lambda f: (f / "lgn_node_types.csv").write_text("node_type_id,ei\n7,e\n"),
        r"lgn_node_types.csv:1: no column 'node_type_id'; there are node_type_id,ei \(separated by commas",
    ),
    "row of another length": (
        text("cells_node_types.csv", "exc NULL", "exc"),
        r"cells_node_types.csv:2: 4 values, but the header has 5",
    ),
    "type twice": (
        text("cells_node_types.csv", "101 i", "100 i"),
        r"cells_node_types.csv:3: the type 100 stands twice, first in line 2",
    ),
    "type id no number": (
        text("cells_node_types.csv", "101 i", "x i"),
        r"cells_node_types.csv:3: node_type_id is 'x'; it is a whole number from 0",
    ),
    "external link": (linked, rf"{LGN}: {FEED}/0/syn_weight links to another file, 'elsewhere.hdf5'"),
    "external storage": (stored_elsewhere, rf"{LGN}: {FEED}/0/syn_weight keeps its data in another file"),
    "huge": (huge, rf"{LGN}: {FEED}/0/syn_weight is damaged: it claims 8e\+10 bytes in a file of \d+"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told_in_one_line(
    name: str, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = DAMAGE[name]
    change(plain)
    before = sorted(tmp_path.iterdir())
    assert main(["import", str(plain), "-o", str(tmp_path / "out" / "circuit")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert re.search(message, said.err), said.err
    assert sorted(tmp_path.iterdir()) == before


CONFIG: dict[str, tuple[str, str, str]] = {
    "no JSON": ('"networks": {', '"networks": {,', r"circuit_config.json:2: is not JSON: "),
    "no networks": (
        '"networks"',
        '"network"',
        r"networks: missing; a SONATA circuit names its nodes and edges there",
    ),
    "unknown variable": (
        "$NET/all_nodes.h5",
        "$NETS/all_nodes.h5",
        r"no variable \$NETS in manifest; there are \$BASE_DIR",
    ),
    "circle": ('"${configdir}"', '"$NET"', r"manifest.\$\w+: goes in a circle"),
    "no such file": ("$NET/edges.h5", "$NET/edge.h5", r"networks.edges\[0\].edges_file: no file '.*edge.h5'"),
    "no such types": ("$NET/types.csv", "$NET/type.csv", r"networks.nodes\[0\].node_types_file: no file"),
    "outside": (
        "$NET/edges.h5",
        "$OUT/edges.h5",
        r"'\$OUT/edges.h5' lies outside the folder of this file; allowed:",
    ),
    "enabled": (
        '"enabled": true',
        '"enabled": "yes"',
        r"networks.edges\[0\].enabled: is 'yes'; allowed: true, false",
    ),
    "key twice": ('"$OUT":', '"$NET":', r"the key '\$NET' stands twice in one object"),
    "no file": ('{"edges_file": "$NET/edges.h5", ', "{", r"networks.edges\[0\].edges_file: missing"),
}


@pytest.mark.parametrize("name", CONFIG)
def test_a_wrong_config_is_told_in_one_line(
    name: str, odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, message = CONFIG[name]
    text("circuit_config.json", old, new)(odd)
    assert main(["import", str(odd), "-o", str(tmp_path / "circuit")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert re.search(r"circuit_config.json", error), error
    assert re.search(message, error), error
    assert not (tmp_path / "circuit").exists()


OPTIONS: dict[str, tuple[list[str], str]] = {
    "unknown population": (
        ["--type", "cell=input"],
        r"--type: no population 'cell'; .* Did you mean 'cells'\?",
    ),
    "unknown type": (
        ["--type", "cells=neuron"],
        r"--type: no type 'neuron'; allowed: input, unit, pyramidal",
    ),
    "input that edges reach": (["--type", "cells=input"], r"'cells' cannot be an input: edges end there"),
    "unknown column": (
        ["--split", "cells=modelname"],
        r"no column 'modelname' to split it by; .*Did you mean 'model_name'",
    ),
    "no pair": (["--split", "cells"], r"--split: 'cells' is not of the form NAME=VALUE"),
    "pair twice": (["--type", "lgn=input", "--type", "lgn=unit"], r"--type: 'lgn' is given twice"),
    "two wishes": (["--type", "lgn=input", "--output", "lgn"], r"--output lgn: --type says input"),
    "scale": (["--weight-scale", "-1"], r"--weight-scale: is -1; it is a number above 0"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_impossible_wish_is_told_in_one_line(
    name: str, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, message = OPTIONS[name]
    assert main(["import", str(plain), "-o", str(tmp_path / "circuit"), *options]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert re.search(message, error), error
    assert not (tmp_path / "circuit").exists()


def test_files_outside_are_read_where_allowed(odd: Path, tmp_path: Path) -> None:
    (odd / "deep" / "network" / "edges.h5").rename(tmp_path / "edges.h5")
    text("circuit_config.json", "$NET/edges.h5", "../edges.h5")(odd)
    assert main(["import", str(odd), "-o", str(tmp_path / "circuit")]) == 1
    assert main(["import", str(odd), "-o", str(tmp_path / "circuit"), "--allow-outside"]) == 0


def test_types_may_be_left_out_on_purpose(plain: Path, tmp_path: Path) -> None:
    for table in plain.glob("*_types.csv"):
        table.unlink()
    assert main(["import", str(plain), "-o", str(tmp_path / "circuit")]) == 1
    assert main(["import", str(plain), "-o", str(tmp_path / "circuit"), "--without-types"]) == 0


def test_a_damaged_header_of_circuitlab_s_own_is_told(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(plain), "-o", str(tmp_path / "circuit")]) == 0
    out = tmp_path / "out"
    assert main(["export", str(tmp_path / "circuit" / "circuit.yaml"), "sonata", str(out)]) == 0
    header = out / "circuitlab.json"
    whole = json.loads(header.read_text())
    for damage in (
        whole | {"format": "other"},
        whole | {"version": 99},
        {key: value for key, value in whole.items() if key != "parts"},
        whole | {"populations": {"cells": {"type": "unit"}}},
        whole | {"parts": {"cells": {"populations": ["cells"], "part": [0, 0]}}},
        whole | {"projections": {"cells_to_cells": 3}},
    ):
        header.write_text(json.dumps(damage))
        capsys.readouterr()
        assert main(["import", str(out), "-o", str(tmp_path / "again")]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert "circuitlab.json: " in error
        assert not (tmp_path / "again").exists()
