"""Damped fixed-point iteration (Picard): phi_next = W sigma(phi) + U x + b + psi and its like  [eq. 113, 149]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuitlab.dynamics.equations import Equations, Step
from circuitlab.solve.base import Solver


@dataclass(frozen=True)
class FixedPoint(Solver):
    """next = state + damping (G(state) - state).

    Args:
        damping: share of the full step, in (0, 1].
    """

    damping: float = 1.0

    name = "fixed_point"

    def advance(self, equations: Equations, step: Step, trouble: Tensor, best: Tensor, memory: Any) -> Tensor:
        if self.damping == 1:
            following = step.next
        else:
            following = torch.lerp(step.state, step.next, self.damping)
        broken = ~torch.isfinite(following).all(0)
        return torch.where(broken, best, following) if bool(broken.any()) else following
