"""A loss that the user gives as a torch function of one sample; torch.func brings its gradient and Hessian.

The function is of one sample, (y [unit], target [unit]) -> a number, so that it cannot mix samples.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from circuitlab.dynamics.loss import NEWTON_STEPS, UNSEEN_STEPS, Loss
from circuitlab.errors import CircuitError, UsersCode

LossFunction = Callable[[Tensor, Tensor], Tensor]
ARMIJO, HALVINGS = 1e-4, 30
"""Share of the expected decrease that a Newton step must bring, and how often it is halved until it does."""
TRIALS = 16
"""Random samples on which a function is tried out."""


class FunctionLoss(Loss):
    """L = function(y, target), for a function twice differentiable almost everywhere, with a continuous gradient.

    `hold` finds a minimum of alpha/2 |u|^2 + L(z + u), which for a convex function is the only one. Newton steps go
    downhill (negative curvature is turned round), and are halved until the value falls.

    Args:
        function: of one sample, (y [unit], target [unit]) -> a tensor with one number.
        name: for messages and the run file.
    """

    def __init__(self, function: LossFunction, name: str | None = None) -> None:
        self.function = function
        self.name = name or str(getattr(function, "__name__", "function"))
        slope = grad(function)
        self._value = vmap(function, in_dims=1)
        self._gradient = vmap(slope, in_dims=1, out_dims=1)
        self._hessian = vmap(jacrev(slope), in_dims=1)
        self._mixed = vmap(jacrev(slope, argnums=1), in_dims=1)

    def value(self, y: Tensor, target: Tensor) -> Tensor:
        return self._value(y, target)

    def gradient(self, y: Tensor, target: Tensor) -> Tensor:
        return self._gradient(y, target)

    def hessian(self, y: Tensor, target: Tensor) -> Tensor:
        return self._hessian(y, target)

    def rounding(self, y: Tensor, target: Tensor, work: Tensor | None = None) -> Tensor:
        """What a unit in the last place of y, of the target and of the gradient's parts brings to the gradient, summed
        over units as if no two errors cancelled."""
        spread = torch.einsum("sij,js->is", self._hessian(y, target).abs(), y.abs())
        spread += torch.einsum("sij,js->is", self._mixed(y, target).abs(), target.abs())
        spread += self._gradient(y, target).abs()
        return torch.finfo(y.dtype).eps * torch.linalg.vector_norm(spread, dim=0)

    @torch.no_grad()
    def hold(self, z: Tensor, target: Tensor, alpha: float, u: Tensor) -> None:
        enough = (
            torch.finfo(z.dtype).eps ** 0.5
        )  # convergence is quadratic: the step after this one is rounding
        for _ in range(UNSEEN_STEPS if z.is_cuda else NEWTON_STEPS):
            y = z + u
            slope = alpha * u + self._gradient(y, target)
            step = self._downhill(self._hessian(y, target), slope, alpha)
            longest = step.abs().amax(0)
            step *= torch.clamp(2 * (1 + y.abs().amax(0)) / longest.clamp(min=enough), max=1.0)
            taken = self._shortened(z, target, alpha, u, slope, step)
            u -= taken
            if not z.is_cuda and bool((longest <= enough * u.abs().amax(0) + enough**4).all()):
                break

    @staticmethod
    def _downhill(hessian: Tensor, slope: Tensor, alpha: float) -> Tensor:
        """(|alpha + H|)^-1 slope, [unit, sample], with eigenvalues made positive where some are not."""
        matrix = hessian + alpha * torch.eye(len(slope), dtype=slope.dtype, device=slope.device)
        matrix = torch.nan_to_num(matrix)
        right = torch.nan_to_num(slope).t().unsqueeze(2)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        diagonal = factor.diagonal(dim1=1, dim2=2)
        flat = diagonal.amin(1) <= torch.finfo(slope.dtype).eps ** 0.5 * diagonal.amax(1)
        bad = torch.nonzero((failed > 0) | flat).squeeze(1)
        if len(bad):
            factor[bad] = torch.eye(len(slope), dtype=slope.dtype, device=slope.device)
        step = torch.cholesky_solve(right, factor)
        if len(bad):
            values, vectors = torch.linalg.eigh(matrix[bad])
            most = torch.maximum(values.abs().amax(1), right[bad].abs().amax((1, 2)))
            least = torch.finfo(slope.dtype).eps ** 0.5 * most.clamp(min=torch.finfo(slope.dtype).tiny)
            values = torch.maximum(values.abs(), least.unsqueeze(1))
            step[bad] = vectors @ ((vectors.mT @ right[bad]) / values.unsqueeze(2))
        return step.squeeze(2).t()

    def _shortened(
        self, z: Tensor, target: Tensor, alpha: float, u: Tensor, slope: Tensor, step: Tensor
    ) -> Tensor:
        """The step, halved for each sample until alpha/2 |u|^2 + L(z + u) falls by its share; zero where it never
        does."""

        def objective(u: Tensor) -> Tensor:
            return 0.5 * alpha * u.square().sum(0) + self._value(z + u, target)

        before = objective(u)
        slack = 10 * torch.finfo(z.dtype).eps * (1 + before.abs())
        wanted = ARMIJO * (slope * step).sum(0)
        share = torch.ones_like(before)
        for _ in range(HALVINGS):
            good = objective(u - share * step) <= before - share * wanted + slack
            if bool(good.all()):
                return share * step
            share = torch.where(good, share, 0.5 * share)
        return torch.where(good, share, 0.0) * step


def checked_function(
    function: LossFunction, size: int, like: Tensor, where: str = "loss", name: str | None = None
) -> FunctionLoss:
    """A function as a loss of an output population, once it has been tried out.

    Args:
        size: output units. like: a tensor of the precision and device that it will see.

    Raises:
        CircuitError: it fails, or its value, gradient or Hessian is not what a loss needs, in one line.
    """
    name = name or str(getattr(function, "__name__", "function"))
    who = f"{where}: {name}"
    loss = FunctionLoss(function, name)
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(2, size, TRIALS, generator=generator, dtype=torch.float64)
    classes = torch.eye(size, dtype=torch.float64)[torch.arange(TRIALS) % size].t()
    target = classes.to(like)
    near, far = (target + 0.01 * draw[0].to(like), 2 * draw[1].to(like))
    with UsersCode(f"{who} cannot be called with (y [unit], target [unit]) of one sample"):
        one = function(far[:, 0].clone(), target[:, 0].clone())
    if not isinstance(one, Tensor) or one.ndim:
        found = (
            f"a tensor of shape {tuple(one.shape)}" if isinstance(one, Tensor) else f"a {type(one).__name__}"
        )
        raise CircuitError(
            f"{who} gives {found}; allowed: a torch tensor with one number, such as a sum over units"
        )
    y = torch.cat([near, far, torch.zeros_like(far)], 1)
    targets = target.repeat(1, 3)
    with UsersCode(f"{who} cannot be evaluated for many samples at once (torch.func.vmap)"):
        value = loss.value(y, targets)
    with UsersCode(f"{who} is not differentiable"):
        gradient = loss.gradient(y, targets)
    with UsersCode(f"{who} is not twice differentiable"):
        hessian = loss.hessian(y, targets)
        loss.rounding(y, targets)
    for what, found in (("value", value), ("gradient", gradient), ("second derivative", hessian)):
        if not bool(torch.isfinite(found).all()):
            raise CircuitError(
                f"{who}: its {what} is not finite everywhere on one-hot targets; allowed: a function that is finite "
                "for every y"
            )
    if not bool(gradient.any()):
        raise CircuitError(
            f"{who}: its gradient is zero wherever it was tried; it must be differentiable in y (no detach, argmax, "
            "round or .item())"
        )
    if not bool(hessian.any()):
        raise CircuitError(
            f"{who}: it is flat or a straight line wherever it was tried, so its controlled state rests on a kink or "
            "nowhere; allowed: a function with curvature, such as a Huber loss in place of an absolute value"
        )
    return loss
