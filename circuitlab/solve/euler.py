"""The circuit's own dynamics in real time, by the forward Euler method, until they rest.

Every row moves with its own time constant; rows without one (a proportional controller) follow at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuitlab.dynamics.equations import Equations, Step
from circuitlab.solve.base import Solver


@dataclass(frozen=True)
class Euler(Solver):
    """tau dphi/dt = f(phi) + psi and its like, phi(t + dt) = phi(t) + dt/tau (f(phi) + psi).

    Args:
        dt_ms: time step in ms.
    """

    dt_ms: float = 1.0

    name = "euler"

    def evaluate(self, equations: Equations, state: Tensor) -> Step:
        state = equations.close_algebraic(state.clone())
        wrong = equations.imbalance(state)
        tau = equations.time_constants
        rate = torch.where(
            tau > 0, self.dt_ms / tau.clamp(min=torch.finfo(state.dtype).tiny), torch.zeros_like(tau)
        )
        return Step(state, state + rate * wrong, wrong)

    def advance(self, equations: Equations, step: Step, trouble: Tensor, best: Tensor, memory: Any) -> Tensor:
        return step.next
