"""The extra kernel over a stand-in for torch-sparse, written from its documented interface, and its refusal.

The stand-in keeps what the kernel relies on: a SparseTensor of int64 pointers and columns that shares its values, and
`matmul` on contiguous activity. It says nothing about the package's own arithmetic or speed.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest
import torch

from circuitlab.compile.kernels import compile_kernel
from circuitlab.errors import CircuitError
from tests.oracles.circuits import projection, sparse

PROJECTION = projection(
    "p", "a", "b", sparse(np.random.default_rng(0), 6, 8, 0.4, 1.0), kernel="torch_sparse"
)


class SparseTensor:
    """Rows by pointers; values shared with the caller."""

    def __init__(self, rowptr, col, value, sparse_sizes, is_sorted, trust_data) -> None:
        assert rowptr.dtype == col.dtype == torch.int64
        assert len(rowptr) == sparse_sizes[0] + 1
        assert is_sorted
        assert trust_data
        self.rowptr, self.col, self.value, self.sizes = rowptr, col, value, sparse_sizes


def matmul(matrix: SparseTensor, activity: torch.Tensor) -> torch.Tensor:
    assert activity.is_contiguous()
    dense = torch.zeros(matrix.sizes, dtype=activity.dtype)
    rows = torch.repeat_interleave(torch.arange(matrix.sizes[0]), matrix.rowptr.diff())
    dense[rows, matrix.col] = matrix.value
    return dense @ activity


def test_products_and_updates_equal_a_dense_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torch_sparse")
    module.__spec__ = ModuleSpec("torch_sparse", None)
    module.SparseTensor, module.matmul = SparseTensor, matmul  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_sparse", module)
    kernel = compile_kernel(PROJECTION, (6, 8), torch.float64)
    assert kernel.name == "torch_sparse"
    e = PROJECTION.edges
    for factor in (1.0, -0.5):
        with torch.no_grad():
            kernel.values.mul_(factor)
        weight = torch.zeros(6, 8, dtype=torch.float64)
        weight[e.target, e.source] = kernel.values.detach()
        x, y = (torch.randn(3, n, dtype=torch.float64).t() for n in (8, 6))
        out, back = torch.ones(6, 3, dtype=torch.float64), torch.ones(8, 3, dtype=torch.float64)
        kernel.add_product(x, out)
        kernel.add_transposed(y, back)
        assert torch.allclose(out, 1 + weight @ x)
        assert torch.allclose(back, 1 + weight.t() @ y)
        assert torch.allclose(kernel.outer(y, x), (y @ x.t())[e.target, e.source])
    kernel.to(torch.float32)
    out = torch.zeros(6, 3)
    kernel.add_product(x.float(), out)
    assert torch.allclose(out, (weight @ x).float(), atol=1e-5)


def test_is_refused_where_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitlab.compile.kernels.selection.is_installed", lambda: False)
    with pytest.raises(CircuitError) as error:
        compile_kernel(PROJECTION, (6, 8), torch.float32)
    assert str(error.value) == (
        "projections.p.kernel: the package torch-sparse is not installed (pip install 'circuitlab[torch-sparse]'); "
        "allowed without it: csr, dense"
    )
