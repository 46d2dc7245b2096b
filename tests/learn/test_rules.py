"""Rules: locality, what becomes of unconverged samples, and the baselines against autograd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.output import leaky_integral
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError, NotConvergedError
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.backprop import Backprop, RecurrentBackprop
from circuitlab.learn.base import Batch
from circuitlab.learn.evaluate import PORTION, Split, evaluate
from circuitlab.learn.least_control import LeastControl
from circuitlab.learn.rules import RULES
from circuitlab.spec.combinations import RULES as ALLOWED
from tests.oracles.circuits import circuit, edges, population, projection, random_circuit, sparse
from tests.oracles.dense_twin import Twin
from tests.oracles.images import IMAGES, convolution
from tests.oracles.tasks import batch, task


def test_rules_by_name() -> None:
    second_phase = {"recurrent_backprop", "backprop", "feedback_alignment", "direct_feedback_alignment"}
    assert set(RULES) == set(ALLOWED)
    assert all(name == rule.name for name, rule in RULES.items())
    controlling = ("least_control", "deep_feedback_control")
    assert all(rule.controls for name, rule in RULES.items() if name.startswith(controlling))
    assert not any(RULES[name].controls for name in second_phase)


@pytest.mark.parametrize("gated", [False, True], ids=["least_control", "least_control_gated"])
def test_updates_are_local(gated: bool) -> None:
    """Moving phi and psi of one neuron moves the updates of its own synapses, to the bit no others."""
    small = random_circuit(2, p=0.4, outputs=(3, 2))
    system = CircuitSystem(CompiledCircuit(small, torch.float64))
    twin = Twin(small)
    rng = np.random.default_rng(0)
    phi, psi = (torch.tensor(rng.standard_normal((twin.n, 3))) for _ in range(2))
    x = torch.tensor(rng.standard_normal((4, 3)))
    before = system.update(phi, psi, x, gated)
    for unit in range(twin.n):
        here, there = phi.clone(), psi.clone()
        here[unit] += 0.5
        there[unit] -= 0.7
        after = system.update(here, there, x, gated)
        for name, p in small.projections.items():
            touches = twin.rows[p.target].start + p.edges.target == unit
            if p.source != "x":
                touches |= twin.rows[p.source].start + p.edges.source == unit
            moved = (after[name] != before[name]).numpy()
            assert (moved == touches).all(), name
        for name, rows in twin.rows.items():
            moved = (after[f"{name}_bias"] != before[f"{name}_bias"]).numpy()
            assert (moved == (np.arange(rows.start, rows.stop) == unit)).all()
    for pixel in range(4):
        moved_x = x.clone()
        moved_x[pixel] += 1
        after = system.update(phi, psi, moved_x, gated)
        for name, p in small.projections.items():
            touches = (p.edges.source == pixel) if p.source == "x" else np.zeros(len(p.edges), bool)
            assert ((after[name] != before[name]).numpy() == touches).all()


def half_hopeless() -> Circuit:
    """phi = 2 relu(phi) + x: no equilibrium for x > 0, phi = x otherwise."""
    return circuit(
        [
            population("x", "input", 1, activation="linear"),
            population("h", "unit", 1, activation="relu"),
            population("g", "unit", 2),
            population("y", "output", 2, bias=np.array([0.3, -0.3])),
        ],
        [
            projection("x_h", "x", "h", edges([0], [0], [1.0])),
            projection("h_h", "h", "h", edges([0], [0], [2.0])),
            projection("h_g", "h", "g", edges([0], [0], [1.0])),
            projection("x_g", "x", "g", edges([0, 0], [0, 1], [1.0, -0.5])),
            projection("g_y", "g", "y", edges([0, 1], [0, 1], [1.0, 1.0])),
        ],
    )


HALF = Batch(
    torch.tensor([[-1.0, 2.0, -0.4, 1.0]], dtype=torch.float64),
    torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 0]], dtype=torch.float64),
)


@pytest.mark.parametrize(
    "rule", [LeastControl(), LeastControl(gated=True), RecurrentBackprop()], ids=lambda r: r.name
)
def test_unconverged_samples_are_left_out_kept_or_refused(rule) -> None:
    t = task(half_hopeless(), controller=leaky_integral(1.0, 10.0), tolerance=1e-9, max_iterations=60)
    sound = torch.tensor([0, 2])
    alone = rule.outcome(t, Batch(HALF.x[:, sound], HALF.target[:, sound]))
    assert bool(alone.used.all())
    skipped = rule.outcome(t, HALF)
    assert skipped.used[sound].all()
    assert not bool(skipped.used.all())
    if not rule.controls:
        assert skipped.used.tolist() == [True, False, True, False]
    if skipped.used.tolist() == [True, False, True, False]:
        for name, update in alone.updates.items():  # the mean over the samples that are used, not over all
            assert torch.allclose(skipped.updates[name], update, atol=1e-7)
    kept = rule.outcome(replace(t, on_unconverged="keep"), HALF)
    assert bool(kept.used.all())
    expected = t.system.update(
        kept.credit.fields.phi, kept.credit.fields.psi / 4, HALF.x, getattr(rule, "gated", False)
    )
    for name, update in kept.updates.items():
        assert torch.allclose(update, expected[name])
    missing = int((~skipped.used).sum())
    with pytest.raises(
        NotConvergedError, match=f"solve: {missing} of 4 samples did not reach their equilibrium"
    ):
        rule.outcome(replace(t, on_unconverged="raise"), HALF)


def test_no_usable_sample_gives_no_update() -> None:
    t = task(half_hopeless(), tolerance=1e-9, max_iterations=30)
    outcome = RecurrentBackprop().outcome(t, Batch(HALF.x.abs(), HALF.target))
    assert not bool(outcome.used.any())
    for update in outcome.updates.values():
        assert (update == 0).all()


def test_every_sample_weighs_the_same() -> None:
    """The update of a batch is the mean of its samples' updates."""
    t = task(random_circuit(0), controller=leaky_integral(1.0, 10.0))
    b = batch(t, 4)
    for rule in (LeastControl(), RecurrentBackprop()):
        whole = rule.outcome(t, b).updates
        single = [rule.outcome(t, Batch(b.x[:, i : i + 1], b.target[:, i : i + 1])).updates for i in range(4)]
        for name, update in whole.items():
            assert torch.allclose(update, torch.stack([s[name] for s in single]).mean(0), atol=1e-9)


def images() -> tuple[Circuit, dict[str, Tensor]]:
    """An image through a strided, padded convolution, a skip connection, and a diagonal; weights for autograd."""
    rng = np.random.default_rng(0)
    conv, (n_maps, n_pixels) = convolution(*IMAGES["stride, padding and a rest"])
    conv = replace(conv, name="x_c", source="x", target="c")
    pops = [
        population("x", "input", n_pixels, activation="linear"),
        population("c", "unit", n_maps, activation="sigmoid"),
        population("h", "unit", n_maps, bias=rng.standard_normal(n_maps)),
        population("y", "output", 3, bias=rng.standard_normal(3)),
    ]
    diagonal = edges(range(n_maps), range(n_maps), rng.standard_normal(n_maps))
    projs = [
        conv,
        projection("c_h", "c", "h", diagonal),
        projection("h_y", "h", "y", sparse(rng, 3, n_maps, 1.1, 1.0)),
        projection("c_y", "c", "y", sparse(rng, 3, n_maps, 1.1, 1.0)),
    ]
    small = circuit(pops, projs)
    weights = {
        name: p.detach().clone()
        for name, p in CompiledCircuit(small, torch.float64).parameters_by_name().items()
    }
    return small, weights


def test_backprop_is_autograd_on_a_feedforward_network() -> None:
    small, weights = images()
    t = task(small)
    b = batch(t, samples=5)
    outcome = Backprop().outcome(t, b)
    for value in weights.values():
        value.requires_grad_()
    in_shape, channels, kernel, stride, padding = IMAGES["stride, padding and a rest"]
    pictures = b.x.t().reshape(5, *in_shape)
    maps = torch.nn.functional.conv2d(
        pictures, weights["x_c"].view(channels, in_shape[0], *kernel), stride=stride, padding=padding
    ).flatten(1)
    c = torch.sigmoid(maps)
    h = torch.tanh(c * weights["c_h"] + weights["h_bias"])
    y = h @ weights["h_y"].view(3, -1).t() + c @ weights["c_y"].view(3, -1).t() + weights["y_bias"]
    loss = torch.nn.functional.cross_entropy(y, b.target.t())
    loss.backward()
    assert float(outcome.loss.mean()) == pytest.approx(loss.item(), abs=1e-12)
    assert set(outcome.updates) == set(weights)
    for name, value in weights.items():
        assert value.grad is not None
        assert torch.allclose(outcome.updates[name], -value.grad, atol=1e-12), name
    recurrent = RecurrentBackprop().outcome(t, b)
    for name, update in recurrent.updates.items():
        assert torch.allclose(update, outcome.updates[name], atol=1e-10)


def test_backprop_refuses_recurrent_circuits() -> None:
    t = task(random_circuit(0))
    with pytest.raises(
        CircuitError, match=r"learn\.rule: backprop needs an acyclic circuit.*recurrent_backprop"
    ):
        Backprop().outcome(t, batch(t))


def test_control_cost_is_half_the_squared_control() -> None:
    t = task(random_circuit(0), controller=leaky_integral(1.0, 10.0))
    outcome = LeastControl().outcome(t, batch(t))
    assert torch.allclose(outcome.control_cost, 0.5 * (outcome.credit.fields.psi**2).sum(0))


def test_frozen_parameters_have_no_update() -> None:
    small = random_circuit(0)
    projs = [replace(p, plastic=p.name != "e_e") for p in small.projections.values()]
    pops = [replace(p, bias_plastic=p.name != "i") for p in small.populations.values()]
    t = task(circuit(pops, projs), controller=leaky_integral(1.0, 10.0))
    updates = LeastControl().outcome(t, batch(t)).updates
    assert set(updates) == {"x_e", "e_i", "i_e", "i_e_soma", "e_y0", "e_bias", "y0_bias"}


def test_evaluation_equals_a_direct_computation() -> None:
    """Loss and accuracy of 2 1/2 portions, an acyclic circuit by numpy, two output populations, one without classes."""
    rng = np.random.default_rng(0)
    pops = [
        population("x", "input", 3, activation="linear"),
        population("h", "unit", 4),
        population("y", "output", 3),
        population("z", "output", 2),
    ]
    projs = [
        projection("x_h", "x", "h", sparse(rng, 4, 3, 0.9, 1.0)),
        projection("h_y", "h", "y", sparse(rng, 3, 4, 0.9, 1.0)),
        projection("h_z", "h", "z", sparse(rng, 2, 4, 0.9, 1.0)),
    ]
    small = circuit(pops, projs)
    t, twin = task(small, losses=("cross_entropy", "squared_error")), Twin(small)
    n = 2 * PORTION + PORTION // 2
    x, labels, z = rng.standard_normal((n, 3)), rng.integers(3, size=n), rng.standard_normal((n, 2))
    target = np.concatenate([np.eye(3)[labels], z], axis=1)
    rows = t.system.compiled.outputs["y"]  # type: ignore[attr-defined]
    found = evaluate(t, Split(torch.tensor(x), torch.tensor(target), (rows,)))
    h = np.tanh(x @ twin.u_in[:4].T)
    y = h @ twin.w[4:, :4].T
    loss = (
        np.logaddexp.reduce(y[:, :3], axis=1) - y[np.arange(n), labels] + 0.5 * ((y[:, 3:] - z) ** 2).sum(1)
    )
    assert found.loss == pytest.approx(loss.mean(), rel=1e-12)
    assert found.accuracy == (y[:, :3].argmax(1) == labels).mean()
    assert found.unconverged == 0
    assert found.metrics() == {"loss": found.loss, "unconverged": 0.0, "accuracy": found.accuracy}
    both = evaluate(t, Split(torch.tensor(x), torch.tensor(target), (rows, slice(3, 5))))
    second = (y[:, 3:].argmax(1) == z.argmax(1)).mean()
    assert both.accuracy == pytest.approx((found.accuracy + second) / 2)
    without = evaluate(t, Split(torch.tensor(x), torch.tensor(target)))
    assert without.accuracy is None
    assert "accuracy" not in without.metrics()


def test_evaluation_counts_what_did_not_converge() -> None:
    t = task(half_hopeless(), tolerance=1e-9, max_iterations=60)
    split = Split(HALF.x.t(), HALF.target.t(), (slice(0, 2),))
    assert evaluate(t, split).unconverged == 0.5
    assert len(split) == 4
    part = split.batch(np.array([2, 0]))
    assert torch.equal(part.x, HALF.x[:, [2, 0]])
    assert torch.equal(part.target, HALF.target[:, [2, 0]])
