"""The proximal step and the rounding of a loss: compiled and in torch, in both precisions, against scipy."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize, root
from scipy.special import logsumexp, softmax, wrightomega
from torch import Tensor

from circuitlab import native
from circuitlab.dynamics.loss import LOSSES, CrossEntropy, Loss, SquaredError

WAYS = {"compiled": nullcontext, "torch": native.disabled}
classes = pytest.mark.parametrize("k", [2, 10, 100])
precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
SCALES = (0.0, 1.0, 10.0, 300.0)


def exact(z: np.ndarray, target: np.ndarray, alpha: float) -> np.ndarray:
    """u with alpha u = target - softmax(z + u), one sample, by scipy.

    With s the log of the partition sum, y_i + exp(y_i - s) / alpha = z_i + target_i / alpha = c_i has the solution
    exp(y_i - s) = alpha omega(c_i - s - log alpha), and s is where these sum to one: a monotone equation in one
    unknown.
    """
    c = z + target / alpha

    def p(s: float) -> np.ndarray:
        return alpha * wrightomega(c - s - np.log(alpha))

    low, high = logsumexp(z) - 2 / alpha - 10, logsumexp(c) + 10
    s = brentq(lambda v: p(v).sum() - 1, low, high, xtol=1e-14, rtol=8.9e-16, maxiter=500)
    rate = p(s)
    others = (1 - np.eye(len(rate))) @ rate  # summed without cancellation
    return (target * others - rate * (1 - target)) / alpha  # 1 - p of a class is the others' sum


def sample(k: int, scale: float, dtype: torch.dtype, samples: int = 6) -> tuple[Tensor, Tensor]:
    """Outputs and targets, [class, sample]: one-hot (one of them met already, one badly missed) and soft."""
    rng = np.random.default_rng(k + int(scale))
    z = scale * rng.standard_normal((k, samples))
    target = np.zeros((k, samples))
    right = rng.integers(k, size=samples)
    target[right, np.arange(samples)] = 1
    z[right[0], 0] = z[:, 0].max() + 20 + scale
    z[right[1], 1] = z[:, 1].min() - 20 - scale
    target[:, -2:] = rng.dirichlet(np.ones(k), 2).T
    return torch.tensor(z, dtype=dtype), torch.tensor(target, dtype=dtype)


@pytest.mark.compiled
@precisions
@classes
@pytest.mark.parametrize("alpha", [1e-2, 0.3, 5.0])
@pytest.mark.parametrize("way", WAYS)
def test_the_proximal_step_of_the_cross_entropy_equals_scipys(
    way: str, alpha: float, k: int, dtype: torch.dtype
) -> None:
    """To the digits of the precision, and to the rounding of the error that u comes from."""
    assert native.available(), native.reason()
    for scale in SCALES:
        z, target = sample(k, scale, dtype)
        for start in (torch.zeros_like(z), torch.randn(z.shape, generator=torch.Generator().manual_seed(0))):
            u = start.to(dtype).clone()
            with WAYS[way]():
                CrossEntropy().hold(z, target, alpha, u)
            expected = np.stack(
                [exact(z[:, i].double().numpy(), t, alpha) for i, t in enumerate(target.double().numpy().T)],
                axis=1,
            )
            wrong = np.linalg.norm(u.double().numpy() - expected, axis=0)
            y = z + u
            allowed = 4 * CrossEntropy().rounding(y, target).double().numpy() / alpha
            digits = 100 * torch.finfo(dtype).eps + 1e-12  # the latter is what brentq leaves in s
            allowed += digits * np.linalg.norm(expected, axis=0)
            allowed += torch.finfo(dtype).tiny ** 0.5
            assert (wrong <= allowed).all(), (scale, wrong, allowed)


@classes
@pytest.mark.parametrize("way", WAYS)
def test_the_proximal_step_minimises_the_loss_and_the_control(way: str, k: int) -> None:
    """u = argmin L(z + u) / alpha + |u|^2 / 2, by scipy's minimiser and by its root finder."""
    z, target = sample(k, 2.0, torch.float64)
    alpha, u = 0.4, torch.zeros_like(z)
    with WAYS[way]():
        CrossEntropy().hold(z, target, alpha, u)
    for i in range(z.shape[1]):
        at, t = z[:, i].numpy(), target[:, i].numpy()

        def cost(v: np.ndarray, at: np.ndarray = at, t: np.ndarray = t) -> tuple[float, np.ndarray]:
            y = at + v
            value = logsumexp(y) - t @ y
            return value / alpha + 0.5 * v @ v, (softmax(y) - t) / alpha + v

        least = minimize(cost, np.zeros(k), jac=True, method="BFGS", options={"gtol": 1e-10})
        assert u[:, i].numpy() == pytest.approx(least.x, abs=1e-6)
        assert cost(u[:, i].numpy())[0] <= least.fun + 1e-12
        found = root(lambda v, cost=cost: cost(v)[1], np.zeros(k), tol=1e-13)
        assert u[:, i].numpy() == pytest.approx(found.x, abs=1e-9)


@precisions
@classes
def test_compiled_and_torch_agree_to_rounding(k: int, dtype: torch.dtype) -> None:
    for scale in SCALES:
        z, target = sample(k, scale, dtype, samples=40)
        found = []
        for way in WAYS.values():
            u = torch.zeros_like(z)
            with way():
                CrossEntropy().hold(z, target, 0.1, u)
            found.append(u.double())
        wrong = torch.linalg.vector_norm(found[0] - found[1], dim=0)
        rounding = CrossEntropy().rounding(z + found[1].to(dtype), target).double() / 0.1
        size = torch.linalg.vector_norm(found[1], dim=0)
        assert bool((wrong <= 8 * rounding + 100 * torch.finfo(dtype).eps * size).all())


@pytest.mark.compiled
@precisions
@classes
def test_a_samples_compiled_step_is_its_own_whoever_its_neighbours_are(k: int, dtype: torch.dtype) -> None:
    """To the last bit: samples are taken several at a time, and some of them need more of Newton's steps."""
    assert native.available(), native.reason()
    z, target = sample(k, 10.0, dtype, samples=21)
    together = torch.zeros_like(z)
    CrossEntropy().hold(z, target, 0.1, together)
    for i in range(z.shape[1]):
        alone = torch.zeros_like(z[:, :1])
        CrossEntropy().hold(z[:, i : i + 1].clone(), target[:, i : i + 1].clone(), 0.1, alone)
        assert torch.equal(alone, together[:, i : i + 1])


@pytest.mark.compiled
@precisions
@pytest.mark.parametrize("way", WAYS)
def test_a_sample_that_is_not_finite_spoils_no_other(way: str, dtype: torch.dtype) -> None:
    assert native.available(), native.reason()
    z, target = sample(10, 1.0, dtype)
    clean = torch.zeros_like(z)
    with WAYS[way]():
        CrossEntropy().hold(z, target, 0.3, clean)
    for value in (torch.nan, torch.inf):
        z[3, 2], u = value, torch.zeros_like(z)
        with WAYS[way]():
            CrossEntropy().hold(z, target, 0.3, u)
        others = [i for i in range(z.shape[1]) if i != 2]
        assert not bool(torch.isfinite(u[:, 2]).all())
        assert torch.allclose(u[:, others], clean[:, others], rtol=100 * torch.finfo(dtype).eps, atol=0)


@precisions
@classes
@pytest.mark.parametrize("way", WAYS)
def test_the_proximal_step_of_the_squared_error_is_a_division(way: str, k: int, dtype: torch.dtype) -> None:
    """alpha u = target - z - u."""
    z, target = sample(k, 3.0, dtype)
    u = torch.full_like(z, 5.0)
    with WAYS[way]():
        SquaredError().hold(z, target, 0.25, u)
    expected = (target.double() - z.double()) / 1.25
    assert torch.allclose(
        u.double(), expected, rtol=8 * torch.finfo(dtype).eps, atol=8 * torch.finfo(dtype).eps
    )


@classes
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 10.0, 60.0])
def test_rounding_covers_what_single_precision_loses(loss: Loss, scale: float, k: int) -> None:
    """The gradient in float32 and in float64 of the same outputs differ by less than `rounding`, and by no less than
    a thousandth of it in the worst sample, so that it does not cover too much either."""
    y, target = sample(k, scale, torch.float32, samples=400)
    single, double = loss.gradient(y, target).double(), loss.gradient(y.double(), target.double())
    wrong = torch.linalg.vector_norm(single - double, dim=0)
    rounding = loss.rounding(y, target).double()
    underflow = torch.finfo(torch.float32).eps * torch.finfo(torch.float32).tiny ** 0.5  # of squares in norms
    assert bool((wrong <= rounding + underflow).all())
    share = (wrong / rounding)[rounding > underflow]
    assert scale == 0 or float(share.max()) > 1e-3


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_rounding_shrinks_with_the_precision(loss: Loss) -> None:
    y, target = sample(10, 3.0, torch.float32, samples=50)
    single, double = loss.rounding(y, target).double(), loss.rounding(y.double(), target.double())
    ratio = torch.finfo(torch.float32).eps / torch.finfo(torch.float64).eps
    assert torch.allclose(single / double, torch.full_like(double, ratio), rtol=1e-3)
