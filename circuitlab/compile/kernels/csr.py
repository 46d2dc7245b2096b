"""Compressed sparse rows: by the compiled loops on a CPU that has them, else by torch's own sparse products."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sparse_matrices
import torch
from torch import Tensor

from circuitlab import native
from circuitlab.compile.kernels.base import Kernel
from circuitlab.errors import CircuitError
from circuitlab.graph.edges import LARGE, Edges
from circuitlab.native import sparse

BITS = {torch.float32: 32, torch.float64: 64}
"""Precisions that the compiled loops have."""


class Csr(Kernel):
    """Compressed sparse rows with int32 indices, and a stored transpose whose values are a permutation of theirs.

    The columns are the edges' own array of sources, shared and never written to. From `LARGE` synapses on the
    permutation is not stored.

    Weights shared by many edges (a convolution written out as edges) have one parameter for all of them.
    """

    name = "csr"
    rows: Tensor
    columns: Tensor
    rows_back: Tensor
    columns_back: Tensor
    back: Tensor | None
    index: Tensor

    def __init__(self, edges: Edges, shape: tuple[int, int], dtype: torch.dtype, plastic: bool) -> None:
        super().__init__(edges, shape, dtype, plastic)
        if len(edges.source) >= 2**31:
            raise CircuitError(
                f"a projection of {len(edges.source):,} synapses is more than int32 indices can number"
            )
        columns = edges.source.astype(np.int32, copy=False)
        columns = columns if columns.flags.writeable else columns.copy()
        self.borrowed = columns.nbytes if columns is edges.source else 0
        rows = edges.pointers(shape[0]).astype(np.int32)
        order = np.arange(len(edges), dtype=np.int32)
        turned = sparse_matrices.csr_array((order, columns, rows), shape=shape).tocsc()
        for name, array in (
            ("rows", rows),
            ("columns", columns),
            ("rows_back", turned.indptr.astype(np.int32, copy=False)),
            ("columns_back", turned.indices.astype(np.int32, copy=False)),
            ("back", None if len(edges) >= LARGE else turned.data),
        ):
            self.register_buffer(name, None if array is None else torch.as_tensor(array), persistent=False)
        self.shared = edges.parameter_index is not None
        if self.shared:
            self.register_buffer("index", torch.as_tensor(edges.parameter_index), persistent=False)
        self._forget()

    def _forget(self) -> None:
        """Drop what stands on the present storage; the next product makes it anew."""
        self._seen = self._built_on = None
        self._edges = self._turned = torch.empty(0)
        self._forward: _Half | None = None
        self._backward: _Half | None = None
        self._update: Tensor | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        empty = torch.empty(0)
        own = dict(_edges=empty, _turned=empty, _forward=None, _backward=None, _update=None)
        return {**self.__dict__, **own}

    def _apply(self, fn: Any, recurse: bool = True) -> Csr:
        self._forget()
        return super()._apply(fn, recurse)

    @property
    def edge_values(self) -> Tensor:
        return self.values.detach()[self.index] if self.shared else self.values.detach()

    def refresh(self) -> None:
        values = self.values.detach()
        if self._built_on != values.data_ptr():
            self._forget()
            self._edges = torch.empty_like(self.columns, dtype=values.dtype) if self.shared else values
            self._turned = torch.empty_like(self._edges)
            turned = (self.shape[1], self.shape[0])
            self._forward = _Half(self.rows, self.columns, self._edges, self.shape)
            self._backward = _Half(self.rows_back, self.columns_back, self._turned, turned)
            self._built_on = values.data_ptr()
        if self.shared:
            torch.index_select(values, 0, self.index, out=self._edges)
        self._turn()

    def _turn(self) -> None:
        """Bring the values of the transpose up to date: by the stored permutation, or, where many synapses leave no
        memory for one, by sorting them into columns anew."""
        if self.back is None and self.columns.device.type == "cpu" and self._edges.dtype in BITS:
            parts = (self._edges.numpy(), self.columns.numpy(), self.rows.numpy())
            self._turned.copy_(
                torch.as_tensor(sparse_matrices.csr_array(parts, shape=self.shape).tocsc().data)
            )
            return
        if self.back is None:
            self.back = torch.argsort(self.columns, stable=True)
        torch.index_select(self._edges, 0, self.back, out=self._turned)

    def add_product(self, rate: Tensor, out: Tensor) -> None:
        self.current()
        assert self._forward is not None
        self._forward.add(rate, out)

    def add_transposed(self, control: Tensor, out: Tensor) -> None:
        self.current()
        assert self._backward is not None
        self._backward.add(control, out)

    def outer(self, post: Tensor, pre: Tensor, out: Tensor | None = None) -> Tensor:
        self.current()
        assert self._forward is not None
        out = torch.empty_like(self.values.detach()) if out is None else out
        if not self.shared:
            self._forward.outer(post, pre, out)
            return out
        if self._update is None:
            self._update = torch.empty_like(self._edges)
        self._forward.outer(post, pre, self._update)
        return out.zero_().index_add_(0, self.index, self._update)


class _Half:
    """The matrix or its transpose, standing on the kernel's own tensors.

    Args:
        rows: int32 [row + 1]. columns: int32 [edge]. values: [edge]. shape: (rows, columns).
    """

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> None:
        self.rows, self.columns, self.values, self.shape = rows, columns, values, shape
        self.bits = BITS.get(values.dtype, 0) if values.device.type == "cpu" else 0
        self.indices = rows.data_ptr(), columns.data_ptr()
        self._sparse: Tensor | None = None

    @property
    def sparse(self) -> Tensor:
        """The same as a tensor of torch's, sharing the values."""
        if self._sparse is None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
                self._sparse = torch.sparse_csr_tensor(
                    self.rows, self.columns, self.values, self.shape, check_invariants=False
                )
        return self._sparse

    def _is_native(self, left: Tensor, right: Tensor) -> bool:
        """Whether the compiled loops can take [row, sample] and [column, sample]; torch says what is wrong with
        tensors that fit neither."""
        return (
            self.bits > 0
            and left.dtype == right.dtype == self.values.dtype
            and left.device.type == right.device.type == "cpu"
            and left.dim() == right.dim() == 2
            and (left.shape[0], right.shape[0]) == self.shape
            and left.shape[1] == right.shape[1]
            and native.available()
        )

    def add(self, x: Tensor, out: Tensor) -> None:
        """out += M x."""
        if not self._is_native(out, x) or not _side_by_side(out):
            torch.addmm(out, self.sparse, x, out=out)
            return
        x = x if _side_by_side(x) else x.contiguous()
        sparse.adder(self.bits)(
            *self.indices,
            self.values.data_ptr(),
            *self.shape,
            x.data_ptr(),
            x.stride(0),
            out.data_ptr(),
            out.stride(0),
            x.shape[1],
            torch.get_num_threads(),
        )

    def outer(self, post: Tensor, pre: Tensor, out: Tensor) -> None:
        """out [edge] = sum over samples of post pre."""
        if not (
            self._is_native(post, pre)
            and out.is_contiguous()
            and out.dtype == self.values.dtype
            and out.shape == self.values.shape
            and out.device.type == "cpu"
        ):
            found = torch.sparse.sampled_addmm(self.sparse, post.contiguous(), pre.t(), beta=0.0)
            out.copy_(found.values())
            return
        post = post if _side_by_side(post) else post.contiguous()
        pre = pre if _side_by_side(pre) else pre.contiguous()
        sparse.outer(self.bits)(
            *self.indices,
            *self.shape,
            post.data_ptr(),
            post.stride(0),
            pre.data_ptr(),
            pre.stride(0),
            out.data_ptr(),
            post.shape[1],
            0,
            torch.get_num_threads(),
        )


def _side_by_side(activity: Tensor) -> bool:
    """Whether the samples of a unit lie side by side in memory."""
    return activity.stride(1) == 1 or activity.shape[1] <= 1
