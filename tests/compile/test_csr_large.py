"""Large projections store no permutation: their transpose is sorted anew after every change, to the same bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.compile.kernels import csr
from circuitlab.compile.kernels.csr import Csr
from circuitlab.report.memory import stored_bytes
from tests.oracles.circuits import edges

SHAPE = (23, 17)


def drawn(shared: bool):
    rng = np.random.default_rng(3)
    target, source = np.nonzero(rng.random(SHAPE) < 0.3)
    made = edges(source, target, rng.standard_normal(len(source)))
    if not shared:
        return made
    parameters = rng.standard_normal(5)
    index = rng.integers(5, size=len(made))
    return replace(made, weight=parameters[index], parameter_index=index, parameters=parameters)


def dense(kernel: Csr, made) -> np.ndarray:
    matrix = np.zeros(SHAPE)
    matrix[made.target, made.source] = kernel.edge_values.double().numpy()
    return matrix


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sorted_by", ["scipy", "torch"])
def test_the_transpose_follows_the_values(
    shared: bool, dtype: torch.dtype, sorted_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By either way to sort; torch's is for devices and precisions that scipy does not have."""
    made = drawn(shared)
    plain = Csr(made, SHAPE, dtype, True)
    monkeypatch.setattr(csr, "LARGE", 1)
    if sorted_by == "torch":
        monkeypatch.setattr(csr, "BITS", {})
    large = Csr(made, SHAPE, dtype, True)
    assert plain.back is not None
    assert large.back is None
    control = torch.as_tensor(np.random.default_rng(0).standard_normal((SHAPE[0], 6)), dtype=dtype)
    for factor in (1.0, -0.5):
        for kernel in (plain, large):
            with torch.no_grad():
                kernel.values.mul_(factor)
        out = [torch.zeros(SHAPE[1], 6, dtype=dtype) for _ in range(2)]
        plain.add_transposed(control, out[0])
        large.add_transposed(control, out[1])
        assert torch.equal(plain._turned, large._turned)
        expected = dense(large, made).T @ control.double().numpy()
        np.testing.assert_allclose(out[1].double().numpy(), expected, rtol=1e-5, atol=1e-5)
    assert (large.back is None) == (sorted_by == "scipy")


def test_columns_are_the_graphs_own() -> None:
    made = drawn(False)
    kernel = Csr(made, SHAPE, torch.float32, True)
    assert kernel.columns.data_ptr() == made.source.ctypes.data
    assert kernel.borrowed == made.source.nbytes
    before = made.source.copy()
    frozen = made.source.copy()
    frozen.flags.writeable = False
    other = Csr(replace(made, source=frozen), SHAPE, torch.float32, True)
    assert other.borrowed == 0
    assert stored_bytes(other) == stored_bytes(kernel) + frozen.nbytes
    with torch.no_grad():
        kernel.values.add_(1)
    kernel.add_transposed(torch.ones(SHAPE[0], 1), torch.zeros(SHAPE[1], 1))
    assert np.array_equal(made.source, before)
    assert not np.shares_memory(kernel.values.detach().numpy(), made.weight)
