"""Recurrent backpropagation and backpropagation: the baselines that need a second phase.

phase 1   phi = W sigma(phi) + U x + b
phase 2   psi = sigma'(phi) (W^T psi) - D^T dL/dy,  phi held fixed                    [eq. 5, 89, 90]
update    dW = psi sigma(phi)^T = -dL/dW
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuitlab.dynamics.equations import Equations, Fields, Step
from circuitlab.dynamics.system import Point, System
from circuitlab.errors import CircuitError
from circuitlab.learn.base import Batch, LearningRule, Outcome, Task, mean_update, usable
from circuitlab.learn.starts import CREDIT

TINY = 1e-30


class AdjointEquations(Equations):
    """The second phase, a linear system at a fixed state; every unit takes part, controlled or not.

    Args:
        system: the dynamics.
        phi, drive: the free equilibrium and what drives it, [unit, sample].
        error: -dL/dy, [output unit, sample].
    """

    products = 1

    def __init__(self, system: System, phi: Tensor, drive: Tensor, error: Tensor) -> None:
        self.system, self.phi, self.drive, self.error = system, phi, drive, error
        self.point: Point = system.linearise(phi, drive)
        self.blocks = {"control": slice(0, system.size)}
        self.mixed = self.blocks["control"]
        self.time_constants = system.tau

    def start(self) -> Tensor:
        state = torch.zeros_like(self.phi)
        state[self.system.output] = self.error
        return state

    def _image(self, state: Tensor) -> Tensor:
        image = self.point.transported(state, controlled_only=False)
        image[self.system.output] += self.error
        return image

    def step(self, state: Tensor) -> Step:
        image = self._image(state)
        return Step(state, image, image - state)

    def imbalance(self, state: Tensor) -> Tensor:
        return self._image(state) - state

    def scales(self, state: Tensor, floor: float) -> Tensor:
        return torch.linalg.vector_norm(state, dim=0).clamp(min=TINY).unsqueeze(0)

    def select(self, columns: Tensor) -> AdjointEquations:
        return AdjointEquations(
            self.system, self.phi[:, columns], self.drive[:, columns], self.error[:, columns]
        )

    def fields(self, state: Tensor) -> Fields:
        return Fields(self.phi, state, self.error)


class RecurrentBackprop(LearningRule):
    """The gradient of the loss at the free equilibrium, by a second phase  [eq. 5, 89-90]."""

    name = "recurrent_backprop"
    controls = False

    def outcome(self, task: Task, batch: Batch) -> Outcome:
        drive = task.system.drive(batch.x)
        free = task.free(drive)
        phi = free.fields.phi
        y = task.outputs(phi)
        error = task.loss.gradient(y, batch.target)
        second = task.find(CREDIT, AdjointEquations(task.system, phi, drive, -error), error=error)
        used = usable(task, free.converged & second.converged)
        updates = mean_update(task, phi, second.fields.psi, batch.x, used)
        return Outcome(updates, task.loss.value(y, batch.target), free, second, used)


class Backprop(RecurrentBackprop):
    """Backpropagation: on an acyclic circuit both phases end exactly, after as many steps as the circuit is deep."""

    name = "backprop"

    def outcome(self, task: Task, batch: Batch) -> Outcome:
        if task.system.acyclic_depth is None:
            raise CircuitError(
                "learn.rule: backprop needs an acyclic circuit, and this one is recurrent; allowed: recurrent_backprop"
            )
        return super().outcome(task, batch)
