"""The augmented energy, whose stationary points are the controlled equilibria of tied feedback.

    E(phi) = 1/2 |f(phi)|^2 + L(D phi) / alpha                                      [eq. 10, 100; section 2.4]

For alpha = 0 the outputs are held where L is least, and E is the first term alone [eq. 9].
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuitlab.control.base import Controlled
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import Discrepancy, Energy, Slope


def outputs_apart(system: CircuitSystem) -> bool:
    """Whether no output unit projects to a unit or has a gap junction, so that an output's potential matters to itself
    and the loss only."""
    first, compiled = system.output.start, system.compiled
    joined = any(max(link.source.start, link.target.start) >= first for link in compiled.electrical)
    return not joined and all(link.source.start < first for link in compiled.recurrent)


class AugmentedEnergy(Energy):
    """The energy of one batch under tied feedback, every unit controlled.

    Where no output projects on, `evaluate` eliminates the outputs: with z what reaches them without control, E is
    least over y at y = z + u with alpha u = -dL/dy, whatever the other potentials are. So a strong control makes E no
    stiffer, and alpha may be zero.

    Args:
        batch: what is controlled; alpha may be zero only where the outputs stand apart, and then the energy has a value
            and a slope but no dense `derivatives`.
        system: the batch's system.
        control: whether psi is a row block of the equations' state.
    """

    def __init__(self, batch: Controlled, system: CircuitSystem, control: bool = True) -> None:
        self.batch, self.system, self.control = batch, system, control
        self.apart = outputs_apart(system)
        self.discrepancy = Discrepancy(system, batch.drive, system.output.start if self.apart else None)
        self.curved_products, self.kinks = self.discrepancy.curved_products, system.kinks
        self.newton = batch.controller.alpha != 0
        self.held = torch.zeros_like(batch.target)

    def _y(self, phi: Tensor) -> Tensor:
        return phi[self.system.output]

    def value(self, phi: Tensor) -> Tensor:
        loss = self.batch.loss.value(self._y(phi), self.batch.target)
        return self.discrepancy.value(phi) + loss / self.batch.controller.alpha

    def derivatives(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        gradient, hessian = self.discrepancy.derivatives(phi)
        output, alpha = self.system.output, self.batch.controller.alpha
        gradient[output] += self.batch.loss.gradient(self._y(phi), self.batch.target).squeeze(1) / alpha
        hessian[output, output] += self.batch.loss.hessian(self._y(phi), self.batch.target)[0] / alpha
        return gradient, hessian

    def evaluate(self, phi: Tensor) -> Slope:
        """psi - sigma'(phi) (W^T psi) + D^T dL/dy / alpha, psi = phi - W sigma(phi) - U x - b, [unit, sample]."""
        batch, output, alpha = self.batch, self.system.output, self.batch.controller.alpha
        point = self.system.linearise(phi, batch.drive)
        if self.apart:
            z = point.prediction[output]
            batch.loss.hold(z, batch.target, alpha, self.held)
            phi = phi.clone()
            phi[output] = z + self.held
        psi = phi - point.prediction
        y, u = phi[output], self.held
        gradient, jump = point.slope_of_energy(psi)
        value = 0.5 * torch.linalg.vector_norm(psi, dim=0, dtype=torch.float64).square()
        if alpha:
            value += batch.loss.value(y, batch.target) / alpha
        if self.apart:
            gradient[output] = 0
        else:
            u = batch.loss.gradient(y, batch.target) / -alpha
            gradient[output] -= u
        state = torch.cat([phi, psi, u] if self.control else [phi, u])
        return Slope(value, gradient, jump, batch.control_scale(phi, psi), state)

    def precondition(self, phi: Tensor, gradient: Tensor) -> Tensor:
        return self.discrepancy.precondition(phi, gradient)

    def state(self, phi: Tensor) -> Tensor:
        u = -self.batch.loss.gradient(self._y(phi), self.batch.target) / self.batch.controller.alpha
        if not self.control:
            return torch.cat([phi, u])
        psi = phi - self.system.linearise(phi, self.batch.drive).prediction
        return torch.cat([phi, psi, u])
