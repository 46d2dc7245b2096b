"""A training run of every kind of probe, exported: each format has the run file's values at the same places."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import libsonata
import numpy as np
import pandas as pd
import pynwb
import pytest
from nwbinspector import Importance, inspect_nwbfile

import circuitlab
from circuitlab.cli.main import main

CIRCUIT = """\
circuit: cortex
seed: 1
populations:
  retina:  {type: input, size: 3}
  l4:      {type: pyramidal, size: 6, names: [a, b, c, d, e, f]}
  sst:     {type: interneuron, size: 2, activation: relu, sign: inhibitory}
  readout: {type: output, size: 2}
projections:
  retina_l4:  {source: retina, target: l4}
  l4_sst:     {source: l4, target: sst}
  sst_l4:     {source: sst, target: l4, site: apical}
  l4_readout: {source: l4, target: readout}
"""
EXPERIMENT = """\
experiment: probed
circuit: cortex.yaml
data: {name: file, train: train.npz, test: 0.25}
control: {pathway: linear_feedback}
learn: {rule: least_control, epochs: 2, batch_size: 8, optimizer: {name: adam, lr: 0.01}}
record:
  l4: {population: l4, variable: [soma, basal, apical, control], samples: [0, 2, 4], of: test, every: 1 epoch}
  batch: {population: l4, variable: rate, units: [4, 1], every: 1 steps}
  u: {population: readout, variable: controller}
  b: {population: l4, variable: bias}
  w: {projection: retina_l4, variable: weights, where: "target < 3", every: 2 steps}
  dw: {projection: l4_readout, variable: updates}
  q: {population: l4, variable: feedback_weights}
  solved: {variable: [residual, iterations, converged], samples: [0, 1], of: test}
  way: {population: l4, variable: soma, samples: [0, 1], of: test, along: {iterations: 2}}
  settle: {population: l4, variable: [soma, apical], samples: [1], of: test, along: {real_time: 5 ms, every: 1 ms}}
seed: 1
"""
ROWS = ("frame", "sample", "point")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run file."""
    place = tmp_path_factory.mktemp("exported")
    rng = np.random.default_rng(0)
    np.savez(place / "train.npz", retina=rng.random((28, 3)), label=rng.integers(0, 2, 28))
    (place / "cortex.yaml").write_text(CIRCUIT)
    (place / "probed.yaml").write_text(EXPERIMENT)
    assert main(["run", str(place / "probed.yaml"), "-o", str(place / "run.h5"), "--quiet"]) == 0
    return place / "run.h5"


def recorded(run: Path) -> dict[str, tuple[tuple[str, ...], np.ndarray, np.ndarray]]:
    """Of every probe: its axes, its values, and the values as rows and columns."""
    found = {}
    with h5py.File(run) as file:
        for name, group in file["activity"].items():
            words = re.match(r"\[(.*?)\]", group["data"].attrs["description"])[1]
            axes = tuple(word.strip() for word in words.split(","))
            rows = [axes.index(axis) for axis in ROWS if axis in axes]
            columns = [i for i in range(len(axes)) if i not in rows]
            values = group["data"][:]
            count = int(np.prod([values.shape[i] for i in rows]))
            found[name] = axes, values, values.transpose(*rows, *columns).reshape(count, -1)
    assert len(found) == 16
    return found


def test_sonata(run: Path, tmp_path: Path) -> None:
    done = circuitlab.export(run, "sonata", tmp_path / "out")
    config = libsonata.SimulationConfig.from_file(str(tmp_path / "out" / "simulation_config.json"))
    with h5py.File(run) as file:
        targets = {name: file[f"edges/{name}/target_node_id"][:] for name in file["edges"]}
        for name, (axes, _, expected) in recorded(run).items():
            if axes[-1] not in ("unit", "edge", "output unit"):
                assert any(name in line.split(":")[0].split(", ") for line in done.left_out)
                continue
            data = file[f"activity/{name}/data"]
            population = data.attrs.get("population") or data.attrs["projection"].split("_")[1]
            frame = libsonata.ElementReportReader(config.report(name).file_name)[population].get()
            group = file[f"activity/{name}"]
            if "edge" in axes:
                edges = group["edge_ids"][:]
                places = np.stack([targets[data.attrs["projection"]][edges], edges], axis=1)
            else:
                outputs = data.shape[-1] if axes[-1] == "output unit" else 1
                units = group["unit_ids"][:]
                places = np.array([[unit, output] for unit in units for output in range(outputs)])
            order = np.lexsort((places[:, 1], places[:, 0]))
            assert frame.ids.tolist() == places[order].tolist(), name
            np.testing.assert_array_equal(frame.data, expected[:, order])


def test_nwb(run: Path, tmp_path: Path) -> None:
    circuitlab.export(run, "nwb", tmp_path / "out")
    path = str(tmp_path / "out" / "run.nwb")
    assert pynwb.validate(path=path) == []
    found = inspect_nwbfile(nwbfile_path=path)
    assert {message.importance for message in found} == {Importance.BEST_PRACTICE_SUGGESTION}
    with pynwb.NWBHDF5IO(path, "r") as io:
        nwb = io.read()
        for name, (_, values, expected) in recorded(run).items():
            item = nwb.acquisition[name]
            data = item.data[:] if isinstance(item, pynwb.TimeSeries) else item["data"].data[:]
            np.testing.assert_array_equal(data.reshape(expected.shape), expected)
            assert data.dtype == (np.uint8 if values.dtype == bool else values.dtype)


def test_csv_and_labelled_arrays(run: Path, tmp_path: Path) -> None:
    circuitlab.export(run, "csv", tmp_path / "out")
    package = json.loads((tmp_path / "out" / "recorded" / "datapackage.json").read_text())
    paths = {each["title"]: tmp_path / "out" / "recorded" / each["path"] for each in package["resources"]}
    everything = recorded(run)
    with h5py.File(run) as file:
        ids = file["activity/batch/sample_ids"][:]
    with circuitlab.open(run) as opened:
        for name, (_, values, _) in everything.items():
            np.testing.assert_array_equal(opened.activity[name].values, values)
            table = pd.read_csv(paths[name])
            there = values if values.dtype.kind != "f" else values[~np.isnan(values)]
            if name == "batch":
                there = values[ids >= 0]
            np.testing.assert_array_equal(table["value"].to_numpy(values.dtype), there.ravel())
        soma, table = opened.activity["l4_soma"], pd.read_csv(paths["l4_soma"])
        last = table[(table["frame"] == table["frame"].max()) & (table["sample"] == 4)]
        assert (
            soma.sel(sample=4).isel(frame=-1).values.tolist() == last["value"].to_numpy(np.float32).tolist()
        )
        assert last["name"].tolist() == list("abcdef")
