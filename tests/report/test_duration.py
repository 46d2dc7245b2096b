"""How long a circuit takes: the estimate within a factor of three of what a clock says."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from circuitlab.bench.circuits import balanced_circuit, random_batch, random_circuit, task_of
from circuitlab.bench.machine import pinned
from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.rules import RULES
from circuitlab.report.duration import estimate, products, sweeps
from circuitlab.report.spectrum import Krylov, krylov
from circuitlab.report.summary import summarize
from circuitlab.spec.circuit import load_circuit

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
BATCH, ROUNDS = 64, 3
CIRCUITS: dict[str, Callable[[], Circuit]] = {
    "feedforward": lambda: build(load_circuit(TOPOLOGIES / "mnist_feedforward.yaml")),
    "recurrent": lambda: build(load_circuit(TOPOLOGIES / "mnist_recurrent.yaml")),
    "cortical": lambda: build(load_circuit(TOPOLOGIES / "cortical_microcircuit.yaml")),
    "random": lambda: random_circuit(512, 1.0, 0.9, 10, 0),
    "sparse": lambda: random_circuit(4096, 0.02, 0.5, 10, 0),
    "balanced": lambda: balanced_circuit(1000, 0.1, 0.8, 10, 0),
}


def _least(work: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of one thread's own work, as a busy machine interrupts it at any moment."""
    work()
    seconds = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    return min(seconds)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, and a clock of its own work for the calibration as for what is held against it."""
    monkeypatch.setattr("circuitlab.report.timing.time", SimpleNamespace(perf_counter=time.process_time))
    with pinned(1):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", CIRCUITS)
@pytest.mark.usefixtures("one_thread")
def test_the_estimate_is_within_a_factor_of_three_of_the_clock(name: str) -> None:
    circuit = CIRCUITS[name]()
    task = task_of(circuit, 1.0, torch.float32)
    batch = random_batch(task, BATCH, 0.5, 0)
    weights = list(task.system.compiled.parameters_by_name().values())

    @torch.no_grad()
    def update(rule: str) -> None:
        for value in weights:
            value.add_(0)  # as after an update: whatever is made of the weights is made anew
        RULES[rule].outcome(task, batch)

    # A machine busy with other work only adds to a time: of both, the least of several readings counts.
    times: dict[str, list[list[float]]] = {}
    for _ in range(ROUNDS):
        for rule in ("least_control", "recurrent_backprop"):
            kernels = {n: products(circuit, p, BATCH, torch.float32) for n, p in circuit.projections.items()}
            found = estimate(
                circuit,
                kernels,
                krylov(circuit) if circuit.strongly_connected() else None,
                batch=BATCH,
                rule=rule,
                dtype=torch.float32,
                samples=1000,
            )
            assert found.update is not None
            for what, predicted, work in (
                (f"update by {rule}", found.update, lambda rule=rule: update(rule)),
                ("free equilibrium", found.free, lambda: task.free(task.system.drive(batch.x))),
            ):
                pair = times.setdefault(what, [[], []])
                pair[0].append(predicted)
                pair[1].append(_least(work))
    ratios = {what: min(predicted) / min(measured) for what, (predicted, measured) in times.items()}
    assert all(1 / 3 < ratio < 3 for ratio in ratios.values()), ratios


def test_more_samples_take_as_many_updates_more() -> None:
    circuit = CIRCUITS["cortical"]()
    shown = summarize(circuit, batch=50, samples=1001, built_in=0.25)["time"]
    assert shown["building"] == 0.25
    assert shown["epoch"] == pytest.approx(shown["update"] * 21)
    assert all(shown[key] > 0 for key in ("compiling", "product", "free", "update"))


def test_what_does_not_sweep_is_not_estimated() -> None:
    circuit = CIRCUITS["cortical"]()
    assert summarize(circuit, rule="predictive_coding")["time"]["update"] is None


def test_an_acyclic_circuit_takes_one_sweep() -> None:
    assert sweeps(None, 1e-5) == (1, 0.0)


@pytest.mark.parametrize("rate", [0.3, 0.6])
def test_sweeps_of_a_ring_are_those_of_its_rate(rate: float) -> None:
    # (1 - r C) x = b with C a long ring: GMRES leaves about r^k after k products (the ring never closes on itself).
    size, steps = 400, 24
    shift = np.roll(np.eye(size), 1, axis=0) * rate / 0.75
    basis = np.zeros((steps + 1, size))
    basis[0, 0] = 1
    upper = np.zeros((steps + 1, steps))
    for k in range(steps):
        image = shift @ basis[k]
        upper[k + 1, k] = np.linalg.norm(image)
        basis[k + 1] = image / upper[k + 1, k]
    count, found = sweeps(Krylov(upper), 1e-5)
    assert found == pytest.approx(rate, rel=0.05)
    assert count == pytest.approx(1.2 * math.log(1e-5) / math.log(rate), rel=0.1)
