"""`torchrun -m circuitlab run`: the run file of many processes is that of one, and no process is left hanging."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from circuitlab.cli.main import main
from circuitlab.cli.run import stopping
from circuitlab.experiment.training import prepare, train
from circuitlab.learn.parallel import Group
from circuitlab.learn.train import Observer, Stopped
from circuitlab.spec.experiment import load_experiment

ROOT = Path(__file__).parents[2]
CIRCUIT = """
circuit: dale
seed: 3
populations:
  retina: {type: input, size: 64}
  e: {type: pyramidal, size: 40, activation: tanh, sign: excitatory}
  i: {type: interneuron, size: 12, activation: relu, sign: inhibitory}
  readout: {type: output, size: 10}
projections:
  retina_e: {source: retina, target: e}
  e_e: {source: e, target: e, connect: {rule: pairwise_bernoulli, p: 0.2}, weights: {scale: 0.5}}
  e_i: {source: e, target: i, connect: {rule: fixed_indegree, indegree: 10}, weights: {scale: 0.5}}
  i_e: {source: i, target: e, site: apical, carries: rate, connect: {rule: pairwise_bernoulli, p: 0.5}}
  e_readout: {source: e, target: readout}
"""
EXPERIMENT = """
experiment: dale_digits
circuit: dale.yaml
data: {name: digits, limit: 311, validation: 0.1}  # 280 to learn from: nine batches of 31 and one of 1
control: {controller: {alpha: 1.0}}
solve: {method: anderson, max_iterations: 9}  # some samples need more
learn:
  optimizer: {name: adam, lr: 5e-3}
  scheduler: cosine
  epochs: 5
  batch_size: 31
  clip: 1.0
  constrain: {largest_singular_value: 0.9}
record:
  e_control: {population: e, variable: control, units: [0, 3, "10:14"], every: 3 steps}
  e_free: {population: e, variable: rate, phase: free, every: 1 epoch}
  e_apical: {population: e, variable: apical, of: test, samples: [0, 5], every: 1 epoch}
  e_basal: {population: e, variable: basal, every: 3 steps}
  solved: {variable: [residual, converged], every: 2 steps}
  updates: {projection: [e_e, e_readout], variable: updates, edges: ["3:9"], every: 2 steps}
  way: {population: readout, variable: controller, of: test, samples: [0, 5], along: {iterations: 2}}
dtype: float64
threads: 1
"""
PATIENCE = 120


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    (folder / "dale.yaml").write_text(CIRCUIT)
    (folder / "exp.yaml").write_text(EXPERIMENT)
    return folder / "exp.yaml"


@pytest.fixture(scope="module")
def one(experiment: Path) -> Path:
    """The run of one process."""
    path = experiment.parent / "one.h5"
    assert main(["run", str(experiment), "-o", str(path), "--quiet"]) == 0
    assert not torch.distributed.is_initialized()
    return path


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def start(experiment: Path, out: Path, size: int, *options: str, files: list[Path] | None = None):
    """The processes of a run as torchrun would start them, each with its own pipes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-W", "error", "-m", "circuitlab", "run"),
                *(str((files or [experiment] * size)[rank]), "-o", str(out), "--quiet", *options),
            ],
            env=environment(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(size),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def ends(children) -> tuple[list[int], list[str], list[str]]:
    """Exit codes, stdout and stderr of all processes."""
    try:
        pages = [child.communicate(timeout=PATIENCE) for child in children]
    finally:
        for child in children:
            child.kill()
    return [child.returncode for child in children], [page[0] for page in pages], [page[1] for page in pages]


def wait_for_learning(path: Path, children) -> None:
    """Until process 0 writes the run file; every process then stops between two steps when it is asked to."""
    until = time.monotonic() + PATIENCE
    while not path.with_name(path.name + ".lock").exists() and time.monotonic() < until:
        assert children[0].poll() is None, children[0].communicate()
        time.sleep(0.02)


def assert_same(one: Path, many: Path, tolerance: float) -> None:
    """Every dataset of weights, activity and training is the same up to a tolerance, and of the same shape and type."""
    with h5py.File(one) as a, h5py.File(many) as b:
        names: list[str] = []
        a.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        others: list[str] = []
        b.visititems(lambda name, item: others.append(name) if isinstance(item, h5py.Dataset) else None)
        assert sorted(names) == sorted(others)
        for name in names:
            if name.split("/")[0] in ("weights", "activity", "training"):
                assert a[name].dtype == b[name].dtype
                assert a[name].shape == b[name].shape, name
                if a[name].dtype.kind in "iuf":
                    np.testing.assert_allclose(b[name][()], a[name][()], rtol=0, atol=tolerance, err_msg=name)


def test_two_processes_make_the_run_of_one(experiment: Path, one: Path) -> None:
    """Fifty steps under torchrun itself: weights to 1e-6, and all that is recorded."""
    out = experiment.parent / "two.h5"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "circuitlab", "run", str(experiment), "-o", str(out), "--quiet"),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 5") == 1  # one process speaks
    assert_same(one, out, 1e-6)
    with h5py.File(out) as file:
        assert file.attrs["status"] == "complete"
        assert file["training"].attrs["processes"] == 2
        assert file["training/step"][-1] == 50
        assert 0 < file["training/step_unconverged"][:].sum() < 1400 / 2
        assert np.isfinite(file["activity/e_control/data"][0]).all()
        for name, sign in (("e_e", 1), ("i_e", -1)):
            assert (sign * file[f"weights/{name}"][:] >= 0).all()


class StopsAt(Observer):
    """Asks for a stop after so many steps."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, trainer, sample_ids, batch, outcome) -> None:
        trainer.stop_requested = trainer.at.step == self.at


def test_a_run_goes_on_with_another_number_of_processes(experiment: Path, one: Path) -> None:
    """One process stops in the third epoch; two go on, until one of them is told to stop; one does the rest."""
    out = experiment.parent / "part.h5"
    with pytest.raises(Stopped):
        train(prepare(load_experiment(experiment)), out, command="", observers=[StopsAt(23)])
    children = start(experiment, out, 2, "--resume")
    wait_for_learning(out, children)
    children[1].send_signal(signal.SIGTERM)
    codes, _, errors = ends(children)
    assert codes == [130, 130], errors
    assert errors[0].splitlines() == [f"stopped; the same command with --resume goes on from {out}"]
    assert errors[1] == ""
    assert not out.with_name("part.h5.lock").exists()
    with h5py.File(out) as file:
        assert file.attrs["status"] == "interrupted"
        assert file["training"].attrs["processes"] == 2
        assert 23 < file["training/step"][-1] < 50
    assert main(["run", str(experiment), "-o", str(out), "--quiet", "--resume"]) == 0
    assert_same(one, out, 1e-6)


def test_an_error_in_one_ends_all_with_one_line(experiment: Path) -> None:
    out = experiment.parent / "strict.h5"
    strict = ["--set", "solve.on_unconverged=raise", "--set", "learn.epochs=60"]
    codes, _, errors = ends(start(experiment, out, 2, *strict))
    assert codes == [3, 3]
    lines = "".join(errors).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("solve: ")
    with h5py.File(out) as file:
        assert file.attrs["status"] == "failed"


def test_files_that_differ_between_processes_are_refused(experiment: Path) -> None:
    other = experiment.with_name("other.yaml")
    other.write_text(EXPERIMENT.replace("5e-3", "6e-3"))
    codes, _, errors = ends(start(experiment, experiment.parent / "x.h5", 2, files=[experiment, other]))
    assert codes == [3, 3]
    assert len("".join(errors).splitlines()) == 1
    assert "the files of experiment differ between the 2 processes" in "".join(errors)


def test_a_killed_process_ends_the_others(experiment: Path) -> None:
    out = experiment.parent / "killed.h5"
    children = start(experiment, out, 2, "--set", "learn.epochs=1000")
    wait_for_learning(out, children)
    children[1].kill()
    codes, _, errors = ends(children)
    assert codes[0] == 3
    assert errors[0].splitlines() == ["another process of this run is gone"]
    with h5py.File(out) as file:
        assert file.attrs["status"] == "failed"


def test_a_signal_forwarded_by_torchrun_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters tell every process and torchrun, which tells them again; a later one means it."""
    group = Group()
    trainer = SimpleNamespace(stop_requested=False, group=group)
    with stopping(trainer):
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    group.size, trainer.stop_requested = 2, False
    with stopping(trainer):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert trainer.stop_requested
        later = time.monotonic() + 10
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
