"""Sweeps: equilibria found by scipy stay where they are, and one sweep of an acyclic circuit is exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import root

from circuitlab import native
from circuitlab.control.dynamic_inversion import ApicalFeedback, DynamicInversion, RandomFeedback
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.dynamics.activations import ACTIVATIONS, kink_distance
from circuitlab.dynamics.equations import FreeEquations
from circuitlab.dynamics.sweep import gate
from circuitlab.graph.circuit import Circuit
from tests.oracles.dense_twin import Twin
from tests.oracles.equations import (
    MANY,
    adjoint_equations,
    chain,
    controlled_equations,
    exact_adjoint,
    exact_controlled,
    exact_free,
    forward,
    gradient_of,
    image_of,
    with_bursts,
)
from tests.oracles.tasks import batch, task

every_circuit = pytest.mark.parametrize("name", MANY)
PATHWAYS = {
    "tied": None,
    "random": lambda system: DynamicInversion(RandomFeedback(system, 3, 0.5)),
    "apical": lambda system: DynamicInversion(ApicalFeedback(system)),
}


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


@every_circuit
def test_a_free_equilibrium_is_its_own_image(name: str) -> None:
    circuit = MANY[name]()
    t = task(circuit)
    b = batch(t, 3)
    phi = exact_free(Twin(circuit), b)
    equations = FreeEquations(t.system, t.system.drive(b.x))
    assert far(image_of(equations, phi), phi) < 1e-10


@every_circuit
@pytest.mark.parametrize("feedback", ["tied", "random"])
def test_a_controlled_equilibrium_is_its_own_image(name: str, feedback: str) -> None:
    circuit = MANY[name]()
    t = task(circuit, pathway=PATHWAYS[feedback])
    b = batch(t, 3)
    state = exact_controlled(t, Twin(circuit), b)
    assert far(image_of(controlled_equations(t, b), state), state) < 1e-10


@pytest.mark.parametrize("name", ["two populations", "dale", "two outputs", "chain", "outputs project back"])
def test_a_controlled_equilibrium_of_apical_feedback_is_its_own_image(name: str) -> None:
    circuit = with_bursts(MANY[name]())
    t = task(circuit, pathway=PATHWAYS["apical"])
    b = batch(t, 3)
    state = exact_controlled(t, Twin(circuit), b)
    assert float(state[: t.system.size].abs().max()) > 0.1
    assert far(image_of(controlled_equations(t, b), state), state) < 1e-10


def test_a_controlled_equilibrium_of_linear_feedback_is_its_own_image() -> None:
    """psi = Q u; the equilibrium is scipy's, found in u alone."""
    circuit = chain()
    t = task(circuit, pathway=lambda system: LinearFeedback.random(system, 0, 0.2))
    b, twin = batch(t, 3), Twin(circuit)
    q = t.pathway.q.numpy()  # type: ignore[attr-defined]
    states = []
    for x, target in zip(b.x.t().numpy(), b.target.t().numpy(), strict=True):
        gradient, n = gradient_of(t, target), twin.n

        def wrong(state, x=x, gradient=gradient, n=n):
            phi, u = state[:n], state[n:]
            return np.concatenate([twin.f(phi, x) + q @ u, -gradient(phi[-twin.k :]) - u])

        found = root(wrong, np.concatenate([twin.free(x), np.zeros(twin.k)]), tol=1e-14)
        assert np.abs(found.fun).max() < 1e-11
        states.append(found.x)
    state = torch.tensor(np.stack(states, axis=1))
    assert far(image_of(controlled_equations(t, b), state), state) < 1e-10


@every_circuit
def test_an_adjoint_equilibrium_is_its_own_image(name: str) -> None:
    circuit = MANY[name]()
    t = task(circuit)
    b, twin = batch(t, 3), Twin(circuit)
    phi = exact_free(twin, b)
    equations = adjoint_equations(t, b, phi)
    psi = exact_adjoint(twin, phi, equations.error)
    assert far(image_of(equations, psi), psi) < 1e-10


@pytest.mark.parametrize("later", [False, True])
def test_one_sweep_of_an_acyclic_circuit_is_exact_from_anywhere(later: bool) -> None:
    """Forward always; backward unless an output projects on, for outputs are swept first."""
    circuit = forward(later=later)
    t = task(circuit)
    b, twin = batch(t, 5), Twin(circuit)
    phi = exact_free(twin, b)
    anywhere = torch.randn(phi.shape, dtype=phi.dtype, generator=torch.Generator().manual_seed(0))
    free = FreeEquations(t.system, t.system.drive(b.x))
    assert free.direct
    assert far(image_of(free, anywhere), phi) < 1e-12
    adjoint = adjoint_equations(t, b, phi)
    psi = exact_adjoint(twin, phi, adjoint.error)
    assert adjoint.direct == (not later)
    assert (far(image_of(adjoint, anywhere), psi) < 1e-12) == (not later)


def circuits_that_iterate() -> list[Circuit]:
    return [make() for name, make in MANY.items() if not name.startswith("acyclic")]


def test_one_sweep_of_a_recurrent_circuit_is_not_called_exact() -> None:
    for circuit in circuits_that_iterate():
        t = task(circuit)
        assert not t.system.swept and not t.system.swept_back


def test_the_acyclic_part_of_a_recurrent_circuit_is_exact_after_one_sweep() -> None:
    """With the recurrent group at its equilibrium and all else anywhere, one sweep finds all else."""
    circuit = chain(later=True)
    t = task(circuit)
    b, twin = batch(t, 4), Twin(circuit)
    phi = exact_free(twin, b)
    start = torch.randn(phi.shape, dtype=phi.dtype, generator=torch.Generator().manual_seed(1))
    for name in ("e", "i"):
        start[twin.rows[name]] = phi[twin.rows[name]]
    assert far(image_of(FreeEquations(t.system, t.system.drive(b.x)), start), phi) < 1e-12


def gate_cases(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """phi, raw and prediction on both sides of a kink, exactly on it, and at zero feedback, [unit, sample]."""
    generator = torch.Generator().manual_seed(0)
    phi, raw, prediction = (torch.randn(40, 30, generator=generator, dtype=dtype) for _ in range(3))
    phi[:10, :10], raw[5:15, 5:15], prediction[::3, ::3] = 0, 0, 0
    raw[20:, :5] = -prediction[20:, :5]  # prediction + raw is exactly zero
    raw[:, -1] *= 1e4
    phi[:, -2] *= 30
    return phi, raw, prediction


@pytest.mark.compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_compiled_gate_equals_torchs(name: str, dtype: torch.dtype) -> None:
    assert native.available(), native.reason()
    activation = ACTIVATIONS[name]
    phi, raw, prediction = gate_cases(dtype)
    rate = activation.rate(phi, torch.empty_like(phi))
    close = (
        8 * torch.finfo(dtype).eps * (1 + raw.abs() + prediction.abs())
    )  # 1 - rate^2 is known to a rounding of 1
    for kinked in (False, True) if activation.kink else (False,):
        results = []
        for context in (native.disabled, None):
            control, potential = torch.full_like(phi, 7), torch.full_like(phi, 7)
            parts = (activation, kinked, phi, rate, raw, prediction, control, potential)
            if context is None:
                gate(*parts)
            else:
                with context():
                    gate(*parts)
            results.append((control, potential))
        (control, potential), (compiled, moved) = results
        assert bool(((compiled - control).abs() <= close).all())
        assert bool(((moved - potential).abs() <= close).all())
        assert torch.equal(potential, prediction + control)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", [n for n, a in ACTIVATIONS.items() if a.kink])
def test_a_kinked_gate_solves_the_inclusion(name: str, compiled: bool) -> None:
    """Where feedback is negative, psi is in [low, high] raw with phi exactly 0, or sigma'(phi) raw at phi."""
    activation = ACTIVATIONS[name]
    phi, raw, prediction = gate_cases(torch.float64)
    raw = -raw.abs()
    rate = activation.rate(phi, torch.empty_like(phi))
    control, potential = torch.empty_like(phi), torch.empty_like(phi)
    parts = (activation, True, phi, rate, raw, prediction, control, potential)
    if compiled:
        gate(*parts)
    else:
        with native.disabled():
            gate(*parts)
    assert activation.kink is not None
    assert int((potential == 0).sum()) > 20
    assert float(kink_distance(activation.kink, potential, raw, control).abs().max()) == 0


@pytest.mark.parametrize("name", [n for n, a in ACTIVATIONS.items() if a.kink is None])
def test_a_smooth_gate_is_slope_times_feedback(name: str) -> None:
    """sigma' by autograd."""
    phi, raw, prediction = gate_cases(torch.float64)
    activation = ACTIVATIONS[name]
    point = phi.clone().requires_grad_()
    function = {
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "softplus": torch.nn.functional.softplus,
        "elu": torch.nn.functional.elu,
        "linear": lambda v: 1.0 * v,
    }[name]
    (slope,) = torch.autograd.grad(function(point).sum(), point)
    rate = activation.rate(phi, torch.empty_like(phi))
    control, potential = torch.empty_like(phi), torch.empty_like(phi)
    gate(activation, False, phi, rate, raw, prediction, control, potential)
    assert torch.allclose(control, slope * raw, rtol=1e-10, atol=1e-11)
