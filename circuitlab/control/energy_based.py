"""Energy-based control: potentials descend the augmented energy, and the control is what they differ by from f = 0.

    psi = phi - W sigma(phi) - U x - b
    tau dphi/dt = -psi + sigma'(phi) (S psi) + D^T u                                          [eq. 10, 15, 143]
    tau_u du/dt = -dL/dy - alpha u

At rest psi and phi are those of dynamic inversion with the same S: in the papers' words circuits that are built in
quite another way (here neurons that compare a potential with its prediction) have one controlled equilibrium. With tied
feedback and u at rest the first line is the gradient flow on E = 1/2 |f(phi)|^2 + L/alpha.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from circuitlab.control.augmented_energy import AugmentedEnergy, outputs_apart
from circuitlab.control.base import Controlled
from circuitlab.control.dynamic_inversion import InversionEquations
from circuitlab.control.feedback import AmongUnits, EquationsAmong, Feedback
from circuitlab.dynamics.circuit import CircuitPoint, CircuitSystem
from circuitlab.dynamics.equations import Energy, Fields
from circuitlab.dynamics.preconditioned import WHOLE, Minibatch
from circuitlab.dynamics.system import Point
from circuitlab.errors import CircuitError


class EnergyBased(AmongUnits):
    """Energy-based control with a given feedback S; with another S than W^T the dynamics is no gradient flow."""

    name = "energy_based"

    def equations(self, batch: Controlled) -> EnergyEquations:
        if batch.system.controlled is not None:
            raise CircuitError(
                "control.pathway: energy_based gives every unit the control psi = phi - prediction, so a population "
                "cannot be `controlled: false`; allowed: dynamic_inversion, linear_feedback"
            )
        return EnergyEquations(self.feedback, batch)


class EnergyEquations(EquationsAmong):
    """Rows: soma phi, controller u; the control is psi = phi - prediction."""

    products = 2
    extra = 1.0  # the fields of a solution take one product more, for psi

    def __init__(self, feedback: Feedback, batch: Controlled) -> None:
        self.feedback, self.batch = feedback, batch
        self._lay_out(control=False)
        self.mixed = self.blocks["soma"]
        self.floors = batch.drive.new_zeros((1, batch.drive.shape[1]), dtype=torch.float64)
        self.descends = self._system() is not None
        self._known: tuple[Tensor, int, Tensor] | None = None

    def start(self) -> Tensor:
        return torch.cat([self.batch.phi, torch.zeros_like(self.batch.target)])

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor]:
        soma, controller = (state[rows] for rows in self.blocks.values())
        return soma, controller

    def sweep(self, state: Tensor, image: Tensor) -> None:
        """A step of unit length down the gradient, phi + (-psi + sigma'(phi) (S psi) + D^T u), with u at rest beside
        it, and neurons on a kink solved exactly."""
        batch, output = self.batch, self.batch.system.output
        (phi, u), (potential, following) = self._parts(state), self._parts(image)
        point = batch.system.linearise(phi, batch.drive)
        psi = phi - point.prediction
        following.copy_(u)
        if isinstance(point, CircuitPoint) and point.system.junctions:
            self._shared_step(phi, psi, potential, following)
        else:
            if isinstance(point, CircuitPoint):
                potential.copy_(point.gate(self.feedback.raw(point, psi)))
            else:
                potential.copy_(point.transported(psi))
            potential += point.prediction
            batch.loss.hold(potential[output], batch.target, batch.controller.alpha, following)
            potential[output] += following
        self.sizes = batch.control_scale(phi, psi).double().square().unsqueeze(0)

    def _shared_step(self, phi: Tensor, psi: Tensor, potential: Tensor, u: Tensor) -> None:
        """The potentials that follow, and u at rest, where gap junctions share currents among neurons."""
        batch, output = self.batch, self.batch.system.output
        passes, control = self.feedback.sweep(batch.system, batch.drive), torch.empty_like(psi)
        passes.forward(phi, psi)
        passes.outputs(psi, control, potential)
        batch.deliver(passes, potential[output], control[output], u)

    def _control(self, state: Tensor) -> Tensor:
        """psi, [unit, sample]; known already where the state's balance was just asked for."""
        if self._known is not None and self._known[0] is state and self._known[1] == state._version:
            return self._known[2]
        phi, _ = self._parts(state)
        return phi - self.batch.system.linearise(phi, self.batch.drive).prediction

    def imbalance(self, state: Tensor) -> Tensor:
        phi, u = self._parts(state)
        point = self.batch.system.linearise(phi, self.batch.drive)
        psi = phi - point.prediction
        self._known = (state, state._version, psi)
        soma = self.feedback.imbalance(point, psi)
        soma[self.batch.system.output] += u
        return torch.cat([soma, self.batch.output_imbalance(phi, u)])

    def scales(self, state: Tensor) -> Tensor:
        phi, u = self._parts(state)
        controller = self.batch.scales(phi, None, u)[1]
        return torch.stack([self.batch.control_scale(phi, self._control(state)), controller])

    def release(self) -> None:
        super().release()
        self._known = None

    def foreseen(
        self, state: Tensor, rate: float, minibatch: Minibatch = WHOLE
    ) -> tuple[Tensor, float] | None:
        phi, u = self._parts(state)
        found = InversionEquations(self.feedback, self.batch).foreseen(
            torch.cat([phi, torch.zeros_like(phi), u]), rate, minibatch
        )
        if found is None:
            return None
        n = len(phi)
        return torch.cat([found[0][:n], found[0][2 * n :]]), found[1]

    def select(self, columns: Tensor) -> EnergyEquations:
        return EnergyEquations(self.feedback, self.batch.select(columns))

    def fields(self, state: Tensor) -> Fields:
        phi, u = self._parts(state)
        return Fields(phi, self._control(state), u)

    def _system(self) -> CircuitSystem | None:
        """The batch's system where its equilibria have an energy."""
        system = self.batch.system
        if not isinstance(system, CircuitSystem) or type(self.feedback) is not Feedback:
            return None
        return system if self.batch.controller.alpha != 0 or outputs_apart(system) else None

    def energy(self) -> Energy | None:
        system = self._system()
        return None if system is None else AugmentedEnergy(self.batch, system, control=False)

    def control(self, state: Tensor, point: Point) -> Tensor:
        return state[self.blocks["soma"]] - point.prediction

    def settle(self, state: Tensor) -> Tensor:
        """Potentials of neurons that control holds on their kink put exactly there."""
        on = self._on_kink(state)
        if on is None or not bool(on.any()):
            return state
        settled = state.clone()
        kinks = cast(CircuitSystem, self.batch.system).kinks
        if kinks is None:
            settled[self.blocks["soma"]][on] = 0
        else:
            soma = settled[self.blocks["soma"]]
            soma.copy_(torch.where(on, kinks, soma))
        return settled
