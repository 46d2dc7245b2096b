"""The circuit's own dynamics in real time, by the forward Euler method, until they rest.

Every row moves with its own time constant; rows without one (a proportional controller) follow at once, and of a PI
controller the integral part is what moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from circuitlab.dynamics.equations import Equations
from circuitlab.dynamics.integrators import Euler as ForwardEuler
from circuitlab.solve.base import Iteration, Solver


class Recomputed(Iteration):
    """An iteration that judges its state by the right-hand sides of every block, recomputed from the equations."""

    def __init__(self, equations: Equations, state: Tensor) -> None:
        super().__init__(equations, state, len(equations.blocks))
        self.wrong = torch.empty_like(state)
        self.none = self.norms.new_zeros(self.norms.shape[0], state.shape[1])

    @property
    def floors(self) -> Tensor:
        return self.none

    def judge(self) -> None:
        self.wrong = self.equations.imbalance(self.state)
        for number, rows in enumerate(self.equations.blocks.values()):
            self.norms[number, 0] = self.wrong[rows].double().square().sum(0)
        self.norms[:, 1] = self.equations.scales(self.state).double().square()

    def keep(self, better: Tensor) -> None:
        torch.where(better, self.state, self.best, out=self.best)

    def select(self, keep: Tensor) -> None:
        super().select(keep)
        self.none = self.none[:, keep]


@dataclass(frozen=True)
class Euler(Solver):
    """tau dphi/dt = f(phi) + psi and its like, phi(t + dt) = phi(t) + dt/tau (f(phi) + psi).

    Args:
        dt_ms: time step in ms.
    """

    dt_ms: float = 1.0

    name = "euler"

    def start(self, equations: Equations) -> Tensor:
        return equations.silence()

    def begin(self, equations: Equations, state: Tensor) -> Simulation:
        return Simulation(equations, state, self.dt_ms)


class Simulation(Recomputed):
    """Real time passing."""

    def __init__(self, equations: Equations, state: Tensor, dt_ms: float) -> None:
        super().__init__(equations, equations.close_algebraic(equations.integrated(state)))
        tau = equations.time_constants
        self.method = ForwardEuler(tau, torch.ones_like(tau), dt_ms)

    def advance(self, better: Tensor, trouble: Tensor) -> None:
        self.keep(better)
        before = self.equations.integrated(self.state)
        self.state = self.equations.close_algebraic(self.method.step(before, self.wrong))
