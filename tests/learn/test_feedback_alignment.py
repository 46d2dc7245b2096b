"""Feedback alignment and its direct form: with S = W^T recurrent backprop, otherwise the equations solved densely."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.control.dynamic_inversion import ApicalFeedback, DynamicInversion, Feedback, RandomFeedback
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.errors import CircuitError
from circuitlab.learn.backprop import RecurrentBackprop
from circuitlab.learn.feedback_alignment import DirectFeedbackAlignment, FeedbackAlignment
from tests.oracles.circuits import random_circuit
from tests.oracles.dense_twin import Twin
from tests.oracles.equations import MANY, feedback_matrix, gradient_of, with_bursts
from tests.oracles.tasks import batch, task


def transposed(system) -> DynamicInversion:
    """S with weights of its own that happen to be W's."""
    feedback = RandomFeedback(system, seed=0)
    with torch.no_grad():
        for name, kernel in feedback.kernels.items():
            kernel.values.copy_(system.compiled.links[name].kernel.values)
    return DynamicInversion(feedback)


@pytest.mark.parametrize("name", MANY)
def test_along_the_transpose_it_is_recurrent_backprop(name: str) -> None:
    t = task(MANY[name](), pathway=transposed)
    b = batch(t)
    aligned, exact = FeedbackAlignment().outcome(t, b), RecurrentBackprop().outcome(t, b)
    assert bool(aligned.used.all() & exact.used.all())
    for key, update in exact.updates.items():
        assert torch.allclose(aligned.updates[key], update, atol=1e-8), key


@pytest.mark.parametrize(
    ("name", "bursts"),
    [
        *((name, False) for name in ("two populations", "dale", "not controlled", "acyclic")),
        *((name, True) for name in ("two populations", "two outputs", "chain")),
    ],
)
def test_it_solves_its_linear_system(name: str, bursts: bool) -> None:
    """psi = (1 - sigma' S)^-1 (-D^T dL/dy) at the free equilibrium, every unit taking part, by numpy."""
    small = with_bursts(MANY[name]()) if bursts else MANY[name]()
    t = task(
        small,
        pathway=lambda system: DynamicInversion(
            ApicalFeedback(system) if bursts else RandomFeedback(system, 3, 0.5)
        ),
    )
    b = batch(t, samples=3)
    found = FeedbackAlignment().outcome(t, b)
    assert bool(found.used.all())
    twin = Twin(small)
    s = feedback_matrix(t, twin)
    total = {key: np.zeros(len(p.edges)) for key, p in small.projections.items() if p.carries == "rate"}
    for i in range(3):
        x = b.x[:, i].numpy()
        phi = twin.free(x)
        error = -gradient_of(t, b.target[:, i].numpy())(phi[-twin.k :])
        psi = np.linalg.solve(np.eye(twin.n) - twin.slope(phi)[:, None] * s, twin.d.T @ error)
        assert found.credit.fields.psi[:, i].numpy() == pytest.approx(psi, abs=1e-8)
        for key, p in small.projections.items():
            if p.carries == "rate":
                rate = x if p.source == "x" else twin.sigma(phi)[twin.rows[p.source]]
                total[key] += psi[twin.rows[p.target]][p.edges.target] * rate[p.edges.source] / 3
    for key, expected in total.items():
        assert found.updates[key].numpy() == pytest.approx(expected, abs=1e-8), key


def test_on_an_acyclic_circuit_one_pass_is_exact() -> None:
    t = task(MANY["acyclic"](), pathway=lambda system: DynamicInversion(RandomFeedback(system, 3)))
    found = FeedbackAlignment().outcome(t, batch(t)).credit
    assert found.iterations.tolist() == [1] * 4
    assert found.products.tolist() == [2.0] * 4, "one to find it, one to verify it"
    assert float(found.residual.max()) < 1e-14


@pytest.mark.parametrize("name", ["two populations", "two outputs", "acyclic", "dale"])
def test_direct_alignment_is_one_product_with_q(name: str) -> None:
    small = MANY[name]()
    t = task(small, pathway=lambda system: LinearFeedback.random(system, 7, 0.8))
    b = batch(t, samples=3)
    found = DirectFeedbackAlignment().outcome(t, b)
    assert bool(found.used.all())
    assert float(found.credit.residual.max()) == 0
    twin, weights = Twin(small), t.pathway.feedback_weights()
    q = np.concatenate([weights[f"Q/{p.name}"].numpy() for p in twin.units])
    for i in range(3):
        phi = twin.free(b.x[:, i].numpy())
        error = -gradient_of(t, b.target[:, i].numpy())(phi[-twin.k :])
        psi = twin.slope(phi) * (q @ error)
        psi[-twin.k :] = error
        assert found.credit.fields.psi[:, i].numpy() == pytest.approx(psi, abs=1e-9)
    expected = t.system.update(found.free.fields.phi, found.credit.fields.psi / 3, b.x)
    for key, update in found.updates.items():
        assert torch.allclose(update, expected[key], atol=1e-12)


def test_they_need_feedback_weights_of_their_own() -> None:
    t = task(random_circuit(0, gain=0.4))
    b = batch(t)
    with pytest.raises(CircuitError, match="feedback_alignment needs an S of its own"):
        FeedbackAlignment().outcome(t, b)
    with pytest.raises(CircuitError, match="needs feedback weights Q; allowed pathways: linear_feedback"):
        DirectFeedbackAlignment().outcome(replace(t, pathway=DynamicInversion(Feedback())), b)


@pytest.mark.parametrize("name", [n for n in MANY if n != "relu"])
def test_recurrent_backprop_is_autograds_implicit_gradient(name: str) -> None:
    """d/dtheta of the loss at phi = F(phi, theta), through one dense Newton step that autograd differentiates:
    phi = phi0 + (1 - J)^-1 (F(phi0, theta) - phi0) at the fixed point phi0, with J = dF/dphi held fixed."""
    small = MANY[name]()
    t = task(small, tolerance=1e-13)
    b = batch(t, samples=3)
    found = RecurrentBackprop().outcome(t, b)
    compiled, twin = t.system.compiled, Twin(small)
    theta = {k: v.detach().clone().requires_grad_() for k, v in compiled.parameters_by_name().items()}
    w, u_in = (
        torch.zeros(twin.n, twin.n, dtype=torch.float64),
        torch.zeros(twin.n, len(b.x), dtype=torch.float64),
    )
    bias = torch.zeros(twin.n, dtype=torch.float64)
    for key, p in small.projections.items():
        rows = twin.rows[p.target].start + torch.as_tensor(p.edges.target).long()
        start = 0 if p.source == "x" else twin.rows[p.source].start
        matrix, at = (u_in if p.source == "x" else w), (rows, start + torch.as_tensor(p.edges.source).long())
        matrix = matrix.index_put(at, theta[key], accumulate=True)
        w, u_in = (w, matrix) if p.source == "x" else (matrix, u_in)
    for key, rows in twin.rows.items():
        if f"{key}_bias" in theta:
            place = torch.arange(rows.start, rows.stop)
            bias = bias.index_put((place,), theta[f"{key}_bias"])
    sigma = {
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "softplus": torch.nn.functional.softplus,
        "elu": torch.nn.functional.elu,
        "linear": lambda v: v,
    }

    def image(phi: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        rate = torch.cat([sigma[p.activation](phi[twin.rows[p.name]]) for p in twin.units])
        return w @ rate + u_in @ x + bias

    total = torch.zeros((), dtype=torch.float64)
    for i in range(3):
        at, x = torch.tensor(twin.free(b.x[:, i].numpy())), b.x[:, i]
        jacobian = torch.autograd.functional.jacobian(lambda phi, x=x: image(phi, x), at)
        phi = at + torch.linalg.solve(
            torch.eye(twin.n, dtype=at.dtype) - jacobian.detach(), image(at, x) - at
        )
        total = total + t.loss.value(phi[-twin.k :, None], b.target[:, i : i + 1]).sum() / 3
    total.backward()
    for key, update in found.updates.items():
        assert theta[key].grad is not None
        assert torch.allclose(update, -theta[key].grad, atol=1e-8), key
