"""Anderson acceleration, batched: every sample mixes its own last steps, with restarts when a mix goes wrong.

For the last m differences dS of the states and dG of the fixed-point residuals g = G(s) - s, gamma minimises
|g - dG gamma| (each block weighed by its own norm, so that a small control counts as much as large potentials), and
next = s + damping g - (dS + damping dG) gamma. Rows that the equations eliminate are taken from the fixed-point map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from circuitlab.dynamics.equations import Equations, Step
from circuitlab.solve.base import Solver


@dataclass(frozen=True)
class Anderson(Solver):
    """Anderson mixing of depth `depth`.

    Args:
        depth: differences remembered.
        damping: share of the fixed-point residual in the mix.
    """

    depth: int = 5
    damping: float = 1.0

    name = "anderson"

    def memory(self, equations: Equations, state: Tensor) -> History:
        return History(self.depth, equations, state)

    def advance(
        self, equations: Equations, step: Step, trouble: Tensor, best: Tensor, memory: History
    ) -> Tensor:
        rows = equations.mixed
        state, residual = step.state[rows], step.next[rows] - step.state[rows]
        following = step.next.clone()
        if bool(trouble.any()):
            # a sample in trouble forgets its history; its next state is a plain step from the best one it had
            memory.forget(trouble)
            image = equations.step(best)
            state = torch.where(trouble, best[rows], state)
            residual = torch.where(trouble, image.next[rows] - best[rows], residual)
            following = torch.where(trouble, image.next, following)
        gamma = memory.remember(state, residual, trouble)
        mixed = state + self.damping * residual
        for column in range(memory.filled):
            mixed -= gamma[column] * (memory.states[column] + self.damping * memory.residuals[column])
        following[rows] = mixed
        return following


class History:
    """The last differences of states and residuals, [depth, row, sample], and their Gram matrices per block."""

    def __init__(self, depth: int, equations: Equations, state: Tensor) -> None:
        rows, samples = equations.mixed.stop, state.shape[1]
        self.depth, self.filled, self.place = depth, 0, 0
        self.blocks = [block for block in equations.blocks.values() if block.stop <= equations.mixed.stop]
        self.states = state.new_zeros(depth, rows, samples)
        self.residuals = state.new_zeros(depth, rows, samples)
        self.gram = state.new_zeros(len(self.blocks), samples, depth, depth)
        self.last: tuple[Tensor, Tensor] | None = None
        self.ridge = torch.finfo(state.dtype).eps * 10

    def select(self, columns: Tensor) -> None:
        """Keep some of the samples."""
        self.states, self.residuals = self.states[:, :, columns], self.residuals[:, :, columns]
        self.gram = self.gram[:, columns]
        if self.last is not None:
            self.last = (self.last[0][:, columns], self.last[1][:, columns])

    def forget(self, samples: Tensor) -> None:
        """Drop the history of some samples, bool [sample]."""
        self.states[:, :, samples] = 0
        self.residuals[:, :, samples] = 0
        self.gram[:, samples] = 0

    def remember(self, state: Tensor, residual: Tensor, fresh: Tensor) -> Tensor:
        """Take in one more state and its residual; the weights gamma of the differences, [depth, sample].

        Args:
            fresh: samples that have just restarted, whose last difference means nothing, bool [sample].
        """
        if self.last is not None:
            place = self.place
            keep = (~fresh).to(state.dtype)
            torch.mul(state - self.last[0], keep, out=self.states[place])
            torch.mul(residual - self.last[1], keep, out=self.residuals[place])
            for block, gram in zip(self.blocks, self.gram, strict=True):
                row = (self.residuals[:, block] * self.residuals[place, block]).sum(1).t()
                gram[:, place, :] = row
                gram[:, :, place] = row
            self.filled = min(self.filled + 1, self.depth)
            self.place = (place + 1) % self.depth
        self.last = (state, residual)
        if self.filled == 0:
            return state.new_zeros(self.depth, state.shape[1])
        return self._weights(state, residual)

    def _weights(self, state: Tensor, residual: Tensor) -> Tensor:
        matrix = torch.zeros_like(self.gram[0])
        right = matrix.new_zeros(matrix.shape[:2])
        whole = 1e-8 * state.square().sum(0) + torch.finfo(state.dtype).tiny ** 0.5
        for block, gram in zip(self.blocks, self.gram, strict=True):
            weight = 1 / (state[block].square().sum(0) + whole)
            matrix += weight[:, None, None] * gram
            right += weight[:, None] * (self.residuals[:, block] * residual[block]).sum(1).t()
        size = torch.diagonal(matrix, dim1=1, dim2=2).sqrt()
        size = torch.where(size > 0, size, torch.ones_like(size))
        matrix = matrix / (size.unsqueeze(2) * size.unsqueeze(1))
        matrix += self.ridge * torch.eye(self.depth, dtype=state.dtype, device=state.device)
        empty = torch.diagonal(matrix, dim1=1, dim2=2) < 0.5
        matrix += torch.diag_embed(empty.to(state.dtype))
        gamma = torch.linalg.solve_ex(matrix, (right / size).unsqueeze(2))[0].squeeze(2) / size
        return torch.where(torch.isfinite(gamma), gamma, torch.zeros_like(gamma)).t()
