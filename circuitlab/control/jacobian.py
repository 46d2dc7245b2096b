"""How the outputs answer a steady current into each unit, at given slopes: what direct feedback weights start from.

By transposed products alone, with no state, equations or solver; `circuitlab.theory.jacobian` has it for many samples
at their own states.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, gmres
from torch import Tensor

from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError

PLAIN = 200
"""Plain steps before the equations are left to GMRES; an acyclic circuit takes as many as it has layers."""


@torch.no_grad()
def response(system: CircuitSystem, slopes: Tensor) -> Tensor:
    """(D (1 - W S)^-1)^T, [unit, output unit]: row i is what a steady current into unit i adds to each output.

    The transpose of eq. 120's matrix, and DFC's J^T; of layers it is the product of the transposed weights. It solves
    Psi = S W^T Psi + D^T by transposed products alone, so that it costs no more on sparse circuits.

    Args:
        slopes: S, [unit, 1].

    Raises:
        CircuitError: the linear circuit is singular, so that it has no steady response.
    """
    compiled = system.compiled
    columns = torch.zeros(system.size, compiled.output_size, dtype=compiled.dtype, device=compiled.device)
    columns[system.output].fill_diagonal_(1)
    junctions = system.junctions
    share = None if junctions is None else 1 / (1 + junctions.loads())
    columns = columns if share is None else columns * share

    def step(psi: Tensor) -> Tensor:
        out = torch.zeros_like(psi)
        for link in compiled.recurrent:
            link.kernel.add_transposed(psi[link.target], out[link.source])
        out.mul_(slopes)
        if junctions is not None and share is not None:
            junctions.add_neighbours(psi, out)
            out.mul_(share)
        return out

    psi, enough = columns, 4 * torch.finfo(columns.dtype).eps
    for _ in range(PLAIN):
        following = step(psi) + columns
        change = float((following - psi).abs().max())
        psi = following
        if change <= enough * float(psi.abs().max()):
            return psi
        if not np.isfinite(change) or change > 1e6:
            break
    return _solved(step, columns)


def _solved(step: Callable[[Tensor], Tensor], columns: Tensor) -> Tensor:
    """The same by GMRES, column by column."""
    n = len(columns)

    def matvec(vector: np.ndarray) -> np.ndarray:
        psi = torch.as_tensor(vector.reshape(n, 1), dtype=columns.dtype, device=columns.device)
        return vector.reshape(n) - step(psi).squeeze(1).double().cpu().numpy()

    operator = LinearOperator((n, n), matvec=matvec, dtype=np.float64)  # type: ignore[call-arg]
    tolerance = 10 * float(torch.finfo(columns.dtype).eps)
    found = []
    for column in columns.double().cpu().numpy().T:
        solution, failed = gmres(operator, column, rtol=tolerance, atol=0.0, restart=min(n, 200), maxiter=20)
        if failed or not np.isfinite(solution).all():
            raise CircuitError(
                "control.feedback: jacobian is the response of the outputs to a steady current, and this circuit has "
                "none that can be found (its linear part is singular or nearly so); allowed: random, {file: Q.npz}"
            )
        found.append(solution)
    return torch.as_tensor(np.stack(found, axis=1), dtype=columns.dtype, device=columns.device)


def silent_slopes(system: CircuitSystem) -> Tensor:
    """sigma' at potentials of zero, [unit, 1]; on a kink there, the slope above it (a silent relu would pass nothing
    back)."""
    zero = torch.zeros(system.size, 1, dtype=system.compiled.dtype, device=system.compiled.device)
    slopes = system.slopes(zero, system.rates(zero))
    for rows, activation in system.activations:
        if activation.kink is not None:
            slopes[rows] = activation.kink[1]
    return slopes
