"""The least-control rule: each synapse sees its presynaptic rate and its neuron's control, both at equilibrium."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError
from circuitlab.learn.base import Batch, LearningRule, Outcome, Task, mean_update, usable
from circuitlab.learn.energy import checked


class LeastControl(LearningRule):
    """dW = psi sigma(phi)^T, dU = psi x^T, db = psi at the controlled equilibrium  [Theorem 1, eq. 4, 12, 116].

    With optimal control this is the negative gradient of H + L/alpha, where H = 1/2 |psi|^2. Two variants keep the
    control psi and give up that objective; both are two-phase, for they need the free equilibrium as well, and leave
    out samples whose free state did not converge:

    - presynaptic `free`: dW = psi sigma(phi_free)^T. What is dropped, psi (sigma(phi) - sigma(phi_free))^T, lowers the
      control by raising the circuit's gain whether or not the free answer improves.
    - weighting `error`: each sample's psi is multiplied by |dL/dy at the free state| / |u|, so that samples count as
      they do in recurrent backpropagation, whose error dL/dy takes the place of u.

    Args:
        gated: multiply psi by sigma'(phi), which helps where the column-space condition holds only roughly
            (section 3.1.1); sigma' is taken at the controlled equilibrium in every variant.
        presynaptic: `controlled` or `free`.
        weighting: `equal` or `error`.
    """

    controls = True

    def __init__(
        self, gated: bool = False, presynaptic: str = "controlled", weighting: str = "equal"
    ) -> None:
        self.gated, self.presynaptic, self.weighting = gated, presynaptic, weighting
        self.needs_free = presynaptic == "free" or weighting == "error"
        self.name = "least_control_gated" if gated else "least_control"

    @property
    def exact(self) -> bool:
        """Whether the update is the negative gradient of H + L/alpha under optimal control."""
        return not self.gated and self.presynaptic == "controlled" and self.weighting == "equal"

    def outcome(self, task: Task, batch: Batch) -> Outcome:
        if self.gated and not isinstance(task.system, CircuitSystem):
            raise CircuitError(
                "learn.rule: least_control_gated needs the slope of every unit, which a torch module does not tell; "
                "allowed: least_control, recurrent_backprop"
            )
        drive = task.system.drive(batch.x)
        needs_free = self.needs_free or task.pathway.needs_free
        free = task.free(drive, exact=needs_free or task.settings.thorough)
        controlled = task.controlled(drive, batch.target, free, batch.x)
        tried = lowered = 0
        if task.check:
            controlled, tried, lowered = checked(task, drive, batch, free, controlled)
        used = usable(task, controlled.converged & free.converged if needs_free else controlled.converged)
        fields, y = controlled.fields, task.outputs(free.fields.phi)
        phi, psi, gated = fields.phi, fields.credit, self.gated
        if self.weighting == "error":
            psi = psi * error_weights(task.loss.gradient(y, batch.target), fields.u)
        if self.presynaptic == "free":
            phi = free.fields.phi
            if gated:
                assert isinstance(task.system, CircuitSystem)
                psi = psi * task.system.slopes(fields.phi, task.system.rates(fields.phi))
                gated = False
        updates = mean_update(task, phi, psi, batch.x, used, gated)
        loss = task.loss.value(y, batch.target)
        found = Outcome(updates, loss, free, controlled, used, phi, tried, lowered, psi=psi, gated=gated)
        return replace(found, at_rest=True, drive=drive)


def error_weights(error: Tensor, u: Tensor) -> Tensor:
    """|error| / |u| of every sample, [sample]; 0 where there is no control, and nothing to learn.

    Args:
        error: dL/dy at the free state, [output unit, sample].
        u: the controller, [output unit, sample].
    """
    size = torch.linalg.vector_norm(u, dim=0)
    there = size > torch.finfo(u.dtype).tiny
    return torch.where(there, torch.linalg.vector_norm(error, dim=0) / torch.where(there, size, 1), 0)
