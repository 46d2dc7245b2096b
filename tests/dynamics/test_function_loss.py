"""A loss given as a torch function: equal to the built-in it spells out, in every pathway, or refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import integral, leaky_integral
from circuitlab.dynamics.function_loss import FunctionLoss, checked_function
from circuitlab.dynamics.loss import LOSSES, OutputLoss
from circuitlab.errors import CircuitError
from circuitlab.learn.backprop import RecurrentBackprop
from circuitlab.learn.base import LearningRule
from circuitlab.learn.least_control import LeastControl
from tests.oracles.circuits import random_circuit
from tests.oracles.tasks import batch, energy, finite_differences, task

LIKE = torch.zeros(1, dtype=torch.float64)


def squared(y: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (y - target).square().sum()


def cross_entropy(y: Tensor, target: Tensor) -> Tensor:
    return -(target * torch.log_softmax(y, 0)).sum()


def pseudo_huber(y: Tensor, target: Tensor) -> Tensor:
    return (torch.sqrt(1 + (y - target).square()) - 1).sum()


def wells(y: Tensor, target: Tensor) -> Tensor:
    """Not convex: two minima for each unit."""
    return ((y - target).square() * (y - target - 1).square()).sum()


GIVEN = {"squared_error": squared, "cross_entropy": cross_entropy}


def with_loss(t, *functions):
    parts = [(FunctionLoss(f), rows) for f, (_, rows) in zip(functions, t.loss.parts, strict=True)]
    return replace(t, loss=OutputLoss(parts))


@pytest.mark.parametrize("name", GIVEN)
def test_values_and_derivatives_equal_the_built_in(name: str) -> None:
    rng = np.random.default_rng(0)
    y, target = torch.tensor(3 * rng.standard_normal((4, 6))), torch.eye(4).double()[:, [0, 1, 2, 3, 1, 0]]
    own, built_in = FunctionLoss(GIVEN[name]), LOSSES[name]
    for what in ("value", "gradient", "hessian"):
        assert torch.allclose(
            getattr(own, what)(y, target), getattr(built_in, what)(y, target), rtol=0, atol=1e-14
        ), what


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("name", GIVEN)
def test_the_proximal_step_equals_the_built_in(name: str, alpha: float) -> None:
    rng = np.random.default_rng(1)
    z, target = (
        torch.tensor(4 * rng.standard_normal((4, 8))),
        torch.eye(4).double()[:, rng.integers(4, size=8)],
    )
    own, built_in = FunctionLoss(GIVEN[name]), LOSSES[name]
    guess = torch.zeros_like(z)
    assert torch.allclose(
        own.controller(z, target, alpha, guess), built_in.controller(z, target, alpha, guess), atol=1e-9
    )


@pytest.mark.parametrize("function", [pseudo_huber, wells, lambda y, t: F.huber_loss(y, t, reduction="sum")])
@pytest.mark.parametrize("alpha", [0.01, 0.3, 3.0])
def test_the_proximal_step_is_a_minimum(function, alpha: float) -> None:
    """alpha u + dL/dy(z + u) = 0, and no nearby u has less alpha/2 |u|^2 + L(z + u), as scipy finds."""
    rng = np.random.default_rng(2)
    z, target = torch.tensor(3 * rng.standard_normal((3, 5))), torch.eye(3).double()[:, [0, 1, 2, 0, 1]]
    loss = FunctionLoss(function)
    u = loss.controller(z, target, alpha, torch.zeros_like(z))
    assert float((alpha * u + loss.gradient(z + u, target)).abs().max()) < 1e-7
    for sample in range(5):

        def value(v: np.ndarray, sample: int = sample) -> float:
            y = z[:, sample] + torch.tensor(v)
            return float(function(y, target[:, sample])) + 0.5 * alpha * float(v @ v)

        found = minimize(
            value, u[:, sample].numpy(), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15}
        )
        assert value(u[:, sample].numpy()) <= found.fun + 1e-9


def test_integral_control_leads_where_the_loss_is_least() -> None:
    z, target = torch.full((3, 2), 40.0).double(), torch.eye(3).double()[:, :2]
    for function in (pseudo_huber, lambda y, t: F.huber_loss(y, t, reduction="sum")):
        u = FunctionLoss(function).controller(z, target, 0.0, torch.zeros_like(z))
        assert torch.allclose(z + u, target, atol=1e-6)


PATHWAYS = {
    "dynamic inversion": (None, LeastControl()),
    "linear feedback": (lambda system: LinearFeedback.random(system, 0), LeastControl()),
    "recurrent backprop": (None, RecurrentBackprop()),
}


@pytest.mark.parametrize(("pathway", "rule"), PATHWAYS.values(), ids=PATHWAYS)
@pytest.mark.parametrize("method", ["anderson", "auto"])
def test_updates_equal_those_of_the_built_in(pathway, rule: LearningRule, method: str) -> None:
    small = random_circuit(seed=2, outputs=(3, 2), gain=0.4)
    losses = ("cross_entropy", "squared_error")
    t = task(small, losses=losses, controller=leaky_integral(0.3, 100), pathway=pathway, method=method)
    b = batch(t)
    expected = rule.outcome(t, b)
    found = rule.outcome(with_loss(t, cross_entropy, squared), b)
    assert bool(expected.used.all() & found.used.all())
    assert torch.allclose(found.credit.fields.psi, expected.credit.fields.psi, atol=1e-8)
    for name, update in expected.updates.items():
        assert torch.allclose(found.updates[name], update, atol=1e-8), name


@pytest.mark.parametrize("method", ["anderson", "levenberg"])
def test_least_control_descends_a_loss_of_ones_own(method: str) -> None:
    t = task(random_circuit(seed=1, gain=0.5), controller=leaky_integral(0.5, 100), method=method, depth=5)
    t = with_loss(t, pseudo_huber)
    b = batch(t)
    found = LeastControl().outcome(t, b)
    assert bool(found.used.all())
    for name, entries in finite_differences(t, energy(t, b, found.credit.state)).items():
        for index, difference in entries:
            assert -4 * float(found.updates[name][index]) == pytest.approx(difference, abs=1e-6), name


def test_integral_control_and_a_loss_of_ones_own() -> None:
    t = task(random_circuit(1), losses=("squared_error",), controller=integral(100))
    b = batch(t)
    expected, found = LeastControl().outcome(t, b), LeastControl().outcome(with_loss(t, pseudo_huber), b)
    for name, update in expected.updates.items():
        assert torch.allclose(found.updates[name], update, atol=1e-8), "both hold y at its target"


def test_float32_control_is_asked_for_no_more_digits_than_there_are() -> None:
    """A nearly right answer in single precision converges as it does with the built-in loss."""
    t = task(random_circuit(seed=0), controller=leaky_integral(0.1, 100), tolerance=None)
    t.system.compiled.float()  # type: ignore[attr-defined]
    b = batch(t)
    small = replace(b, x=b.x.float(), target=b.target.float())
    built_in = LeastControl().outcome(t, small)
    own = LeastControl().outcome(with_loss(t, cross_entropy), small)
    assert bool((own.used >= built_in.used).all())


BAD = {
    "two numbers": (lambda y, t: (y - t).square(), "gives a tensor of shape (3,)"),
    "a float": (lambda y, t: 1.0, "gives a float"),
    "detached": (lambda y, t: (y.detach() - t).square().sum(), "gradient is zero"),
    "argmax": (lambda y, t: (y.argmax() - t.argmax()).double() ** 2, "gradient is zero"),
    "item": (lambda y, t: torch.tensor(float(y.sum())), "cannot be evaluated for many samples"),
    "absolute value": (lambda y, t: (y - t).abs().sum(), "flat or a straight line"),
    "not finite": (lambda y, t: -(t * torch.log(y)).sum(), "value is not finite"),
    "gradient not finite": (lambda y, t: y.square().sum().sqrt(), "gradient is not finite"),
    "one argument": (lambda y: y.sum(), "cannot be called"),
    "raises": (
        lambda y, t: 1 / 0,
        "cannot be called with (y [unit], target [unit]) of one sample: ZeroDivisionError",
    ),
}


@pytest.mark.parametrize(("function", "message"), BAD.values(), ids=BAD)
def test_what_is_no_loss_is_refused_in_one_line(function, message: str) -> None:
    with pytest.raises(CircuitError) as error:
        checked_function(function, 3, LIKE, "loss.function", "mine")
    text = str(error.value)
    assert text.startswith("loss.function: mine") and message in text and "\n" not in text


def test_good_functions_pass() -> None:
    for function in (squared, cross_entropy, pseudo_huber, lambda y, t: F.cross_entropy(y, t)):
        loss = checked_function(function, 3, LIKE)
        assert loss.value(torch.zeros(3, 2).double(), torch.eye(3).double()[:, :2]).shape == (2,)
