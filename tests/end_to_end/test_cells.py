"""Gains, thresholds, gap junctions, noise and delays from YAML to the run file, recomputed by numpy alone."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from circuitlab.cli.main import main
from tests.end_to_end.test_equilibrium import check, solve

CELLS = """
circuit: cells
populations:
  x: {type: input, size: 5}
  pyr: {type: pyramidal, size: 8, gain: 1.3, threshold: 0.1, sign: excitatory, tau: 20 ms, noise: {std: 0.2, tau: 3 ms}}
  pv: {type: interneuron, size: 5, activation: softplus, gain: 0.8, threshold: -0.2, sign: inhibitory, tau: 5 ms}
  sst: {type: interneuron, size: 4, activation: relu, threshold: 0.3, gain: 2, sign: inhibitory}
  y: {type: output, size: 3, bias: {init: normal, scale: 0.2}}
projections:
  x_pyr: {source: x, target: pyr, delay: 1.5 ms}
  pyr_pyr: {source: pyr, target: pyr, connect: {rule: fixed_indegree, indegree: 4}, weights: {scale: 0.3},
            delay: 0.8 ms}
  pyr_pv: {source: pyr, target: pv, weights: {scale: 0.5}}
  pv_pyr: {source: pv, target: pyr, site: soma, weights: {scale: 0.3}}
  pyr_sst: {source: pyr, target: sst, weights: {scale: 0.7}}
  sst_pyr: {source: sst, target: pyr, site: apical, weights: {scale: 0.3}}
  pv_gap: {source: pv, target: pv, kind: electrical, connect: {rule: pairwise_bernoulli, p: 0.6}, plastic: true,
           weights: {init: uniform, low: 0, high: 1}}
  pyr_gap: {source: pyr, target: pyr, kind: electrical, connect: {rule: explicit, file: gaps.csv}}
  sst_pv_gap: {source: sst, target: pv, kind: electrical, plastic: true, weights: {init: constant, value: 0.4}}
  pyr_y: {source: pyr, target: y}
  y_pyr: {source: y, target: pyr, site: apical, carries: burst, connect: {rule: transpose, of: pyr_y}}
"""
GAPS = "source,target,weight\n0,1,0.5\n1,0,0.5\n2,2,9\n3,5,0.25\n4,7,1.5\n7,4,1.5\n"


def write(folder: Path, text: str = CELLS) -> Path:
    (folder / "gaps.csv").write_text(GAPS)
    (folder / "cells.yaml").write_text(text)
    return folder / "cells.yaml"


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--set", "control.controller.alpha=0.1"),
        ("--set", "control.feedback=random"),
        ("--set", "control.feedback=apical"),
        ("--set", "control.pathway=energy_based"),
        ("--set", "control.pathway=linear_feedback", "--set", "control.feedback=jacobian"),
        ("--set", "control.pathway=deep_feedback_control", "--set", "control.controller.alpha=0.2"),
        ("--set", "solve.method=lbfgs"),
    ],
    ids=lambda o: " ".join(o[1::2]) or "default",
)
def test_numpy_recomputes_every_equation(options: tuple[str, ...], tmp_path: Path) -> None:
    check(solve(write(tmp_path), tmp_path, *options))


def test_neurons_rest_on_kinks_at_their_threshold(tmp_path: Path) -> None:
    text = CELLS.replace(
        "size: 4, activation: relu, threshold: 0.3", "size: 12, activation: relu, threshold: -0.3"
    )
    text = text.replace("site: apical, weights: {scale: 0.3}", "site: apical, weights: {scale: 1}")
    path = solve(write(tmp_path, text), tmp_path, "--set", "control.controller.alpha=0.05", samples=60)
    check(path)
    with h5py.File(path) as file:
        group = file["equilibria/controlled"]
        on = (group["sst"]["soma"][:] == -0.3).sum(1)
        assert on.sum() > 0
        assert (group["kinks"][:] == on).all()


def test_the_run_file_says_what_the_cells_are_and_in_which_units(tmp_path: Path) -> None:
    with h5py.File(solve(write(tmp_path), tmp_path)) as file:
        pyr, pv = file["nodes/pyr"].attrs, file["nodes/pv"].attrs
        assert (pyr["gain"], pyr["threshold"], pyr["tau_ms"]) == (1.3, 0.1, 20.0)
        assert (pyr["noise_std"], pyr["noise_tau_ms"]) == (0.2, 3.0)
        assert "noise_std" not in pv
        kinds = {name: group.attrs["kind"] for name, group in file["edges"].items()}
        electrical = {"pv_gap", "pyr_gap", "sst_pv_gap"}
        assert kinds == {name: "electrical" if name in electrical else "chemical" for name in kinds}
        delays = {name: group.attrs["delay_ms"] for name, group in file["edges"].items()}
        assert delays["x_pyr"] == 1.5 and delays["pyr_pyr"] == 0.8 and delays["pyr_gap"] == 0.0
        gap = file["edges/pyr_gap"]
        listed = sorted(
            zip(gap["source_node_id"][:].tolist(), gap["target_node_id"][:].tolist(), strict=True)
        )
        assert listed == [(0, 1), (1, 0), (2, 2), (3, 5), (4, 7), (7, 4)], (
            "the edges of the file, as it lists them"
        )
        assert gap["0/syn_weight"].attrs["description"].startswith("[edge] conductance")
        assert {"pv_gap", "sst_pv_gap"} <= set(file["updates"]) and "pyr_gap" not in file["updates"]
        for phase in ("free", "controlled"):
            for name in ("pyr", "pv", "sst", "y"):
                assert all(
                    d.attrs["units"] == "dimensionless" for d in file[f"equilibria/{phase}/{name}"].values()
                )
        resolved = file["spec/circuit"][()].decode()
        assert "delay: 1.5 ms" in resolved and "kind: electrical" in resolved and "threshold: 0.1" in resolved


def test_training_keeps_conductances_and_learns(tmp_path: Path) -> None:
    """Plastic conductances move, stay at least zero, and both directions of a pair stay one number."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=90)
    np.savez(tmp_path / "train.npz", x=rng.random((90, 5)) + np.eye(3, 5)[labels], y=labels)
    write(tmp_path)
    (tmp_path / "e.yaml").write_text(
        "experiment: e\ncircuit: cells.yaml\ndata: {name: file, train: train.npz, test: 0.2}\n"
        "learn: {rule: least_control, optimizer: {name: adam, lr: 3e-2}, epochs: 4, batch_size: 15}\n"
    )
    out = tmp_path / "run.h5"
    assert main(["run", str(tmp_path / "e.yaml"), "-o", str(out)]) == 0
    with h5py.File(out) as file:
        first, last = (file["weights/pv_gap"][k] for k in (0, -1))
        assert (last >= 0).all()
        assert np.abs(last - first).max() > 1e-3
        e = file["edges/pv_gap"]
        pairs = list(zip(e["source_node_id"][:].tolist(), e["target_node_id"][:].tolist(), strict=True))
        both = [(pairs.index(p), pairs.index(p[::-1])) for p in pairs if p[0] != p[1] and p[::-1] in pairs]
        assert both
        assert all(last[a] == last[b] for a, b in both)
        assert (file["weights/pyr_gap"][0] == file["weights/pyr_gap"][-1]).all()
        loss = file["training/train_loss"][:]
        assert loss[-1] < loss[0]


REFUSED: dict[tuple[str, ...], str] = {
    ("control.pathway=lateral_inhibition",): "gap junctions ('pv_gap')",
    ("solve.preconditioner=mean_response",): "the circuit has gap junctions ('pv_gap')",
    ("learn.rule=backprop",): "backprop needs a circuit without loops",
    ("learn.rule=deep_feedback_control_ss",): "conductances ('pv_gap') learn from potentials and control",
    ("learn.rule=deep_feedback_control",): "does not know the delay of 'x_pyr'",
    (
        "learn={rule: equilibrium_propagation, energy: hopfield}",
    ): "the gap junctions 'pv_gap' carry differences",
    (
        "control={pathway: linear_feedback}",
        "learn={feedback: anti_hebbian}",
    ): "does not know the delay of 'x_pyr'",
}


@pytest.mark.parametrize("options", REFUSED, ids=" ".join)
def test_what_does_not_go_with_gap_junctions_or_delays_is_refused_by_name(
    options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    (tmp_path / "e.yaml").write_text(
        "experiment: e\ncircuit: cells.yaml\ndata: {name: file, train: d.npz, test: 0.2}\n"
    )
    np.savez(tmp_path / "d.npz", x=np.zeros((9, 5)), y=np.zeros(9, int))
    given = [part for option in options for part in ("--set", option)]
    assert main(["run", str(tmp_path / "e.yaml"), *given]) == 1
    assert REFUSED[options] in " ".join(capsys.readouterr().err.split())
