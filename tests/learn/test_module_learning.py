"""Torch modules learn by the same principle: a circuit written as one gives the circuit's numbers, and a convolutional
deep equilibrium model's updates are gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import integral, leaky_integral, proportional_integral
from circuitlab.learn.backprop import RecurrentBackprop
from circuitlab.learn.base import Batch
from circuitlab.learn.least_control import LeastControl
from circuitlab.solve.choose import SolveSettings
from circuitlab.solve.euler import Euler
from tests.oracles.circuits import random_circuit
from tests.oracles.modules import differences, module_batch, module_of, objective, small_model, tight
from tests.oracles.tasks import batch, task

RULES = {
    "least control": LeastControl(),
    "free presynaptic": LeastControl(presynaptic="free"),
    "weighted by error": LeastControl(weighting="error"),
    "recurrent backprop": RecurrentBackprop(),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("alpha", [3.0, 0.1])
@pytest.mark.parametrize(("activation", "seed"), [("tanh", 0), ("sigmoid", 1), ("softplus", 2)])
def test_a_circuit_and_its_torch_module_give_the_same_numbers(
    rule, alpha: float, activation: str, seed: int
) -> None:
    circuit = random_circuit(seed=seed, outputs=(3,), activation=activation, gain=0.4)
    system, twin = module_of(circuit, activation)
    t = task(circuit, controller=leaky_integral(alpha, 100))
    b = batch(t)
    expected = rule.outcome(t, b)
    found = rule.outcome(tight(system, control=leaky_integral(alpha, 100)), b)
    assert bool(expected.used.all() & found.used.all())
    pairs = [(found.credit, expected.credit)]
    if rule.needs_free:
        pairs.append((found.free, expected.free))
    for one, other in pairs:
        for name in ("phi", "psi", "u"):
            assert torch.allclose(
                getattr(one.fields, name), getattr(other.fields, name), rtol=0, atol=1e-8
            ), name
    h = twin.n - twin.k
    dense = {
        "implicit.w": found.updates["implicit.w"],
        "encoder.weight": found.updates["encoder.weight"],
        "decoder.w": found.updates["decoder.w"],
    }
    biases = torch.cat([found.updates["encoder.bias"], found.updates["decoder.b"]])
    for p in circuit.projections.values():
        rows = twin.rows[p.target].start + p.edges.target
        if p.source == "x":
            values = dense["encoder.weight"][rows, p.edges.source]
        else:
            columns = twin.rows[p.source].start + p.edges.source
            name, rows = ("implicit.w", rows) if rows.max() < h else ("decoder.w", rows - h)
            values = dense[name][rows, columns]
        assert torch.allclose(values, expected.updates[p.name], rtol=0, atol=1e-8), p.name
    for name, rows in twin.rows.items():
        assert torch.allclose(biases[rows], expected.updates[f"{name}_bias"], rtol=0, atol=1e-8), name


def test_linear_feedback_gives_the_circuits_numbers() -> None:
    circuit = random_circuit(seed=0, outputs=(3,), gain=0.4)
    system, _ = module_of(circuit, "tanh")
    t = task(circuit, pathway=lambda s: LinearFeedback.random(s, 0))
    b = batch(t)
    expected = LeastControl().outcome(t, b)
    pathway = LinearFeedback(system, t.pathway.q)  # type: ignore[arg-type, attr-defined]
    found = LeastControl().outcome(tight(system, pathway=pathway), b)
    assert bool(expected.used.all() & found.used.all())
    for name in ("phi", "psi", "u"):
        assert torch.allclose(
            getattr(found.credit.fields, name), getattr(expected.credit.fields, name), rtol=0, atol=1e-8
        )


CASES = {
    "the decoder in the state": ("state", "cross_entropy", 1.0, "fixed_point"),
    "stronger control": ("state", "cross_entropy", 0.1, "flow"),
    "the decoder in the loss": ("loss", "cross_entropy", 1.0, "flow"),
    "in the loss, stronger control": ("loss", "squared_error", 0.1, "fixed_point"),
}


@pytest.mark.parametrize(("decoder_in", "loss", "alpha", "form"), CASES.values(), ids=CASES)
def test_updates_are_the_gradient_of_h_plus_loss_over_alpha(
    decoder_in: str, loss: str, alpha: float, form: str
) -> None:
    """Eq. 147 with the decoder in the state, eq. 148 with the decoder in the loss, both for any alpha."""
    system = small_model(decoder_in=decoder_in, form=form)
    t = tight(system, loss=loss, control=alpha)
    b = module_batch(system, samples=2)
    found = LeastControl().outcome(t, b)
    assert bool(found.used.all())
    for name, entries in differences(system, objective(t, b, found.credit.state)).items():
        for index, difference in entries:
            assert -2 * float(found.updates[name].view(-1)[index]) == pytest.approx(difference, abs=1e-6), (
                name
            )


@pytest.mark.parametrize("decoder_in", ["state", "loss"])
def test_without_a_leak_updates_are_the_gradient_of_the_control_cost(decoder_in: str) -> None:
    """alpha = 0 holds the outputs at their targets: eq. 147 and eq. 148 descend H = 1/2 |psi|^2 itself (eq. 33)."""
    system = small_model(decoder_in=decoder_in)
    t = tight(system, loss="squared_error", control=integral(100.0))
    b = module_batch(system, samples=2, seed=2)
    found = LeastControl().outcome(t, b)
    assert bool(found.used.all())
    assert torch.allclose(t.outputs(found.credit.fields.phi), b.target, atol=1e-9)
    for name, entries in differences(system, objective(t, b, found.credit.state)).items():
        for index, difference in entries:
            assert -2 * float(found.updates[name].view(-1)[index]) == pytest.approx(difference, abs=1e-6), (
                name
            )


def test_eq_148_is_the_limit_of_small_leaks() -> None:
    """The update with a leak differs from the one without in proportion to alpha."""
    system = small_model(decoder_in="loss")
    b = module_batch(system, samples=3)
    limit = LeastControl().outcome(tight(system, loss="squared_error", control=integral(100.0)), b).updates
    away = []
    for alpha in (1e-3, 1e-4):
        t = tight(system, 1e-9, loss="squared_error", control=alpha)
        found = LeastControl().outcome(t, b)
        assert bool(found.used.all())
        away.append(sum(float((found.updates[n] - limit[n]).square().sum()) for n in limit) ** 0.5)
    assert away[1] == pytest.approx(away[0] / 10, rel=0.05)


def test_a_decoder_in_the_loss_costs_no_control_of_its_own() -> None:
    """H counts f(phi) + psi = 0 alone; y = h(phi) exactly, and alpha u = -dL/dy there."""
    system = small_model(decoder_in="loss")
    t = tight(system, control=0.3)
    b = module_batch(system)
    outcome = LeastControl().outcome(t, b)
    fields, output = outcome.credit.fields, system.output
    assert not fields.psi[output].any()
    predicted = system.predict(fields.phi, system.drive(b.x))
    assert torch.allclose(predicted[output], fields.phi[output], atol=1e-10)
    assert torch.allclose(
        predicted[: system.hidden] + fields.psi[: system.hidden], fields.phi[: system.hidden], atol=1e-10
    )
    assert torch.allclose(0.3 * fields.u, -t.loss.gradient(fields.phi[output], b.target), atol=1e-10)
    assert torch.allclose(outcome.control_cost, 0.5 * fields.psi[: system.hidden].square().sum(0))
    in_state = LeastControl().outcome(tight(small_model(), control=0.3), b)
    assert not torch.allclose(
        outcome.updates["implicit.c1.weight"], in_state.updates["implicit.c1.weight"], rtol=0.01
    )


@pytest.mark.parametrize("decoder_in", ["state", "loss"])
def test_recurrent_backprop_equals_autograd_through_the_iterations(decoder_in: str) -> None:
    """Autograd's gradient through 200 iterations to the free equilibrium, which they reach to the last digit."""
    system = small_model(decoder_in=decoder_in)
    b = module_batch(system)
    found = RecurrentBackprop().outcome(tight(system, tolerance=1e-13), b)
    model = system.model
    x = b.x.t().reshape(4, 1, 4, 4)
    e = model.encoder(x)
    phi = torch.zeros(4, *system.state_shape, dtype=torch.float64)
    for _ in range(200):
        phi = model.implicit(phi, e)
    loss = F.cross_entropy(model.decoder(phi), b.target.t())  # mean over samples
    gradients = torch.autograd.grad(loss, list(model.plastic().values()))
    for (name, update), gradient in zip(found.updates.items(), gradients, strict=True):
        assert torch.allclose(-update, gradient, rtol=0, atol=1e-8), name


@pytest.mark.parametrize("decoder_in", ["state", "loss"])
def test_real_time_reaches_the_same_equilibrium(decoder_in: str) -> None:
    """tau dphi/dt = f + psi, tau dpsi/dt = (df/dphi)^T psi + D^T u (eq. 145; eq. 31 for a decoder in the loss)."""
    system = small_model(decoder_in=decoder_in)
    b = module_batch(system)
    quick = LeastControl().outcome(tight(system, control=3.0), b)
    real_time = tight(system, control=3.0)
    object.__setattr__(
        real_time, "settings", SolveSettings("euler", tolerance=1e-9, dt_ms=2.0, max_time_ms=40_000)
    )
    slow = LeastControl().outcome(real_time, b)
    assert bool(slow.used.all() & quick.used.all())
    assert torch.allclose(slow.credit.fields.psi, quick.credit.fields.psi, atol=1e-7)


def test_a_pi_controller_through_a_decoder_moves_as_the_paper_says_and_rests_at_the_equilibrium() -> None:
    """u = u_int + k_p e, tau_u du_int/dt = e - a u_int (DFC eq. 4), with y and psi of eq. 31: ten steps side by side,
    and the rest that of the leak a / (1 + a k_p)."""
    system, k_p, leak, tau_u, dt = small_model(decoder_in="loss"), 0.7, 3.0, 50.0, 2.0
    b = module_batch(system)
    t = replace(tight(system), controller=proportional_integral(leak, k_p, tau_u))
    quick = LeastControl().outcome(t, b)
    settings = SolveSettings("euler", tolerance=1e-9, dt_ms=dt, max_time_ms=40_000)
    slow = LeastControl().outcome(replace(t, settings=settings), b)
    assert bool(slow.used.all() & quick.used.all())
    assert torch.allclose(slow.credit.fields.psi, quick.credit.fields.psi, atol=1e-7)
    drive, rows = system.drive(b.x), system.output
    equations = t.pathway.equations(t.under_control(drive, b.target, t.free(drive)))
    run = Euler(1e-12, 10, dt).begin(equations, equations.silence())
    keep = torch.ones(b.x.shape[1], dtype=torch.bool)
    integral, controller = torch.zeros_like(b.target), equations.blocks["controller"]
    for _ in range(10):
        e = -t.loss.gradient(run.state[equations.blocks["soma"]][rows], b.target)
        assert torch.allclose(run.state[controller], integral + k_p * e, rtol=0, atol=1e-12)
        integral = integral + dt / tau_u * (e - leak * integral)
        run.judge()
        run.advance(keep, ~keep)
    assert float(integral.abs().max()) > 1e-3


def test_samples_left_out_do_not_change_the_update_of_others() -> None:
    """Each sample's equilibrium and update are its own."""
    system = small_model()
    t, b = tight(system, control=0.5), module_batch(system)
    whole = LeastControl().outcome(t, b).updates
    parts = [
        LeastControl().outcome(t, Batch(b.x[:, i : i + 1], b.target[:, i : i + 1])).updates for i in range(4)
    ]
    for name, update in whole.items():
        assert torch.allclose(update, sum(p[name] for p in parts) / 4, rtol=0, atol=1e-9), name
