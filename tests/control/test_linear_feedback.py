"""Direct linear feedback: its equations by scipy, and Theorem 2: with the right column space it is optimal control."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import root

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.jacobian import response
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import integral, leaky_integral
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.least_control import LeastControl
from tests.oracles.circuits import circuit, edges, population, projection, random_circuit
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


def dense_jacobian(small: Circuit, slope: np.ndarray) -> np.ndarray:
    """(D (1 - W S)^-1)^T by numpy, with output units taking part."""
    twin = Twin(small)
    return (twin.d @ np.linalg.inv(np.eye(twin.n) - twin.w * slope)).T


@pytest.mark.parametrize(
    ("options", "slopes"),
    [
        (dict(seed=0), (1.0, 1.0)),
        (dict(seed=1, dale=True), (1.0, 0.5)),
        (dict(seed=2, activation="sigmoid"), (0.25, 0.25)),
        (dict(seed=3, activation="relu", outputs=(3, 2)), (1.0, 1.0)),
        (dict(seed=0, gain=3.0), (1.0, 1.0)),
    ],
    ids=["tanh", "softplus interneurons", "sigmoid", "relu above its kink", "expanding: by GMRES"],
)
def test_jacobian_feedback_is_the_response_of_the_outputs_at_silence(options: dict, slopes: tuple) -> None:
    small = random_circuit(**options)
    slope = np.concatenate([np.full(7, slopes[0]), np.full(4, slopes[1]), np.ones(Twin(small).k)])
    q = LinearFeedback.jacobian(system_of(small)).q.numpy()
    assert q == pytest.approx(dense_jacobian(small, slope), abs=1e-11)
    assert q[-Twin(small).k :] == pytest.approx(np.eye(Twin(small).k), abs=1e-14)
    if options.get("gain"):
        assert np.abs(np.linalg.eigvals(Twin(small).w)).max() > 1, "plain steps diverge"


def test_jacobian_feedback_of_layers_is_the_product_of_transposed_weights() -> None:
    rng = np.random.default_rng(0)
    sizes = {"x": 3, "a": 6, "b": 5, "y": 2}
    weights = {(s, t): rng.standard_normal((sizes[t], sizes[s])) for s, t in ("xa", "ab", "by")}
    full = {
        key: edges(*np.nonzero(np.ones(w.shape))[::-1], w[np.nonzero(np.ones(w.shape))])
        for key, w in weights.items()
    }
    types = {"x": "input", "a": "unit", "b": "unit", "y": "output"}
    small = circuit(
        [population(n, types[n], s, activation="linear" if n in "xy" else "tanh") for n, s in sizes.items()],
        [projection(f"{s}_{t}", s, t, e) for (s, t), e in full.items()],
    )
    q = LinearFeedback.jacobian(system_of(small)).feedback_weights()
    w_ab, w_by = weights["a", "b"], weights["b", "y"]
    assert q["Q/a"].numpy() == pytest.approx(w_ab.T @ w_by.T, abs=1e-14)
    assert q["Q/b"].numpy() == pytest.approx(w_by.T, abs=1e-14)
    assert q["Q/y"].numpy() == pytest.approx(np.eye(2), abs=0)


def test_jacobian_feedback_of_a_singular_circuit_is_refused() -> None:
    ring = circuit(
        [
            population("x", "input", 1, activation="linear"),
            population("h", "unit", 1),
            population("y", "output", 1),
        ],
        [
            projection("x_h", "x", "h", edges([0], [0], [1.0])),
            projection("h_h", "h", "h", edges([0], [0], [1.0])),
            projection("h_y", "h", "y", edges([0], [0], [1.0])),
        ],
    )
    with pytest.raises(CircuitError, match=r"jacobian .* none that can be found .* allowed: random"):
        LinearFeedback.jacobian(system_of(ring))


@pytest.mark.parametrize("alpha", [1.0, 0.05])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_exact_q_reaches_dynamic_inversions_control(seed: int, alpha: float) -> None:
    """Strict alignment (eq. 73, 76): with Q^T = D (1 - W sigma'(phi*))^-1 at one sample's own controlled equilibrium,
    linear feedback has dynamic inversion's phi and psi at any leak."""
    t = task(random_circuit(seed, dale=seed == 2), controller=leaky_integral(alpha, 100.0))
    b = batch(t, samples=1)
    optimal = LeastControl().outcome(t, b)
    system, phi = t.system, optimal.credit.fields.phi
    assert isinstance(system, CircuitSystem)
    q = response(system, system.slopes(phi, system.rates(phi)))
    found = LeastControl().outcome(replace(t, pathway=LinearFeedback(system, q)), b)
    assert bool(found.credit.converged.all()) and bool(optimal.credit.converged.all())
    assert torch.allclose(found.credit.fields.phi, phi, atol=1e-6)
    assert torch.allclose(found.credit.fields.psi, optimal.credit.fields.psi, atol=1e-6)
    assert float(optimal.credit.fields.psi.norm()) > 1e-2


def test_strong_control_through_hidden_units_converges() -> None:
    """A small leak, and most of the controller reaching the outputs through others: the sweep goes by the circuit's
    linear answer, and what it finds satisfies the equations (which have several solutions) by numpy."""
    rng = np.random.default_rng(4)
    small = random_circuit(1)
    q = dense_jacobian(small, np.ones(14)) @ (np.eye(3) + 0.2 * rng.standard_normal((3, 3)))
    q[:7] *= 3
    t = task(
        small, controller=leaky_integral(0.01, 100.0), pathway=lambda s: LinearFeedback(s, torch.tensor(q))
    )
    b, twin = batch(t, samples=3), Twin(small)
    drive = t.system.drive(b.x)
    held = t.under_control(drive, b.target, t.free(drive))
    equations = t.pathway.equations(held)
    state = equations.start()
    equations.sweep(state, torch.empty_like(state))
    assert equations.answer is not None and equations.extra > 0  # type: ignore[attr-defined]
    found = t.controlled(drive, b.target, t.free(drive))
    assert bool(found.converged.all())
    assert int(found.iterations.max()) < 60
    for i in range(3):
        phi, u = found.fields.phi[:, i].numpy(), found.fields.u[:, i].numpy()
        assert twin.f(phi, b.x[:, i].numpy()) + q @ u == pytest.approx(np.zeros(twin.n), abs=1e-9)
        assert cross_entropy(b.target[:, i].numpy())(phi[-3:]) + 0.01 * u == pytest.approx(
            np.zeros(3), abs=1e-9
        )


def test_parameters_are_the_rows_of_q_and_nothing_acts_where_no_control_is() -> None:
    small = random_circuit(0)
    pops = [replace(p, controlled=p.type != "interneuron") for p in small.populations.values()]
    pathway = LinearFeedback.random(system_of(circuit(pops, list(small.projections.values()))), 0)
    assert set(pathway.parameters()) == set(pathway.feedback_weights()) == {"Q/e", "Q/i", "Q/y0"}
    given = torch.full((7, 3), 2.5, dtype=torch.float64)
    with torch.no_grad():
        pathway.parameters()["Q/e"].copy_(given)
        pathway.parameters()["Q/i"] += 1.0
        pathway.parameters()["Q/y0"] *= 2.0
    assert torch.equal(pathway.q[:7], given)
    assert not pathway.identity
    pathway.hold_signs()
    assert (pathway.q[7:11] == 0).all() and (pathway.feedback_weights()["Q/i"] == 0).all()
