"""Gains, thresholds and gap junctions in the equations, against a dense twin, scipy and finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.control.dynamic_inversion import DynamicInversion, Feedback
from circuitlab.control.energy_based import EnergyBased
from circuitlab.control.feedback import ApicalFeedback, KolenPollackFeedback, RandomFeedback
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import integral, leaky_integral
from circuitlab.dynamics.activations import ACTIVATIONS, with_gain
from circuitlab.dynamics.equations import FreeEquations
from circuitlab.graph.circuit import Circuit
from circuitlab.solve.choose import METHODS, find
from circuitlab.theory.jacobian import output_jacobian
from tests.oracles.circuits import (
    circuit,
    edges,
    population,
    projection,
    random_circuit,
    shifted,
    with_junctions,
)
from tests.oracles.dense_twin import Twin
from tests.oracles.equations import (
    adjoint_equations,
    chain,
    controlled_equations,
    exact_adjoint,
    exact_controlled,
    exact_free,
    forward,
    image_of,
    with_bursts,
)
from tests.oracles.tasks import batch, task

INSIDE, ACROSS = ("e", "e"), ("e", "i")
CIRCUITS: dict[str, Circuit] = {
    "gains and thresholds": shifted(random_circuit(0, gain=0.4)),
    "gains and thresholds, Dale's law": shifted(random_circuit(1, dale=True, gain=0.3)),
    "gains and thresholds, acyclic": shifted(forward()),
    "gap junctions within": with_junctions(random_circuit(2, gain=0.4), [INSIDE]),
    "gap junctions listed both ways": with_junctions(random_circuit(2, gain=0.4), [INSIDE], both=True),
    "gap junctions across": with_junctions(random_circuit(3, gain=0.4, outputs=(3, 2)), [ACROSS]),
    "large conductances": with_junctions(random_circuit(4, gain=0.4), [INSIDE, ACROSS], scale=8.0),
    "outputs joined": with_junctions(chain(back=True), [("y0", "y0"), ("b", "y0"), ("e", "e")]),
    "layers joined": with_junctions(forward(), [("a", "a"), ("b", "b"), ("a", "b")]),
    "inhibitory, with a threshold": with_junctions(
        shifted(random_circuit(1, dale=True, gain=0.3)), [("i", "i"), ACROSS]
    ),
    "not controlled": with_junctions(chain(uncontrolled=True), [("b", "b"), ("i", "b")]),
}
KINKED: dict[str, Circuit] = {
    "relu with a threshold": shifted(random_circuit(0, activation="relu", gain=0.5)),
    "leaky relu with a threshold": shifted(random_circuit(5, activation="leaky_relu", gain=0.5)),
    "relu with gap junctions": with_junctions(
        random_circuit(0, activation="relu", gain=0.5), [INSIDE, ACROSS]
    ),
    "relu with both": with_junctions(
        shifted(random_circuit(4, activation="relu", gain=0.5)), [INSIDE], scale=1.0
    ),
}
every = pytest.mark.parametrize("small", CIRCUITS.values(), ids=CIRCUITS)
CONTROLLED = {name: small for name, small in CIRCUITS.items() if name != "not controlled"}
all_controlled = pytest.mark.parametrize("small", CONTROLLED.values(), ids=CONTROLLED)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gain_and_threshold_shift_and_steepen_an_activation(name: str) -> None:
    plain, made = ACTIVATIONS[name], with_gain(ACTIVATIONS[name], 1.7, -0.3)
    phi = torch.tensor([-2.0, -0.31, -0.29, 0.4, 3.0], dtype=torch.float64)
    rate = made.rate(phi, torch.empty_like(phi))
    assert torch.equal(rate, plain.rate(1.7 * (phi + 0.3), torch.empty_like(phi)))
    h = 1e-6
    ahead, behind = (made.rate(phi + d, torch.empty_like(phi)) for d in (h, -h))
    assert torch.allclose(made.slope(phi, rate), (ahead - behind) / (2 * h), atol=1e-8)
    slopes = [made.slope(phi + d, made.rate(phi + d, torch.empty_like(phi))) for d in (h, -h)]
    assert torch.allclose(made.bend(phi, rate), (slopes[0] - slopes[1]) / (2 * h), atol=1e-8)
    if plain.kink is not None:
        assert made.kink == (1.7 * plain.kink[0], 1.7 * plain.kink[1])
        at = torch.tensor([-0.3], dtype=torch.float32)
        assert float(made.slope(at, at)) == pytest.approx(1.7 * plain.kink[0])


def test_gain_one_and_threshold_zero_change_nothing() -> None:
    assert all(with_gain(a, 1.0, 0.0) is a for a in ACTIVATIONS.values())


@every
def test_jacobian_curvature_and_energy_agree_with_the_dense_twin(small: Circuit) -> None:
    twin, t = Twin(small), task(small)
    rng = np.random.default_rng(1)
    phi, psi = (torch.tensor(rng.standard_normal((twin.n, 2))) for _ in range(2))
    drive = t.system.drive(torch.tensor(rng.standard_normal((4, 2))))
    point = t.system.linearise(phi, drive)
    for s in range(2):
        jacobian = twin.jacobian(phi[:, s].numpy()) + np.eye(twin.n)
        found = point.transported(psi, controlled_only=False)[:, s].numpy()
        assert found == pytest.approx(jacobian.T @ psi[:, s].numpy(), abs=1e-12)
    e = FreeEquations(t.system, drive[:, :1]).energy()
    assert e is not None
    one = phi[:, :1]
    gradient, hessian = e.derivatives(one)
    h, eye = 1e-5, torch.eye(twin.n, dtype=torch.float64)
    moved = [torch.cat([e.value(one + d * eye[:, [k]]) for k in range(twin.n)]) for d in (h, -h)]
    assert torch.allclose((moved[0] - moved[1]) / (2 * h), gradient, atol=1e-7)
    assert torch.allclose(e.evaluate(one).gradient.squeeze(1), gradient, atol=1e-12)
    turned = [
        torch.stack([e.derivatives(one + d * eye[:, [k]])[0] for k in range(twin.n)], 1) for d in (h, -h)
    ]
    assert torch.allclose((turned[0] - turned[1]) / (2 * h), hessian, atol=1e-7)


@every
def test_equilibria_are_scipys_and_a_sweep_leaves_them(small: Circuit) -> None:
    twin, t = Twin(small), task(small)
    b = batch(t, samples=3)
    drive, free = t.system.drive(b.x), exact_free(twin, b)
    assert torch.allclose(t.free(drive).fields.phi, free, atol=1e-9)
    assert torch.allclose(image_of(FreeEquations(t.system, drive), free), free, atol=1e-10)
    exact = exact_controlled(t, twin, b)
    equations = controlled_equations(t, b, free)
    assert torch.allclose(image_of(equations, exact), exact, atol=1e-9)
    assert float(equations.imbalance(exact).abs().max()) < 1e-9
    found = t.controlled(drive, b.target, t.free(drive))
    assert bool(found.converged.all())
    assert torch.allclose(found.state, exact, atol=1e-8)
    error = -t.loss.gradient(t.outputs(free), b.target)
    adjoint = adjoint_equations(t, b, free)
    expected = exact_adjoint(twin, free, error)
    assert torch.allclose(image_of(adjoint, expected), expected, atol=1e-10)
    assert torch.allclose(find(adjoint, t.settings).fields.psi, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        (name, method)
        for name in ("gains and thresholds", "gap junctions across", "large conductances")
        for method in METHODS
        if (name, method) != ("large conductances", "euler")  # its steps would have to be a thirtieth
    ],
)
def test_every_solver_finds_the_same_equilibria(name: str, method: str) -> None:
    small = CIRCUITS[name]
    options = {"fixed_point": {"damping": 0.7}, "euler": {"dt_ms": 1.0}}.get(method, {})
    t = task(small, tolerance=1e-9, method=method, max_iterations=4000, **options)
    b = batch(t, samples=2)
    found = t.controlled(t.system.drive(b.x), b.target, t.free(t.system.drive(b.x)))
    assert bool(found.converged.all())
    assert torch.allclose(found.state, exact_controlled(t, Twin(small), b), atol=1e-6)


@all_controlled
def test_energy_based_control_rests_where_dynamic_inversion_does(small: Circuit) -> None:
    t = task(small, pathway=lambda system: EnergyBased(Feedback()))
    b = batch(t, samples=2)
    exact = exact_controlled(replace(t, pathway=DynamicInversion(Feedback())), Twin(small), b)
    n = t.system.size
    state = torch.cat([exact[:n], exact[2 * n :]])
    equations = controlled_equations(t, b, exact[:n])
    assert torch.allclose(image_of(equations, state), state, atol=1e-9)
    for method in ("auto", "anderson"):
        again = replace(t, settings=replace(t.settings, method=method, tolerance=1e-9))
        drive = t.system.drive(b.x)
        found = again.controlled(drive, b.target, again.free(drive))
        assert bool(found.converged.all())
        assert torch.allclose(found.fields.psi, exact[n : 2 * n], atol=1e-6)


@pytest.mark.parametrize("small", KINKED.values(), ids=KINKED)
@pytest.mark.parametrize("pathway", [DynamicInversion, EnergyBased])
def test_neurons_on_a_kink_at_their_threshold_are_solved_exactly(small: Circuit, pathway) -> None:
    """Over many samples some neurons rest on their kink; the equations hold as an inclusion, recomputed by numpy."""
    t = task(
        small,
        tolerance=1e-9,
        pathway=lambda system: pathway(Feedback()),
        controller=leaky_integral(0.2, 100.0),
    )
    twin, b = Twin(small), batch(t, samples=40)
    drive = t.system.drive(b.x)
    found = t.controlled(drive, b.target, t.free(drive))
    assert int(found.converged.sum()) >= 36
    assert int(found.kinks[found.converged].sum()) > 0, "the circuits were chosen so that control meets kinks"
    on = 0
    for s in torch.nonzero(found.converged).squeeze(1).tolist():
        phi, psi, u = (part[:, s].numpy() for part in (found.fields.phi, found.fields.psi, found.fields.u))
        assert twin.f(phi, b.x[:, s].numpy()) + psi == pytest.approx(0, abs=1e-8)
        raw, rest = twin.w.T @ psi, psi - twin.l @ psi - twin.d.T @ u
        at = np.zeros(twin.n, dtype=bool)
        for p in twin.units:
            if p.activation in ("relu", "leaky_relu"):
                rows = twin.rows[p.name]
                at[rows] = phi[rows] == p.threshold
        ends = np.sort(np.stack([_low(twin) * raw, _high(twin) * raw]), axis=0)
        inside = np.clip(rest, *ends)
        expected = np.where(at, inside, twin.slope(phi) * raw)
        assert rest == pytest.approx(expected, abs=1e-7)
        on += int(at.sum())
    assert on > 0


def _low(twin: Twin) -> np.ndarray:
    low = {"relu": 0.0, "leaky_relu": 0.01}
    return np.concatenate([np.full(p.size, p.gain * low.get(p.activation, 1.0)) for p in twin.units])


def _high(twin: Twin) -> np.ndarray:
    return np.concatenate([np.full(p.size, p.gain) for p in twin.units])


def test_gain_and_threshold_of_a_relu_are_a_change_of_variables() -> None:
    """relu(g (phi - theta)) with weights w is relu(phi') with weights g w and biases moved by theta."""
    small = random_circuit(0, activation="relu", gain=0.5)
    g, theta = 1.4, 0.25
    pops = {
        n: p if p.type != "pyramidal" else replace(p, gain=g, threshold=theta)
        for n, p in small.populations.items()
    }
    e = small.populations["e"]
    moved = {**small.populations, "e": replace(e, bias=e.bias - theta)}
    scaled = {
        n: replace(p, edges=replace(p.edges, weight=g * p.edges.weight)) if p.source == "e" else p
        for n, p in small.projections.items()
    }
    one = task(replace(small, populations=pops), controller=leaky_integral(0.2, 100.0))
    other = task(replace(small, populations=moved, projections=scaled), controller=leaky_integral(0.2, 100.0))
    b = batch(one, samples=30)
    states = []
    for t in (one, other):
        drive = t.system.drive(b.x)
        states.append(t.controlled(drive, b.target, t.free(drive)))
    both = states[0].converged & states[1].converged
    assert int(both.sum()) >= 27
    assert torch.allclose(states[0].fields.psi[:, both], states[1].fields.psi[:, both], atol=1e-8)
    assert torch.equal(states[0].kinks[both], states[1].kinks[both])
    assert int(states[0].kinks[both].sum()) > 0


@pytest.mark.parametrize("kind", [RandomFeedback, KolenPollackFeedback, ApicalFeedback])
def test_feedback_of_ones_own_keeps_the_junctions_own_way_back(kind) -> None:
    """psi = sigma'(phi) (S psi) + L psi + D^T u for any S, by scipy."""
    small = with_junctions(with_bursts(chain()), [("e", "e"), ("e", "i"), ("b", "b")])
    make = kind if kind is ApicalFeedback else lambda system: kind(system, 0, 0.3)
    t = task(small, pathway=lambda system: DynamicInversion(make(system)))
    b = batch(t, samples=2)
    twin = Twin(small)
    drive = t.system.drive(b.x)
    found = t.controlled(drive, b.target, t.free(drive))
    assert bool(found.converged.all())
    assert torch.allclose(found.state, exact_controlled(t, twin, b), atol=1e-8)


@pytest.mark.parametrize(
    "controller", [leaky_integral(0.3, 100.0), integral(100.0)], ids=["leaky", "integral"]
)
@pytest.mark.parametrize("name", ["gap junctions across", "outputs joined", "large conductances"])
def test_direct_feedback_solves_its_equations(name: str, controller) -> None:
    """f(phi) + Q u = 0 and alpha u + dL/dy = 0, recomputed on the dense twin; Q is the response of the outputs."""
    small = CIRCUITS[name]
    t = task(
        small,
        losses=("squared_error",),
        pathway=LinearFeedback.jacobian,
        controller=controller,
        max_iterations=3000,
    )
    twin, b = Twin(small), batch(t, samples=3)
    q = t.pathway.q.numpy()
    zero = np.zeros(twin.n)
    response = twin.d @ np.linalg.inv(-twin.jacobian(zero))
    assert np.abs(q.T - response).max() < 1e-10
    drive = t.system.drive(b.x)
    found = t.controlled(drive, b.target, t.free(drive))
    assert bool(found.converged.all())
    for s in range(3):
        phi, u = found.fields.phi[:, s].numpy(), found.fields.u[:, s].numpy()
        assert twin.f(phi, b.x[:, s].numpy()) + q @ u == pytest.approx(0, abs=1e-9)
        assert controller.alpha * u + phi[-twin.k :] - b.target[:, s].numpy() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["outputs joined", "large conductances", "gains and thresholds"])
def test_j_is_the_response_of_the_settled_outputs(name: str) -> None:
    small = CIRCUITS[name]
    t, twin = task(small), Twin(small)
    b = batch(t, samples=2)
    drive = t.system.drive(b.x)
    phi = t.free(drive).fields.phi
    found = output_jacobian(t.system, phi, drive).rows.numpy()
    for s in range(2):
        expected = twin.d @ np.linalg.inv(-twin.jacobian(phi[:, s].numpy()))
        assert found[s] == pytest.approx(expected, abs=1e-9)


def test_two_neurons_by_hand() -> None:
    """Two linear leaky cells joined by g: phi1 = x + g (phi2 - phi1) and phi2 = g (phi1 - phi2), so that
    phi1 - phi2 = x / (1 + 2 g); current flows both ways, and none from a neuron to itself."""
    g, x = 0.8, 1.5
    small = circuit(
        [
            population("x", "input", 1, activation="linear"),
            population("h", "unit", 2, activation="linear"),
            population("y", "output", 1),
        ],
        [
            projection("x_h", "x", "h", edges([0], [0], [1.0])),
            replace(projection("h_h", "h", "h", edges([1, 1], [0, 1], [g, 5.0])), kind="electrical"),
            projection("h_y", "h", "y", edges([0], [0], [1.0])),
        ],
    )
    t = task(small)
    phi = t.free(t.system.drive(torch.tensor([[x]], dtype=torch.float64))).fields.phi[:2, 0].numpy()
    assert phi[0] - phi[1] == pytest.approx(x / (1 + 2 * g), abs=1e-12)
    assert phi.sum() == pytest.approx(x, abs=1e-12)
    assert small.strongly_connected() == [("h",)]
    assert not t.system.swept


def test_conductances_stay_at_least_zero_whatever_the_sign_of_the_sender() -> None:
    small = with_junctions(random_circuit(1, dale=True), [("i", "i"), ("i", "e")])
    compiled = task(small).system.compiled  # type: ignore[attr-defined]
    with torch.no_grad():
        for name in ("i_i_gap", "i_e_gap"):
            compiled.weights[name].sub_(0.2)
    compiled.enforce_sign()
    for name in ("i_i_gap", "i_e_gap"):
        values, before = compiled.weights[name].detach().numpy(), small.projections[name].edges.weight
        assert values == pytest.approx(np.maximum(before - 0.2, 0), abs=1e-12)
        assert (before > 0.2).any()
