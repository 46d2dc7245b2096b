"""Descent of the energy by L-BFGS, every sample of a batch with its own curvature and its own step.

From the last few steps s and changes of the gradient y a sample knows its energy's curvature along them, and the
direction is -H gradient with H from Liu and Nocedal's two loops. The line search is safe: a step counts only where the
energy fell by enough, else it is shortened by the parabola through what was found; where rounding hides the fall, the
slope at the new place decides (Hager and Zhang 2005). An iteration evaluates every sample once, at two products.

At a kink the energy has two slopes. A neuron moves up to its kink and not past it in one step, rests there while both
slopes point to it, and leaves it on the steeper side (Andrew and Gao 2007, OWL-QN).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from circuitlab.dynamics.equations import Energy, Equations, Slope
from circuitlab.errors import CircuitError
from circuitlab.solve.base import Iteration, Solver, gathered

ENOUGH = 1e-4
"""Share of the fall that the slope promises which a step must bring (Armijo)."""
FLATTER = 0.9
"""Share of the slope's size that is left, at most, where rounding hides the fall."""
SHORTER, SHORTEST = 0.5, 0.1
"""A step that is refused is shortened to between these shares."""
TRIES = 12
"""Refused steps in a row after which a sample forgets its curvature."""
CURVED = 1e-8
"""Least cosine between a step and the change of the gradient that counts as curvature."""
ROUNDING = 4
"""Units of rounding error by which an energy may rise."""


@dataclass(frozen=True)
class Lbfgs(Solver):
    """Descent by limited-memory BFGS.

    Args:
        depth: steps remembered.
        damping: length of the first step, in units of the gradient.
    """

    depth: int = 10
    damping: float = 1.0

    name = "lbfgs"

    def begin(self, equations: Equations, state: Tensor) -> Minimisation:
        energy = equations.energy()
        if energy is None:
            raise CircuitError(
                "solve.method: lbfgs descends an energy, which needs dynamic_inversion or energy_based with tied "
                "feedback, every unit controlled, and alpha > 0 (or energy_based, and no output that projects on); "
                "allowed here: auto, anderson"
            )
        return Minimisation(equations, energy, state, self.depth, self.damping)


class Minimisation(Iteration):
    """The descent at work."""

    def __init__(
        self, equations: Equations, energy: Energy, state: Tensor, depth: int, damping: float
    ) -> None:
        super().__init__(equations, state, 1)
        self.energy, self.rows, self.depth = energy, equations.blocks["soma"], depth
        self.products = 2 + energy.curved_products
        samples = state.shape[1]
        self.steps, self.changes = (state.new_zeros(depth, self.rows.stop, samples) for _ in range(2))
        self.curvature = state.new_zeros(depth, samples)
        self.filled, self.place = 0, 0
        self.length = state.new_full((samples,), damping)
        self.gamma = state.new_ones(samples)
        self.tries = torch.zeros(samples, dtype=torch.long, device=state.device)
        self.none = self.norms.new_zeros(1, samples)
        self.now: Slope
        self.phi = state[self.rows]
        self.at: Tensor | None = None
        self.jump: Tensor | None = None
        self.direction = self.gradient = self.value = self.slope = self.side = state.new_empty(0)

    @property
    def floors(self) -> Tensor:
        return self.none

    def judge(self) -> None:
        self.now = self.energy.evaluate(self.phi)
        self.state = self.now.state
        residual = self.now.residual
        if residual is None:
            pointing = _downhill(self._above(self.state[self.rows]), self.now.gradient, self.now.jump)
            residual = torch.linalg.vector_norm(pointing, dim=0)
        self.norms[0, 0] = residual.double().square()
        self.norms[0, 1] = self.now.scale.double().square()

    def _above(self, phi: Tensor) -> Tensor:
        """Potentials from their neurons' kinks on."""
        return phi if self.energy.kinks is None else phi - self.energy.kinks

    def keep(self, better: Tensor) -> None:
        torch.where(better, self.state, self.best, out=self.best)

    def advance(self, better: Tensor, trouble: Tensor) -> None:
        self.keep(better)
        phi, now = self.state[self.rows], self.now
        if self.at is None:
            self.at, self.value, self.gradient, self.jump = phi.clone(), now.value, now.gradient, now.jump
            self._aim(torch.ones_like(better))
        else:
            accepted = self._accepted(phi)
            self._remember(phi, accepted)
            self._move(phi, accepted)
        self._step()

    def _accepted(self, phi: Tensor) -> Tensor:
        """Whose step brings enough, bool [sample]; shortens the others' steps."""
        assert self.at is not None
        now, slope = self.now, self.slope
        fall = now.value - self.value
        promised = (self.gradient * (phi - self.at)).sum(0).double()
        steep = (_sided(now.gradient, now.jump, self._above(phi), self.side) * self.direction).sum(0)
        size = self.value.abs() + (2 * self.value.abs()).sqrt() * torch.linalg.vector_norm(self.at, dim=0)
        slack = ROUNDING * torch.finfo(phi.dtype).eps * size
        good = fall <= ENOUGH * promised
        good |= (fall <= slack) & (steep.abs() <= FLATTER * slope.abs())
        good &= torch.isfinite(now.value) & torch.isfinite(now.gradient).all(0)
        rise = (fall - self.length * slope).clamp(min=torch.finfo(torch.float64).tiny)
        shorter = (-slope * self.length / (2 * rise)).to(phi.dtype)
        shorter = torch.where(torch.isfinite(shorter), shorter, SHORTEST).clamp(SHORTEST, SHORTER)
        self.length = torch.where(good, 1.0, self.length * shorter)
        self.tries = torch.where(good, 0, self.tries + 1)
        return good

    def _remember(self, phi: Tensor, accepted: Tensor) -> None:
        """The step and the gradient's change along it, as curvature; nothing for whoever has not moved."""
        assert self.at is not None
        now, gone = self.now, torch.zeros((), dtype=phi.dtype, device=phi.device)
        here = _sided(now.gradient, now.jump, self._above(phi), self.side)
        there = _sided(self.gradient, self.jump, self._above(self.at), self.side)
        step, change = self.steps[self.place], self.changes[self.place]
        torch.where(accepted, phi - self.at, gone, out=step)
        torch.where(accepted, here - there, gone, out=change)
        along, square = (step * change).sum(0), change.square().sum(0)
        curved = along > CURVED * torch.linalg.vector_norm(step, dim=0) * square.sqrt()
        self.curvature[self.place] = torch.where(curved, 1 / torch.where(curved, along, 1), 0)
        self.gamma = torch.where(curved, along / torch.where(curved, square, 1), self.gamma)
        self.place = (self.place + 1) % self.depth
        self.filled = min(self.filled + 1, self.depth)

    def _move(self, phi: Tensor, accepted: Tensor) -> None:
        """Stand where steps are accepted, and choose where to go from there; after many refused steps without what is
        remembered of the curvature."""
        assert self.at is not None
        now = self.now
        torch.where(accepted, phi, self.at, out=self.at)
        self.value = torch.where(accepted, now.value, self.value)
        self.gradient = torch.where(accepted, now.gradient, self.gradient)
        if now.jump is not None and self.jump is not None:
            self.jump = torch.where(accepted, now.jump, self.jump)
        lost = self.tries >= TRIES
        if bool(lost.any()):
            self.curvature.masked_fill_(lost, 0)
            self.gamma.masked_fill_(lost, 1)
            self.tries.masked_fill_(lost, 0)
        self._aim(accepted | lost)

    def _aim(self, which: Tensor) -> None:
        """The direction of descent of some samples, bool [sample]."""
        assert self.at is not None
        above = self._above(self.at)
        downhill = _downhill(above, self.gradient, self.jump)
        direction, shares = downhill.clone(), []
        newest = [(self.place - 1 - back) % self.depth for back in range(self.filled)]
        for place in newest:
            share = self.curvature[place] * (self.steps[place] * direction).sum(0)
            direction -= share * self.changes[place]
            shares.append(share)
        direction = self.energy.precondition(self.at, direction)
        if self.energy.curved_products == 0:
            direction *= self.gamma
        for place, share in zip(newest[::-1], shares[::-1], strict=True):
            other = self.curvature[place] * (self.changes[place] * direction).sum(0)
            direction += (share - other) * self.steps[place]
        if self.jump is not None:  # a neuron leaves its kink downhill, or not at all
            stuck = (above == 0) & (direction * downhill <= 0) & (self.jump != 0)
            direction.masked_fill_(stuck, 0)
        slope = -(direction * downhill).sum(0)
        wrong = ~(slope < 0)
        direction = torch.where(wrong, downhill, direction)
        slope = torch.where(wrong, -downhill.square().sum(0), slope)
        if bool(which.all()):
            self.direction, self.slope = direction, slope.double()
            self.side = _side(above, downhill)
        else:
            self.direction = torch.where(which, direction, self.direction)
            self.slope = torch.where(which, slope.double(), self.slope)
            self.side = torch.where(which, _side(above, downhill), self.side)

    def _step(self) -> None:
        """Go along the direction, and no further than to a kink on the way."""
        assert self.at is not None
        self.phi = self.at + self.length * self.direction
        if self.jump is not None:
            past = (self._above(self.phi) * self.side < 0) & (self.jump != 0)
            if self.energy.kinks is None:
                self.phi.masked_fill_(past, 0)
            else:
                self.phi = torch.where(past, self.energy.kinks, self.phi)

    def select(self, keep: Tensor) -> None:
        super().select(keep)
        energy = self.equations.energy()
        assert energy is not None, "what began as a descent has an energy"
        self.energy, self.none = energy, self.none[:, keep]
        self.steps, self.changes = gathered(self.steps, keep), gathered(self.changes, keep)
        self.curvature, self.length, self.gamma = (
            t[..., keep] for t in (self.curvature, self.length, self.gamma)
        )
        self.tries, self.value, self.slope = self.tries[keep], self.value[keep], self.slope[keep]
        self.phi, self.gradient, self.direction, self.side = (
            t[:, keep] for t in (self.phi, self.gradient, self.direction, self.side)
        )
        if self.jump is not None:
            self.jump = self.jump[:, keep]
        if self.at is not None:
            self.at = self.at[:, keep]


def _downhill(phi: Tensor, gradient: Tensor, jump: Tensor | None) -> Tensor:
    """Minus the gradient; on a kink, where phi counts from, minus the slope on the side where the energy falls, the
    steeper one where it falls on both, and zero where it falls on none."""
    if jump is None:
        return -gradient
    above = gradient + jump
    rise, fall = (-above).clamp(min=0), gradient.clamp(min=0)
    return torch.where((phi == 0) & (jump != 0), torch.where(rise >= fall, rise, -fall), -gradient)


def _side(phi: Tensor, downhill: Tensor) -> Tensor:
    """The side of its kink on which a neuron moves: 1, -1, or 0 where it rests on it, [unit, sample]."""
    return torch.where(phi != 0, phi.sign(), downhill.sign())


def _sided(gradient: Tensor, jump: Tensor | None, phi: Tensor, side: Tensor) -> Tensor:
    """The gradient, on a kink that of the side on which the neuron moves."""
    return gradient if jump is None else torch.where((phi == 0) & (side > 0), gradient + jump, gradient)
