"""How the outputs answer a current into any unit, at a state.

    J = D (I - W Sigma'(phi) - L)^-1                 [eq. 7, 120; DFC Lemma 1; L of gap junctions, where there are some]

A small current c into the units moves the settled potentials by (I - W Sigma')^-1 c and the outputs y = D phi by J c.
DFC writes J = d r_L / d v, with v the potentials and a perturbation of v that persists, which is such a current: its
weights act on rates, so that sigma' of every unit stands in W Sigma' there as here. Its r_L is the rate of the last
layer; ours is y, the potential of the output units, which is the same for its linear output layer. The slope of an
output unit's own activation function is therefore not in J.

A row of J solves (I - Sigma' W^T) J_k^T = D^T e_k, the second phase of recurrent backpropagation with the unit vector
e_k for its error [eq. 89-90]: one linear solve for each output, none for each unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.system import System
from circuitlab.learn.backprop import AdjointEquations
from circuitlab.solve.choose import SolveSettings, find

DENSE = 640
"""Units of a recurrent circuit up to which its rows are solved for by a dense factorisation."""
WIDE = 2**21
"""Numbers in the columns (an output of a sample each) that are solved for together."""
NUMBERS = 2**24
"""Numbers in the Jacobians of the samples that are looked at together."""
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-11}
"""Largest relative residual of an iterative solve."""


@dataclass(frozen=True)
class OutputJacobian:
    """J of some samples at their states.

    Args:
        rows: J, [sample, output unit, unit]; NaN for a sample whose rows could not be solved for.
    """

    rows: Tensor

    def response(self, current: Tensor) -> Tensor:
        """J c, [output unit, sample], for currents [unit, sample]."""
        return torch.einsum("skn,ns->ks", self.rows, current)

    def credit(self, coefficients: Tensor) -> Tensor:
        """J^T c, [unit, sample], for coefficients [output unit, sample]."""
        return torch.einsum("skn,ks->ns", self.rows, coefficients)

    def gram(self, weight: Tensor | None = None) -> Tensor:
        """J diag(w) J^T, [sample, output unit, output unit].

        Args:
            weight: of every unit, [unit, sample]; 1 where None.
        """
        left = self.rows if weight is None else self.rows * weight.t().unsqueeze(1)
        return left @ self.rows.transpose(1, 2)

    def onto(self, q: Tensor) -> Tensor:
        """J Q, [sample, output unit, output unit], for feedback weights Q, [unit, output unit]."""
        return self.rows @ q

    def masked(self, mask: Tensor | None) -> OutputJacobian:
        """J for currents into the units that a control reaches only.

        Args:
            mask: 1 for those units, else 0, [unit, 1]; every unit where None.
        """
        return self if mask is None else OutputJacobian(self.rows * mask.t())


@torch.no_grad()
def output_jacobian(system: System, phi: Tensor, drive: Tensor) -> OutputJacobian:
    """J at the states phi, [unit, sample].

    Dense for small recurrent circuits; else by the equations of the second phase of recurrent backpropagation, which
    one backward sweep solves where rates flow forward only.

    Args:
        drive: U x + b, [unit, sample].
    """
    if isinstance(system, CircuitSystem) and not system.swept_back and system.size <= DENSE:
        return OutputJacobian(_dense(system, phi, drive))
    return OutputJacobian(_iterative(system, phi, drive))


def portions(system: System, samples: int) -> Iterator[slice]:
    """Samples that are looked at together, so that their Jacobians fit into memory."""
    each = (system.output.stop - system.output.start) * system.size
    step = max(1, NUMBERS // each)
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))


def back_matrix(system: CircuitSystem) -> Tensor:
    """W^T as a dense matrix, [unit, unit]."""
    zero = torch.zeros_like(system.tau)
    eye = torch.eye(system.size, dtype=zero.dtype, device=zero.device)
    return system.linearise(zero, zero).feedback_input(eye)


def _dense(system: CircuitSystem, phi: Tensor, drive: Tensor) -> Tensor:
    """Rows by a factorisation of I - Sigma' W^T - L for each sample, [sample, output unit, unit]."""
    back, output = back_matrix(system), system.output
    eye = torch.eye(system.size, dtype=phi.dtype, device=phi.device)
    still = eye.clone()
    if system.junctions is not None:
        system.junctions.add(-eye, still)
    slopes, found = system.slopes(phi, system.rates(phi)), []
    for sample in range(phi.shape[1]):
        response = still - slopes[:, sample : sample + 1] * back
        solved, failed = torch.linalg.solve_ex(response, eye[:, output])
        found.append(torch.full_like(solved, torch.nan) if int(failed) else solved)
    return torch.stack(found).transpose(1, 2).contiguous()


def _iterative(system: System, phi: Tensor, drive: Tensor) -> Tensor:
    """Rows by the equations of the second phase, [sample, output unit, unit]."""
    count, samples = system.output.stop - system.output.start, phi.shape[1]
    settings = SolveSettings(tolerance=TOLERANCE[phi.dtype], preconditioner="none", thorough=True)
    errors = torch.eye(count, dtype=phi.dtype, device=phi.device)
    together = max(1, WIDE // (count * system.size))
    found = []
    for start in range(0, samples, together):
        some = slice(start, min(start + together, samples))
        each = some.stop - some.start
        states, drives = (part[:, some].repeat_interleave(count, 1) for part in (phi, drive))
        wanted = errors.repeat(1, each)
        equations = AdjointEquations(system, states, drives, wanted, states.new_zeros(states.shape[1]))
        solution = find(equations, settings)
        rows = torch.where(solution.converged, solution.fields.psi, torch.nan)
        found.append(rows.t().reshape(each, count, -1))
    return torch.cat(found)
