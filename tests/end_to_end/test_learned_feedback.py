"""Runs whose feedback learns: what the files say, what goes into the run file, and what is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from circuitlab.cli.main import main
from circuitlab.spec.advice import warnings
from circuitlab.spec.experiment import load_experiment

CIRCUIT = """
circuit: small
populations:
  x: {type: input, size: 6}
  h: {type: pyramidal, size: 5}
  y: {type: output, size: 4}
projections:
  x_h: {source: x, target: h}
  h_h: {source: h, target: h, weights: {scale: 0.5}}
  h_y: {source: h, target: y}
"""
BURSTS = "  y_h_bursts: {source: y, target: h, site: apical, carries: burst, plastic: true}\n"
EXPERIMENT = """
experiment: small
circuit: circuit.yaml
data: {name: file, train: data.npz, test: 0.2}
learn: {rule: least_control, epochs: 2, batch_size: 8}
"""
KP, LATERAL = "control.feedback=kolen_pollack", "control.pathway=lateral_inhibition"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", image=rng.random((40, 6)), label=rng.integers(0, 4, 40))
    (tmp_path / "circuit.yaml").write_text(CIRCUIT)
    (tmp_path / "bursts.yaml").write_text(CIRCUIT + BURSTS)
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(out: str, *options: str) -> int:
    return main(["run", "experiment.yaml", "-o", out, *(part for o in options for part in ("--set", o))])


def test_the_rule_of_kolen_pollack_feedback_need_not_be_written(folder: Path) -> None:
    spec = load_experiment("experiment.yaml", [KP])
    assert spec.learn.feedback is not None
    assert spec.resolved()["learn"]["feedback"] == {"rule": "kolen_pollack", "decay": 1e-6}
    short = load_experiment("experiment.yaml", [KP, "learn=least_control_gated"])
    assert (short.learn.rule, short.resolved()["learn"]["feedback"]["rule"]) == (
        "least_control_gated",
        "kolen_pollack",
    )
    own = load_experiment("experiment.yaml", [KP, "learn.feedback={rule: kolen_pollack, decay: 0.01}"])
    assert own.resolved()["learn"]["feedback"]["decay"] == 0.01
    assert load_experiment("experiment.yaml", []).learn.feedback is None


def test_the_run_file_holds_s_and_its_angle(folder: Path) -> None:
    assert run("out.h5", KP, "learn.feedback={rule: kolen_pollack, decay: 0.05}") == 0
    with h5py.File("out.h5") as file:
        s, w = file["feedback/S/h_y"][:], file["weights/h_y"][:]
        assert s.shape == w.shape == (3, 20)
        updates = file["weights/step"][:]
        gone = (0.95**updates)[:, None] * (w[0] - s[0])
        assert w - s == pytest.approx(gone, abs=1e-5)
        both = [
            np.concatenate([file[f"{kind}/{n}"][:] for n in ("h_h", "h_y")], 1)
            for kind in ("feedback/S", "weights")
        ]
        cosine = (
            (both[0] * both[1]).sum(1) / np.linalg.norm(both[0], axis=1) / np.linalg.norm(both[1], axis=1)
        )
        assert file["training/feedback_angle"][:] == pytest.approx(np.degrees(np.arccos(cosine)), abs=1e-2)
        assert file["training/feedback_angle"].attrs["units"] == "degrees"


def test_the_run_file_holds_interneurons_and_the_mismatch(folder: Path) -> None:
    assert run("out.h5", LATERAL) == 0
    assert (
        run("apart.h5", LATERAL, "control.interneurons=random", "learn.interneurons={optimizer: {lr: 0.02}}")
        == 0
    )
    with h5py.File("out.h5") as file, h5py.File("apart.h5") as apart:
        for name in ("x_h", "h_h", "h_y", "h_bias", "y_bias"):
            assert np.array_equal(file[f"feedback/I/{name}"][:], file[f"weights/{name}"][:]), (
                "copies stay copies"
            )
            assert not np.allclose(apart[f"feedback/I/{name}"][-1], apart[f"weights/{name}"][-1], atol=1e-3)
        small, large = file["training/mismatch"][:], apart["training/mismatch"][:]
        assert small.shape == (3,)
        assert (small < 0.05).all()
        assert large[0] > 10 * small[0]


@pytest.mark.parametrize(
    "options", [(KP,), (LATERAL, KP, "control.interneurons=random")], ids=["S", "S and I"]
)
def test_every_weight_of_the_pathway_learns(folder: Path, options: tuple[str, ...]) -> None:
    assert run("whole.h5", *options) == 0
    with h5py.File("whole.h5") as file:
        names = [f"feedback/{kind}/{name}" for kind in file["feedback"] for name in file[f"feedback/{kind}"]]
        assert len(names) == (2 if len(options) == 1 else 7)
        assert all(not np.array_equal(file[name][0], file[name][-1]) for name in names)


def test_the_circuits_own_bursts_learn_or_nobody_trains(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taught = ("circuit=bursts.yaml", "control.feedback=apical", "learn.feedback=kolen_pollack")
    assert run("out.h5", *taught) == 0
    with h5py.File("out.h5") as file:
        bursts = file["weights/y_h_bursts"][:]
        assert not np.array_equal(bursts[0], bursts[-1])
        assert "S" not in file.get("feedback", {})
        assert np.isfinite(file["training/feedback_angle"][:]).all()
    capsys.readouterr()
    assert run("no.h5", *taught[:2]) == 1
    assert capsys.readouterr().err.endswith(
        "learn.feedback: nobody teaches the plastic burst projection y_h_bursts; write learn.feedback: "
        "kolen_pollack, or plastic: false in the circuit\n"
    )
    told = warnings(load_experiment("experiment.yaml", taught[:2]))
    assert any(line.startswith("projections.y_h_bursts: plastic, but nobody teaches") for line in told)
    assert run("idle.h5", taught[0]) == 0
    with h5py.File("idle.h5") as file:
        assert np.array_equal(file["weights/y_h_bursts"][0], file["weights/y_h_bursts"][-1])


def test_equilibria_under_lateral_inhibition_can_be_written(folder: Path) -> None:
    data = np.load("data.npz")
    np.save("x.npy", data["image"][:5])
    np.save("y.npy", data["label"][:5])
    command = ["equilibrium", "circuit.yaml", "--input", "x.npy", "--target", "y.npy", "-o", "eq.h5"]
    assert main([*command, "--set", LATERAL, "--set", "dtype=float64"]) == 0
    with h5py.File("eq.h5") as file:
        assert file["feedback/I/x_h"].attrs["symbol"] == "I"
        assert file["feedback/I/h_bias"].shape == (5,)
        soma, basal, control = (
            file[f"equilibria/controlled/y/{name}"][:] for name in ("soma", "basal", "control")
        )
        assert soma == pytest.approx(basal + control, abs=1e-6)
