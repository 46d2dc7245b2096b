"""NWB files, read by pynwb and looked at by nwbinspector, beside h5py on the run file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pynwb
import pytest
from nwbinspector import Importance, inspect_nwbfile

import circuitlab

HARMLESS = {
    "Experimenter is missing.",
    "Metadata /general/institution is missing.",
    "This table has only a single row; it may be better represented by another data type.",
}
"""Suggestions of nwbinspector that stay: who did it and where is not in a run file."""


def written(run: Path, folder: Path, **options: Any) -> Path:
    """The NWB file of a run, valid by its schema and without criticism by nwbinspector."""
    circuitlab.export(run, "nwb", folder, **options)
    path = folder / f"{run.stem}.nwb"
    assert pynwb.validate(path=str(path)) == []
    found = list(inspect_nwbfile(nwbfile_path=str(path)))
    assert all(message.importance == Importance.BEST_PRACTICE_SUGGESTION for message in found), found
    texts = {message.message for message in found} - HARMLESS
    assert all(text.startswith(("Processing module is named", "Column '")) for text in texts), texts
    return path


def test_pynwb_reads_every_recording_as_it_is(everything: Path, tmp_path: Path) -> None:
    path = written(everything, tmp_path / "out")
    with pynwb.NWBHDF5IO(str(path), "r") as io, h5py.File(everything) as run:
        nwb = io.read()

        def same(name: str, values: np.ndarray) -> None:
            item = nwb.acquisition[name]
            data = item.data if isinstance(item, pynwb.TimeSeries) else item["data"].data
            assert data.dtype == values.dtype
            np.testing.assert_array_equal(data[:], values)

        for variable in ("soma", "basal", "apical"):
            same(f"cells_{variable}", run[f"activity/cells_{variable}/data"][:].reshape(6, 3))
            series = nwb.acquisition[f"cells_{variable}"]
            assert series.timestamps[:].tolist() == [1, 1, 6, 6, 11, 11]
            assert series.unit == "dimensionless"
            assert "updates" in series.comments
        same("batch", run["activity/batch/data"][:].reshape(9, 2))
        same("double", run["activity/double/data"][:].reshape(6))
        for name in ("settling", "iterations"):
            same(name, run[f"activity/{name}/data"][:].transpose(0, 2, 1, 3).reshape(24, 2))
        assert nwb.acquisition["settling"].rate == 2000
        same("residual", run["activity/residual/data"][:].reshape(6))
        for name in ("synapses", "bias", "Q"):
            same(name, run[f"activity/{name}/data"][:])
        same("a_b_c", run["activity/a%2Fb c/data"][:].reshape(6))
        rows = nwb.acquisition["cells_soma_rows"].to_dataframe()
        assert rows["sample"].tolist() == [4, 7] * 3
        assert rows["label"].tolist() == [0, 1] * 3
        assert rows["step"].tolist() == [1, 1, 6, 6, 11, 11]


def test_the_columns_of_a_series_are_found_among_the_neurons(everything: Path, tmp_path: Path) -> None:
    path = written(everything, tmp_path / "out")
    with pynwb.NWBHDF5IO(str(path), "r") as io, h5py.File(everything) as run:
        nwb = io.read()
        circuit = nwb.processing["circuit"]
        neurons = circuit["neurons"].to_dataframe()
        assert neurons["population"].tolist() == ["eye"] * 4 + ["cells"] * 3 + ["answer"] * 2
        cells = neurons[neurons["population"] == "cells"]
        assert cells["neuron_name"].tolist() == ["left", "middle", "right"]
        assert cells[["x", "y"]].to_numpy().tolist() == [[0, 1], [2, 3], [4, 5]]
        assert set(cells["cell_type"]) == {"pyramidal"} and set(cells["tau_ms"]) == {20.0}
        listed = circuit["recordings"].to_dataframe().set_index("series")
        batch = listed.loc["batch"]
        assert batch["neurons"]["neuron_name"].tolist() == ["right", "left"]
        assert batch["column_ids"].tolist() == [2, 0]
        assert (batch["variable"], batch["population"], batch["phase"]) == ("rate", "cells", "controlled")
        rows = nwb.acquisition[batch["rows"]].to_dataframe()
        assert rows["sample"].tolist() == [5, 3, 9, 0, 1, 2, 8, 6, -1]
        assert listed.loc["synapses", "column_ids"].tolist() == [7, 1, 5]
        # Synapses: the two neurons of each, and its weight before and after learning.
        synapses = circuit["eye_cells"]
        target = run["edges/eye_cells/target_node_id"][:]
        assert synapses["target"].data[:].tolist() == (4 + target).tolist()
        np.testing.assert_array_equal(synapses["weight"][:], run["weights/eye_cells"][-1])
        np.testing.assert_array_equal(synapses["weight_initial"][:], run["edges/eye_cells/0/syn_weight"])
        bias = run["weights/cells_bias"][-1].astype(float)
        np.testing.assert_array_equal(cells["bias"], bias)


def test_the_file_says_what_it_is_and_how_it_came_to_be(everything: Path, tmp_path: Path) -> None:
    path = written(everything, tmp_path / "out")
    with pynwb.NWBHDF5IO(str(path), "r") as io, h5py.File(everything) as run:
        nwb = io.read()
        assert nwb.session_start_time.isoformat() == run.attrs["created"]
        assert "simulated" in nwb.subject.description and nwb.subject.subject_id == "small"
        assert nwb.scratch["circuit_yaml"].data == run["spec/circuit"].asstr()[()]
        provenance = json.loads(nwb.scratch["provenance"].data)
        assert provenance["command"] == "circuitlab run small"
        loss = nwb.processing["learning"]["test_loss"]
        np.testing.assert_array_equal(loss.data[:], [1 / 3, 1 / 4, 1 / 5])
        assert (loss.starting_time, loss.rate, loss.unit) == (0, 1, "nats")


def test_real_time_is_in_seconds(simulated: Path, tmp_path: Path) -> None:
    path = written(simulated, tmp_path / "out")
    with pynwb.NWBHDF5IO(str(path), "r") as io, h5py.File(simulated) as run:
        nwb = io.read()
        for variable in ("soma", "apical"):
            series = nwb.acquisition[f"cells_{variable}"]
            assert series.rate == pytest.approx(5000) and series.starting_time == 0
            np.testing.assert_array_equal(series.data[:], run[f"activity/cells_{variable}/data"])
        assert nwb.acquisition["cells_soma_samples"]["sample"][:].tolist() == [0, 1]


def test_recordings_or_the_network_alone(everything: Path, tmp_path: Path) -> None:
    path = written(everything, tmp_path / "a", what="activity", probes=["cells_*"])
    with pynwb.NWBHDF5IO(str(path), "r") as io:
        nwb = io.read()
        names = {f"cells_{variable}" for variable in ("soma", "basal", "apical")}
        assert set(nwb.acquisition) == names | {f"{name}_rows" for name in names}
        assert set(nwb.processing["circuit"].data_interfaces) == {"neurons", "recordings"}
        assert "learning" not in nwb.processing
    path = written(everything, tmp_path / "b", what="network")
    with pynwb.NWBHDF5IO(str(path), "r") as io:
        nwb = io.read()
        assert not nwb.acquisition
        tables = {"neurons", "eye_cells", "cells_cells", "cells_answer"}
        assert set(nwb.processing["circuit"].data_interfaces) == tables
