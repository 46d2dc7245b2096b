"""The first guess of the controlled state: the linear response to the output controller, against dense algebra."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.control.base import Controlled
from circuitlab.control.output import leaky_integral
from circuitlab.dynamics.foresight import DEAREST, price, respond, steps
from circuitlab.graph.circuit import Circuit
from circuitlab.solve.base import solve
from circuitlab.solve.choose import find
from circuitlab.solve.fixed_point import FixedPoint
from tests.oracles.circuits import circuit, population, projection, random_circuit, sparse
from tests.oracles.dense_twin import Twin
from tests.oracles.tasks import batch, task

CIRCUITS = {
    "recurrent": random_circuit(0, gain=0.5),
    "Dale's law, two outputs": random_circuit(1, gain=0.5, dale=True, outputs=(2, 3)),
    "sparse": random_circuit(2, gain=0.5, p=0.3, hidden=12),
    "relu": random_circuit(3, gain=0.4, activation="relu"),
}


@pytest.mark.parametrize("small", CIRCUITS.values(), ids=CIRCUITS)
def test_the_response_is_that_of_the_linear_circuit(small: Circuit) -> None:
    """Psi = (I - S W^T)^-1 D^T and Phi = (I - W S)^-1 Psi, S the mean slopes; what is kept of Psi is W^T Psi."""
    t = task(small)
    system, twin = t.system, Twin(small)
    phi = t.free(system.drive(batch(t, 5).x)).fields.phi
    mean = np.mean([twin.slope(column) for column in phi.numpy().T], axis=0)
    found = respond(system, phi, 80)  # type: ignore[arg-type]
    psi = np.linalg.solve(np.eye(twin.n) - mean[:, None] * twin.w.T, twin.d.T)
    assert found.raw.numpy() == pytest.approx(twin.w.T @ psi, abs=1e-8)
    moved = np.linalg.solve(np.eye(twin.n) - twin.w * mean, psi)
    assert found.phi.numpy() == pytest.approx(moved, abs=1e-8)


def linear(seed: int = 0) -> Circuit:
    """A linear recurrent circuit with one output."""
    rng = np.random.default_rng(seed)
    pops = [
        population("x", "input", 3, activation="linear"),
        population("h", "unit", 8, activation="linear"),
        population("y", "output", 1, activation="linear"),
    ]
    return circuit(
        pops,
        [
            projection("x_h", "x", "h", sparse(rng, 8, 3, 0.9, 1.0)),
            projection("h_h", "h", "h", sparse(rng, 8, 8, 0.5, 0.3)),
            projection("h_y", "h", "y", sparse(rng, 1, 8, 1.0, 0.5)),
        ],
    )


@pytest.mark.parametrize("alpha", [0.1, 1.0, 6.4])
def test_the_guess_is_exact_for_a_linear_circuit_with_one_output(alpha: float) -> None:
    """Up to the accuracy of its two matrices: a slower rate makes it take more steps, and come nearer."""
    t = task(linear(), losses=("squared_error",), controller=leaky_integral(alpha, 10.0))
    b = batch(t, 64)
    drive = t.system.drive(b.x)
    free = t.free(drive).fields.phi
    equations = t.pathway.equations(Controlled(t.system, drive, b.target, t.loss, t.controller, free))
    wrong = []
    for rate in (0.05, 0.4):
        foreseen = equations.foreseen(equations.start(), rate)
        assert foreseen is not None
        state, extra = foreseen
        assert extra == pytest.approx(price(t.system, steps(rate), 64))  # type: ignore[arg-type]
        wrong.append(float(equations.relative(equations.imbalance(state), state).max()))
    start = equations.start()
    assert wrong[1] < 0.1
    assert wrong[1] < wrong[0] < float(equations.relative(equations.imbalance(start), start).max())


def test_no_guess_where_it_is_too_dear_or_feedback_is_not_the_transpose() -> None:
    t = task(random_circuit(0))
    few = batch(t, 1)
    drive = t.system.drive(few.x)
    problem = Controlled(t.system, drive, few.target, t.loss, t.controller, t.free(drive).fields.phi)
    equations = t.pathway.equations(problem)
    assert price(t.system, steps(0.5), 1) > DEAREST  # type: ignore[arg-type]
    assert equations.foreseen(equations.start(), 0.5) is None


def test_a_solve_from_the_guess_ends_where_one_from_the_free_state_does_and_counts_its_price() -> None:
    t = task(random_circuit(0, gain=0.5), controller=leaky_integral(1.0, 10.0), tolerance=1e-10)
    b = batch(t, 64)
    drive = t.system.drive(b.x)
    free = t.free(drive).fields.phi
    equations = t.pathway.equations(Controlled(t.system, drive, b.target, t.loss, t.controller, free))
    settings = replace(t.settings, preconditioner="none", depth=3)
    rate = 0.3
    guessed, plain = find(equations, settings, rate=rate), find(equations, settings)
    assert bool(guessed.converged.all())
    assert torch.allclose(guessed.state, plain.state, atol=1e-8)
    swept = 2.0 * (guessed.iterations + 1)
    extra = price(t.system, steps(rate), 64)  # type: ignore[arg-type]
    again = (
        guessed.products - swept - extra
    ).numpy() / 2  # rounds after a first verification that asked for more
    assert again == pytest.approx(np.round(again), abs=1e-5)
    assert (np.round(again) >= 0).all()
    assert np.mean(np.round(again) > 0) < 0.2
    assert float(guessed.iterations.double().mean()) < float(plain.iterations.double().mean())


def test_plain_steps_do_not_stop_before_their_own_residual() -> None:
    """The published baseline: the state that is judged last is within the tolerance itself."""
    t = task(random_circuit(0, gain=0.5))
    b = batch(t, 3)
    drive = t.system.drive(b.x)
    free = t.free(drive).fields.phi
    equations = t.pathway.equations(Controlled(t.system, drive, b.target, t.loss, t.controller, free))
    found = solve(equations, FixedPoint(1e-6, 400))
    state = equations.start()
    for _ in range(int(found.iterations[0]) - 1):
        image = torch.empty_like(state)
        equations.sweep(state, image)
        state = image
    image = torch.empty_like(state)
    equations.sweep(state, image)
    n = t.system.size
    moved = [torch.linalg.vector_norm((image - state)[rows, 0]) for rows in (slice(0, n), slice(n, 2 * n))]
    sizes = [torch.linalg.vector_norm(image[rows, 0]) for rows in (slice(0, n), slice(n, 2 * n))]
    assert max(float(m / s) for m, s in zip(moved, sizes, strict=True)) <= 1e-6
