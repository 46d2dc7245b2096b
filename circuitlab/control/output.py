"""Output controllers: how the error at the output units becomes the controller u.

All of them rest at alpha u + dL/dy = 0 (section 2.2 of the least-control paper), so learning does not depend on which
one brought the circuit there.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from circuitlab.dynamics.loss import OutputLoss


@dataclass(frozen=True)
class OutputController:
    """tau_u du/dt = -dL/dy - alpha u  [eq. 6].

    Args:
        alpha: leak, dimensionless; zero for pure integral control.
        tau_ms: time constant tau_u in ms; zero where u follows the error at once.
    """

    alpha: float
    tau_ms: float

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
