"""Whether the whole dynamics return to the controlled equilibrium after a small push.

Units, control and controller move as tau dz/dt = g(z), with g what the pathway's own equations say (`imbalance`), tau
of every row, and z what real time integrates: of a PI controller its integral part, of a proportional one nothing, as
it follows the others at once. Around a state at rest a push dies out exactly where every eigenvalue of

    A = diag(1/tau) dg/dz

has a negative real part  [DFC Condition 3 in its general form; its figure 3E].

The derivatives are central differences of g in float64, which is all that is asked of a pathway; their error, about
1e-10, is far below what an eigenvalue is read for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs
from torch import Tensor

from circuitlab.dynamics.equations import Equations

DENSE_ROWS = 2200
"""Rows of the dynamics up to which every eigenvalue is computed."""
AT_ONCE = 256
"""Directions in which derivatives are taken together."""
KRYLOV = 60
"""Size of the Krylov space in which the rightmost eigenvalue of larger dynamics is looked for."""
RESTARTS = 40
ACCURACY = 1e-4
"""Relative accuracy of an eigenvalue that is looked for iteratively."""


@dataclass(frozen=True)
class Linearised:
    """The dynamics of one sample around a state.

    Args:
        equations: of this sample alone. state: [row, 1], float64.
    """

    equations: Equations
    state: Tensor

    @property
    def moving(self) -> Tensor:
        """Rows with a time constant, bool [row]."""
        return self.equations.time_constants.squeeze(1) > 0

    def derivative(self, directions: Tensor) -> Tensor:
        """dg/dz times directions, [row, direction]."""
        found, size = [], self.state.abs().amax() + 1
        origin = self.equations.integrated(self.state)
        for start in range(0, directions.shape[1], AT_ONCE):
            some = directions[:, start : start + AT_ONCE]
            length = torch.linalg.vector_norm(some, dim=0).clamp(min=1e-300)
            step = torch.finfo(self.state.dtype).eps ** (1 / 3) * size
            moves = some * (step / length)
            both = torch.cat([origin + moves, origin - moves], dim=1)
            copies = torch.zeros(both.shape[1], dtype=torch.long, device=both.device)
            equations = self.equations.select(copies)
            ahead, behind = equations.imbalance(equations.close_algebraic(both)).chunk(2, dim=1)
            found.append((ahead - behind) * (length / (2 * step)))
        return torch.cat(found, dim=1)

    def matrix(self) -> Tensor:
        """A, [row, row], of the rows with a time constant, in 1/ms."""
        moving = self.moving
        eye = torch.eye(len(self.state), dtype=self.state.dtype, device=self.state.device)
        return self.derivative(eye[:, moving])[moving] / self.equations.time_constants[moving]

    def operator(self) -> LinearOperator:
        """A as a linear operator."""
        return _Operator(self)


class _Operator(LinearOperator):
    """A times a vector, from one directional derivative."""

    def __init__(self, around: Linearised) -> None:
        self.around, self.moving = around, around.moving
        count = int(self.moving.sum())
        super().__init__(np.dtype(np.float64), (count, count))
        self.constants = around.equations.time_constants[self.moving]

    def _matvec(self, vector: np.ndarray) -> np.ndarray:
        direction = torch.zeros_like(self.around.state)
        direction[self.moving] = torch.as_tensor(vector.reshape(-1, 1)).to(direction)
        image = self.around.derivative(direction)[self.moving] / self.constants
        return image.squeeze(1).cpu().numpy()


@torch.no_grad()
def largest_real_part(equations: Equations, state: Tensor, sample: int) -> float:
    """Largest real part of the eigenvalues of A for one sample, in 1/ms; NaN where it was not found.

    All eigenvalues of small dynamics are computed; of larger ones the rightmost is looked for by Arnoldi's method.

    Args:
        equations: of the batch, in float64. state: of the batch at rest, [row, sample].
    """
    alone = equations.select(torch.tensor([sample], device=state.device))
    around = Linearised(alone, state[:, sample : sample + 1])
    if len(state) <= DENSE_ROWS:
        matrix = around.matrix()
        if not bool(torch.isfinite(matrix).all()):
            return float("nan")
        return float(torch.linalg.eigvals(matrix).real.max())
    operator = around.operator()
    start = np.random.default_rng(0).standard_normal(operator.shape[0])
    size = min(KRYLOV, operator.shape[0] - 2)
    options = {"which": "LR", "ncv": size, "maxiter": RESTARTS, "tol": ACCURACY, "v0": start}
    try:
        found: Any = eigs(operator, k=1, return_eigenvectors=False, **options)
    except ArpackNoConvergence:
        return float("nan")
    return float(found.real.max())
