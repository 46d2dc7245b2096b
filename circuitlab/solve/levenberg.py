"""Descent of the energy by a damped Newton method: the last resort for small circuits, from the state it is given.

Solves (Hessian + mu) step = -gradient per sample and takes the step only if the energy falls, so that it reaches the
local minimum its start belongs to where accelerated iterations wander. One dense factorisation per sample and step.

Rounding of phi - prediction moves 1/2 |psi|^2 by |psi| |phi| eps, which is more than eps of a small energy: differences
below that decide nothing, else the last steps, which are exact Newton steps, would be refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from circuitlab.dynamics.equations import Energy, Equations
from circuitlab.errors import CircuitError
from circuitlab.solve.base import Solver
from circuitlab.solve.euler import Recomputed

LARGEST = 1024
"""Units up to which a dense Hessian per sample is worth its price."""
TRIES = 30


def fits(equations: Equations) -> bool:
    """Whether these equations have an energy and are small enough for a dense Hessian."""
    energy = equations.energy()
    return energy is not None and energy.newton and equations.blocks["soma"].stop <= LARGEST


@dataclass(frozen=True)
class Levenberg(Solver):
    """Damped Newton descent of the equations' energy."""

    name = "levenberg"

    def begin(self, equations: Equations, state: Tensor) -> Descent:
        if not fits(equations):
            raise CircuitError(
                "solve.method: levenberg descends an energy, which needs dynamic_inversion or energy_based with tied "
                f"feedback, alpha > 0, every unit controlled, and at most {LARGEST} units; allowed here: auto, anderson"
            )
        return Descent(equations, state)


class Descent(Recomputed):
    """The descent at work; every sample has its own damping mu."""

    def __init__(self, equations: Equations, state: Tensor) -> None:
        super().__init__(equations, state)
        self.mu = torch.full((state.shape[1],), 1e-3, dtype=torch.float64)

    def advance(self, better: Tensor, trouble: Tensor) -> None:
        self.keep(better)
        soma = torch.where(trouble, self.best, self.state)[self.equations.blocks["soma"]]
        for sample in range(soma.shape[1]):
            one = self.equations.select(torch.tensor([sample], device=soma.device)).energy()
            assert one is not None
            soma[:, sample : sample + 1], self.mu[sample] = _descend(
                one, soma[:, sample : sample + 1], float(self.mu[sample])
            )
        energy = self.equations.energy()
        assert energy is not None
        self.state = energy.state(soma)

    def select(self, keep: Tensor) -> None:
        super().select(keep)
        self.mu = self.mu[keep.cpu()]


def _descend(energy: Energy, phi: Tensor, mu: float) -> tuple[Tensor, float]:
    """One accepted step of one sample, phi of shape [unit, 1], and the damping to begin the next with."""
    gradient, hessian = energy.derivatives(phi)
    now = energy.value(phi)[0]
    eye = torch.eye(len(phi), dtype=phi.dtype, device=phi.device)
    size = abs(float(now)) + (2 * abs(float(now))) ** 0.5 * float(torch.linalg.vector_norm(phi))
    slack = 4 * torch.finfo(phi.dtype).eps * size
    for _ in range(TRIES):
        factor, failed = torch.linalg.cholesky_ex(hessian + mu * eye)
        if not int(failed):
            candidate = phi - torch.cholesky_solve(gradient.unsqueeze(1), factor)
            after = energy.value(candidate)[0]
            if bool(torch.isfinite(after)) and float(after) <= float(now) + slack:
                return candidate, max(mu / 10, 1e-15)
        mu = max(10 * mu, 1e-9)
    return phi, mu
