"""Dynamic inversion of a decoder that is part of the loss: the controller acts through the decoder, not at the outputs.

    tau dphi/dt = f(phi) + psi,   y = h(phi, theta)
    tau dpsi/dt = (df/dphi)^T psi + (dh/dphi)^T u                              [eq. 31]
    tau_u du/dt = -dL/dy - alpha u

At rest d/dtheta of H + L/alpha, H = 1/2 |psi|^2, is -psi^T df/dtheta - u^T dh/dtheta for every alpha, which in the
limit alpha -> 0 is the gradient of the extended principle  [eq. 28, 33, 148]. The outputs follow u only by way of phi.
A sweep foresees how, with R = Psi^T Psi and Psi = (dF/dphi)^T Psi + (dh/dphi)^T, so that a strong controller is not
stiff:

    alpha u = -dL/dy(h(phi) + R (u - u before))

R sets how fast sweeps converge, never where to.
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuitlab.control.base import Controlled, ControlledEquations
from circuitlab.dynamics.equations import SMALLEST_SOMA, TINY, Fields

ECHOES = 4
"""Terms of Psi beyond the first."""


class DecoderEquations(ControlledEquations):
    """Rows: soma phi and y, control psi (zero in the rows of y), controller u.

    Args:
        batch: under control.
        response: R of every sample, [sample, output unit, output unit]; found at the batch's phi where None.
    """

    products = 2

    def __init__(self, batch: Controlled, response: Tensor | None = None) -> None:
        self.batch, self.response = batch, response
        self._lay_out(control=True)
        k = len(batch.target)
        self.mixed = slice(
            0, 2 * batch.system.size + k
        )  # a sweep goes on from the controller of the sweep before
        self.floors = batch.drive.new_full((3, batch.drive.shape[1]), SMALLEST_SOMA, dtype=torch.float64)
        self.floors[1:] = TINY
        self.extra = 0.0 if response is not None else float((ECHOES + 1) * k)

    def start(self) -> Tensor:
        phi = self.batch.phi
        return torch.cat([phi, torch.zeros_like(phi), torch.zeros_like(self.batch.target)])

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        soma, control, controller = (state[rows] for rows in self.blocks.values())
        return soma, control, controller

    def _response(self) -> Tensor:
        """R at the batch's phi, from ECHOES + 1 terms of Psi."""
        system, k = self.batch.system, len(self.batch.target)
        point = system.linearise(self.batch.phi, self.batch.drive)
        columns = []
        for unit in range(k):
            aimed = torch.zeros_like(self.batch.phi)
            aimed[system.output.start + unit] = 1
            term = point.transported(aimed)
            total = term.clone()
            for _ in range(ECHOES):
                term = point.transported(term)
                total += term
            columns.append(total)
        psi = torch.stack(columns)
        return torch.einsum("ius,jus->sij", psi, psi)

    def sweep(self, state: Tensor, image: Tensor) -> None:
        """y = h(phi), then u, then psi = (df/dphi)^T psi + (dh/dphi)^T u + psi, then phi = F(phi) + psi."""
        batch, output = self.batch, self.batch.system.output
        if self.response is None:
            self.response = self._response()
        (phi, psi, before), (potential, control, u) = self._parts(state), self._parts(image)
        point = batch.system.linearise(phi, batch.drive)
        y = point.prediction[output]
        z = y - _times(self.response, before)
        u.copy_(batch.loss.controller_through(z, batch.target, batch.controller.alpha, before, self.response))
        credit = psi.clone()
        credit[output] = u
        control.copy_(point.transported(credit))
        torch.add(point.prediction, control, out=potential)
        potential[output] = z + _times(self.response, u)  # where alpha u = -dL/dy holds exactly
        self.floors[1:] = batch.smallest_control(y)

    def imbalance(self, state: Tensor) -> Tensor:
        (phi, psi, u), output = self._parts(state), self.batch.system.output
        point = self.batch.system.linearise(phi, self.batch.drive)
        credit = psi.clone()
        credit[output] = u
        control = point.transported(credit) - psi
        return torch.cat([point.prediction - phi + psi, control, self.batch.output_imbalance(phi, u)])

    def scales(self, state: Tensor) -> Tensor:
        return self.batch.scales(*self._parts(state))

    def select(self, columns: Tensor) -> DecoderEquations:
        response = None if self.response is None else self.response[columns]
        return DecoderEquations(self.batch.select(columns), response)

    def fields(self, state: Tensor) -> Fields:
        return Fields(*self._parts(state), decoder=self.batch.system.output)


def _times(matrices: Tensor, columns: Tensor) -> Tensor:
    """One matrix for each column, [sample, i, j] and [j, sample]."""
    return torch.einsum("sij,js->is", matrices, columns)
