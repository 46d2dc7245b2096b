"""What an examination gathers, its table and its file, and `circuitlab diagnose` from end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from circuitlab.cli.main import main
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import integral, leaky_integral
from circuitlab.learn.backprop import RecurrentBackprop
from circuitlab.learn.base import Batch, Task
from circuitlab.learn.least_control import LeastControl
from circuitlab.theory import updates
from circuitlab.theory.diagnosis import conclusion, measures
from circuitlab.theory.examine import examine
from circuitlab.theory.known import Found, KnownTask
from circuitlab.theory.measure import FAILS, HOLDS
from circuitlab.theory.references import flat
from tests.oracles.circuits import random_circuit
from tests.oracles.equations import MANY
from tests.oracles.tasks import batch, task

CIRCUIT = """
circuit: small
populations:
  x: {type: input, size: 6}
  e: {type: pyramidal, size: 8, activation: tanh}
  i: {type: interneuron, size: 4, activation: relu, sign: inhibitory}
  y: {type: output, size: 3}
projections:
  x_e: {source: x, target: e}
  e_e: {source: e, target: e, connect: {rule: pairwise_bernoulli, p: 0.5}, weights: {scale: 0.5}}
  e_i: {source: e, target: i}
  i_e: {source: i, target: e, site: soma, weights: {scale: 0.5}}
  e_y: {source: e, target: y}
"""
EXPERIMENT = """
experiment: small
circuit: small.yaml
data: {name: file, train: train.npz, test: 0.2, validation: 0}
loss: cross_entropy
control: {pathway: dynamic_inversion, controller: {type: leaky_integral, alpha: 1}}
learn: {rule: least_control, epochs: 2, batch_size: 10, optimizer: {name: adam, lr: 1e-2}}
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    means = 2 * rng.standard_normal((3, 6))
    np.savez(tmp_path / "train.npz", image=means[labels] + rng.standard_normal((60, 6)), label=labels)
    (tmp_path / "small.yaml").write_text(CIRCUIT, encoding="utf-8")
    path = tmp_path / "exp.yaml"
    path.write_text(EXPERIMENT, encoding="utf-8")
    return path


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> dict:
    assert main(["diagnose", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_number_of_a_sample_is_that_sample_alone(monkeypatch) -> None:
    """Single-sample minibatches, whether or not the known equilibria are used: the rule's own updates."""
    t = task(random_circuit(1, gain=0.4))
    b = batch(t, 5)
    found = examine(t, LeastControl(), b)
    fields = found.controlled.fields
    for sample, length in enumerate(found.rule_updates.lengths):
        own = flat(t.system.update(*(v[:, sample : sample + 1] for v in (fields.phi, fields.psi, b.x))))
        assert length == pytest.approx(float(torch.linalg.vector_norm(own)), rel=1e-9)
    monkeypatch.setattr(KnownTask, "controlled", Task.controlled)
    monkeypatch.setattr(KnownTask, "free", Task.free)
    again = examine(t, LeastControl(), b)
    for key, cosines in found.rule_updates.cosines.items():
        assert again.rule_updates.cosines[key] == pytest.approx(cosines, abs=1e-8)


def test_known_equilibria_serve_only_the_task_they_are_of() -> None:
    t = task(random_circuit(1, gain=0.4))
    b = batch(t, 3)
    drive = t.system.drive(b.x)
    free = t.free(drive)
    controlled = t.controlled(drive, b.target, free)
    known = KnownTask.of(Found(t, drive, b.target, free, controlled))
    assert known.free(drive) is free
    assert known.controlled(drive, b.target, free) is controlled
    stronger = replace(known, controller=leaky_integral(0.1, 100.0))
    assert float(stronger.controlled(drive, b.target, free).fields.u.norm()) > 1.5 * float(
        controlled.fields.u.norm()
    )
    other = b.target.roll(1, 0)
    assert not torch.equal(known.controlled(drive, other, free).fields.u, controlled.fields.u)
    assert not torch.equal(known.free(2 * drive).fields.phi, free.fields.phi)


def test_the_parts_add_up_and_weak_control_has_no_gain_part() -> None:
    t = task(random_circuit(0, gain=0.4), controller=leaky_integral(1.0, 100.0))
    b = batch(t, 4)
    drive = t.system.drive(b.x)
    free = t.free(drive).fields.phi
    found = t.controlled(drive, b.target, t.free(drive)).fields
    for sample in range(4):
        parts = updates.split(t.system, found.psi, found.phi, free, b.x, sample)
        whole = flat(t.system.update(*(v[:, sample : sample + 1] for v in (found.phi, found.psi, b.x))))
        assert (parts.prediction + parts.gain).numpy() == pytest.approx(whole.numpy(), abs=1e-14)
        bias = flat({"a": found.psi[:, sample]})
        assert float(torch.linalg.vector_norm(parts.gain)) < float(torch.linalg.vector_norm(whole))
        assert len(bias) == t.system.size
    weak = task(random_circuit(0, gain=0.4), controller=leaky_integral(1e4, 100.0))
    rows = {row.key: row for row in measures(examine(weak, LeastControl(), b))}
    assert rows["norm_gain"].mean < 1e-3 * rows["norm_prediction"].mean
    assert rows["cosine_loss_gradient"].mean > 0.999999


def test_mean_cosine_and_its_jackknife_error() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.standard_normal((2, 7, 5)) + 0.7
    compared = updates.Comparison(7, ("g",))
    for sample in range(7):
        compared.add(torch.as_tensor(one[sample]), {"g": torch.as_tensor(other[sample])})

    def cos(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    value, error = compared.mean("g")
    assert value == pytest.approx(cos(one.sum(0), other.sum(0)))
    left = np.array([cos(np.delete(one, s, 0).sum(0), np.delete(other, s, 0).sum(0)) for s in range(7)])
    assert error == pytest.approx(np.sqrt(6 / 7 * ((left - left.mean()) ** 2).sum()))
    assert compared.cosines["g"] == pytest.approx([cos(a, b) for a, b in zip(one, other, strict=True)])
    compared.add(None, {})
    assert np.isnan(compared.cosines["g"][-1])
    assert compared.mean("g")[0] == pytest.approx(value)


@pytest.mark.parametrize(
    "name", ["two populations", "dale", "relu", "not controlled", "two outputs", "acyclic"]
)
def test_every_kind_of_circuit_is_measured(name: str) -> None:
    t = task(MANY[name]())
    found = examine(t, LeastControl(), batch(t, 3))
    rows = {row.key: row for row in measures(found)}
    assert rows["cosine_control_gradient"].mean == pytest.approx(1, abs=1e-8)
    assert rows["distance"].mean < 1e-8
    if name != "not controlled":
        assert rows["control_share"].mean == pytest.approx(1, abs=1e-8)
        assert rows["energy_excess"].mean == 0
    else:
        assert "not controlled" in rows["energy_excess"].inapplicable
    assert rows["largest_real_part"].mean < 0
    assert rows["column_space"].inapplicable.startswith("dynamic inversion has no weights Q")
    assert "no finite output" in rows["distance_zero"].inapplicable
    for row in rows.values():
        assert row.inapplicable or np.isfinite(row.mean), row.key


def test_misaligned_feedback_is_named() -> None:
    t = task(
        random_circuit(0, gain=0.4),
        losses=("squared_error",),
        pathway=lambda system: LinearFeedback.random(system, 3),
    )
    rows = measures(examine(t, LeastControl(), batch(t, 6)))
    by_key = {row.key: row for row in rows}
    assert by_key["column_space"].verdict == FAILS
    assert by_key["jq"].count == 6
    assert by_key["distance_zero"].count == 6
    assert "misaligned feedback" in conclusion(rows)


def test_strong_control_is_named() -> None:
    """Exact control at a small leak on the circuit of a strong gain: the update is right, and is not the loss's."""
    t = task(random_circuit(0), controller=leaky_integral(0.05, 100.0))
    rows = measures(examine(t, LeastControl(), batch(t, 6)))
    by_key = {row.key: row for row in rows}
    assert by_key["cosine_control_gradient"].mean == pytest.approx(1, abs=1e-6)
    assert by_key["cosine_loss_gradient_mean"].mean < 0.7
    assert "strong control" in conclusion(rows)
    weak = task(random_circuit(0), controller=leaky_integral(20.0, 100.0))
    assert "strong control" not in conclusion(measures(examine(weak, LeastControl(), batch(t, 6))))


def test_unconverged_samples_are_named_and_left_out() -> None:
    t = task(random_circuit(0, gain=0.4), method="fixed_point", max_iterations=3)
    rows = measures(examine(t, LeastControl(), batch(t, 4)))
    assert {row.key: row for row in rows}["unconverged"].mean == 1
    assert conclusion(rows).startswith("The circuit may learn badly: unconverged (100.0%")


def test_a_baseline_has_no_split() -> None:
    t = task(random_circuit(0, gain=0.4))
    rows = {row.key: row for row in measures(examine(t, RecurrentBackprop(), batch(t, 3)))}
    assert rows["cosine_loss_gradient"].mean == pytest.approx(1, abs=1e-9)
    assert rows["cosine_loss_gradient"].verdict == HOLDS
    assert "no control" in rows["norm_gain"].inapplicable
    assert rows["control_share"].mean == pytest.approx(1, abs=1e-9)  # of the pathway, all the same


def test_the_command_and_its_file(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = experiment.parent / "d.h5"
    found = shown(capsys, str(experiment), "--samples", "12", "-o", str(out))
    assert found["samples"] == 12
    with h5py.File(out) as file:
        group = file["diagnosis"]
        assert group.attrs["conclusion"] == found["conclusion"]
        assert group.attrs["weights"] == "initial"
        assert (group["sample_ids"][:] == np.arange(12)).all()
        missing = group["does_not_apply"].asstr()[()]
        for key, row in found["measures"].items():
            if row["does_not_apply"]:
                assert f"{key}: {row['does_not_apply']}" in missing
                continue
            stored = group[key]
            assert stored.attrs["mean"] == pytest.approx(row["mean"], nan_ok=True)
            assert stored.attrs["units"]
            assert stored.attrs["description"].startswith(("[sample] ", "of all samples together "))
            if stored.shape:
                values = stored[:][np.isfinite(stored[:])]
                assert values.mean() == pytest.approx(row["mean"])
                assert stored.attrs["standard_error"] == pytest.approx(
                    values.std(ddof=1) / np.sqrt(len(values))
                )
    assert main(["diagnose", str(experiment), "-o", str(out)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["inspect", str(out), "diagnosis/control_share"]) == 0


def test_the_table_ends_with_the_sentence(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(experiment), "--samples", "5"]) == 0
    text = capsys.readouterr().out
    assert "control in row space of J" in text
    assert "does not apply" in text
    assert "Nothing measured here says" in text or "The circuit may learn badly" in text


def test_weights_of_a_run(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last state and each snapshot, and a first snapshot that is the circuit as it is."""
    run = experiment.parent / "run.h5"
    assert main(["run", str(experiment), "-o", str(run), "--quiet"]) == 0
    capsys.readouterr()
    plain = shown(capsys, str(experiment), "--samples", "20")["measures"]
    first = shown(capsys, str(experiment), "--samples", "20", "--weights", str(run), "--snapshot", "0")[
        "measures"
    ]
    last = shown(capsys, str(experiment), "--samples", "20", "--weights", str(run))["measures"]
    same = shown(capsys, str(experiment), "--samples", "20", "--weights", str(run), "--snapshot", "-1")[
        "measures"
    ]
    assert first["free_loss"]["mean"] == pytest.approx(plain["free_loss"]["mean"], rel=1e-5)
    assert last["free_loss"]["mean"] < 0.95 * plain["free_loss"]["mean"]
    assert same["free_loss"]["mean"] == pytest.approx(last["free_loss"]["mean"], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--snapshot", "0"], "name the run with weights"),
        (["--weights", "none.h5"], "there is no such file"),
        (["--weights", "run.h5", "--snapshot", "9"], "has no snapshot 9; allowed: 0 (before learning) to 1"),
        (["--weights", "run.h5", "--set", "seed=5"], "joins other neurons than this experiment's"),
        (["--weights", "d.h5"], "holds no weights after learning"),
        (["--set", "learn.rule=nothing"], "learn.rule"),
    ],
)
def test_what_is_refused(experiment: Path, options: list[str], message: str, monkeypatch, capsys) -> None:
    monkeypatch.chdir(experiment.parent)
    if "run.h5" in options:
        assert main(["run", "exp.yaml", "-o", "run.h5", "--quiet", "--set", "learn.epochs=1"]) == 0
    if "d.h5" in options:
        assert main(["diagnose", "exp.yaml", "--samples", "1", "-o", "d.h5"]) == 0
    capsys.readouterr()
    assert main(["diagnose", "exp.yaml", "--samples", "3", *options]) == 1
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.err


def test_single_precision_says_what_it_cannot_do(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = shown(capsys, str(experiment), "--samples", "4", "--set", "dtype=float32")["measures"]
    assert "float64" in found["largest_real_part"]["does_not_apply"]
    assert found["control_share"]["mean"] == pytest.approx(1, abs=1e-3)


def test_integral_control_of_a_softmax_is_neutral_not_unstable() -> None:
    """Without a leak nothing moves the sum over classes of u: an eigenvalue of zero, which is no instability."""
    t = task(random_circuit(0, gain=0.4), controller=integral(1000.0))
    b = batch(t, 3)
    soft = Batch(b.x, 0.9 * b.target + 0.1 / 3)
    rows = {row.key: row for row in measures(examine(t, LeastControl(), soft))}
    assert rows["largest_real_part"].mean == pytest.approx(0, abs=1e-9)
    assert rows["largest_real_part"].verdict == HOLDS
    assert rows["distance_zero"].inapplicable == "alpha is 0 already"
    assert rows["energy_excess"].inapplicable == "H + L/alpha needs alpha > 0"
    assert rows["cosine_control_gradient"].title == "update and -dH, alpha 0"
