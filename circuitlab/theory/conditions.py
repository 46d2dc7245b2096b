"""The conditions under which feedback is optimal control and learning follows a known direction.

column space    col[Q] = row[J]                                          [eq. 7, 120; DFC Condition 2]
layer norms     |r_0| = |r_1| = ... = |r_{L-1}|                          [DFC Condition 1, eq. 8]
J Q             the real parts of its eigenvalues exceed -alpha          [DFC Condition 3]
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuitlab.control.base import Pathway
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.theory.jacobian import OutputJacobian

RANK = 1e-10
"""Singular values of J below this share of the largest count as zero."""


def feedback_matrix(pathway: Pathway, system: CircuitSystem) -> Tensor | None:
    """Q, [unit, output unit], of a pathway in which the controller reaches every unit directly; None for others."""
    weights = pathway.feedback_weights()
    names = {name: rows for name, rows in system.compiled.units.items() if f"Q/{name}" in weights}
    if not names:
        return None
    q = torch.zeros_like(system.tau).repeat(1, system.output.stop - system.output.start)
    for name, rows in names.items():
        q[rows] = weights[f"Q/{name}"].detach().to(q.dtype)
    return q


def row_space(jacobian: OutputJacobian) -> Tensor:
    """An orthonormal basis of the row space of J, [sample, output unit, unit]; directions beyond its rank are zero, and
    a sample whose J is not known is NaN."""
    known = torch.isfinite(jacobian.rows).all(2).all(1)
    rows = torch.where(known[:, None, None], jacobian.rows, 0)
    _, sizes, basis = torch.linalg.svd(rows, full_matrices=False)
    there = sizes > RANK * sizes[:, :1].clamp(min=torch.finfo(sizes.dtype).tiny)
    return torch.where(known[:, None, None], basis * there.unsqueeze(2), torch.nan)


def column_space_share(jacobian: OutputJacobian, q: Tensor) -> Tensor:
    """|P Q| / |Q| (Frobenius norms), with P the projection onto the row space of J, [sample]; 1 where the column-space
    condition holds [eq. 7, 120; DFC Condition 2 and figure 3A].

    Args:
        q: feedback weights Q, [unit, output unit].
    """
    inside = torch.linalg.matrix_norm(row_space(jacobian) @ q)
    return inside / torch.linalg.matrix_norm(q)


def control_share(jacobian: OutputJacobian, psi: Tensor) -> Tensor:
    """|P psi| / |psi| of each sample's control, [sample]: what the condition asks for where a pathway has no Q, as an
    optimal control is J^T times something. NaN where there is no control.

    Args:
        psi: [unit, sample].
    """
    inside = torch.linalg.vector_norm(torch.einsum("skn,ns->ks", row_space(jacobian), psi), dim=0)
    return inside / torch.linalg.vector_norm(psi, dim=0)


def layer_norms(system: CircuitSystem, phi: Tensor, x: Tensor) -> dict[str, Tensor]:
    """|r| of every population but the outputs, inputs among them, [sample] each.

    Args:
        phi: [unit, sample]. x: [input unit, sample].
    """
    compiled, rate = system.compiled, system.rates(phi)
    found = {name: torch.linalg.vector_norm(x[rows], dim=0) for name, rows in compiled.inputs.items()}
    return found | {
        name: torch.linalg.vector_norm(rate[rows], dim=0)
        for name, rows in compiled.units.items()
        if name not in compiled.outputs
    }


def norm_spread(system: CircuitSystem, phi: Tensor, x: Tensor) -> Tensor:
    """Standard deviation of the layer norms over their mean, [sample]; 0 where DFC Condition 1 holds [DFC eq. 8, figure
    3C]."""
    norms = torch.stack(list(layer_norms(system, phi, x).values()))
    return norms.std(0, correction=0) / norms.mean(0)


def controllability(jacobian: OutputJacobian, q: Tensor) -> Tensor:
    """Smallest real part of the eigenvalues of J Q, [sample]; DFC Condition 3 asks that it exceed -alpha, for
    controllers much slower than the units and without a proportional part [DFC eq. 11, Proposition 5]."""
    product = jacobian.onto(q)
    known = torch.isfinite(product).all(2).all(1)
    smallest = torch.linalg.eigvals(torch.where(known[:, None, None], product, 0)).real.amin(1)
    return torch.where(known, smallest, torch.nan)
