"""The products of the package torch-sparse, an extra that nothing needs, behind the interface of every kernel."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

from circuitlab.compile.kernels.csr import Csr


def is_installed() -> bool:
    """Whether the package torch-sparse can be imported."""
    return importlib.util.find_spec("torch_sparse") is not None


class TorchSparse(Csr):
    """As `Csr`, with the two products by torch-sparse; the sampled outer product, which it lacks, is Csr's own."""

    name = "torch_sparse"

    def _forget(self) -> None:
        super()._forget()
        self._there: Any = None
        self._back: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_there": None, "_back": None}

    def refresh(self) -> None:
        super().refresh()
        if self._there is None:
            turned = (self.shape[1], self.shape[0])
            self._there = _sparse_tensor(self.rows, self.columns, self._edges, self.shape)
            self._back = _sparse_tensor(self.rows_back, self.columns_back, self._turned, turned)

    def add_product(self, rate: Tensor, out: Tensor) -> None:
        self.current()
        out.add_(_product(self._there, rate))

    def add_transposed(self, control: Tensor, out: Tensor) -> None:
        self.current()
        out.add_(_product(self._back, control))


def _sparse_tensor(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Any:
    """A SparseTensor that shares the values; its indices are int64."""
    import torch_sparse  # pyright: ignore[reportMissingImports]

    return torch_sparse.SparseTensor(
        rowptr=rows.to(torch.int64),
        col=columns.to(torch.int64),
        value=values,
        sparse_sizes=shape,
        is_sorted=True,
        trust_data=True,
    )


def _product(matrix: Any, activity: Tensor) -> Tensor:
    import torch_sparse  # pyright: ignore[reportMissingImports]

    return torch_sparse.matmul(matrix, activity.contiguous())
