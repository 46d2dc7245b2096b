"""Lateral inhibition: what is sent, dynamic inversion on linear circuits, the written equations, tracking learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.base import Controlled
from circuitlab.control.dynamic_inversion import DynamicInversion, Feedback, RandomFeedback
from circuitlab.control.interneurons import SENT, Interneurons
from circuitlab.control.lateral_inhibition import LateralInhibition
from circuitlab.control.output import leaky_integral
from circuitlab.dynamics.activations import ACTIVATIONS
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.feedback.tracking import Tracking, tracking_error
from circuitlab.learn.least_control import LeastControl
from circuitlab.learn.mismatch import mismatch
from tests.oracles.circuits import circuit, random_circuit
from tests.oracles.dense_twin import Twin
from tests.oracles.equations import MANY, dense, gradient_of
from tests.oracles.tasks import batch, task


def linear(base: Circuit) -> Circuit:
    """The circuit with linear rates everywhere."""
    pops = [replace(p, activation="linear") for p in base.populations.values()]
    return circuit(pops, list(base.projections.values()))


def lateral(copied: bool = True, random: bool = False, apart: float = 0.0):
    """A pathway's maker, for `task`, its interneurons' weights `apart` from the circuit's where they are copied."""

    def make(system: CircuitSystem) -> LateralInhibition:
        s = RandomFeedback(system, seed=4, scale=0.4) if random else Feedback()
        interneurons = Interneurons(system, copied, seed=3)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for value in interneurons.parameters().values():
                value += apart * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        return LateralInhibition(system, s, interneurons)

    return make


@pytest.mark.parametrize("name", SENT)
def test_what_is_sent_is_the_rates_difference_over_the_larger_gain(name: str) -> None:
    rng = np.random.default_rng(0)
    delta, error = (torch.tensor(rng.standard_normal((40, 50)) * scale) for scale in (2, 1))
    delta[0], error[0] = 0.5, 0.0
    activation, phi = ACTIVATIONS[name], delta + error
    rates = [activation.rate(v, torch.empty_like(v)) for v in (phi, delta)]
    gain = torch.maximum(activation.slope(phi, rates[0]), activation.slope(delta, rates[1]))
    expected = torch.where(gain > 0, (rates[0] - rates[1]) / gain, 0.0)
    assert torch.allclose(SENT[name](delta, error), expected, rtol=1e-9, atol=1e-12)
    small = SENT[name](delta, 1e-6 * error)
    moved = gain > 0 if name == "relu" else torch.ones_like(gain, dtype=torch.bool)
    same_side = (delta > 0) == (delta + 1e-6 * error > 0)
    alive = moved & same_side & ((delta > 0) if name == "relu" else True)
    assert torch.allclose(small[alive], 1e-6 * error[alive], rtol=1e-5), "the control itself, to first order"


def test_no_digit_is_lost_near_saturation() -> None:
    """In single precision tanh(9) is 1 to its last bit; the small control behind it is still sent."""
    delta, error = torch.full((1, 1), 9.0), torch.full((1, 1), 1e-4)
    assert float(SENT["tanh"](delta, error)) == pytest.approx(1e-4, rel=1e-3)


@pytest.mark.parametrize("random", [False, True], ids=["tied", "random"])
@pytest.mark.parametrize("name", [n for n in MANY if n != "relu"])
def test_on_linear_circuits_it_is_dynamic_inversion(name: str, random: bool) -> None:
    small = linear(MANY[name]())
    t = task(small, pathway=lateral(random=random))
    assert isinstance(t.pathway, LateralInhibition)
    b = batch(t)
    found = LeastControl().outcome(t, b).credit
    exact = LeastControl().outcome(replace(t, pathway=DynamicInversion(t.pathway.feedback)), b).credit
    assert bool(found.converged.all() & exact.converged.all())
    assert torch.allclose(found.fields.psi, exact.fields.psi, atol=1e-9)
    assert torch.allclose(found.fields.phi, exact.fields.phi, atol=1e-9)
    assert float(mismatch(t, b).max()) < 1e-8


def sent_by_hand(twin: Twin, phi: np.ndarray, delta: np.ndarray) -> np.ndarray:
    gain = np.maximum(twin.slope(phi), twin.slope(delta))
    difference = twin.sigma(phi) - twin.sigma(delta)
    return np.divide(difference, gain, out=np.zeros_like(gain), where=gain > 0)


CASES = [(name, apart, "auto") for name in MANY for apart in (0.0, 0.05)]
CASES += [
    (name, 0.0, method) for name in ("chain", "dale") for method in ("fixed_point", "anderson", "euler")
]


@pytest.mark.parametrize(("name", "apart", "method"), CASES, ids=str)
def test_its_equilibria_satisfy_the_written_equations(name: str, apart: float, method: str) -> None:
    """psi = sigma'(phi) (W^T e) + D^T u, e from rates alone, delta from the interneurons' own weights, by numpy."""
    small = MANY[name]()
    settings = dict(tolerance=1e-8, max_time_ms=20000.0, dt_ms=4.0) if method == "euler" else {}
    t = task(
        small, pathway=lateral(apart=apart), method=method, controller=leaky_integral(2.0, 20.0), **settings
    )
    b = batch(t)
    found = LeastControl().outcome(t, b).credit
    assert bool(found.converged.all())
    own = t.pathway.feedback_weights()
    shadow = Twin(_with_weights(small, own))
    twin, gradient = Twin(small), [gradient_of(t, b.target[:, i].numpy()) for i in range(4)]
    for i in torch.nonzero(found.converged).squeeze(1).tolist():
        phi, psi, u = (part[:, i].numpy() for part in (found.fields.phi, found.fields.psi, found.fields.u))
        x = b.x[:, i].numpy()
        delta = shadow.prediction(phi, x)
        sums = np.zeros(twin.n)
        sums[-twin.k :] = u
        expected = twin.controlled * twin.slope(phi) * (twin.w.T @ sent_by_hand(twin, phi, delta)) + sums
        assert phi == pytest.approx(twin.prediction(phi, x) + psi, abs=1e-7)
        if name != "relu":
            assert psi == pytest.approx(expected, abs=1e-7)
        assert 2.0 * u == pytest.approx(-gradient[i](phi[-twin.k :]), abs=1e-7)


def _with_weights(base: Circuit, own: dict[str, torch.Tensor]) -> Circuit:
    """The circuit with the interneurons' weights and biases in place of its own."""
    projections = [
        replace(p, edges=replace(p.edges, weight=own[f"I/{name}"].numpy()))
        for name, p in base.projections.items()
    ]
    pops = [
        p if p.bias is None or p.type == "input" else replace(p, bias=own[f"I/{p.name}_bias"].numpy())
        for p in base.populations.values()
    ]
    return circuit(pops, projections)


def test_the_mismatch_falls_with_the_control() -> None:
    """e is psi to first order, so the relative difference from dynamic inversion goes as the control, as 1/alpha."""
    found = []
    for alpha in (10.0, 100.0, 1000.0):
        t = task(
            random_circuit(0, gain=0.5),
            pathway=lateral(),
            controller=leaky_integral(alpha, 100),
            tolerance=1e-13,
        )
        found.append(float(mismatch(t, batch(t)).mean()))
    assert found[0] > 1e-4, "they differ on circuits that are not linear"
    assert found[1] / found[0] == pytest.approx(0.1, rel=0.2)
    assert found[2] / found[1] == pytest.approx(0.1, rel=0.05)


def test_interneurons_learn_to_track_and_then_leave_dynamic_inversions_psi() -> None:
    """From random weights, the circuit's own weights at rest: the delta rule alone, whether control settles or not."""
    small = linear(dense(units=6, gain=0.4))
    small = circuit(
        list(small.populations.values()), [replace(p, plastic=False) for p in small.projections.values()]
    )
    controller = leaky_integral(0.3, 100.0)
    t = task(
        small, losses=("squared_error",), controller=controller, pathway=lateral(copied=False), tolerance=1e-9
    )
    b = batch(t, samples=40)
    optimizer = torch.optim.SGD(t.pathway.parameters().values(), lr=0.2, momentum=0.95)
    outcome = LeastControl().outcome(t, b)
    before = tracking_error(t, outcome.free.fields.phi, b.x).abs().max()
    for _ in range(6):
        for _ in range(500):
            found = Tracking().updates(t, b, outcome, 0)
            for name, parameter in t.pathway.parameters().items():
                parameter.grad = found[name].neg()
            optimizer.step()
        outcome = LeastControl().outcome(t, b)
    assert float(before) > 0.1
    assert float(tracking_error(t, outcome.credit.fields.phi, b.x).abs().max()) < 1e-4
    assert float(mismatch(t, b).max()) < 1e-4


def test_the_delta_rule_is_what_it_says() -> None:
    """(phi - delta) sigma(phi)^T in both states, (phi - psi - delta) sigma(phi)^T of frozen synapses, by hand."""
    small = random_circuit(3, gain=0.4)
    projections = [replace(p, plastic=p.name != "e_i") for p in small.projections.values()]
    small = circuit(list(small.populations.values()), projections)
    t = task(small, pathway=lateral(copied=False), thorough=True)
    b = batch(t, samples=3)
    outcome = replace(LeastControl().outcome(t, b), used=torch.tensor([True, False, True]))
    found = Tracking().updates(t, b, outcome, 0)
    twin, shadow = Twin(small), Twin(_with_weights(small, t.pathway.feedback_weights()))
    credit = outcome.credit.fields
    expected = dict.fromkeys(found, 0.0)
    for i in (0, 2):
        x, phi, psi = (v[:, i].numpy() for v in (b.x, credit.phi, credit.psi))
        free = twin.free(x)
        error = free - shadow.prediction(free, x)
        shifted = phi - shadow.prediction(phi, x)
        for name, p in small.projections.items():
            to = twin.rows[p.target].start + p.edges.target
            at = p.edges.source if p.source == "x" else twin.rows[p.source].start + p.edges.source
            before, after = (x, x) if p.source == "x" else (twin.sigma(free), twin.sigma(phi))
            term = error[to] * before[at] + (shifted if p.plastic else shifted - psi)[to] * after[at]
            expected[f"I/{name}"] = expected[f"I/{name}"] + term / 2
        for name, rows in twin.rows.items():
            expected[f"I/{name}_bias"] = expected[f"I/{name}_bias"] + (error + shifted)[rows] / 2
    for name, value in found.items():
        assert value.numpy() == pytest.approx(expected[name], abs=1e-9), name


def test_random_interneurons_obey_dales_law_and_differ_by_seed() -> None:
    small = random_circuit(1, dale=True)
    system = CircuitSystem(CompiledCircuit(small, torch.float64))
    first, second = Interneurons(system, False, 0), Interneurons(system, False, 1)
    for name, sign in (("e_e", 1), ("e_i", 1), ("i_e", -1)):
        values = first.weights()[f"I/{name}"]
        assert bool((values * sign >= 0).all())
        assert not torch.equal(values, second.weights()[f"I/{name}"])
        with torch.no_grad():
            first.parameters()[f"I/{name}"].neg_()
    first.hold_signs()
    assert all(not first.weights()[f"I/{name}"].any() for name in ("e_e", "e_i", "i_e"))


def test_an_output_without_control_is_refused() -> None:
    small = random_circuit(0)
    pops = [replace(p, controlled=p.type != "output") for p in small.populations.values()]
    t = task(circuit(pops, list(small.projections.values())), pathway=lateral())
    b = batch(t)
    drive = t.system.drive(b.x)
    problem = Controlled(t.system, drive, b.target, t.loss, t.controller, torch.zeros_like(drive), b.x)
    with pytest.raises(CircuitError, match="lateral_inhibition delivers the controller at the output units"):
        t.pathway.equations(problem)
