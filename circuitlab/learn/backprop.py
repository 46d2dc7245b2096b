"""Recurrent backpropagation and backpropagation: the baselines that need a second phase.

phase 1   phi = W sigma(phi) + U x + b
phase 2   psi = sigma'(phi) (W^T psi) - D^T dL/dy,  phi held fixed                    [eq. 5, 89, 90]
update    dW = psi sigma(phi)^T = -dL/dW
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from circuitlab.control.base import digits_kept
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import TINY, Equations, Fields, FreeEquations
from circuitlab.dynamics.preconditioned import (
    PreconditionedSweep,
    Preconditioner,
    build,
    control_of,
    guess_lambda,
    preconditioned_sweep,
)
from circuitlab.dynamics.sweep import Sweep
from circuitlab.dynamics.system import Point, System
from circuitlab.errors import CircuitError
from circuitlab.learn.base import Batch, LearningRule, Outcome, Task, mean_update, usable
from circuitlab.learn.starts import CREDIT
from circuitlab.solve.base import Solution, resumed
from circuitlab.solve.choose import approach, find, pays


class AdjointEquations(Equations):
    """The second phase, a linear system at a fixed state; every unit takes part, controlled or not.

    Args:
        system: the dynamics.
        phi, drive: the free equilibrium and what drives it, [unit, sample].
        error: -dL/dy, [output unit, sample].
        rounding: norm of the error that rounding leaves in `error`, [sample].
        preconditioner: of the circuit's recurrent group, or None.
    """

    products = 1

    def __init__(
        self,
        system: System,
        phi: Tensor,
        drive: Tensor,
        error: Tensor,
        rounding: Tensor,
        preconditioner: Preconditioner | None = None,
    ) -> None:
        self.preconditioner = preconditioner
        self.system, self.phi, self.drive, self.error, self.rounding = system, phi, drive, error, rounding
        self.blocks = {"control": slice(0, system.size)}
        self.mixed = self.blocks["control"]
        self.least = (rounding / digits_kept(phi.dtype)).clamp(min=TINY)
        self.floors = self.least.double().unsqueeze(0)
        self.direct = system.swept_back
        self.dearer = preconditioned_sweep(system) if preconditioner is not None else 1.0
        self.time_constants = system.tau
        self.point: Point | None = None

    @property
    def lag(self) -> float:
        return self.system.lag

    def start(self) -> Tensor:
        state = torch.zeros_like(self.phi)
        state[self.system.output] = self.error
        return state

    def sweep(self, state: Tensor, image: Tensor) -> None:
        if self.passes is None:
            self.passes = self._passes()
            self.passes.hold(self.phi)
            self.moved = torch.empty_like(self.phi)
        self.passes.outputs(state, image, self.moved)
        share = self.passes.share
        image[self.system.output] += self.error if share is None else share[self.system.output] * self.error
        self.passes.backward(state, image, self.moved)

    def release(self) -> None:
        super().release()
        self.moved = self.phi.new_empty(0)

    def _passes(self) -> Sweep:
        if self.preconditioner is None:
            return self.system.transport(self.drive)
        assert isinstance(self.system, CircuitSystem)
        options = {"kinked": False, "masked": False}
        return PreconditionedSweep(self.system, self.drive, self.preconditioner, self.system.tied, **options)

    def opened(self, state: Tensor) -> Tensor:
        if self.preconditioner is None:
            return state
        state, rows = state.clone(), self.preconditioner.rows
        state[rows] = guess_lambda(self.system, rows, self.phi, state)
        return state

    def closed(self, state: Tensor) -> Tensor:
        if self.preconditioner is None:
            return state
        state, rows = state.clone(), self.preconditioner.rows
        state[rows] = control_of(self.system, rows, self.phi, state)
        return state

    def imbalance(self, state: Tensor) -> Tensor:
        if self.point is None:
            self.point = self.system.linearise(self.phi, self.drive)
        image = self.point.transported(state, controlled_only=False)
        image[self.system.output] += self.error
        return image - state

    def scales(self, state: Tensor) -> Tensor:
        return torch.maximum(torch.linalg.vector_norm(state, dim=0), self.least).unsqueeze(0)

    def select(self, columns: Tensor) -> AdjointEquations:
        phi, drive, error = (t[:, columns] for t in (self.phi, self.drive, self.error))
        return AdjointEquations(self.system, phi, drive, error, self.rounding[columns], self.preconditioner)

    def fields(self, state: Tensor) -> Fields:
        return Fields(self.phi, state, self.error)


class RecurrentBackprop(LearningRule):
    """The gradient of the loss at the free equilibrium, by a second phase  [eq. 5, 89-90]."""

    name = "recurrent_backprop"
    controls = False

    def outcome(self, task: Task, batch: Batch) -> Outcome:
        drive = task.system.drive(batch.x)
        free, given = self._free(task, drive)
        phi = free.fields.phi
        y = task.outputs(phi)
        error, rounding = task.loss.gradient(y, batch.target), task.loss.rounding(y, batch.target)
        adjoint = AdjointEquations(task.system, phi, drive, -error, rounding, given)
        second = task.find(CREDIT, adjoint, error=error)
        used = usable(task, free.converged & second.converged)
        updates = mean_update(task, phi, second.fields.psi, batch.x, used)
        return Outcome(updates, task.loss.value(y, batch.target), free, second, used, drive=drive)

    def _free(self, task: Task, drive: Tensor) -> tuple[Solution, Preconditioner | None]:
        """The first phase, and the preconditioner that serves both phases where its build pays."""
        equations, settings = FreeEquations(task.system, drive), task.settings
        if (
            task.starts is not None
            or equations.build_cost() is None
            or settings.method not in ("auto", "anderson")
        ):
            return task.free(drive), None
        near = approach(equations, settings)
        if not pays(equations, settings, near.rate, drive.dtype, phases=2):
            return resumed(near, find(equations, settings, near.state)), None
        given = build(task.system, near.fields.phi, settings.minibatch)
        found = find(FreeEquations(task.system, drive, given), settings, near.state)
        return resumed(near, replace(found, products=found.products + given.extra)), given


class Backprop(RecurrentBackprop):
    """Backpropagation: on an acyclic circuit one sweep forward and one backward are exact."""

    name = "backprop"

    def outcome(self, task: Task, batch: Batch) -> Outcome:
        if not task.system.swept:
            raise CircuitError(
                "learn.rule: backprop needs an acyclic circuit, and this one is recurrent; allowed: recurrent_backprop"
            )
        return super().outcome(task, batch)
