"""Deep Feedback Control: direct feedback towards a target that is nudged from the circuit's own free output.

    r* = y_free - lambda dL/dy(y_free)                                                                  [DFC eq. 3]
    tau dphi/dt = -phi + W sigma(phi) + U x + b + Q u                                                   [DFC eq. 1]
    u = u_int + k_p e,   tau_u du_int/dt = e - alpha u_int,   e = r* - y                                [DFC eq. 4]

Its equilibrium is linear feedback's with the loss 1/2 |r* - y|^2 and the leak alpha / (1 + alpha k_p).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Self

from torch import Tensor

from circuitlab.control.base import Controlled
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.loss import LOSSES, OutputLoss


class DeepFeedbackControl(LinearFeedback):
    """psi = Q u towards the nudged target.

    Args:
        system: the circuit.
        q: Q, [unit, output unit].
        nudge: lambda, above 0.
    """

    name = "deep_feedback_control"
    needs_free = True

    def __init__(self, system: CircuitSystem, q: Tensor, nudge: float = 0.05) -> None:
        super().__init__(system, q)
        self.nudge = nudge

    def nudged(self, nudge: float) -> Self:
        """Itself, with another lambda."""
        self.nudge = nudge
        return self

    def aimed(self, batch: Controlled, free: Tensor) -> Controlled:
        output = batch.system.output
        target = batch.loss.nudged(free[output], batch.target, self.nudge)
        return replace(batch, target=target, loss=tracking(len(target)))


def tracking(size: int) -> OutputLoss:
    """1/2 |r* - y|^2 over all output units, so that -dL/dy is the control error e."""
    return OutputLoss([(LOSSES["squared_error"], slice(0, size))])
