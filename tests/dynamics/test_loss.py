"""Losses against autograd, and the controller at rest against the equation that defines it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import root
from torch import Tensor

from circuitlab.dynamics.loss import LOSSES, CrossEntropy, OutputLoss, SquaredError

TWO = OutputLoss([(LOSSES["cross_entropy"], slice(0, 4)), (LOSSES["squared_error"], slice(4, 7))])


def sample(seed: int = 0, samples: int = 5, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Outputs and targets for `TWO`: one-hot and soft distributions, then anything."""
    rng = np.random.default_rng(seed)
    target = np.zeros((7, samples))
    target[rng.integers(4, size=samples), np.arange(samples)] = 1
    target[:4, samples // 2 :] = rng.dirichlet(np.ones(4), samples - samples // 2).T
    target[4:] = rng.standard_normal((3, samples))
    return torch.tensor(scale * rng.standard_normal((7, samples))), torch.tensor(target)


def reference(y: Tensor, target: Tensor) -> Tensor:
    """The losses by torch's own functions, [sample]."""
    classes = torch.nn.functional.cross_entropy(y[:4].t(), target[:4].t(), reduction="none")
    return classes + 0.5 * torch.nn.functional.mse_loss(y[4:], target[4:], reduction="none").sum(0)


def test_value_gradient_and_hessian_equal_autograd() -> None:
    y, target = sample(scale=3.0)
    assert TWO.value(y, target).numpy() == pytest.approx(reference(y, target).numpy(), rel=1e-12)
    z = y.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(reference(z, target).sum(), z)
    assert torch.allclose(TWO.gradient(y, target), gradient, atol=1e-12)
    hessian = TWO.hessian(y, target)
    assert hessian.shape == (5, 7, 7)
    for i in range(5):

        def one(v: Tensor, i: int = i) -> Tensor:
            return reference(v.unsqueeze(1), target[:, i : i + 1])[0]

        expected = torch.autograd.functional.hessian(one, y[:, i])
        assert isinstance(expected, Tensor)
        assert torch.allclose(hessian[i], expected, atol=1e-12)


@pytest.mark.parametrize("alpha", [1e-3, 1e-2, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_controller_at_rest_satisfies_its_equation(alpha: float, scale: float) -> None:
    """alpha u = -dL/dy(z + u) to rounding, whatever the guess."""
    z, target = sample(1, scale=scale)
    for guess in (
        torch.zeros_like(z),
        0.3 * torch.ones_like(z),
        TWO.controller(0.9 * z, target, alpha, 0 * z),
    ):
        u = TWO.controller(z, target, alpha, guess)
        left = alpha * u + TWO.gradient(z + u, target)
        assert float(left.abs().max()) < 1e-13 * max(1.0, scale), (alpha, scale)


def test_controller_goes_on_from_its_guess() -> None:
    """Newton's steps are bounded and so is their number: a far solution is reached over several calls."""
    z = torch.tensor([[300.0], [-300.0], [0.0]], dtype=torch.float64)
    target = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64)
    u = torch.zeros_like(z)
    for _ in range(10):
        u = CrossEntropy().controller(z, target, 1e-3, u)
    assert float((1e-3 * u + CrossEntropy().gradient(z + u, target)).abs().max()) < 1e-12


def test_squared_error_controller_in_closed_form() -> None:
    z, target = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [5.0]])
    u = SquaredError().controller(z, target, 0.5, torch.zeros_like(z))
    assert u.flatten().tolist() == pytest.approx([-1 / 1.5, 3 / 1.5])
    exact = SquaredError().controller(z, target, 0.0, torch.zeros_like(z))
    assert torch.allclose(z + exact, target)


def test_single_precision_keeps_relative_digits_near_a_one_hot_target() -> None:
    """1 - p of the right class is summed from the other classes: 1e-9 has as many digits as 0.5."""
    loss = CrossEntropy()
    y = torch.tensor([[20.0, 12.0, 40.0], [-1.0, 0.5, 2.0], [0.0, 3.0, -1.0]])
    target = torch.tensor([[1.0, 1.0, 1.0], [0, 0, 0], [0, 0, 0]])
    double = y.double().numpy()
    others = np.exp(double - np.logaddexp.reduce(double, axis=0))
    others[0] = -(others[1:].sum(0))  # p - 1 of the right class, summed without cancellation
    assert loss.gradient(y, target).numpy() == pytest.approx(others, rel=1e-5)


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 1.0])
def test_single_precision_controller_agrees_with_double(alpha: float) -> None:
    z = torch.randn(10, 50, generator=torch.Generator().manual_seed(0)) * 4
    target = torch.nn.functional.one_hot(torch.arange(50) % 10, 10).t().float()
    z += (
        15 * target * (torch.arange(50) % 2)
    )  # every other sample's outputs are right already: p is near the target
    single = CrossEntropy().controller(z, target, alpha, torch.zeros_like(z))
    double = CrossEntropy().controller(z.double(), target.double(), alpha, torch.zeros_like(z).double())
    wrong = torch.linalg.vector_norm(single - double, dim=0) / torch.linalg.vector_norm(double, dim=0)
    assert float(wrong.max()) < 1e-4


def test_integral_control_reaches_soft_targets_exactly() -> None:
    """Without leak y = z + u rests only where softmax(y) is the target; the integrator keeps the sum of u at zero."""
    z = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.full((6, 4), 0.02, dtype=torch.float64)
    target[torch.arange(4), torch.arange(4)] = 0.9
    u = CrossEntropy().controller(z, target, 0.0, torch.zeros_like(z))
    assert torch.allclose(torch.softmax(z + u, 0), target, atol=1e-14)
    assert float(u.sum(0).abs().max()) < 1e-13


def test_controller_for_several_populations_is_theirs_together() -> None:
    z, target = sample(2)
    guess = torch.zeros_like(z)
    u = TWO.controller(z, target, 0.3, guess)
    first = CrossEntropy().controller(z[:4], target[:4], 0.3, guess[:4])
    assert torch.equal(u, torch.cat([first, (target[4:] - z[4:]) / 1.3]))


@pytest.mark.parametrize("alpha", [1e-2, 0.3, 5.0])
def test_controller_through_a_mixing_equals_scipy(alpha: float) -> None:
    rng = np.random.default_rng(3)
    mixing = np.eye(7) + 0.2 * rng.standard_normal((7, 7))
    z, target = sample(3)
    u = TWO.controller_through(z, target, alpha, torch.zeros_like(z), torch.tensor(mixing)).numpy()
    for i in range(z.shape[1]):

        def wrong(v: np.ndarray, i: int = i) -> np.ndarray:
            y = torch.tensor(z[:, i].numpy() + mixing @ v).unsqueeze(1)
            return alpha * v + TWO.gradient(y, target[:, i : i + 1]).numpy()[:, 0]

        found = root(wrong, np.zeros(7), tol=1e-13)
        assert np.abs(found.fun).max() < 1e-10
        assert u[:, i] == pytest.approx(found.x, abs=1e-8)


def test_identity_mixing_is_the_plain_controller() -> None:
    z, target = sample(4)
    eye = torch.eye(7, dtype=torch.float64)
    through = TWO.controller_through(z, target, 0.2, torch.zeros_like(z), eye)
    assert torch.allclose(through, TWO.controller(z, target, 0.2, torch.zeros_like(z)), atol=1e-10)
