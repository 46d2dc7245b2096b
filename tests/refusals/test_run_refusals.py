"""Data, targets, weights and run files that are wrong: the exact line, exit code 1, nothing left behind or lost."""

from __future__ import annotations

import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest

from circuitlab.cli.main import main

CIRCUIT = """
circuit: small
populations:
  x: {type: input, size: 6}
  h: {type: unit, size: 3}
  y: {type: output, size: 4}
projections:
  x_h: {source: x, target: h}
  h_h: {source: h, target: h, kernel: KERNEL}
  h_y: {source: h, target: y}
"""
EXPERIMENT = """
experiment: small
circuit: circuit.yaml
data: {name: file, train: good.npz, test: 0.2}
learn: {epochs: 1, batch_size: 8}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    image, label = rng.random((40, 6)), rng.integers(0, 4, 40)
    holed = image.copy()
    holed[3, 5] = np.nan
    monkeypatch.chdir(tmp_path)
    Path("circuit.yaml").write_text(CIRCUIT.replace("KERNEL", "auto"))
    Path("diagonal.yaml").write_text(CIRCUIT.replace("KERNEL", "diagonal"))
    Path("frozen.yaml").write_text(
        CIRCUIT.replace(
            "kernel: KERNEL", "plastic: false, connect: one_to_one, weights: {init: constant, value: 2}"
        )
    )
    Path("ice.yaml").write_text(
        CIRCUIT.replace("kernel: KERNEL", "plastic: false")
        .replace("target: h}", "target: h, plastic: false}")
        .replace("target: y}", "target: y, plastic: false}")
        .replace("size: 3}", "size: 3, bias: false}")
        .replace("type: output, size: 4}", "type: output, size: 4, bias: {plastic: false}}")
    )
    Path("large.yaml").write_text(
        CIRCUIT.replace("kernel: KERNEL", "connect: one_to_one").replace("size: 3}", "size: 1200}")
    )
    Path("empty.yaml").write_text(
        CIRCUIT.replace("kernel: KERNEL", "connect: {rule: pairwise_bernoulli, p: 1e-12}")
    )
    Path("experiment.yaml").write_text(EXPERIMENT)
    np.savez("good.npz", image=image, label=label)
    np.savez("nan.npz", image=holed, label=label)
    np.savez("short.npz", image=image, label=label[:39])
    np.savez("real.npz", image=image, real=rng.random((40, 4)))
    np.savez("wide.npz", image=rng.random((40, 7)), label=label)
    np.savez("labels.npz", image=image, label=label + 1)
    np.savez("objects.npz", image=np.array([[1, "a"]], dtype=object), label=label)
    np.savez("unlabelled.npz", image=image)
    Path("torn.npz").write_bytes(Path("good.npz").read_bytes()[:300])
    np.save("x.npy", image)
    np.save("nan.npy", holed)
    np.save("y.npy", label)
    np.save("y_long.npy", np.arange(41) % 4)
    np.save("y_real.npy", rng.standard_normal((40, 4)))
    np.savez("q.npz", h=np.ones((3, 3)))
    np.savez("q_missing.npz", z=np.ones((3, 4)))
    with h5py.File("foreign.h5", "w") as file:
        file["mine"] = 1
    return tmp_path


EQ = "equilibrium circuit.yaml --input x.npy --target y.npy -o out.h5"
FROZEN = "--set circuit=frozen.yaml --set learn.constrain.largest_singular_value=0.5"
CASES = {
    # data
    "run experiment.yaml --set data.train=nan.npz": (
        "nan.npz: image: sample 3, unit 5 is nan; every value must be finite"
    ),
    "run experiment.yaml --set data.train=short.npz": (
        "short.npz: label has 39 samples, image has 40; every array needs one row per sample"
    ),
    "run experiment.yaml --set data.train=wide.npz": (
        "experiment.yaml:4:7: data: x has 6 units, but the array 'image' has 7 values; set its size to 7, or name "
        "another array under data.inputs.x"
    ),
    "run experiment.yaml --set data.train=labels.npz": (
        "experiment.yaml:4:7: data: y has 4 units, but file has 5 classes; set its size to 5, or name another array "
        "under data.targets.y"
    ),
    "run experiment.yaml --set data.train=unlabelled.npz": (
        "experiment.yaml:4:7: data: no target for the output population y; there are image."
    ),
    "run experiment.yaml --set data.train=objects.npz": (
        "objects.npz: image: holds Python objects, which are not read; save plain numbers"
    ),
    "run experiment.yaml --set data.train=torn.npz": "torn.npz: is damaged, or no npz file",
    "run experiment.yaml --set data.test=1.5": (
        "--set data.test: 1.5 is no share; allowed: a file's name, or a number of at least 0 and below 1"
    ),
    "validate experiment.yaml circuit.yaml good.npz": "good.npz: a zip or npz archive; a YAML file is wanted",
    # optimizer, scheduler, device
    "run experiment.yaml --set learn.optimizer.name=adamm": (
        "--set learn.optimizer.name: no torch optimizer 'adamm'; allowed: adadelta, adafactor, adagrad, adam, adamax, "
        "adamw, asgd, nadam, radam, rmsprop, rprop, sgd. Did you mean 'adam'?"
    ),
    "run experiment.yaml --set learn.optimizer=lbfgs": (
        "--set learn.optimizer: learn.optimizer.name: lbfgs cannot be used: it evaluates the loss again and again "
        "inside one step"
    ),
    "run experiment.yaml --set learn.scheduler=step": "--set learn.scheduler: StepLR needs the option 'step_size'",
    "run experiment.yaml --set device=cuda:7": (
        "--set device: cuda:7 is not available to torch on this machine; allowed here: cpu"
    ),
    f"run experiment.yaml {FROZEN}": (
        "--set learn.constrain.largest_singular_value: the frozen projections h_h alone exceed 0.5 (they have 2); "
        "scale their weights, or raise the bound"
    ),
    "run experiment.yaml --set circuit=frozen.yaml --set 'learn.constrain={largest_symmetric_eigenvalue: 1.5}'": (
        "--set learn.constrain: learn.constrain.largest_symmetric_eigenvalue: the frozen projections h_h alone exceed "
        "1.5 (they have 2); scale their weights, or raise the bound"
    ),
    "run experiment.yaml --set circuit=large.yaml --set 'solve.check_energy=50 steps'": (
        "--set solve.check_energy: the descent of the energy is for at most 1024 units, and the circuit has 1204; "
        "leave it out"
    ),
    f"{EQ} --set 'solve.check_energy={{samples: 2}}'": (
        "--set solve.check_energy: it checks samples during training, and nothing is trained here; leave it out "
        "(solve.method=levenberg descends the energy for every sample)"
    ),
    "run experiment.yaml --set circuit=ice.yaml": (
        "--set circuit: nothing in it is plastic: every projection and bias is frozen, so nothing can learn"
    ),
    # warm starts
    "run experiment.yaml --set solve.start=class_mean --set data.targets.y=real --set data.train=real.npz "
    "--set loss=squared_error": (
        "--set solve.start: class_mean needs class labels; allowed here: free, zero, last"
    ),
    "run experiment.yaml --set solve.start=last --set 'solve.start_memory=40 B'": (
        "--set solve.start_memory: 40 bytes hold no sample: one takes 50 bytes"
    ),
    "run experiment.yaml --set circuit=empty.yaml --set solve.preconditioner=mean_response": (
        "--set solve.preconditioner: mean_response cannot be had: the circuit has no recurrent group; leave it out"
    ),
    EQ.replace(" --target y.npy", "") + " --set solve.preconditioner=mean_response": (
        "--set solve.preconditioner: mean_response serves the controlled equilibrium, and without a target only the "
        "free one is found; allowed here: auto, none"
    ),
    f"{EQ} --set solve.start=last": (
        "--set solve.start: last comes from earlier updates, and here is none; allowed: free, zero"
    ),
    # files
    "run experiment.yaml -o foreign.h5": (
        "foreign.h5: exists; continue it with --resume, replace it with --overwrite, or give another -o"
    ),
    "run experiment.yaml -o foreign.h5 --overwrite": (
        "foreign.h5: is not a run file and is not overwritten; delete it, or give another -o"
    ),
    "run experiment.yaml -o foreign.h5 --resume": (
        "foreign.h5: is an HDF5 file of another program, not a run file (format 'circuitlab-run')"
    ),
    "run experiment.yaml -o good.npz --overwrite": (
        "good.npz: is not a run file and is not overwritten; delete it, or give another -o"
    ),
    "run experiment.yaml -o out.h5 --overwrite --resume": (
        "--resume continues a run file and --overwrite replaces it; give one of them"
    ),
    "run circuit.yaml -o out.h5": "circuit.yaml: this is a circuit file; an experiment file is wanted",
    "inspect foreign.h5": "foreign.h5: is an HDF5 file of another program, not a run file (format 'circuitlab-run')",
    "inspect circuit.yaml": "circuit.yaml: is not a run file: it is no HDF5 file",
    # circuits that cannot be compiled or controlled
    "equilibrium diagonal.yaml --input x.npy -o out.h5": (
        "diagonal.yaml:9:39: projections.h_h.kernel: the rule all_to_all has no kernel 'diagonal'; allowed: auto, "
        "dense, csr"
    ),
    f"{EQ} --set solve.method=levenberg --set control.feedback=random": (
        "--set solve.method: levenberg descends an energy, and equilibria of dynamic_inversion with feedback 'random' "
        "have no energy; allowed here: auto, anderson, fixed_point, euler"
    ),
    f"{EQ} --control linear_feedback --set control.file=q.npz": (
        "q.npz: h must hold finite numbers of shape (3, 4), not (3, 3)"
    ),
    f"{EQ} --control linear_feedback --set control.file=q_missing.npz": (
        "q_missing.npz: z is no non-input population; allowed: h, y"
    ),
    f"{EQ} --control energy": (
        "--set control.pathway: 'energy' is not allowed; allowed: dynamic_inversion, energy_based, "
        "lateral_inhibition, linear_feedback, deep_feedback_control. Did you mean 'energy_based'?"
    ),
    # inputs and targets
    EQ.replace("x.npy", "nan.npy"): "nan.npy: sample 3, unit 5 is nan; every value must be finite",
    EQ.replace("x.npy", "none.npy"): "none.npy: there is no such file",
    EQ.replace("x.npy", "y_real.npy"): (
        "y_real.npy: has 4 values a sample, but the input populations have 6 units (x 6); give an array [sample, 6]"
    ),
    EQ.replace(
        "y.npy", "y_long.npy"
    ): "y_long.npy: has 41 samples, x.npy has 40; every sample needs one target",
    EQ.replace("y.npy", "x.npy"): (
        "x.npy: has 6 values a sample, but the output populations have 4 units (y 4); give an array [sample, 4]"
    ),
    EQ.replace("y.npy", "y_real.npy") + " --set loss=cross_entropy": (
        "y_real.npy: target of y: sample 0 is no distribution over the 4 units (values of at least 0 that sum to 1), "
        "as cross_entropy needs; use loss: squared_error"
    ),
    EQ.replace("--input x.npy", "--input y.npy"): (
        "y.npy: x: holds whole numbers; an input needs floats [sample, unit]"
    ),
    EQ + " --set learn.rule=backprop": (
        "--set learn.rule: backprop needs a circuit without loops, but there is h -> h; allowed: recurrent_backprop"
    ),
}


@pytest.mark.parametrize(("command", "expected"), CASES.items(), ids=CASES)
def test_refusal(folder: Path, capsys: pytest.CaptureFixture[str], command: str, expected: str) -> None:
    if command.startswith("run") and " -o " not in command:
        command += " -o out.h5"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code = main(shlex.split(command))
    said = capsys.readouterr().err
    assert said.splitlines() == [expected]
    assert code == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_label_beyond_the_outputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.load("y.npy")
    labels[7] = 4
    np.save("y.npy", labels)
    assert main(shlex.split(EQ)) == 1
    assert capsys.readouterr().err == (
        "y.npy: target of y: sample 7 has the label 4, but y has 4 units; labels count from 0 to 3\n"
    )


def test_unconverged_samples_as_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--set solve={method: anderson, max_iterations: 2, on_unconverged: raise}"
    assert main(["run", "experiment.yaml", "-o", "out.h5", *options.split(" ", 1)]) == 3
    assert "did not reach their equilibrium" in capsys.readouterr().err
    with h5py.File("out.h5") as file:
        assert file.attrs["status"] == "failed"


def test_resuming_a_finished_run_changes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "experiment.yaml", "-o", "out.h5"]) == 0
    first = capsys.readouterr().out
    assert main(["run", "experiment.yaml", "-o", "out.h5", "--resume"]) == 0
    again = capsys.readouterr().out
    assert first.splitlines()[-3] == again.splitlines()[-3]
    assert "unconverged samples" in again
