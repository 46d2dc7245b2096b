"""Steps in time for tau dz/dt = g(z, t), each row with its own time constant.

A row that leaks has g = input - leak z with leak 1 (potentials, control) or alpha (a leaky controller). Rows without a
time constant (tau = 0) are algebraic and stay as they are; whoever steps sets them from the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

Slope = Callable[[Tensor, float], Tensor]
"""(z, c) -> g at the state z, [row, sample], and the time t + c dt."""


def shares(tau: Tensor, dt_ms: float) -> Tensor:
    """dt / tau, [row, 1]; zero for algebraic rows."""
    return torch.where(tau > 0, dt_ms / tau.clamp(min=torch.finfo(tau.dtype).tiny), torch.zeros_like(tau))


class Integrator(ABC):
    """One step of a method.

    Args:
        tau: time constants in ms, [row, 1], 0 for algebraic rows.
        leak: leaks of the rows, dimensionless, [row, 1].
        dt_ms: time step in ms.

    Attributes:
        name: as users write it. order: global order of convergence where g is smooth in z, and constant in time within
            a step but for what is delayed.
        halves: whether it asks for g half a step ahead.
        explicit: whether a step longer than a time constant makes a leak alone unstable, or nearly so.
    """

    name: str
    order: int
    halves: bool = False
    explicit: bool = True

    def __init__(self, tau: Tensor, leak: Tensor, dt_ms: float) -> None:
        self.share = shares(tau, dt_ms)
        self.leak = leak

    @abstractmethod
    def step(self, z: Tensor, first: Tensor, slope: Slope) -> Tensor:
        """The state one step later, [row, sample].

        Args:
            first: g(z, t), known already.
        """


class Euler(Integrator):
    """z + dt/tau g  [eq. 138]."""

    name = "euler"
    order = 1

    def step(self, z: Tensor, first: Tensor, slope: Slope | None = None) -> Tensor:
        return torch.addcmul(z, self.share, first)


class ExponentialEuler(Integrator):
    """z + (1 - exp(-leak dt/tau)) / leak g: the leak exactly, all other input held over the step."""

    name = "exponential_euler"
    order = 1
    explicit = False

    def __init__(self, tau: Tensor, leak: Tensor, dt_ms: float) -> None:
        super().__init__(tau, leak, dt_ms)
        safe = torch.where(leak > 0, leak, torch.ones_like(leak))
        self.share = torch.where(leak > 0, -torch.expm1(-leak * self.share) / safe, self.share)

    def step(self, z: Tensor, first: Tensor, slope: Slope) -> Tensor:
        return torch.addcmul(z, self.share, first)


class RungeKutta(Integrator):
    """The classical method of fourth order."""

    name = "rk4"
    order = 4
    halves = True

    def step(self, z: Tensor, first: Tensor, slope: Slope) -> Tensor:
        second = slope(torch.addcmul(z, self.share, first, value=0.5), 0.5)
        third = slope(torch.addcmul(z, self.share, second, value=0.5), 0.5)
        fourth = slope(torch.addcmul(z, self.share, third), 1.0)
        total = (second + third).mul_(2).add_(first).add_(fourth)
        return torch.addcmul(z, self.share, total, value=1 / 6)


INTEGRATORS: dict[str, type[Integrator]] = {
    method.name: method for method in (RungeKutta, Euler, ExponentialEuler)
}
"""Methods by the name that users write, the default first."""
