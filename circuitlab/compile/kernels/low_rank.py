"""Weights that are a product of two thin factors: two thin products in place of one large one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from circuitlab.compile.kernels.base import Kernel
from circuitlab.errors import CircuitError
from circuitlab.graph.edges import Edges
from circuitlab.graph.weights import factorise


class LowRank(Kernel):
    """W = A B^T with A [target, rank] and B [source, rank]; the parameter is A, then B, both flat.

    The factors start from the best approximation of the edges' weights by the rank. Their update is the chain rule
    of the update dW = psi s^T of the weights: dA = dW B = psi (B^T s)^T and dB = dW^T A = s (A^T psi)^T.

    Raises:
        CircuitError: some pair has no synapse.
    """

    name = "low_rank"

    def __init__(
        self, edges: Edges, shape: tuple[int, int], dtype: torch.dtype, plastic: bool, rank: int
    ) -> None:
        super().__init__(edges, shape, dtype, plastic)
        if len(edges.weight) != shape[0] * shape[1] or edges.parameters is not None:
            raise CircuitError(
                "low_rank joins every source with every target, each pair by a weight of its own"
            )
        self.rank = rank
        left, right = (torch.as_tensor(part.copy()) for part in factorise(edges.weight.reshape(shape), rank))
        self.values.data = torch.cat([left.flatten(), right.flatten()]).to(dtype)
        self._thin: Tensor | None = None

    def _apply(self, fn: Any, recurse: bool = True) -> LowRank:
        self._thin = None
        return super()._apply(fn, recurse)

    def _split(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        cut = self.shape[0] * self.rank
        return flat[:cut].view(self.shape[0], self.rank), flat[cut:].view(self.shape[1], self.rank)

    def factors(self) -> tuple[Tensor, Tensor]:
        """A [target, rank] and B [source, rank], as views of the parameter."""
        return self._split(self.values.detach())

    def _project(self, factor: Tensor, activity: Tensor) -> Tensor:
        """factor^T activity, [rank, sample], in the kernel's work space."""
        samples = activity.shape[1]
        if self._thin is None or self._thin.shape[1] != samples:
            self._thin = torch.empty(self.rank, samples, dtype=factor.dtype, device=factor.device)
        return torch.mm(factor.t(), activity, out=self._thin)

    def add_product(self, rate: Tensor, out: Tensor) -> None:
        left, right = self.factors()
        out.addmm_(left, self._project(right, rate))

    def add_transposed(self, control: Tensor, out: Tensor) -> None:
        left, right = self.factors()
        out.addmm_(right, self._project(left, control))

    def outer(self, post: Tensor, pre: Tensor, out: Tensor | None = None) -> Tensor:
        left, right = self.factors()
        out = torch.empty_like(self.values.detach()) if out is None else out
        for_left, for_right = self._split(out)
        torch.mm(post, self._project(right, pre).t(), out=for_left)
        torch.mm(pre, self._project(left, post).t(), out=for_right)
        return out

    @torch.no_grad()
    def scale_(self, factor: float) -> None:
        self.values.mul_(factor**0.5)

    @property
    def edge_values(self) -> Tensor:
        left, right = self.factors()
        return (left @ right.t()).flatten()
