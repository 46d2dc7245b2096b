"""Losses on the output units, per sample, and the exact proximal step that eliminates the output controller.

Everything is [unit, sample]. The controller at rest satisfies alpha u + dL/dy = 0 with y = z + u, where z is what
reaches the output units without u; `controller` solves that equation for u.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from circuitlab.compile import loops

NEWTON_STEPS = 60
"""More than the proximal step of the cross-entropy has been seen to need; it stops as soon as rounding allows."""


UNSEEN_STEPS = 4
"""Newton steps on a GPU; each sweep begins where the one before ended, so that a solve takes many of them."""


class Loss(ABC):
    """A loss of one output population.

    Attributes:
        curvature: least eigenvalue of its Hessian anywhere.
        step: times the gradient, it is what a nudge of 1 moves the target of deep feedback control by.
    """

    name: str
    curvature: float = 0.0
    step: float = 1.0

    @abstractmethod
    def value(self, y: Tensor, target: Tensor) -> Tensor:
        """L of every sample, shape [sample]."""

    @abstractmethod
    def gradient(self, y: Tensor, target: Tensor) -> Tensor:
        """dL/dy, [unit, sample]."""

    @abstractmethod
    def hessian(self, y: Tensor, target: Tensor) -> Tensor:
        """d2L/dy2, [sample, unit, unit]."""

    @abstractmethod
    def hold(self, z: Tensor, target: Tensor, alpha: float, u: Tensor) -> None:
        """Solve alpha u = -dL/dy(z + u) for u, [unit, sample], in place and from the guess that it holds."""

    def controller(self, z: Tensor, target: Tensor, alpha: float, guess: Tensor) -> Tensor:
        """u with alpha u = -dL/dy(z + u), [unit, sample]."""
        u = guess.clone()
        self.hold(z, target, alpha, u)
        return u

    @abstractmethod
    def rounding(self, y: Tensor, target: Tensor, work: Tensor | None = None) -> Tensor:
        """Norm of the error that rounding leaves in the gradient, [sample]: no control is known better.

        Args:
            work: memory to work in, [2, unit, sample], so that nothing larger than the result is allocated.
        """


class SquaredError(Loss):
    """L = 1/2 |y - target|^2."""

    name = "squared_error"
    curvature = 1.0
    step = 2.0  # that paper's loss is |y - target|^2, so that a nudge of 0.5 asks for the target itself

    def value(self, y: Tensor, target: Tensor) -> Tensor:
        return 0.5 * (y - target).square().sum(0)

    def gradient(self, y: Tensor, target: Tensor) -> Tensor:
        return y - target

    def hessian(self, y: Tensor, target: Tensor) -> Tensor:
        return torch.eye(y.shape[0], dtype=y.dtype, device=y.device).expand(y.shape[1], -1, -1)

    def hold(self, z: Tensor, target: Tensor, alpha: float, u: Tensor) -> None:
        torch.sub(target, z, out=u).div_(1 + alpha)

    def rounding(self, y: Tensor, target: Tensor, work: Tensor | None = None) -> Tensor:
        one, other = _work(y, work)
        torch.abs(y, out=one).add_(torch.abs(target, out=other))
        return torch.finfo(y.dtype).eps * torch.linalg.vector_norm(one, dim=0)


class CrossEntropy(Loss):
    """L = -sum_i target_i log softmax(y)_i, for targets that sum to one."""

    name = "cross_entropy"

    def value(self, y: Tensor, target: Tensor) -> Tensor:
        return -(target * torch.log_softmax(y, 0)).sum(0)

    def gradient(self, y: Tensor, target: Tensor) -> Tensor:
        """softmax(y) - target, written p (1 - target) - target (1 - p) with 1 - p summed from the other classes, so
        that it keeps its relative precision when p is near a one-hot target."""
        p = torch.softmax(y, 0)
        return p * (1 - target) - target * (_all_but_own(p) @ p)

    def hessian(self, y: Tensor, target: Tensor) -> Tensor:
        p = torch.softmax(y, 0).t()
        return torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)

    def rounding(self, y: Tensor, target: Tensor, work: Tensor | None = None) -> Tensor:
        """Each of the gradient's two parts is known to as many units of its last place as y is large, and to those
        that sums over k classes lose, about sqrt(k)."""
        p, part = _work(y, work)
        torch.softmax(y, 0, out=p)
        torch.mm(_all_but_own(p), p, out=part).mul_(target)
        part.add_(p.addcmul_(p, target, value=-1))  # target (1 - p) + p (1 - target)
        parts = torch.linalg.vector_norm(part, dim=0)
        return torch.finfo(y.dtype).eps * (len(y) ** 0.5 + torch.abs(y, out=p).amax(0)) * parts

    def hold(self, z: Tensor, target: Tensor, alpha: float, u: Tensor) -> None:
        """Newton's method with a bounded step, its linear system solved by Sherman and Morrison's formula. For
        alpha = 0 (integral control) y is log target up to a constant; the integrator keeps the sum of u at zero."""
        if alpha == 0:
            y = target.log()
            u.copy_(y - z + (z - y).mean(0))
            return
        if loops.usable(z) and z.is_contiguous() and target.is_contiguous() and u.is_contiguous():
            at = [tensor.data_ptr() for tensor in (z, target)]
            loops.call("cross_entropy", z, *z.shape, *at, alpha, u.data_ptr(), NEWTON_STEPS)
            return
        u -= u.mean(0)
        enough = (
            torch.finfo(z.dtype).eps ** 0.5
        )  # convergence is quadratic: the step after this one is rounding
        # a look at the steps would make a GPU wait: there a few are taken unseen, as the sweeps go on from here anyway
        for _ in range(UNSEEN_STEPS if z.is_cuda else NEWTON_STEPS):
            y = z + u
            p = torch.softmax(y, 0)
            wrong = alpha * u + self.gradient(y, target)
            diagonal = alpha + p
            step = wrong / diagonal
            share = p / diagonal
            step += share * ((p * step).sum(0) / (alpha * share).sum(0))
            largest = step.abs().amax(0)
            u -= step * (2 / largest.clamp(min=2))
            if not z.is_cuda and bool((largest <= enough * u.abs().amax(0) + enough**4).all()):
                break


def _solved(matrix: Tensor, right: Tensor, singular: bool = False) -> Tensor:
    """matrix^-1 right, or its least-squares solution where the matrix is singular."""
    if singular:
        return torch.linalg.lstsq(matrix, right).solution
    found, failed = torch.linalg.solve_ex(matrix, right)
    if bool((failed == 0).all()) and bool(torch.isfinite(found).all()):
        return found
    return torch.linalg.lstsq(matrix, right).solution


def _work(y: Tensor, work: Tensor | None) -> Tensor:
    """Memory to work in, [2, unit, sample]."""
    return y.new_empty((2, *y.shape)) if work is None else work


def _all_but_own(p: Tensor) -> Tensor:
    """[class, class] of ones with zeros where a class meets itself: times p, it is 1 - p as the sum of the other
    classes' p, which keeps its relative precision."""
    return _off_diagonal(len(p), p.dtype, p.device)


@lru_cache(maxsize=16)
def _off_diagonal(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.ones(size, size, dtype=dtype, device=device).fill_diagonal_(0)


LOSSES: dict[str, Loss] = {loss.name: loss for loss in (SquaredError(), CrossEntropy())}


class OutputLoss:
    """The sum of the losses of all output populations.

    Args:
        parts: loss and rows (within the output units) of each output population.
    """

    def __init__(self, parts: Sequence[tuple[Loss, slice]]) -> None:
        self.parts = tuple(parts)

    def value(self, y: Tensor, target: Tensor) -> Tensor:
        """L of every sample, [sample]."""
        return torch.stack([loss.value(y[rows], target[rows]) for loss, rows in self.parts]).sum(0)

    def gradient(self, y: Tensor, target: Tensor) -> Tensor:
        """dL/dy, [output unit, sample]."""
        return torch.cat([loss.gradient(y[rows], target[rows]) for loss, rows in self.parts])

    def nudged(self, y: Tensor, target: Tensor, nudge: float) -> Tensor:
        """y - nudge dL/dy, a target a little way down the loss, [output unit, sample]  [DFC eq. 3]."""
        moves = [nudge * loss.step * loss.gradient(y[rows], target[rows]) for loss, rows in self.parts]
        return y - torch.cat(moves)

    @property
    def quadratic(self) -> bool:
        """Whether it is 1/2 |y - target|^2 of all outputs."""
        return all(isinstance(loss, SquaredError) for loss, _ in self.parts)

    def hessian(self, y: Tensor, target: Tensor) -> Tensor:
        """d2L/dy2, block diagonal, [sample, output unit, output unit]."""
        out = torch.zeros(y.shape[1], len(y), len(y), dtype=y.dtype, device=y.device)
        for loss, rows in self.parts:
            out[:, rows, rows] = loss.hessian(y[rows], target[rows])
        return out

    def hold(self, z: Tensor, target: Tensor, alpha: float, u: Tensor) -> None:
        """Solve alpha u = -dL/dy(z + u) for u, [output unit, sample], in place and from the guess that it holds."""
        if len(self.parts) == 1:
            self.parts[0][0].hold(z, target, alpha, u)
            return
        for loss, rows in self.parts:
            loss.hold(z[rows], target[rows], alpha, u[rows])

    def controller(self, z: Tensor, target: Tensor, alpha: float, guess: Tensor) -> Tensor:
        """u with alpha u = -dL/dy(z + u), [output unit, sample]."""
        u = guess.clone()
        self.hold(z, target, alpha, u)
        return u

    def rounding(self, y: Tensor, target: Tensor) -> Tensor:
        """Norm of the error that rounding leaves in dL/dy, [sample]."""
        return torch.stack([loss.rounding(y[rows], target[rows]) for loss, rows in self.parts]).sum(0)

    def controller_rounding(
        self, y: Tensor, target: Tensor, alpha: float, work: Tensor | None = None
    ) -> Tensor:
        """Norm of the error that this leaves in the controller, [sample].

        Args:
            work: memory to work in, [2, output unit, sample].
        """
        work = _work(y, work)
        parts = [
            loss.rounding(y[r], target[r], work[:, r]) / (abs(alpha + loss.curvature) or 1.0)
            for loss, r in self.parts
        ]
        return torch.stack(parts).sum(0)

    def controller_through(
        self, z: Tensor, target: Tensor, alpha: float, guess: Tensor, mixing: Tensor
    ) -> Tensor:
        """u with alpha u = -dL/dy(z + Q_y u) for a given mixing Q_y, [output unit, output unit] or one for each
        sample, [sample, output unit, output unit], by Newton's method."""
        u = guess
        eye = alpha * torch.eye(len(z), dtype=z.dtype, device=z.device)
        if self.quadratic and mixing.ndim == 2:
            return _solved(eye + mixing, target - z)
        if self.quadratic:
            return _solved(eye + mixing, (target - z).t().unsqueeze(2)).squeeze(2).t()
        for _ in range(NEWTON_STEPS):
            y = z + (mixing @ u if mixing.ndim == 2 else torch.einsum("sij,js->is", mixing, u))
            wrong = alpha * u + self.gradient(y, target)
            step = _solved(eye + self.hessian(y, target) @ mixing, wrong.t().unsqueeze(2), alpha == 0)
            step = step.squeeze(2).t()
            largest = step.abs().amax(0)
            u = u - step * (2 / largest.clamp(min=2))
            enough = torch.finfo(z.dtype).eps ** 0.5
            if bool((largest <= enough * u.abs().amax(0) + enough**4).all()):
                break
        return u
