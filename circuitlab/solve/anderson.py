"""Anderson acceleration, batched: every sample mixes its own last steps, with restarts when a mix goes wrong.

For the last m differences dN of the images n = G(s) and dG of the fixed-point residuals g = n - s, gamma minimises
|g - dG gamma| (each block weighed by its own norm, so that a small control counts as much as large potentials), and
next = n - dN gamma - (1 - damping) (g - dG gamma). Rows that the equations eliminate are taken from the
fixed-point map. With no memory this is the damped fixed-point iteration.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from circuitlab.compile import loops
from circuitlab.dynamics.equations import Equations
from circuitlab.solve.base import Iteration, Solver, gathered

LEAP = 10.0
"""A residual this many times above the sample's best restarts the sample from there."""
STALLED = 8
"""Iterations without a smaller residual, beyond those that the memory spans, after which it restarts as well."""
EXPECTED = 0.5
"""A sample is done when its last image, one sweep on, is expected within this share of the target: by how much its
residual shrank last. Plain steps, the published baseline, wait for the residual itself."""
RETREAT, SHORTEST = 0.5, 0.05
"""A sample that restarts (with a memory) goes on with shorter steps: this share of those before, down to the second."""
PROVED = 20
"""Iterations after which a memory that may grow does, once it is full: the first steps are the least linear, and long
memories of them lead astray."""


@dataclass(frozen=True)
class Anderson(Solver):
    """Anderson mixing of depth `depth`.

    Args:
        depth: differences remembered.
        damping: share of the fixed-point residual in the mix, to begin with.
        longest: differences that samples which have proved slow may come to remember, where more than `depth`.
    """

    depth: int = 4
    damping: float = 1.0
    longest: int = 0

    name = "anderson"

    def begin(self, equations: Equations, state: Tensor) -> Mixing:
        return Mixing(equations, state, self.depth, self.damping, self.longest)


class Mixing(Iteration):
    """Anderson mixing at work. The buffers are made once; an iteration allocates nothing.

    Args:
        depth: differences remembered, 0 for plain steps.
        damping: share of the fixed-point residual in the mix.
        longest: differences remembered from the first time on that the memory is full after `PROVED` iterations. Until
            then the room for them is not touched.
    """

    def __init__(
        self, equations: Equations, state: Tensor, depth: int, damping: float, longest: int = 0
    ) -> None:
        rows, samples = equations.mixed.stop, state.shape[1]
        self.edges = torch.tensor([0, *(b.stop for b in equations.blocks.values() if b.stop <= rows)])
        super().__init__(equations, state, len(self.edges) - 1)
        self.lag = equations.lag
        self.span, self.count = depth, 0
        depth = max(depth, longest) if depth else 0
        self.rows, self.depth, self.filled, self.place = rows, depth, 0, -1
        self.damping = self.norms.new_full((samples,), damping)
        self.image, self.origin = torch.empty_like(state), state.clone()
        history = (depth, rows, samples)
        self.images, self.residuals = state.new_zeros(history), state.new_zeros(history)
        self.last_image, self.last_residual = (
            state.new_zeros((rows if depth else 0, samples)) for _ in range(2)
        )
        self.gram = self.norms.new_zeros((len(self.norms), depth, depth, samples))
        self.right = self.norms.new_zeros((len(self.norms), depth, samples))
        self.fresh = torch.zeros(samples, dtype=torch.bool, device=state.device)
        self.ridge = torch.finfo(state.dtype).eps * 10
        if depth:
            self.limits = (LEAP, STALLED + self.span, EXPECTED)
        self.tiny = torch.finfo(state.dtype).tiny ** 0.5

    def judge(self) -> None:
        """Sweep, and take in the new state and residual."""
        self.equations.sweep(self.state, self.image)
        if self.place >= 0 and self.depth:
            self.filled = min(self.filled + 1, self.span)
        if loops.usable(self.state) and self.depth <= loops.DEEPEST:
            self._observe_compiled()
        else:
            self._observe()
        if self.equations.sizes is not None:
            self.norms[:, 1] = self.equations.sizes

    def advance(self, better: Tensor, trouble: Tensor) -> None:
        """Mix; a sample in trouble forgets its history and goes half as far from where its best image came from."""
        if loops.usable(self.state) and self.depth <= loops.DEEPEST:
            self._mix_compiled(better, trouble)
        else:
            self._mix(better, trouble)
        self.count += 1
        if self.depth:
            self._turn()

    def _turn(self) -> None:
        """Go on to the next place in the memory, which grows when it is full and the iteration has proved long."""
        self.place += 1
        if self.place == self.span < self.depth and self.count >= PROVED:
            self.span = self.depth
            self.limits = (self.limits[0], STALLED + self.span, self.limits[2])
        self.place %= self.span

    def keep(self, better: Tensor) -> None:
        torch.where(better, self.image, self.best, out=self.best)

    def select(self, keep: Tensor) -> None:
        super().select(keep)
        self.image, self.origin = gathered(self.image, keep), gathered(self.origin, keep)
        self.images, self.residuals = (self._kept(part, keep) for part in (self.images, self.residuals))
        self.last_image = gathered(self.last_image, keep)
        self.last_residual = gathered(self.last_residual, keep)
        self.gram, self.right = self.gram[..., keep], self.right[..., keep]
        self.fresh, self.damping = self.fresh[keep], self.damping[keep]

    def _kept(self, history: Tensor, keep: Tensor) -> Tensor:
        """Some of the samples of a history; what is not filled yet holds nothing to keep."""
        if self.filled == self.depth:
            return gathered(history, keep)
        shape = (self.depth, self.rows, len(keep))
        gathered(history[: self.filled], keep)
        return history.view(-1)[: shape[0] * shape[1] * shape[2]].view(shape)

    def _observe_compiled(self) -> None:
        parts = (self.state, self.image, self.last_image, self.last_residual, self.images, self.residuals)
        loops.call(
            "observe",
            self.state,
            self.state.shape[1],
            len(self.norms),
            self.edges.data_ptr(),
            *(tensor.data_ptr() for tensor in parts),
            self.depth,
            self.filled,
            self.place,
            *(tensor.data_ptr() for tensor in (self.fresh, self.norms, self.gram, self.right)),
        )

    def _mix_compiled(self, better: Tensor, trouble: Tensor) -> None:
        last = self.last_residual if self.depth else self.image
        parts = (self.state, self.image, self.best, self.origin, self.images, self.residuals, last)
        small = (self.gram, self.right, self.norms, better, trouble, self.fresh, self.damping)
        all_better = loops.call(
            "mix",
            self.state,
            self.rows,
            len(self.state),
            len(self.norms),
            self.state.shape[1],
            *(tensor.data_ptr() for tensor in parts),
            self.depth,
            self.filled,
            *(tensor.data_ptr() for tensor in small),
            self.ridge,
            self.tiny,
            RETREAT if self.depth else 1.0,
            SHORTEST,
        )
        if all_better:  # nothing was copied
            self.state, self.origin = self.origin, self.state
            self.best, self.image = self.image, self.best

    def _observe(self) -> None:
        state, image = self.state[: self.rows], self.image[: self.rows]
        residual = image - state
        blocks = [slice(int(a), int(b)) for a, b in zip(self.edges[:-1], self.edges[1:], strict=True)]
        for number, rows in enumerate(blocks):
            self.norms[number, 0] = residual[rows].square().sum(0)
            self.norms[number, 1] = image[rows].square().sum(0)
        if not self.depth:
            return
        if self.place >= 0:
            place, gone = self.place, torch.zeros((), dtype=state.dtype, device=state.device)
            torch.where(self.fresh, gone, image - self.last_image, out=self.images[place])
            torch.where(self.fresh, gone, residual - self.last_residual, out=self.residuals[place])
            for number, rows in enumerate(blocks):
                known, filled = self.residuals[: self.filled, rows], slice(0, self.filled)
                dots = (known * self.residuals[place, rows]).sum(1).double()
                self.gram[number, place, filled], self.gram[number, filled, place] = dots, dots
                self.right[number, filled] = (known * residual[rows]).sum(1)
        self.last_image.copy_(image)
        self.last_residual.copy_(residual)

    def _mix(self, better: Tensor, trouble: Tensor) -> None:
        if self.depth:
            shorter = torch.maximum(self.damping * RETREAT, self.damping.clamp(max=SHORTEST))
            torch.where(trouble, shorter, self.damping, out=self.damping)
        rest = slice(self.rows, None)
        torch.where(better, self.image[rest], self.best[rest], out=self.best[rest])
        torch.where(trouble, self.best[rest], self.image[rest], out=self.state[rest])
        self.fresh.copy_(trouble)
        state, image, best = self.state[: self.rows], self.image[: self.rows], self.best[: self.rows]
        origin = self.origin[: self.rows]
        torch.where(better, image, best, out=best)
        torch.where(better, state, origin, out=origin)
        damping = self.damping.to(state.dtype)
        mixed, rest = image.clone(), image - state
        gamma = self._weights().to(state.dtype) if self.filled else ()
        for weight, image_difference, difference in zip(gamma, self.images, self.residuals, strict=False):
            mixed -= weight * image_difference
            rest -= weight * difference
        mixed = torch.where(damping < 1, mixed - (1 - damping) * rest, mixed)
        torch.where(trouble, torch.lerp(origin, best, damping), mixed, out=state)
        if self.depth:
            for tensor in (self.images[: self.filled], self.residuals[: self.filled], self.gram):
                tensor.masked_fill_(trouble, 0)

    def _weights(self) -> Tensor:
        """gamma of the differences, [difference, sample]."""
        size, filled = self.norms[:, 1], slice(0, self.filled)
        weight = 1 / (size + 1e-8 * size.sum(0) + self.tiny)
        matrix = (weight[:, None, None] * self.gram[:, filled, filled]).sum(0).permute(2, 0, 1)
        right = (weight[:, None] * self.right[:, filled]).sum(0).t()
        length = torch.diagonal(matrix, dim1=1, dim2=2).sqrt()
        length = torch.where(length > 0, length, torch.ones_like(length))
        matrix = matrix / (length.unsqueeze(2) * length.unsqueeze(1))
        empty = torch.diagonal(matrix, dim1=1, dim2=2) < 0.5
        matrix = matrix + torch.diag_embed(self.ridge + empty.to(matrix.dtype))
        gamma = torch.linalg.solve_ex(matrix, (right / length).unsqueeze(2))[0].squeeze(2) / length
        finite = torch.isfinite(gamma).all(1, keepdim=True)
        return torch.where(finite, gamma, torch.zeros_like(gamma)).t()
