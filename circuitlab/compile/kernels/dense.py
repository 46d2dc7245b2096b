"""Kernels without indices at run time: a dense block, and the elementwise product of one-to-one synapses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuitlab.compile.kernels.base import Kernel, Product
from circuitlab.graph.edges import Edges


class Dense(Kernel):
    """A dense block; where synapses are missing the block holds zeros that no update reaches."""

    name = "dense"
    place: Tensor
    block: Tensor

    def __init__(self, edges: Edges, shape: tuple[int, int], dtype: torch.dtype, plastic: bool) -> None:
        super().__init__(edges, shape, dtype, plastic)
        self.full = len(edges.weight) == shape[0] * shape[1]
        self._product: Tensor | None = None
        if not self.full:
            place = edges.target.astype(np.int64) * shape[1] + edges.source
            self.register_buffer("place", torch.as_tensor(place), persistent=False)
            self.register_buffer("block", torch.zeros(shape, dtype=dtype), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Dense:
        self._seen = self._product = None
        return super()._apply(fn, recurse)

    def refresh(self) -> None:
        if not self.full:
            self.block.view(-1).index_copy_(0, self.place, self.values.detach())

    def matrix(self) -> Tensor:
        self.current()
        return self.values.detach().view(self.shape) if self.full else self.block

    def add_product(self, rate: Tensor, out: Tensor) -> None:
        out.addmm_(self.matrix(), rate)

    def add_rows(self, rate: Tensor, targets: slice | Tensor, out: Tensor) -> None:
        if isinstance(targets, Tensor) and 2 * len(targets) > self.shape[0]:
            super().add_rows(rate, targets, out)  # a copy of most of the matrix costs more than the product
        else:
            out.addmm_(self.matrix()[targets], rate)

    def add_transposed(self, control: Tensor, out: Tensor) -> None:
        out.addmm_(self.matrix().t(), control)

    def product(self, turned: bool = False) -> Product:
        matrix = self.matrix().t() if turned else self.matrix()

        def product(x: Tensor, base: Tensor | None, out: Tensor) -> None:
            if base is None:
                torch.mm(matrix, x, out=out)
            else:
                torch.addmm(base, matrix, x, out=out)

        return product

    def outer(self, post: Tensor, pre: Tensor, out: Tensor | None = None) -> Tensor:
        out = torch.empty_like(self.values.detach()) if out is None else out
        if self.full:
            torch.mm(post, pre.t(), out=out.view(self.shape))
            return out
        if self._product is None:
            self._product = torch.empty_like(self.block)
        torch.mm(post, pre.t(), out=self._product)
        return torch.index_select(self._product.view(-1), 0, self.place, out=out)


class Diagonal(Kernel):
    """One-to-one synapses: an elementwise product."""

    name = "diagonal"

    def add_product(self, rate: Tensor, out: Tensor) -> None:
        out.addcmul_(self.values.detach().unsqueeze(1), rate)

    def add_transposed(self, control: Tensor, out: Tensor) -> None:
        self.add_product(control, out)

    def outer(self, post: Tensor, pre: Tensor, out: Tensor | None = None) -> Tensor:
        out = torch.empty_like(self.values.detach()) if out is None else out
        return torch.sum(post * pre, 1, out=out)
