"""Feedback weights that learn from noise in a whole run: they move, are on file, and a resumed run is the same."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from circuitlab.cli.main import main
from circuitlab.experiment.training import prepare
from circuitlab.learn.train import Observer, Trainer
from circuitlab.spec.experiment import load_experiment

CIRCUIT = """\
circuit: small
populations:
  retina: {type: input, size: 64}
  e: {type: pyramidal, size: 20, activation: tanh, sign: excitatory}
  i: {type: interneuron, size: 6, activation: softplus, sign: inhibitory}
  y: {type: output, size: 10}
projections:
  retina_e: {source: retina, target: e, site: basal}
  e_e: {source: e, target: e, site: basal, connect: {rule: pairwise_bernoulli, p: 0.3}}
  e_i: {source: e, target: i}
  i_e: {source: i, target: e, site: soma}
  e_y: {source: e, target: y}
"""
EXPERIMENT = """\
experiment: noisy
circuit: small.yaml
data: {name: digits, validation: 0, limit: 80}
control: {pathway: PATHWAY, feedback: random}
learn: {rule: RULE, epochs: 2, batch_size: 40, feedback: {rule: FEEDBACK, steps: 20}}
solve: {dt: 5 ms, max_time: 200 ms}
"""
CASES = [
    ("linear_feedback", "least_control_gated", "anti_hebbian"),
    ("deep_feedback_control", "deep_feedback_control", "alternating"),
    ("deep_feedback_control", "deep_feedback_control_ssa", "anti_hebbian"),
]


class States(Observer):
    """The trainer's state at every moment where a run may be taken up."""

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] = []

    def checkpoint(self, trainer: Trainer) -> None:
        self.states.append(copy.deepcopy(trainer.state()))


@pytest.fixture(params=CASES, ids=lambda case: f"{case[1]}, {case[2]}")
def experiment(request, tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(CIRCUIT)
    text = EXPERIMENT
    for word, value in zip(("PATHWAY", "RULE", "FEEDBACK"), request.param, strict=True):
        text = text.replace(word, value)
    path = tmp_path / "noisy.yaml"
    path.write_text(text)
    return path


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other, equal_nan=True))
    return one == other or (one != one and other != other)


def test_a_run_taken_up_anywhere_ends_the_same(experiment: Path) -> None:
    spec = load_experiment(experiment)
    whole, diary = prepare(spec).trainer, States()
    whole.observers = (diary,)
    whole.run()
    end = whole.state()
    assert len(diary.states) > 4
    for state in diary.states[1:-1]:
        again = prepare(spec).trainer
        again.restore(state)
        again.run()
        assert same(again.state(), end)


def test_the_run_file_has_the_feedback_weights_of_every_snapshot(experiment: Path) -> None:
    path = experiment.parent / "run.h5"
    assert main(["run", str(experiment), "-o", str(path), "--quiet"]) == 0
    with h5py.File(path) as file:
        for name, size in (("e", 20), ("i", 6), ("y", 10)):
            q = file[f"feedback/Q/{name}"][:]
            assert q.shape == (3, size, 10)
            assert np.isfinite(q).all()
            assert not np.array_equal(q[0], q[1]) and not np.array_equal(q[1], q[2])
            if name == "y":
                assert np.array_equal(q[0], np.eye(10))
