"""The two-phase variants of least control: presynaptic rates of the free state, samples weighted by their error."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from circuitlab.control.output import leaky_integral
from circuitlab.learn.backprop import RecurrentBackprop
from circuitlab.learn.least_control import LeastControl, error_weights
from circuitlab.learn.rules import rule_of
from tests.oracles.circuits import circuit, population, random_circuit
from tests.oracles.tasks import batch, task

BOTH = LeastControl(presynaptic="free", weighting="error")


@pytest.mark.parametrize(
    "options",
    [dict(seed=0), dict(seed=3, dale=True), dict(seed=2, p=0.25, hidden=12), dict(seed=4, outputs=(3, 2))],
    ids=["dense", "Dale's law", "sparse", "two outputs"],
)
def test_weak_control_tends_to_recurrent_backprop(options: dict) -> None:
    """alpha psi sigma(phi_free)^T tends to the loss gradient; with weights |error|/|u| -> alpha, so does the update
    itself."""
    for alpha in (1e3, 1e4):
        t = task(random_circuit(**options), controller=leaky_integral(alpha, 100))
        b = batch(t)
        exact = RecurrentBackprop().outcome(t, b).updates
        plain = LeastControl(presynaptic="free").outcome(t, b).updates
        weighted = BOTH.outcome(t, b).updates
        for name in exact:
            assert torch.allclose(alpha * plain[name], exact[name], atol=20 / alpha), name
            assert torch.allclose(weighted[name], exact[name], atol=20 / alpha), name


@pytest.mark.parametrize("alpha", [6.4, 0.1, 0.001])
def test_a_linear_circuit_with_one_output_gives_recurrent_backprop_at_any_alpha(alpha: float) -> None:
    """psi = (I - W)^-T D^T u and u is a multiple of the error, which the weight |error|/|u| takes away: the update is
    the gradient of the loss however strong the control; with either option missing it is not."""
    small = random_circuit(0, outputs=(1,), activation="linear", gain=0.5)
    t = task(small, losses=("squared_error",), controller=leaky_integral(alpha, 100))
    b = batch(t)
    b.target[:] = torch.linspace(-1, 1, 4, dtype=torch.float64)
    exact = RecurrentBackprop().outcome(t, b).updates
    ours = BOTH.outcome(t, b).updates
    for name in exact:
        assert torch.allclose(ours[name], exact[name], atol=1e-9), name
    for other in (LeastControl(presynaptic="free"), LeastControl(weighting="error")):
        updates = other.outcome(t, b).updates
        assert not torch.allclose(updates["e_e"], exact["e_e"], rtol=1e-3, atol=1e-6)


def test_the_update_by_its_definition() -> None:
    """mean_s w_s psi_s sigma(phi_free,s)^T, w = |dL/dy| / |u|; gated by the slope at the controlled state."""
    t = task(random_circuit(0, outputs=(3, 2)), controller=leaky_integral(0.1, 100))
    b = batch(t)
    free = t.free(t.system.drive(b.x))
    fields = t.controlled(t.system.drive(b.x), b.target, free).fields
    gradient = torch.cat([torch.softmax(y, 0) for y in t.outputs(free.fields.phi).split([3, 2])]) - b.target
    w = gradient.norm(dim=0) / fields.u.norm(dim=0)
    e = t.system.compiled.units["e"]  # type: ignore[attr-defined]
    for gated in (False, True):
        slope = 1 - torch.tanh(fields.phi[e]) ** 2 if gated else 1.0
        post = w * fields.psi[e] * slope
        updates = LeastControl(gated, "free", "error").outcome(t, b).updates
        link = t.system.compiled.links["e_e"]  # type: ignore[attr-defined]
        place = [
            torch.as_tensor(a).long() for a in (link.projection.edges.target, link.projection.edges.source)
        ]
        dense = post @ torch.tanh(free.fields.phi[e]).t() / 4
        assert torch.allclose(updates["e_e"], dense[place[0], place[1]], atol=1e-12)
        assert torch.allclose(updates["x_e"], _at(t, "x_e", post @ b.x.t() / 4), atol=1e-12)
        assert torch.allclose(updates["e_bias"], post.mean(1), atol=1e-12)


def _at(t, name: str, dense: torch.Tensor) -> torch.Tensor:
    edges = t.system.compiled.links[name].projection.edges
    return dense[torch.as_tensor(edges.target).long(), torch.as_tensor(edges.source).long()]


def test_a_sample_without_control_weighs_nothing() -> None:
    u = torch.tensor([[3.0, 0.0, 0.0], [4.0, 0.0, 1e-15]])
    error = torch.tensor([[0.0, 1.0, 2e-15], [2.0, 0.0, 0.0]])
    assert error_weights(error, u).tolist() == pytest.approx([0.4, 0.0, 2.0])


def test_samples_whose_free_state_did_not_converge_are_left_out() -> None:
    """The controlled state is found, the free one is not; only the single-phase rule learns from it."""
    t = task(random_circuit(0), tolerance=1e-6)
    b = batch(t)
    found = t.free(t.system.drive(b.x))
    bad = torch.tensor([True, False, False, True])

    class Unsettled(type(t)):  # type: ignore[misc]
        def free(self, drive: torch.Tensor, exact: bool = True):
            return replace(found, converged=~bad)

    t = Unsettled(**vars(t))
    assert LeastControl().outcome(t, b).used.all()
    for rule in (LeastControl(presynaptic="free"), LeastControl(weighting="error"), BOTH):
        assert (rule.outcome(t, b).used == ~bad).all()


def test_uncontrolled_populations_get_no_update() -> None:
    small = random_circuit(8)
    populations = [
        population(
            p.name, p.type, p.size, activation=p.activation, bias=p.bias, controlled=p.type != "interneuron"
        )
        for p in small.populations.values()
    ]
    t = task(circuit(populations, list(small.projections.values())))
    updates = BOTH.outcome(t, batch(t)).updates
    assert (updates["e_i"] == 0).all() and (updates["i_e"] != 0).any()


def test_rules_by_name_with_their_options() -> None:
    rule = rule_of("least_control_gated", "free", "error")
    assert isinstance(rule, LeastControl)
    assert (rule.name, rule.gated, rule.presynaptic, rule.weighting) == (
        "least_control_gated",
        True,
        "free",
        "error",
    )
    assert rule_of("backprop").name == "backprop"
