"""Damped fixed-point iteration (Picard): phi_next = W sigma(phi) + U x + b + psi and its like  [eq. 113, 149]."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from circuitlab.dynamics.equations import Equations
from circuitlab.solve.anderson import Mixing
from circuitlab.solve.base import Solver


@dataclass(frozen=True)
class FixedPoint(Solver):
    """next = state + damping (G(state) - state), with G one sweep through the populations.

    Args:
        damping: share of the full step, in (0, 1].
    """

    damping: float = 1.0

    name = "fixed_point"

    def begin(self, equations: Equations, state: Tensor) -> Mixing:
        return Mixing(equations, state, 0, self.damping)
