"""`--tensorboard` and `circuitlab.run`: TensorBoard's own reader finds what the run file holds, also after a stop."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import circuitlab
from circuitlab.cli.main import main
from circuitlab.errors import CircuitlabError, RunFileError
from circuitlab.learn.train import Observer, Trainer

ROOT = Path(__file__).parents[2]
CIRCUIT = """
circuit: small
seed: 3
populations:
  retina: {type: input, size: 64}
  cells: {type: pyramidal, size: 20}
  readout: {type: output, size: 10}
projections:
  retina_cells: {source: retina, target: cells}
  cells_cells: {source: cells, target: cells}
  cells_readout: {source: cells, target: readout}
"""
EXPERIMENT = """
experiment: small_digits
circuit: small.yaml
data: {name: digits, limit: 200, validation: 0.1}
learn: {optimizer: {name: adam, lr: 5e-3}, epochs: 3, batch_size: 32}
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(CIRCUIT)
    (tmp_path / "exp.yaml").write_text(EXPERIMENT)
    return tmp_path / "exp.yaml"


def run(experiment: Path, *options: str, out: str = "run.h5", code: int = 0) -> Path:
    path = experiment.parent / out
    assert main(["run", str(experiment), "-o", str(path), "--quiet", *options]) == code
    return path


def logged(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
    found.Reload()
    return found


def equal(folder: Path, path: Path) -> None:
    """Every metric of the run file, at the update after which it was measured, and no value twice."""
    logs = logged(folder)
    with h5py.File(path) as file:
        training = file["training"]
        updates = training["step"][:]
        per_epoch = len(updates) // int(training["epoch"][-1])
        metrics = {name: item for name, item in training.items() if "index" in item.attrs}
        assert set(logs.Tags()["scalars"]) == set(metrics)
        for name, item in metrics.items():
            index = file[item.attrs["index"]][:]
            steps = index if item.attrs["index"].endswith("step") else index * per_epoch
            events = logs.Scalars(name)
            assert [event.step for event in events] == steps.tolist(), name
            np.testing.assert_array_equal([e.value for e in events], item[:].astype("f4"), err_msg=name)
        snapshots = file["weights/step"][:].tolist()
        for name in ("retina_cells", "cells_cells", "cells_bias"):
            histograms = logs.Histograms(f"weights/{name}")
            assert [event.step for event in histograms] == snapshots
            weights = file[f"weights/{name}"][-1]
            last = histograms[-1].histogram_value
            assert last.num == weights.size
            assert last.sum == pytest.approx(float(weights.astype(float).sum()), rel=1e-4, abs=1e-5)
            assert (last.min, last.max) == (pytest.approx(weights.min()), pytest.approx(weights.max()))


def test_its_logs_hold_every_metric_and_the_weights_of_the_run_file(experiment: Path) -> None:
    folder = experiment.parent / "logs"
    path = run(experiment, "--tensorboard", str(folder))
    equal(folder, path)
    logs = logged(folder)
    (text,) = logs.Tensors("experiment/text_summary")
    assert b"experiment: small_digits" in text.tensor_proto.string_val[0]
    assert "circuit/text_summary" in logs.Tags()["tensors"]
    settings = logs.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    for part in (b"learn.optimizer.lr", b"control.pathway", b"dynamic_inversion"):
        assert part in settings


class Stop(Observer):
    """Asks the training to stop after so many updates."""

    def __init__(self, after: int) -> None:
        self.after = after

    def step(self, trainer: Trainer, *_: Any) -> None:
        trainer.stop_requested = trainer.at.step == self.after


@pytest.mark.parametrize("after", [3, 6, 7])  # six updates are an epoch
def test_a_resumed_run_goes_on_in_the_same_logs(experiment: Path, after: int) -> None:
    folder, path = experiment.parent / "logs", experiment.parent / "run.h5"
    with pytest.raises(KeyboardInterrupt):
        circuitlab.run(experiment, path, tensorboard=folder, observers=[Stop(after)], progress=False)
    circuitlab.run(experiment, path, tensorboard=folder, resume=True, progress=False).close()
    equal(folder, path)


def test_what_was_logged_after_the_last_checkpoint_is_taken_back(experiment: Path) -> None:
    folder, path = experiment.parent / "logs", experiment.parent / "run.h5"
    with pytest.raises(KeyboardInterrupt):
        circuitlab.run(experiment, path, tensorboard=folder, observers=[Stop(8)], progress=False)
    kept = experiment.parent / "kept.h5"
    shutil.copy(path, kept)
    with pytest.raises(KeyboardInterrupt):
        circuitlab.run(
            experiment, path, tensorboard=folder, observers=[Stop(14)], resume=True, progress=False
        )
    shutil.copy(kept, path)  # as a kill leaves it: the logs are six updates ahead of the run file
    circuitlab.run(experiment, path, tensorboard=folder, resume=True, progress=False).close()
    equal(folder, path)


def test_logs_of_another_run_are_kept(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = experiment.parent / "logs"
    run(experiment, "--tensorboard", str(folder), "--set", "learn.epochs=1")
    before = sorted(folder.iterdir())
    capsys.readouterr()
    other = run(experiment, "--tensorboard", str(folder), out="other.h5", code=1)
    assert not other.exists()
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "holds the logs of another run" in said.err
    assert sorted(folder.iterdir()) == before
    path = run(experiment, "--tensorboard", str(folder), "--overwrite")
    equal(folder, path)
    (experiment.parent / "file").write_text("")
    run(experiment, "--tensorboard", str(experiment.parent / "file"), out="third.h5", code=1)


def test_without_the_library_nothing_is_written(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    path = run(experiment, "--tensorboard", str(experiment.parent / "logs"), code=1)
    assert not path.exists()
    assert not (experiment.parent / "logs").exists()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert 'pip install "circuitlab[tensorboard]"' in said.err


def test_nothing_is_said_but_what_is_asked_for(experiment: Path) -> None:
    command = [sys.executable, "-W", "default", "-c", "from circuitlab.cli.main import entry; entry()", "run"]
    options = ["-o", "run.h5", "--quiet", "--json", "--tensorboard", "logs", "--set", "learn.epochs=1"]
    done = subprocess.run(
        [*command, str(experiment), *options],
        capture_output=True,
        text=True,
        cwd=experiment.parent,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("{")


def test_a_run_from_python_is_the_command_s(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from circuitlab.record.compare import compare

    by_command = run(experiment, "--set", "learn.epochs=2", out="command.h5")
    capsys.readouterr()
    with circuitlab.run(experiment, experiment.parent / "python.h5", overrides=["learn.epochs=2"]) as found:
        assert found.status == "complete"
        path = found.path
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["before", "epoch", "epoch"]
    assert compare(by_command, path) == []
    with pytest.raises(RunFileError, match="exists"):
        circuitlab.run(experiment, path)
    with pytest.raises(CircuitlabError, match=r"learn\.epoch"):
        circuitlab.run(experiment, overrides=["learn.epoch=2"])
    with pytest.raises(RunFileError, match="one of them"):
        circuitlab.run(experiment, path, resume=True, overwrite=True)


def test_a_run_without_a_name_goes_to_the_next_free_one(
    experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(experiment.parent)
    for name in ("small_digits.h5", "small_digits-2.h5"):
        with circuitlab.run("exp.yaml", overrides=["learn.epochs=1"], progress=False) as found:
            assert Path(found.path) == Path("runs") / name
