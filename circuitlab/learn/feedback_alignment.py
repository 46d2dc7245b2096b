"""Feedback alignment and direct feedback alignment: backpropagation's second phase along feedback weights of its own.

phase 1            phi = W sigma(phi) + U x + b
feedback alignment psi = sigma'(phi) (S psi) - D^T dL/dy,  phi held fixed        [eq. 89-90 with S for W^T]
                   (and L psi of gap junctions, which are their own way back)
direct             psi = sigma'(phi) (-Q dL/dy) of hidden units,  psi = -dL/dy at the outputs
update             dW = psi sigma(phi)^T
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from circuitlab.control.base import digits_kept
from circuitlab.control.feedback import AmongUnits, Feedback, OwnFeedback
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import TINY, Equations, Fields
from circuitlab.dynamics.sweep import Sweep
from circuitlab.errors import CircuitError
from circuitlab.learn.backprop import AdjointEquations
from circuitlab.learn.base import Batch, LearningRule, Outcome, Task, mean_update, usable
from circuitlab.learn.starts import CREDIT


class AlignmentEquations(AdjointEquations):
    """The second phase along S, a linear system at a fixed state; every unit takes part, controlled or not.

    Args:
        system: the circuit.
        phi, drive: the free equilibrium and what drives it, [unit, sample].
        error: -dL/dy, [output unit, sample].
        rounding: norm of the error that rounding leaves in `error`, [sample].
        feedback: S.
    """

    def __init__(
        self,
        system: CircuitSystem,
        phi: Tensor,
        drive: Tensor,
        error: Tensor,
        rounding: Tensor,
        feedback: Feedback,
    ) -> None:
        super().__init__(system, phi, drive, error, rounding)
        self.circuit, self.feedback = system, feedback
        fresh = all(back.fresh for ways in feedback.routes(system).values() for back in ways)
        self.direct = fresh and system.junctions is None
        self.slopes: Tensor | None = None

    def _passes(self) -> Sweep:
        routes = self.feedback.routes(self.circuit)
        return self.circuit.along(self.drive, routes, kinked=False, masked=False)

    def imbalance(self, state: Tensor) -> Tensor:
        if self.slopes is None:
            self.slopes = self.circuit.slopes(self.phi, self.circuit.rates(self.phi))
        image = self.slopes * self._raw(state)
        if self.circuit.junctions is not None:
            self.circuit.junctions.add(state, image)
        image[self.system.output] += self.error
        return image - state

    def _raw(self, state: Tensor) -> Tensor:
        out = torch.zeros_like(state)
        for ways in self.feedback.routes(self.circuit).values():
            for back in ways:
                back.route.add(state[back.route.source], out[back.route.target])
        return out

    def select(self, columns: Tensor) -> AlignmentEquations:
        phi, drive, error = (t[:, columns] for t in (self.phi, self.drive, self.error))
        return AlignmentEquations(self.circuit, phi, drive, error, self.rounding[columns], self.feedback)


class DirectEquations(Equations):
    """psi = sigma'(phi) (Q error) of hidden units and the error itself at the outputs: one product with Q.

    Args:
        system: the circuit.
        phi: the free equilibrium, [unit, sample].
        error: -dL/dy, [output unit, sample].
        rounding: norm of the error that rounding leaves in `error`, [sample].
        q: Q, [unit, output unit].
    """

    products = 0
    direct = True

    def __init__(
        self, system: CircuitSystem, phi: Tensor, error: Tensor, rounding: Tensor, q: Tensor
    ) -> None:
        self.system, self.phi, self.error, self.rounding, self.q = system, phi, error, rounding, q
        self.blocks = {"control": slice(0, system.size)}
        self.mixed = self.blocks["control"]
        self.least = (rounding / digits_kept(phi.dtype)).clamp(min=TINY)
        self.floors = self.least.double().unsqueeze(0)
        self.time_constants = system.tau
        self.extra = q.numel() / system.synapses

    def start(self) -> Tensor:
        return torch.zeros_like(self.phi)

    def sweep(self, state: Tensor, image: Tensor) -> None:
        torch.mm(self.q, self.error, out=image)
        image *= self.system.slopes(self.phi, self.system.rates(self.phi))
        image[self.system.output] = self.error

    def imbalance(self, state: Tensor) -> Tensor:
        image = torch.empty_like(state)
        self.sweep(state, image)
        return image - state

    def scales(self, state: Tensor) -> Tensor:
        return torch.maximum(torch.linalg.vector_norm(state, dim=0), self.least).unsqueeze(0)

    def select(self, columns: Tensor) -> DirectEquations:
        phi, error, rounding = self.phi[:, columns], self.error[:, columns], self.rounding[columns]
        return DirectEquations(self.system, phi, error, rounding, self.q)

    def fields(self, state: Tensor) -> Fields:
        return Fields(self.phi, state, self.error)


class _SecondPhase(LearningRule):
    """A rule whose credit signal is found at the free equilibrium, by equations of its own."""

    controls = False

    @abstractmethod
    def _equations(
        self, task: Task, phi: Tensor, drive: Tensor, error: Tensor, rounding: Tensor
    ) -> Equations:
        """Of the second phase; `error` is -dL/dy, [output unit, sample]."""

    def outcome(self, task: Task, batch: Batch) -> Outcome:
        drive = task.system.drive(batch.x)
        free = task.free(drive)
        phi = free.fields.phi
        y = task.outputs(phi)
        error, rounding = task.loss.gradient(y, batch.target), task.loss.rounding(y, batch.target)
        equations = self._equations(task, phi, drive, -error, rounding)
        second = task.find(CREDIT, equations, error=error)
        used = usable(task, free.converged & second.converged)
        updates = mean_update(task, phi, second.fields.psi, batch.x, used)
        return Outcome(updates, task.loss.value(y, batch.target), free, second, used, drive=drive)


class FeedbackAlignment(_SecondPhase):
    """Recurrent backpropagation whose second phase travels along the pathway's S in place of W^T; on an acyclic
    circuit one pass is exact. S is random, learns beside (Kolen-Pollack), or is the circuit's apical projections."""

    name = "feedback_alignment"

    def _equations(
        self, task: Task, phi: Tensor, drive: Tensor, error: Tensor, rounding: Tensor
    ) -> Equations:
        pathway = task.pathway
        if not isinstance(pathway, AmongUnits) or not isinstance(pathway.feedback, OwnFeedback):
            raise CircuitError(
                "learn.rule: feedback_alignment needs an S of its own; allowed: dynamic_inversion with feedback "
                "random, kolen_pollack or apical"
            )
        assert isinstance(task.system, CircuitSystem)
        return AlignmentEquations(task.system, phi, drive, error, rounding, pathway.feedback)


class DirectFeedbackAlignment(_SecondPhase):
    """Every hidden unit gets the output error straight over Q, times its slope; the output units get their own."""

    name = "direct_feedback_alignment"

    def _equations(
        self, task: Task, phi: Tensor, drive: Tensor, error: Tensor, rounding: Tensor
    ) -> Equations:
        assert isinstance(task.system, CircuitSystem)
        weights = task.pathway.feedback_weights()
        names = [f"Q/{name}" for name in task.system.compiled.units]
        if not set(names) <= set(weights):
            raise CircuitError(
                "learn.rule: direct_feedback_alignment needs feedback weights Q; allowed pathways: linear_feedback, "
                "deep_feedback_control"
            )
        q = torch.cat([weights[name].detach() for name in names])
        return DirectEquations(task.system, phi, error, rounding, q)
