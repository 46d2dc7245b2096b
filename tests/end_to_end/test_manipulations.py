"""Manipulations of an experiment reach its run file, its resumption, its diagnosis and `equilibrium`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from circuitlab.cli.main import main
from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit
from circuitlab.graph.nulls import rewired
from circuitlab.record.compare import compare
from circuitlab.spec.experiment import load_experiment

ROOT = Path(__file__).parents[2]
CIRCUIT = """
circuit: feedback
seed: 5
populations:
  retina: {type: input, size: 64}
  e: {type: pyramidal, size: 24, sign: excitatory}
  i: {type: interneuron, size: 8, activation: relu, sign: inhibitory}
  y: {type: output, size: 10}
projections:
  retina_e: {source: retina, target: e, connect: {rule: fixed_indegree, indegree: 20}}
  e_e: {source: e, target: e, connect: {rule: pairwise_bernoulli, p: 0.2, allow_autapses: false}}
  e_i: {source: e, target: i, connect: {rule: pairwise_bernoulli, p: 0.5}}
  i_e: {source: i, target: e, site: soma, connect: {rule: pairwise_bernoulli, p: 0.5}}
  e_y: {source: e, target: y, connect: {rule: pairwise_bernoulli, p: 0.6}}
  y_e: {source: y, target: e, site: apical, carries: burst, connect: {rule: transpose, of: e_y}}
"""
EXPERIMENT = """
experiment: nulls
circuit: circuit.yaml
data: {name: digits, limit: 160, validation: 0.1}
control: {feedback: apical, controller: {alpha: 1.0}}
learn: {epochs: 6, batch_size: 32}
manipulations:
  first: {kind: rewire, model: degree_preserving, projections: [e_e, e_y], seed: 7}
  second: {kind: rewire, model: shuffle_weights, projections: [retina_e]}
seed: 2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "circuit.yaml").write_text(CIRCUIT)
    (tmp_path / "exp.yaml").write_text(EXPERIMENT)
    return tmp_path


def expected(folder: Path) -> Circuit:
    circuit = build(load_experiment(folder / "exp.yaml").circuit)
    circuit = rewired(circuit, "degree_preserving", ["e_e", "e_y"], seed=7)
    return rewired(circuit, "shuffle_weights", ["retina_e"], seed=2)


def holds(path: Path, circuit: Circuit) -> None:
    with h5py.File(path) as file:
        for name, projection in circuit.projections.items():
            group = file[f"edges/{name}"]
            assert np.array_equal(group["source_node_id"][:], projection.edges.source), name
            assert np.array_equal(group["target_node_id"][:], projection.edges.target), name
            assert np.allclose(group["0/syn_weight"][:], projection.edges.weight, rtol=1e-6), name


def test_a_run_learns_on_the_rewired_circuit_and_resumes_on_it(folder: Path) -> None:
    whole, part = folder / "whole.h5", folder / "part.h5"
    arguments = [str(folder / "exp.yaml"), "--quiet", "--set", "threads=1"]
    assert main(["run", *arguments, "-o", str(whole)]) == 0
    null, plain = expected(folder), build(load_experiment(folder / "exp.yaml").circuit)
    holds(whole, null)
    for name in ("e_e", "e_y", "y_e", "retina_e"):
        assert not null.projections[name].equals(plain.projections[name])
    for name in ("e_i", "i_e"):
        assert null.projections[name].equals(plain.projections[name])
    with h5py.File(whole) as file:
        text = file["spec/experiment"][()].decode()
        assert (file["weights/e_e"][:] >= 0).all()
        assert (file["weights/e_e"][-1] != file["weights/e_e"][0]).any()
    again = load_experiment("resolved.yaml", text=text, folder=folder)
    assert again.resolved()["manipulations"] == {
        "first": {"kind": "rewire", "model": "degree_preserving", "projections": ["e_e", "e_y"], "seed": 7},
        "second": {"kind": "rewire", "model": "shuffle_weights", "projections": ["retina_e"]},
    }
    killed = [sys.executable, "-m", "circuitlab", "run", *arguments, "-o", str(part)]
    child = subprocess.Popen(killed, env={**os.environ, "PYTHONPATH": str(ROOT)})
    while not part.exists() and child.poll() is None:
        time.sleep(0.01)
    child.kill()
    child.wait(60)
    holds(part, null)
    assert main(["run", *arguments, "-o", str(part), "--resume"]) == 0
    assert compare(whole, part) == []
    changed = ["--set", "manipulations.first.seed=8", "--resume"]
    assert main(["run", *arguments, "-o", str(part), *changed]) == 1


def test_equilibria_and_diagnoses_are_of_the_rewired_circuit(folder: Path) -> None:
    np.save(folder / "x.npy", np.random.default_rng(0).random((2, 64)))
    one = "manipulations.first={kind: rewire, model: degree_preserving, projections: [e_e, e_y], seed: 7}"
    two = "manipulations.second={kind: rewire, model: shuffle_weights, projections: [retina_e], seed: 2}"
    arguments = ["--input", str(folder / "x.npy"), "-o", str(folder / "eq.h5"), "--set", one, "--set", two]
    assert main(["equilibrium", str(folder / "circuit.yaml"), *arguments]) == 0
    holds(folder / "eq.h5", expected(folder))
    out = ["--samples", "2", "-o", str(folder / "d.h5")]
    assert main(["diagnose", str(folder / "exp.yaml"), *out]) == 0
    holds(folder / "d.h5", expected(folder))
