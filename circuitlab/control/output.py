"""Output controllers: how the error at the output units becomes the controller u.

All of them rest at alpha u + dL/dy = 0 (section 2.2 of the least-control paper), so learning does not depend on which
one brought the circuit there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from circuitlab.dynamics.loss import OutputLoss


@dataclass(frozen=True)
class OutputController:
    """tau_u du/dt = -dL/dy - alpha u  [eq. 6], or with a proportional part, and e = -dL/dy,

    u = u_int + k_p e,   tau_u du_int/dt = e - a u_int                                                  [DFC eq. 4]

    which rests where alpha u = e with alpha = a / (1 + a k_p).

    Args:
        alpha: the leak that the equilibrium knows, dimensionless; zero for pure integral control. With a proportional
            part this is less than the leak `a` of the integral.
        tau_ms: time constant tau_u in ms; zero where u follows the error at once.
        k_p: gain of the proportional part.
    """

    alpha: float
    tau_ms: float
    k_p: float = 0.0

    @property
    def leak(self) -> float:
        """The leak `a` of the integral part."""
        return self.alpha / (1 - self.alpha * self.k_p)

    @property
    def pace_ms(self) -> float:
        """tau_u alpha / a, in ms: tau_u du_int/dt is this many times slower than -dL/dy - alpha u says."""
        return self.tau_ms * (1 - self.alpha * self.k_p)

    def with_leak(self, leak: float) -> OutputController:
        """The same with another leak of its integral part."""
        return replace(self, alpha=leak / (1 + leak * self.k_p))

    def at_once(self, loss: OutputLoss, y: Tensor, target: Tensor) -> Tensor:
        """u = -dL/dy / alpha, [output unit, sample]: the proportional controller, beta = 1/alpha."""
        return loss.gradient(y, target) / -self.alpha


def leaky_integral(alpha: float, tau_ms: float) -> OutputController:
    """tau_u du/dt = -dL/dy - alpha u."""
    return OutputController(alpha, tau_ms)


def integral(tau_ms: float) -> OutputController:
    """tau_u du/dt = -dL/dy: rests only where the loss is least."""
    return OutputController(0.0, tau_ms)


def proportional(beta: float) -> OutputController:
    """u = -beta dL/dy, the same equilibrium as a leak of alpha = 1/beta."""
    return OutputController(1 / beta, 0.0)


def proportional_integral(alpha: float, k_p: float, tau_ms: float) -> OutputController:
    """u = u_int + k_p e, tau_u du_int/dt = e - alpha u_int, e = -dL/dy  [DFC eq. 4]."""
    return OutputController(0.0, tau_ms, k_p).with_leak(alpha)
