"""CSV tables of what was recorded, read by pandas beside h5py on the run file."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import circuitlab


def read(folder: Path, name: str) -> pd.DataFrame:
    """A table, with every digit."""
    return pd.read_csv(folder / "recorded" / f"{name}.csv")


@pytest.fixture
def out(everything: Path, tmp_path: Path) -> Path:
    """The run of every form of recording, as CSV."""
    done = circuitlab.export(everything, "csv", tmp_path / "out")
    assert done.left_out == ()
    return tmp_path / "out"


def test_a_row_for_every_value_of_frames_samples_and_neurons(everything: Path, out: Path) -> None:
    with h5py.File(everything) as file:
        expected = file["activity/cells_soma/data"][:]
    table = read(out, "activity/cells_soma")
    assert list(table) == ["frame", "step", "sample", "label", "unit", "name", "value"]
    assert len(table) == expected.size
    for (frame, sample, unit), value in np.ndenumerate(expected):
        step, number, name = (1, 6, 11)[frame], (4, 7)[sample], ("left", "middle", "right")[unit]
        (row,) = table[
            (table["step"] == step) & (table["sample"] == number) & (table["name"] == name)
        ].to_dict("records")
        assert np.float32(row["value"]) == value
        assert (row["frame"], row["unit"], row["label"]) == (frame, unit, sample)


def test_samples_that_are_not_there_have_no_row(everything: Path, out: Path) -> None:
    table = read(out, "activity/batch")
    assert len(table) == (9 - 1) * 2
    with h5py.File(everything) as file:
        values = file["activity/batch/data"][:].reshape(9, 2)[:8]
    np.testing.assert_array_equal(table["value"].to_numpy(np.float32), values.ravel())
    assert table["sample"].tolist() == np.repeat([5, 3, 9, 0, 1, 2, 8, 6], 2).tolist()
    assert table["unit"].tolist() == [2, 0] * 8
    assert table["name"].tolist() == ["right", "left"] * 8


def test_doubles_keep_all_their_digits(everything: Path, out: Path) -> None:
    with h5py.File(everything) as file:
        expected = file["activity/double/data"][:].ravel()
    assert read(out, "activity/double")["value"].tolist() == expected.tolist()


def test_other_forms_name_their_axes(everything: Path, out: Path) -> None:
    with h5py.File(everything) as file:

        def values(name: str) -> np.ndarray:
            return file[f"activity/{name}/data"][:]

        for name, column, at in (
            ("settling", "settling_time_ms", [0.0, 0.5, 1.0, 1.5]),
            ("iterations", "iteration", [0, 5, 10, 12]),
        ):
            table = read(out, f"activity/{name}").set_index(["frame", column, "sample", "unit"])["value"]
            expected = values(name)
            assert len(table) == expected.size
            assert np.float32(table[2, at[3], 7, 2]) == expected[2, 3, 1, 1]
            assert np.float32(table[0, at[1], 4, 0]) == expected[0, 1, 0, 0]
        edges = read(out, "activity/synapses")
        assert edges["edge"].tolist() == [7, 1, 5] * 3
        ends = file["edges/eye_cells/source_node_id"][:], file["edges/eye_cells/target_node_id"][:]
        assert edges["source"].tolist()[:3] == [ends[0][7], ends[0][1], ends[0][5]]
        assert edges["target_name"].tolist()[:3] == [
            ["left", "middle", "right"][ends[1][edge]] for edge in (7, 1, 5)
        ]
        np.testing.assert_array_equal(edges["value"].to_numpy(np.float32), values("synapses").ravel())
        q = read(out, "activity/Q").set_index(["frame", "name", "output_unit"])["value"]
        assert np.float32(q[1, "right", 1]) == values("Q")[1, 2, 1]
        residual = read(out, "activity/residual").set_index(["step", "sample"])["value"]
        assert np.float32(residual[6, 7]) == values("residual")[1, 1]
        assert len(read(out, "activity/bias")) == 9
        odd = read(out, "activity/a_b_c")["value"].to_numpy(np.float32)
        np.testing.assert_array_equal(odd, values("a%2Fb c").ravel())


def test_learning_curves_and_weights_before_and_after(everything: Path, out: Path) -> None:
    curves = read(out, "training/evaluation")
    assert curves["test_loss"].tolist() == [1 / 3, 1 / 4, 1 / 5]
    assert curves["evaluation"].tolist() == [0, 1, 2]
    weights, bias = read(out, "weights/eye_cells"), read(out, "weights/cells_bias")
    with h5py.File(everything) as file:
        for column, row in (("initial", 0), ("final", -1)):
            found = weights[column].to_numpy(np.float32)
            np.testing.assert_array_equal(found, file["weights/eye_cells"][row])
            found = bias[column].to_numpy(np.float32)
            np.testing.assert_array_equal(found, file["weights/cells_bias"][row])
        for end in ("source", "target"):
            assert weights[end].tolist() == file[f"edges/eye_cells/{end}_node_id"][:].tolist()
    assert bias["name"].tolist() == ["left", "middle", "right"]


def test_the_package_describes_every_column_of_every_table(out: Path) -> None:
    package = json.loads((out / "recorded" / "datapackage.json").read_text())
    files = {path.relative_to(out / "recorded").as_posix() for path in (out / "recorded").rglob("*.csv")}
    assert {each["path"] for each in package["resources"]} == files
    names = [each["name"] for each in package["resources"]]
    assert len(set(names)) == len(names)
    kinds = {"integer": "iu", "number": "f", "string": "OUT", "boolean": "b"}
    readme = (out / "recorded" / "README.txt").read_text()
    for each in package["resources"]:
        table = read(out, each["path"].removesuffix(".csv"))
        fields = each["schema"]["fields"]
        assert [field["name"] for field in fields] == list(table)
        for field in fields:
            kind = table[field["name"]].dtype.kind
            assert kind in kinds[field["type"]] or (kind == "i" and field["type"] == "number"), field
            assert field["description"]
        assert each["path"] in readme
    units = {field["name"]: field.get("unit") for field in package["resources"][0]["schema"]["fields"]}
    assert units["step"] == "updates"


def test_real_time_has_ms(simulated: Path, tmp_path: Path) -> None:
    circuitlab.export(simulated, "csv", tmp_path / "out", what="activity")
    table = read(tmp_path / "out", "activity/cells_soma")
    with h5py.File(simulated) as file:
        expected = file["activity/cells_soma/data"][:]
        assert table["time_ms"].unique().tolist() == file["activity/cells_soma/time"][:].tolist()
    np.testing.assert_array_equal(table["value"].to_numpy(np.float32).reshape(25, 2, 3), expected)
    assert not (tmp_path / "out" / "circuit.yaml").exists()
