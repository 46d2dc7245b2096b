"""Labelled arrays of a run file against h5py: labels, laziness, growing files, and probes that do not collide."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import circuitlab
from circuitlab.errors import RunFileError
from circuitlab.record.backend import Backend
from circuitlab.record.run_file import RunWriter

ROOT = Path(__file__).parents[2]
Create = Callable[..., RunWriter]


def probe(
    writer: RunWriter, name: str, variable: str, phase: str, units: list[int], frames: int, samples: int = 4
) -> np.ndarray:
    """Records noise of the population `cells`."""
    chance = np.random.default_rng(len(name))
    names = np.array(["left", "middle", "right"], dtype=object)
    group = f"activity/{name}"
    data = chance.normal(size=(frames, samples, len(units))).astype("f4")
    writer.attributes(group, every="2 steps", of="test")
    writer.put(f"{group}/unit_ids", np.array(units), units="dimensionless", description="[unit] index")
    writer.put(f"{group}/unit_names", names[units], units="none", description="[unit] name")
    labels = np.arange(samples) % 2
    writer.put(f"{group}/labels", labels, units="class", description="[sample] class")
    for frame in range(frames):
        writer.append(
            f"{group}/data",
            data[frame],
            units="dimensionless",
            description="[frame, sample, unit] noise",
            variable=variable,
            symbol="s",
            population="cells",
            phase=phase,
        )
        writer.append(f"{group}/step", 2 * frame, units="updates", description="[frame] update")
        ids = 10 + np.arange(samples)
        writer.append(f"{group}/sample_ids", ids, units="dimensionless", description="[frame, sample] number")
    return data


@pytest.fixture
def recorded(create: Create, tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A run with probes of one population, metrics and weights; and what went into it."""
    path, data = tmp_path / "run.h5", {}
    chance = np.random.default_rng(0)
    with create(path) as writer:
        data["soma"] = probe(writer, "soma", "soma", "free", [0, 2], 3)
        data["basal"] = probe(writer, "basal", "basal", "free", [0, 2], 3)
        data["apical_free"] = probe(writer, "apical_free", "apical", "free", [0, 1, 2], 3)
        data["apical_controlled"] = probe(writer, "apical_controlled", "apical", "controlled", [1], 5, 2)
        data["weights"] = chance.normal(size=(3, 6)).astype("f4")
        for row, weights in enumerate(data["weights"]):
            writer.append("weights/step", 7 * row, units="updates", description="[snapshot] updates")
            writer.append(
                "weights/cells_cells", weights, units="dimensionless", description="[snapshot, edge] weights"
            )
        for step in range(5):
            writer.append("training/step", step + 1, units="updates", description="[step] number")
            writer.append(
                "training/loss",
                1 / (step + 1),
                units="nats",
                description="[step] loss",
                index="training/step",
            )
        for epoch in range(2):
            writer.append("training/epoch", epoch + 1, units="epochs", description="[epoch] number")
            writer.append(
                "training/kinks", epoch, units="neurons", description="[epoch] kinks", index="training/epoch"
            )
    return path, data


def test_neurons_by_name_number_and_attribute(recorded: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, data = recorded
    with circuitlab.open(path) as run:
        soma = run.population("cells").soma
        assert soma.dims == ("frame", "sample", "unit")
        np.testing.assert_array_equal(soma.sel(unit="right"), data["soma"][:, :, 1])
        np.testing.assert_array_equal(soma.sel(neuron="right"), data["soma"][:, :, 1])
        np.testing.assert_array_equal(soma.sel(unit_id=2), data["soma"][:, :, 1])
        np.testing.assert_array_equal(soma.sel(unit=["right", "left"]), data["soma"][:, :, [1, 0]])
        np.testing.assert_array_equal(soma.sel(step=4, sample_id=12), data["soma"][2, 2])
        np.testing.assert_array_equal(soma.sel(label=1), data["soma"][:, [1, 3]])
        np.testing.assert_array_equal(soma.where(soma.x > 2, drop=True), data["soma"][:, :, 1:])
        np.testing.assert_array_equal(
            soma[::-1, [3, 1, 1], ::-1], data["soma"][::-1][:, [3, 1, 1]][:, :, ::-1]
        )
        assert (soma.attrs["units"], soma.attrs["variable"], soma.attrs["symbol"]) == (
            "dimensionless",
            "soma",
            "s",
        )
        assert soma.attrs["description"].startswith("[frame, sample, unit]")
        assert soma.step.attrs["units"] == "updates"
        with pytest.raises(KeyError):
            soma.sel(unit="nobody")


def test_probes_of_one_variable_do_not_collide(recorded: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, data = recorded
    with circuitlab.open(path) as run:
        cells = run.population("cells")
        assert set(cells.data_vars) == {"soma", "basal", "apical_free", "apical_controlled"}
        for name in ("soma", "basal", "apical_free", "apical_controlled"):
            np.testing.assert_array_equal(cells[name], data[name])
        assert cells.apical_controlled.attrs["phase"] == "controlled"
        assert cells.apical_controlled.attrs["variable"] == "apical"
        assert list(run.activity) == sorted(("soma", "basal", "apical_free", "apical_controlled"))
        np.testing.assert_array_equal(
            run.activity["apical_controlled"].sel(unit="middle"), data["apical_controlled"][..., 0]
        )


def test_training_weights_and_any_dataset(recorded: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, data = recorded
    with circuitlab.open(path) as run, h5py.File(path, locking=False) as file:
        training = run.training
        np.testing.assert_allclose(training.loss.sel(step=[2, 5]), [1 / 2, 1 / 5])
        assert float(training.kinks.sel(epoch=2)) == 1
        assert training.loss.attrs["units"] == "nats"
        weights = run.weights_of("cells_cells")
        assert weights.dims == ("step", "edge")
        np.testing.assert_array_equal(weights, data["weights"])
        np.testing.assert_array_equal(weights.sel(step=14), data["weights"][2])
        np.testing.assert_array_equal(weights[[2, 0], ::-1][:, [4, 0]], data["weights"][[2, 0]][:, [1, 5]])
        names = np.array(["left", "middle", "right"])
        np.testing.assert_array_equal(weights.source_name, names[file["edges/cells_cells/source_node_id"][:]])
        np.testing.assert_array_equal(weights.target, file["edges/cells_cells/target_node_id"][:])
        onto = weights.sel(target_name="middle")
        np.testing.assert_array_equal(
            onto, data["weights"][:, file["edges/cells_cells/target_node_id"][:] == 1]
        )
        bias = run.array("nodes/cells/0/bias")
        assert bias.dims == ("unit",)
        np.testing.assert_array_equal(bias, file["nodes/cells/0/bias"][:])
        assert run.array("/nodes/cells/0/name").values.tolist() == ["left", "middle", "right"]


def test_mistakes_are_one_line(recorded: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, _ = recorded
    with circuitlab.open(path) as run:
        for ask, message in (
            (lambda: run.population("cels"), r"no population 'cels'; there are .*Did you mean 'cells'\?"),
            (lambda: run.population("eye"), r"nothing was recorded of 'eye'"),
            (lambda: run.activity["som"], r"no probe 'som'; there are .*Did you mean 'soma'\?"),
            (lambda: run.weights_of("eye_cells"), r"no weights of 'eye_cells'; there are cells_cells\."),
            (lambda: run.equilibria["free"], r"no equilibrium 'free'; there are none\."),
            (
                lambda: run.array("training/los"),
                r"no dataset 'training/los'\. Did you mean 'training/loss'\?",
            ),
        ):
            with pytest.raises(RunFileError, match=message):
                ask()
        soma = run.population("cells").soma
    with pytest.raises(RunFileError, match="the run was closed; read before closing it"):
        soma.load()


def test_a_growing_file_and_one_in_its_place(create: Create, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    writer = create(path)

    def write(step: int) -> None:
        writer.append("training/step", step, units="updates", description="[step] number")
        writer.append(
            "training/loss", 1 / (1 + step), units="nats", description="[step] loss", index="training/step"
        )
        writer.publish()

    write(0)
    with circuitlab.open(path) as run:
        before = run.training.loss
        assert not run.refresh()
        for step in range(1, 4):
            write(step)
        assert run.status == "running"
        assert run.refresh()
        np.testing.assert_array_equal(run.training.step, [0, 1, 2, 3])
        np.testing.assert_array_equal(before, [1.0])
        writer.finish("complete")
        assert run.refresh()
        assert run.status == "complete"
        create(path, overwrite=True).finish("complete")
        assert run.refresh()
        assert run.metrics() == []
        path.unlink()
        with pytest.raises(RunFileError, match="there is no such file"):
            run.refresh()


def test_xarray_opens_it(recorded: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, data = recorded
    with xr.open_dataset(path, engine=Backend, group="population/cells", drop_variables="basal") as cells:
        np.testing.assert_array_equal(cells.soma, data["soma"])
        assert "basal" not in cells
    with xr.open_dataset(path, engine=Backend) as training:
        assert float(training.loss[0]) == 1
    with xr.open_dataset(path, engine=Backend, group="weights/cells_cells") as weights:
        np.testing.assert_array_equal(weights.cells_cells, data["weights"])
    with pytest.raises(RunFileError, match="no group 'weigths'; allowed: training, population/NAME"):
        xr.open_dataset(path, engine=Backend, group="weigths")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (
        project["entry-points"]["xarray.backends"]["circuitlab"] == f"{Backend.__module__}:{Backend.__name__}"
    )


def test_files_larger_than_memory(create: Create, tmp_path: Path) -> None:
    """30 GB of record, opened, selected and summed in part by a process that may take 200 MB beyond its start."""
    path = tmp_path / "large.h5"
    create(path).finish("complete")
    frames, rows = 3200, 4
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        whole = (frames, 1200, 2000)
        data = file.create_dataset(
            "activity/large/data", whole, "f4", chunks=(rows, 1200, 2000), compression="gzip"
        )
        data.attrs.update({"description": "[frame, sample, unit] zeros", "units": "dimensionless"})
        data.attrs.update({"variable": "soma", "population": "cells"})
        data[:rows] = 1
        packed = data.id.read_direct_chunk((0, 0, 0))[1]
        for start in range(rows, frames, rows):
            data.id.write_direct_chunk((start, 0, 0), packed)
    program = """
import resource, sys
from pathlib import Path
import circuitlab, circuitlab.errors, xarray, h5py
with circuitlab.open(sys.argv[1]) as run:
    soma = run.activity["large"]
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + 200_000_000,) * 2)
    assert soma.nbytes == 30_720_000_000, soma.nbytes
    part = soma.isel(frame=slice(1000, 1003), unit=[7, 3])
    assert float(part.sum()) == 3 * 1200 * 2
    assert float(soma.isel(frame=-1, sample=5, unit=5)) == 1
    repr(soma)
    try:
        soma.load()
    except circuitlab.errors.RunFileError as error:
        print(str(error).rpartition(": ")[2])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (
        0,
        "this does not fit into the memory; take a part of it at a time (isel, sel)",
    ), done.stderr
