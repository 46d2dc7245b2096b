"""One driver for all solvers: stopping, statistics and acceptance are per sample, on residuals of the equations.

A solver only says how to evaluate the equations and where to go next. The driver alone owns the step limit, non-finite
values, the set of samples still moving, and the final verdict, which is taken on residuals recomputed from scratch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from circuitlab.dynamics.equations import Equations, Fields, Step

COMPRESS_AT = 0.75
"""The samples still moving are gathered when they are at most this share of those being carried along."""
STRICTER = (0.5, 0.1, 0.02)
"""Shares of the tolerance that an iteration aims at in turn, should the recomputed residuals ask for more."""


@dataclass(frozen=True)
class Solution:
    """Equilibria of a batch.

    Args:
        fields: phi, psi, u; for a sample that did not converge, the best state seen.
        converged: whether every recomputed residual is within the tolerance, bool [sample].
        residual: largest block-wise relative residual, recomputed from the equations, [sample].
        iterations: evaluations used by each sample, [sample].
        products: products with W or its transpose used by each sample, verification included, [sample].
        kinks: neurons that rest exactly on the kink of their activation function, [sample].
        method: solvers used.
    """

    fields: Fields
    state: Tensor
    converged: Tensor
    residual: Tensor
    iterations: Tensor
    products: Tensor
    kinks: Tensor
    method: str


@dataclass(frozen=True)
class Solver(ABC):
    """An iteration towards an equilibrium.

    Args:
        tolerance: largest relative residual of any block.
        max_iterations: evaluations after which a sample counts as unconverged.
    """

    tolerance: float
    max_iterations: int

    name = "solver"

    def memory(self, equations: Equations, state: Tensor) -> Any:
        """What the iteration remembers between steps; its `select(columns)` keeps some samples."""
        return Forgetful()

    def evaluate(self, equations: Equations, state: Tensor) -> Step:
        """Judge a state."""
        return equations.step(state)

    @abstractmethod
    def advance(self, equations: Equations, step: Step, trouble: Tensor, best: Tensor, memory: Any) -> Tensor:
        """The next state, [row, sample].

        Args:
            step: the evaluation at the present state.
            trouble: samples whose residual is not finite or far above their best, bool [sample]; they restart.
            best: best state of every sample so far, [row, sample].
        """


class Forgetful:
    """The memory of an iteration that has none."""

    def select(self, columns: Tensor) -> None:
        """Nothing to keep."""


TROUBLE = 10.0
"""A residual this many times above the sample's best restarts the sample from its best state."""


def default_tolerance(dtype: torch.dtype) -> float:
    """1e-5 in single and 1e-6 in double precision."""
    return 1e-5 if dtype == torch.float32 else 1e-6


def rounding_floor(dtype: torch.dtype, tolerance: float) -> float:
    """Share of the potentials' norm below which a control cannot be asked for `tolerance` relative digits."""
    return 2 * torch.finfo(dtype).eps / tolerance


@torch.no_grad()
def solve(equations: Equations, solver: Solver, start: Tensor | None = None) -> Solution:
    """Solve every sample of a batch; never raises for samples that do not converge.

    Args:
        equations: of the batch.
        solver: how to iterate.
        start: state to begin with, [row, sample]; the equations' own start where None.
    """
    state = equations.start() if start is None else start
    floor = rounding_floor(state.dtype, solver.tolerance)
    rounds = [_iterate(equations, solver, state, floor, STRICTER[0])]
    for strictness in STRICTER[1:]:
        last = rounds[-1]
        again = torch.nonzero(~last.converged & last.reached).squeeze(1)
        if not len(again):
            break
        more = _iterate(equations.select(again), solver, last.state[:, again], floor, strictness)
        rounds.append(last.merged(more, again))
    found = rounds[-1]
    return Solution(
        equations.fields(found.state),
        found.state,
        found.converged,
        found.residual,
        found.iterations,
        found.products,
        equations.kinks(found.state),
        solver.name,
    )


@dataclass(frozen=True)
class _Found:
    state: Tensor
    reached: Tensor
    converged: Tensor
    residual: Tensor
    iterations: Tensor
    products: Tensor

    def merged(self, other: _Found, columns: Tensor) -> _Found:
        """This result with some samples replaced; iterations and products add up."""
        state, reached, converged, residual = (
            t.clone() for t in (self.state, self.reached, self.converged, self.residual)
        )
        state[:, columns], reached[columns] = other.state, other.reached
        converged[columns], residual[columns] = other.converged, other.residual
        return replace(
            self,
            state=state,
            reached=reached,
            converged=converged,
            residual=residual,
            iterations=self.iterations.index_add(0, columns, other.iterations),
            products=self.products.index_add(0, columns, other.products),
        )


def _iterate(equations: Equations, solver: Solver, state: Tensor, floor: float, strictness: float) -> _Found:
    samples, device = state.shape[1], state.device
    result = state.clone()
    reached = torch.zeros(samples, dtype=torch.bool, device=device)
    iterations = torch.full((samples,), solver.max_iterations, dtype=torch.long, device=device)
    columns = torch.arange(samples, device=device)
    moving, here = equations, state
    best = state.clone()
    least = torch.full((samples,), torch.inf, dtype=state.dtype, device=device)
    memory = solver.memory(moving, here)
    target = solver.tolerance * strictness
    for count in range(1, solver.max_iterations + 1):
        step = solver.evaluate(moving, here)
        residual = moving.relative(step.wrong, step.state, floor).amax(0)
        residual = torch.where(torch.isfinite(residual), residual, torch.inf)
        better = residual < least
        best = torch.where(better, step.state, best)
        least = torch.where(better, residual, least)
        open_ = ~reached[columns]
        done = (residual <= target) & open_
        open_ &= ~done
        if bool(done.any()):
            stops = columns[done]
            result[:, stops] = step.state[:, done]
            reached[stops] = True
            iterations[stops] = count
        left = int(open_.sum())
        if left == 0:
            break
        trouble = torch.isinf(residual) | (residual > TROUBLE * least)
        if left <= COMPRESS_AT * len(columns):
            keep = torch.nonzero(open_).squeeze(1)
            columns, best, least = columns[keep], best[:, keep], least[keep]
            moving, trouble = moving.select(keep), trouble[keep]
            step = Step(step.state[:, keep], step.next[:, keep], step.wrong[:, keep])
            memory.select(keep)
        if count < solver.max_iterations:
            here = solver.advance(moving, step, trouble, best, memory)
    left_over = ~reached[columns]
    result[:, columns[left_over]] = best[:, left_over]
    settled = equations.settle(result)
    residual = equations.relative(equations.imbalance(settled), settled, floor).amax(0)
    residual = torch.where(torch.isfinite(residual), residual, torch.inf)
    products = (iterations + 1) * equations.products
    return _Found(settled, reached, residual <= solver.tolerance, residual, iterations, products)
