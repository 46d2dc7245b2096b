"""The least-control rule: each synapse sees its presynaptic rate and its neuron's control, both at equilibrium."""

from __future__ import annotations

from circuitlab.learn.base import Batch, LearningRule, Outcome, Task, mean_update, usable


class LeastControl(LearningRule):
    """dW = psi sigma(phi)^T, dU = psi x^T, db = psi at the controlled equilibrium  [Theorem 1, eq. 4, 12, 116].

    With optimal control this is the negative gradient of H + L/alpha, where H = 1/2 |psi|^2.

    Args:
        gated: multiply psi by sigma'(phi), which helps where the column-space condition holds only roughly
            (section 3.1.1).
    """

    controls = True

    def __init__(self, gated: bool = False) -> None:
        self.gated = gated
        self.name = "least_control_gated" if gated else "least_control"

    def outcome(self, task: Task, batch: Batch) -> Outcome:
        drive = task.system.drive(batch.x)
        free = task.free(drive, exact=task.settings.thorough)
        controlled = task.controlled(drive, batch.target, free)
        used = usable(task, controlled.converged)
        fields = controlled.fields
        updates = mean_update(task, fields.phi, fields.psi, batch.x, used, self.gated)
        loss = task.loss.value(task.outputs(free.fields.phi), batch.target)
        return Outcome(updates, loss, free, controlled, used)
