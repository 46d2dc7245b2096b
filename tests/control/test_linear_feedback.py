"""Direct linear feedback: its equations by scipy, and Theorem 2: with the right column space it is optimal control."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import root

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import integral, leaky_integral
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.least_control import LeastControl
from tests.oracles.circuits import circuit, random_circuit
from tests.oracles.dense_twin import Twin, cross_entropy
from tests.oracles.tasks import batch, task


def system_of(small: Circuit) -> CircuitSystem:
    return CircuitSystem(CompiledCircuit(small, torch.float64))


def check_root(small: Circuit, q: np.ndarray, alpha: float = 1.0) -> None:
    """f(phi) + Q u = 0 and alpha u + dL/dy = 0 by scipy from the free state."""
    controller = leaky_integral(alpha, 100.0)
    t = task(small, controller=controller, pathway=lambda s: LinearFeedback(s, torch.tensor(q)))
    b = batch(t, samples=3)
    found = LeastControl().outcome(t, b)
    assert bool(found.credit.converged.all())
    twin, fields = Twin(small), found.credit.fields
    effective = q * twin.controlled[:, None]
    for i in range(3):
        x, gradient = b.x[:, i].numpy(), cross_entropy(b.target[:, i].numpy())

        def wrong(state: np.ndarray, x=x, gradient=gradient) -> np.ndarray:
            phi, u = state[: twin.n], state[twin.n :]
            return np.concatenate([twin.f(phi, x) + effective @ u, -gradient(phi[-twin.k :]) - alpha * u])

        state = root(wrong, np.concatenate([twin.free(x), np.zeros(twin.k)]), tol=1e-14)
        assert np.abs(state.fun).max() < 1e-11
        assert fields.phi[:, i].numpy() == pytest.approx(state.x[: twin.n], abs=1e-8)
        assert fields.u[:, i].numpy() == pytest.approx(state.x[twin.n :], abs=1e-8)
        assert fields.psi[:, i].numpy() == pytest.approx(effective @ state.x[twin.n :], abs=1e-8)


@pytest.mark.parametrize("identity", [True, False], ids=["identity on the outputs", "any Q"])
@pytest.mark.parametrize("options", [dict(seed=0), dict(seed=3, dale=True)], ids=["tanh", "Dale's law"])
def test_equations_hold_as_scipy_finds_them(identity: bool, options: dict) -> None:
    small = random_circuit(**options)
    q = 0.5 * np.random.default_rng(1).standard_normal((14, 3))
    q[-3:] = np.eye(3) if identity else np.eye(3) + 0.3 * q[-3:]
    assert LinearFeedback(system_of(small), torch.tensor(q)).identity == identity
    check_root(small, q)


def test_uncontrolled_populations_have_no_control() -> None:
    small = random_circuit(0)
    pops = [replace(p, controlled=p.type != "interneuron") for p in small.populations.values()]
    small = circuit(pops, list(small.projections.values()))
    q = 0.5 * np.random.default_rng(1).standard_normal((14, 3))
    q[-3:] = np.eye(3)
    pathway = LinearFeedback(system_of(small), torch.tensor(q))
    assert (pathway.q[7:11] == 0).all()
    assert (pathway.feedback_weights()["Q/i"] == 0).all()
    check_root(small, q)


@pytest.mark.parametrize("seed", [0, 1, 6])
@pytest.mark.parametrize("mixed", [False, True], ids=["identity on the outputs", "another basis"])
def test_the_row_space_of_the_inverse_jacobian_gives_optimal_control(seed: int, mixed: bool) -> None:
    """Theorem 2 with eq. 120: col Q = row D (1 - W sigma'(phi*))^-1, integral control, one sample: psi is dynamic
    inversion's, whatever the basis of that space."""
    small = random_circuit(seed, activation="sigmoid" if seed == 6 else "tanh")
    t = task(small, losses=("squared_error",), controller=integral(100.0))
    b = batch(t, samples=1)
    optimal = LeastControl().outcome(t, b)
    assert bool(optimal.credit.converged.all())
    twin = Twin(small)
    rows = twin.d @ np.linalg.inv(-twin.jacobian(optimal.credit.fields.phi[:, 0].numpy()))
    q = rows.T @ np.linalg.inv(rows[:, -twin.k :].T)
    if mixed:
        q = q @ (np.eye(twin.k) + 0.3 * np.random.default_rng(0).standard_normal((twin.k, twin.k)))
    else:
        q[-twin.k :] = np.eye(twin.k)
    linear = replace(t, pathway=LinearFeedback(t.system, torch.tensor(q)))  # type: ignore[arg-type]
    found = LeastControl().outcome(linear, b)
    assert bool(found.credit.converged.all())
    assert torch.allclose(found.credit.fields.psi, optimal.credit.fields.psi, atol=1e-8)
    for name, update in optimal.updates.items():
        assert torch.allclose(found.updates[name], update, atol=1e-8)
    wrong = q + 0.3 * np.random.default_rng(1).standard_normal(q.shape)
    other = LeastControl().outcome(replace(t, pathway=LinearFeedback(t.system, torch.tensor(wrong))), b)  # type: ignore[arg-type]
    assert float(other.control_cost) > float(optimal.control_cost) * 1.0001


def test_random_feedback_is_drawn_per_population() -> None:
    """Normal with standard deviation scale / sqrt(outputs), the identity on the outputs, a stream per population."""
    small = random_circuit(0, hidden=400, p=0.05, outputs=(3, 2))
    system = system_of(small)
    q = LinearFeedback.random(system, 3, scale=2.0).q
    e = system.compiled.units["e"]
    assert torch.equal(q[system.output], torch.eye(5, dtype=torch.float64))
    assert float(q[e].std()) == pytest.approx(2 / 5**0.5, rel=0.06)
    assert abs(float(q[e].mean())) < 0.08
    assert torch.equal(q, LinearFeedback.random(system, 3, scale=2.0).q)
    assert not torch.allclose(q[e], LinearFeedback.random(system, 4, scale=2.0).q[e])
    renamed = [p for p in small.populations.values() if p.name != "i"]
    fewer = circuit(renamed, [p for p in small.projections.values() if "i" not in (p.source, p.target)])
    alone = LinearFeedback.random(system_of(fewer), 3, scale=2.0).q
    assert torch.equal(alone[:400], q[e])


def test_given_weights_are_placed_by_population() -> None:
    small = random_circuit(0)
    system = system_of(small)
    rng = np.random.default_rng(0)
    arrays = {"i": rng.standard_normal((4, 3)), "e": rng.standard_normal((7, 3))}
    q = LinearFeedback.given(system, arrays, "q.npz").q
    assert q[:7].numpy() == pytest.approx(arrays["e"])
    assert q[7:11].numpy() == pytest.approx(arrays["i"])
    assert torch.equal(q[11:], torch.eye(3, dtype=torch.float64))
    own = LinearFeedback.given(system, {**arrays, "y0": 2 * np.eye(3)}, "q.npz")
    assert torch.equal(own.q[11:], 2 * torch.eye(3, dtype=torch.float64))
    assert not own.identity


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"e": np.zeros((7, 3))},
            "q.npz: there is no array 'i'; give [unit, output unit] for each population",
        ),
        (
            {"e": np.zeros((7, 3)), "i": np.zeros((3, 4))},
            "q.npz: i must hold finite numbers of shape (4, 3), not (3, 4)",
        ),
        (
            {"e": np.full((7, 3), np.nan), "i": np.zeros((4, 3))},
            "q.npz: e must hold finite numbers of shape (7, 3), not (7, 3)",
        ),
        (
            {"e": np.zeros((7, 3)), "i": np.zeros((4, 3)), "x": np.zeros((4, 3))},
            "q.npz: x is no non-input population; allowed: e, i, y0",
        ),
    ],
)
def test_given_weights_that_do_not_fit(arrays: dict, message: str) -> None:
    with pytest.raises(CircuitError) as error:
        LinearFeedback.given(system_of(random_circuit(0)), arrays, "q.npz")
    assert str(error.value) == message


def test_q_of_the_wrong_shape() -> None:
    with pytest.raises(CircuitError, match=r"Q has shape \(3, 14\), but the circuit needs \(14, 3\)"):
        LinearFeedback(system_of(random_circuit(0)), torch.zeros(3, 14))
