"""The closed form of the circuit's Jacobian, its energies and its compartments, against a dense twin and autograd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.base import Controlled
from circuitlab.control.dynamic_inversion import DynamicInversion, Feedback
from circuitlab.control.output import leaky_integral
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import Energy, Fields, FreeEquations
from circuitlab.dynamics.loss import LOSSES, OutputLoss
from circuitlab.experiment.activity import Activity
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.backprop import AdjointEquations
from tests.oracles.circuits import circuit, population, projection, random_circuit, sparse
from tests.oracles.dense_twin import Twin

CIRCUITS = {
    "tanh": random_circuit(0),
    "Dale's law, two outputs": random_circuit(1, dale=True, outputs=(2, 3)),
    "sigmoid": random_circuit(2, activation="sigmoid"),
    "elu": random_circuit(3, activation="elu"),
    "relu": random_circuit(4, activation="relu"),
    "leaky relu": random_circuit(5, activation="leaky_relu"),
}
every_circuit = pytest.mark.parametrize("small", CIRCUITS.values(), ids=CIRCUITS)


def setting(small: Circuit, samples: int = 3):
    """The system, its twin, and random phi, psi, x."""
    twin, system = Twin(small), CircuitSystem(CompiledCircuit(small, torch.float64))
    rng = np.random.default_rng(11)
    phi, psi = rng.standard_normal((2, twin.n, samples))
    return system, twin, torch.tensor(phi), torch.tensor(psi), torch.tensor(rng.standard_normal((4, samples)))


@every_circuit
def test_transported_is_the_transposed_jacobian(small: Circuit) -> None:
    system, twin, phi, psi, x = setting(small)
    point = system.linearise(phi, system.drive(x))
    for i in range(3):
        jacobian = twin.jacobian(phi[:, i].numpy()) + np.eye(twin.n)
        expected = jacobian.T @ psi[:, i].numpy()
        assert point.transported(psi)[:, i].numpy() == pytest.approx(expected, abs=1e-12)
    h = 1e-6
    step = torch.randn(phi.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moved = [system.linearise(phi + d * step, system.drive(x)).prediction for d in (h, -h)]
    along = ((moved[0] - moved[1]) / (2 * h) * psi).sum(0)
    assert torch.allclose(along, (point.transported(psi) * step).sum(0), atol=1e-7)


@every_circuit
def test_curvature_is_the_derivative_of_transported(small: Circuit) -> None:
    system, _, phi, psi, x = setting(small)
    drive, h = system.drive(x), 1e-6
    step = torch.ones_like(phi)
    moved = [system.linearise(phi + d * step, drive).transported(psi) for d in (h, -h)]
    curvature = system.linearise(phi, drive).curvature(psi)
    assert torch.allclose((moved[0] - moved[1]) / (2 * h), curvature, atol=1e-7)


def energies(small: Circuit) -> tuple[dict[str, Energy], Twin, torch.Tensor, torch.Tensor, torch.Tensor]:
    system, twin, phi, _, x = setting(small)
    target = torch.zeros(twin.k, 3, dtype=torch.float64)
    names = ["cross_entropy", "squared_error"]
    parts = [(LOSSES[names[i % 2]], rows) for i, rows in enumerate(system.compiled.outputs.values())]
    for _, rows in parts:
        target[rows.start] = 1
    drive = system.drive(x)
    batch = Controlled(system, drive, target, OutputLoss(parts), leaky_integral(0.2, 100.0), phi)
    free = FreeEquations(system, drive).energy()
    augmented = DynamicInversion(Feedback()).equations(batch).energy()
    assert free is not None
    assert augmented is not None
    return {"free": free, "augmented": augmented}, twin, phi, x, target


@every_circuit
def test_energies_equal_their_definition(small: Circuit) -> None:
    """1/2 |f|^2 (eq. 9), and with L/alpha added."""
    found, twin, phi, x, target = energies(small)
    sizes = [p.size for p in twin.units if p.type == "output"]
    for i in range(3):
        f = twin.f(phi[:, i].numpy(), x[:, i].numpy())
        assert float(found["free"].value(phi)[i]) == pytest.approx(0.5 * f @ f)
        y, t = phi[-twin.k :, i].numpy(), target[:, i].numpy()
        loss = np.logaddexp.reduce(y[: sizes[0]]) - y[0]
        loss += 0.5 * ((y[sizes[0] :] - t[sizes[0] :]) ** 2).sum()
        assert float(found["augmented"].value(phi)[i]) == pytest.approx(0.5 * f @ f + loss / 0.2)


@every_circuit
@pytest.mark.parametrize("name", ["free", "augmented"])
def test_energies_have_the_gradient_and_hessian_they_claim(small: Circuit, name: str) -> None:
    """Central differences of the value, then of the gradient; no test point lies on a kink."""
    energy, _, phi, _, _ = (found := energies(small))[0][name], *found[1:]
    h, one = 1e-5, phi[:, :1]
    gradient, hessian = _first(energy).derivatives(one)
    for k in range(len(phi)):
        step = torch.zeros_like(one)
        step[k] = h
        values = [float(_first(energy).value(one + d * step)) for d in (1, -1)]
        assert float(gradient[k]) == pytest.approx((values[0] - values[1]) / (2 * h), abs=1e-7)
        slopes = [_first(energy).derivatives(one + d * step)[0] for d in (1, -1)]
        assert torch.allclose(hessian[k], (slopes[0] - slopes[1]) / (2 * h), atol=1e-6)
    assert torch.allclose(hessian, hessian.t(), atol=1e-12)


def _first(energy: Energy) -> Energy:
    """The energy of the batch's first sample alone."""
    batch = getattr(energy, "batch", None)
    first = torch.tensor([0])
    if batch is not None:
        one = DynamicInversion(Feedback()).equations(batch.select(first)).energy()
    else:
        one = FreeEquations(energy.system, energy.drive[:, first]).energy()  # type: ignore[attr-defined]
    assert one is not None
    return one


def test_stationary_states_of_the_augmented_energy_satisfy_every_equation() -> None:
    energy, twin, phi, x, _ = (found := energies(CIRCUITS["tanh"]))[0]["augmented"], *found[1:]
    state = energy.state(phi).numpy()
    for i in range(3):
        psi = state[twin.n : 2 * twin.n, i]
        assert psi == pytest.approx(-twin.f(phi[:, i].numpy(), x[:, i].numpy()), abs=1e-12)


def test_compartments_split_the_input_by_site() -> None:
    """basal: bias and input to basal and somatic sites; apical: psi and input to apical sites, pyramidal cells only."""
    small = random_circuit(6)
    system, twin, phi, psi, x = setting(small)
    activity = Activity(system, Fields(phi, psi, psi[system.output]), x)
    known = Activity(system, activity.fields, x, drive=system.drive(x))
    apical = Twin(circuit(list(small.populations.values()), [small.projections["i_e"]])).w
    rates = np.stack([twin.sigma(phi[:, i].numpy()) for i in range(3)], axis=1)
    total = twin.w @ rates + twin.u_in @ x.numpy() + twin.b[:, None]
    for name, rows in twin.rows.items():
        size = rows.stop - rows.start
        expected = {
            "soma": phi[rows].numpy(),
            "control": psi[rows].numpy(),
            "rate": rates[rows],
            "basal": (total - apical @ rates)[rows],
            "apical": (apical @ rates)[rows] + psi[rows].numpy() if name == "e" else None,
        }
        for variable, values in expected.items():
            for one in (activity, known):
                for units in (None, slice(1, size), np.array([size - 1, 0])):
                    found = one.values(name, variable, units)
                    if values is None:
                        assert found is None
                    else:
                        assert found is not None
                        chosen = values if units is None else values[units]
                        assert pytest.approx(chosen, abs=1e-12) == found.T


def test_uncontrolled_populations_transport_only_when_asked() -> None:
    small = random_circuit(7)
    pops = [
        population(
            p.name, p.type, p.size, activation=p.activation, bias=p.bias, controlled=p.type != "interneuron"
        )
        for p in small.populations.values()
    ]
    system, twin, phi, psi, x = setting(circuit(pops, list(small.projections.values())))
    point = system.linearise(phi, system.drive(x))
    whole = np.stack([twin.slope(phi[:, i].numpy()) * (twin.w.T @ psi[:, i].numpy()) for i in range(3)], 1)
    masked = whole * twin.controlled[:, None]
    assert (masked != whole).any()
    assert point.transported(psi).numpy() == pytest.approx(masked, abs=1e-12)
    assert point.transported(psi, controlled_only=False).numpy() == pytest.approx(whole, abs=1e-12)
    raw = point.feedback_input(psi)
    assert point.gate(raw).numpy() == pytest.approx(masked, abs=1e-12)
    assert point.gate_imbalance(raw, psi).numpy() == pytest.approx(masked - psi.numpy(), abs=1e-12)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_uncontrolled_neurons_with_a_kink_ask_for_no_control(activation: str) -> None:
    small = random_circuit(7, activation=activation)
    pops = [replace(p, controlled=p.type != "interneuron") for p in small.populations.values()]
    system, twin, phi, psi, x = setting(circuit(pops, list(small.projections.values())))
    point = system.linearise(phi, system.drive(x))
    raw = point.feedback_input(psi)
    slope = np.stack([twin.slope(phi[:, i].numpy()) for i in range(3)], 1)
    expected = twin.controlled[:, None] * slope * raw.numpy() - psi.numpy()
    assert point.gate_imbalance(raw, psi).numpy() == pytest.approx(expected, abs=1e-12)
    assert (point.gate(raw)[twin.rows["i"]] == 0).all()
    assert not point.kinks(-10 * torch.ones_like(raw))[twin.rows["i"]].any()


def test_update_is_the_outer_product_of_control_and_rate() -> None:
    """dW = psi sigma(phi)^T, dU = psi x^T, db = psi on existing synapses (eq. 12, 116, 117), gated by sigma'."""
    small = random_circuit(8, p=0.4, outputs=(2, 2))
    system, twin, phi, psi, x = setting(small)
    rates = np.stack([twin.sigma(phi[:, i].numpy()) for i in range(3)], axis=1)
    slopes = np.stack([twin.slope(phi[:, i].numpy()) for i in range(3)], axis=1)
    for gated in (False, True):
        credit = psi.numpy() * slopes if gated else psi.numpy()
        updates = system.update(phi, psi, x, gated)
        for name, p in small.projections.items():
            pre = x.numpy() if p.source == "x" else rates[twin.rows[p.source]]
            expected = (credit[twin.rows[p.target]] @ pre.T)[p.edges.target, p.edges.source]
            assert updates[name].numpy() == pytest.approx(expected, abs=1e-12)
        for name, rows in twin.rows.items():
            assert updates[f"{name}_bias"].numpy() == pytest.approx(credit[rows].sum(1), abs=1e-12)
        assert len(updates) == len(small.projections) + len(twin.rows)


def test_one_sweep_through_an_acyclic_circuit_is_exact() -> None:
    """In whatever order its projections stand in the file: the free state forward, the adjoint backward."""
    rng = np.random.default_rng(0)
    pops = [
        population("x", "input", 3),
        *(population(n, "unit", 4) for n in "abc"),
        population("y", "output", 2),
    ]
    order = [("b", "c", 4), ("x", "a", 3), ("c", "y", 4), ("a", "b", 4), ("a", "y", 4)]
    projs = [
        projection(f"{s}_{t}", s, t, sparse(rng, 2 if t == "y" else 4, n, 0.9, 1.0)) for s, t, n in order
    ]
    small = circuit(pops, projs)
    system, twin = CircuitSystem(CompiledCircuit(small, torch.float64)), Twin(small)
    assert system.swept
    assert system.swept_back
    x = torch.randn(3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drive = system.drive(x)
    equations = FreeEquations(system, drive)
    phi = torch.empty_like(drive)
    equations.sweep(torch.randn_like(drive), phi)
    assert phi[:, 0].numpy() == pytest.approx(twin.free(x[:, 0].numpy()), abs=1e-12)
    error = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    adjoint = AdjointEquations(system, phi, drive, error, torch.zeros(1, dtype=torch.float64))
    psi = torch.empty_like(drive)
    adjoint.sweep(torch.randn_like(drive), psi)
    exact = np.linalg.solve(-twin.jacobian(phi[:, 0].numpy()).T, twin.d.T @ error[:, 0].numpy())
    assert psi[:, 0].numpy() == pytest.approx(exact, abs=1e-12)
    recurrent = CircuitSystem(CompiledCircuit(random_circuit(0)))
    assert not recurrent.swept
    assert not recurrent.swept_back
