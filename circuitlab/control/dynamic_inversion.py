"""Dynamic inversion: the control settles through feedback connections that transpose the circuit.

    tau dphi/dt = -phi + W sigma(phi) + U x + b + psi
    tau dpsi/dt = -psi + sigma'(phi) (S psi) + D^T u                       [eq. 14, 140; in eq. 149 S phi is a misprint]
    tau_u du/dt = -dL/dy - alpha u

A sweep eliminates u by the loss's exact proximal step: the output potential is z + u, so
alpha u = -dL/dy(z + u) is solved for u, and the stiffness 1/alpha disappears.
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuitlab.control.augmented_energy import AugmentedEnergy
from circuitlab.control.base import Controlled
from circuitlab.control.decoder import DecoderEquations
from circuitlab.control.feedback import (
    AmongUnits,
    ApicalFeedback,
    EquationsAmong,
    Feedback,
    KolenPollackFeedback,
    OwnFeedback,
    RandomFeedback,
    feedback,
)
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import SMALLEST_SOMA, TINY, Energy, Equations, Fields
from circuitlab.dynamics.foresight import DEAREST, price, respond, steps
from circuitlab.dynamics.preconditioned import (
    WHOLE,
    Minibatch,
    PreconditionedSweep,
    Preconditioner,
    build,
    build_cost,
    control_of,
    guess_lambda,
    preconditioned_sweep,
)
from circuitlab.dynamics.sweep import CircuitSweep, Cuts, Sweep
from circuitlab.dynamics.system import Point
from circuitlab.errors import CircuitError

ROUNDING_EVERY = 16
"""Sweeps between two looks at how much of the control is rounding: few samples ever need to know."""


class DynamicInversion(AmongUnits):
    """Dynamic inversion with a given feedback S."""

    name = "dynamic_inversion"
    inverts_decoder = True

    def equations(self, batch: Controlled) -> Equations:
        if batch.system.decoder_in_loss:
            return DecoderEquations(batch)
        mask = batch.system.controlled
        if mask is not None and not bool(mask[batch.system.output].all()):
            raise CircuitError(
                "control.pathway: dynamic_inversion delivers the controller at the output units, so an output "
                "population cannot be `controlled: false`"
            )
        return InversionEquations(self.feedback, batch)


class InversionEquations(EquationsAmong):
    """Rows: soma phi, control psi, controller u.

    Args:
        feedback: that control travels by.
        batch: under control.
        preconditioner: that sweeps go by, or None.
        ahead: how far beyond a sweep's own step slopes are taken, in such steps.
    """

    products = 2

    def __init__(
        self,
        feedback: Feedback,
        batch: Controlled,
        preconditioner: Preconditioner | None = None,
        ahead: float = 0.0,
    ) -> None:
        self.feedback, self.batch, self.preconditioner, self.ahead = feedback, batch, preconditioner, ahead
        self._lay_out(control=True)
        self.mixed = slice(0, 2 * batch.system.size)
        self.floors = batch.drive.new_full((2, batch.drive.shape[1]), SMALLEST_SOMA, dtype=torch.float64)
        self.floors[1] = TINY
        self.dearer = preconditioned_sweep(batch.system) if preconditioner is not None else 1.0
        self.cuts, self.outputs = Cuts(list(self.blocks.values())), Cuts([batch.system.output])
        self.count = 0

    def start(self) -> Tensor:
        phi = self.batch.phi
        return torch.cat([phi, torch.zeros_like(phi), torch.zeros_like(self.batch.target)])

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        soma, control, controller = (state[rows] for rows in self.blocks.values())
        return soma, control, controller

    def sweep(self, state: Tensor, image: Tensor) -> None:
        """phi = prediction + psi and psi = sigma'(phi) (S psi) + D^T u, each from the newest the pass has found."""
        batch = self.batch
        if self.passes is None:
            self.passes = self._passes()
            self.work = batch.target.new_empty((2, *batch.target.shape))
        phi, psi, u = self.cuts.of(state).values()
        potential, control, following = self.cuts.of(image).values()
        y, held = (self.outputs.of(tensor)[batch.system.output.start] for tensor in (potential, control))
        self.passes.forward(phi, psi)
        if self.ahead:
            assert isinstance(self.passes, CircuitSweep)
            self.passes.anticipate(phi, self.ahead)
        self.passes.outputs(psi, control, potential)
        following.copy_(u)
        batch.deliver(self.passes, y, held, following)
        self.passes.backward(psi, control, potential)
        self.count += 1
        if self.count % ROUNDING_EVERY == 0:
            self.floors[1] = batch.smallest_control(y, self.work)

    def release(self) -> None:
        super().release()
        self.cuts, self.outputs = Cuts(self.cuts.rows), Cuts(self.outputs.rows)

    def _passes(self) -> Sweep:
        system, drive = self.batch.system, self.batch.drive
        if self.preconditioner is None:
            return self.feedback.sweep(system, drive)
        assert isinstance(system, CircuitSystem)
        return PreconditionedSweep(system, drive, self.preconditioner, self.feedback.routes(system))

    def build_cost(self) -> float | None:
        tied = type(self.feedback) is Feedback
        return build_cost(self.batch.system, self.batch.drive.shape[1]) if tied else None

    def preconditioned(self, phi: Tensor, minibatch: Minibatch = WHOLE) -> Equations:
        if self.build_cost() is None:
            return super().preconditioned(phi)
        given = build(self.batch.system, phi, minibatch)
        found = InversionEquations(self.feedback, self.batch, given)
        found.extra = given.extra
        return found

    def preconditioned_sweep(self) -> float:
        return preconditioned_sweep(self.batch.system)

    def foreseen(
        self, state: Tensor, rate: float, minibatch: Minibatch = WHOLE
    ) -> tuple[Tensor, float] | None:
        system, batch = self.batch.system, self.batch
        if type(self.feedback) is not Feedback or not isinstance(system, CircuitSystem) or system.junctions:
            return None
        (rate,) = minibatch.agreed(rate)
        count = steps(rate)
        if price(system, count, batch.drive.shape[1]) * minibatch.fraction > DEAREST:
            return None
        phi, psi, u = self._parts(state.clone())
        response = respond(system, phi, count, minibatch)
        gain = float(response.phi[system.output].diagonal().mean())
        if not gain > 0:
            return None
        batch.loss.hold(phi[system.output].contiguous(), batch.target, batch.controller.alpha / gain, u)
        u /= gain
        psi = system.slopes(phi, system.rates(phi)) * (response.raw @ u)
        if system.controlled is not None:
            psi *= system.controlled
        psi[system.output] += u
        return torch.cat([phi + response.phi @ u, psi, u]), response.extra

    def anticipating(self, share: float) -> Equations:
        plain, system = type(self.feedback) is Feedback and self.preconditioner is None, self.batch.system
        if not plain or not isinstance(system, CircuitSystem) or system.junctions:
            return self
        return InversionEquations(self.feedback, self.batch, ahead=share)

    def opened(self, state: Tensor) -> Tensor:
        if self.preconditioner is None:
            return state
        state, rows = state.clone(), self.preconditioner.rows
        phi, psi, _ = self._parts(state)
        psi[rows] = guess_lambda(self.batch.system, rows, phi, psi)
        return state

    def closed(self, state: Tensor) -> Tensor:
        if self.preconditioner is None:
            return state
        state, rows = state.clone(), self.preconditioner.rows
        phi, lam, _ = self._parts(state)
        lam[rows] = control_of(self.batch.system, rows, phi, lam)
        return state

    def imbalance(self, state: Tensor) -> Tensor:
        phi, psi, u = self._parts(state)
        point = self.batch.system.linearise(phi, self.batch.drive)
        control = self._turned(point, psi)
        control[self.batch.system.output] += u
        return torch.cat([point.prediction - phi + psi, control, self.batch.output_imbalance(phi, u)])

    def control(self, state: Tensor, point: Point) -> Tensor:
        return state[self.blocks["control"]]

    def _turned(self, point: Point, psi: Tensor) -> Tensor:
        """sigma'(phi) (S psi) - psi, [unit, sample]."""
        return self.feedback.imbalance(point, psi)

    def afresh(self) -> InversionEquations:
        """The same equations without a preconditioner."""
        return InversionEquations(self.feedback, self.batch)

    def scales(self, state: Tensor) -> Tensor:
        return self.batch.scales(*self._parts(state))

    def select(self, columns: Tensor) -> InversionEquations:
        batch = self.batch.select(columns)
        return InversionEquations(self.feedback, batch, self.preconditioner, self.ahead)

    def fields(self, state: Tensor) -> Fields:
        return Fields(*self._parts(state))

    def energy(self) -> Energy | None:
        system, leak = self.batch.system, self.batch.controller.alpha
        if not isinstance(system, CircuitSystem) or type(self.feedback) is not Feedback:
            return None
        return AugmentedEnergy(self.batch, system) if system.controlled is None and leak > 0 else None

    def settle(self, state: Tensor) -> Tensor:
        on = self._on_kink(state)
        if on is None or not bool(on.any()):
            return state
        image = torch.empty_like(state)
        self.afresh().sweep(state, image)
        return torch.where(on.any(0), image, state)


__all__ = [
    "ApicalFeedback",
    "AugmentedEnergy",
    "DynamicInversion",
    "Feedback",
    "InversionEquations",
    "KolenPollackFeedback",
    "OwnFeedback",
    "RandomFeedback",
    "feedback",
]
