"""Bounds of kernels by hand, and that what is timed computes what it should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from circuitlab.bench import kernels
from circuitlab.bench.circuits import random_batch, random_circuit, task_of
from circuitlab.bench.kernels import Case, Needs, make, needs, row, works
from circuitlab.bench.rates import Rates
from circuitlab.bench.step import controlled_equations, iterate, products

RATES = Rates(matrix=1e9, second=4e9, third=2e9, memory=1e9, second_bytes=1000, third_bytes=100_000)


def test_a_dense_product_is_bound_by_the_matrix_rate() -> None:
    [(kernel, _)] = make(Case(((20, 10),), 1.0, "dense", 8), 0)
    need = needs(8, [kernel], "product")
    # 2 * 200 * 8 operations; 200 weights, 10 x 8 read, 20 x 8 read and written, 4 bytes each
    assert need == Needs(3200.0, 4.0 * (200 + 80 + 320), 0.0, 0.0)
    assert need.bound(RATES) == (pytest.approx(3200 / 1e9), "matrix rate")


def test_a_sparse_product_reads_its_indices_and_gathers() -> None:
    [(kernel, drawn)] = make(Case(((30, 40),), 0.1, "csr", 8), 0)
    assert len(drawn) == 30 * 4
    product, outer = needs(8, [kernel], "product"), needs(8, [kernel], "outer")
    assert product.bytes_ == 4 * (120 + 8 * (2 * 30 + 40)) + 4 * (120 + 1 + 30)
    assert (product.gathered, product.state) == (4 * 8 * 120, 4 * 8 * 40)
    assert outer.bytes_ == 4 * (120 + 8 * (30 + 40)) + 4 * (120 + 1 + 30)
    assert needs(8, [kernel], "transposed").state == 4 * 8 * 30


@pytest.mark.parametrize(
    ("state", "name", "seconds"),
    [(1000.0, "bytes", 5000 / 2e9), (1001.0, "gathering", 9e5 / 2e9), (100_001.0, "bytes", 5000 / 2e9)],
)
def test_gathering_counts_where_the_state_is_in_the_third_cache(
    state: float, name: str, seconds: float
) -> None:
    assert Needs(10.0, 5000.0, 9e5, state).bound(RATES) == (pytest.approx(seconds), name)


def test_bytes_count_at_the_level_that_holds_them() -> None:
    assert [RATES.bandwidth(size) for size in (1000, 1001, 100_000, 100_001)] == [4e9, 2e9, 2e9, 1e9]


def test_a_row_by_hand() -> None:
    cells = row("k", {"own": [3e-3, 2e-3, 4e-3], "torch": [5e-3, 6e-3, 8e-3]}, 1e-3, "bytes")
    assert cells == [
        "k",
        pytest.approx(2),
        pytest.approx(3),
        pytest.approx(1),
        "bytes",
        2,
        pytest.approx(5),
        2.5,
    ]
    assert row("k", {"own": [2e-3]}, 1e-3, "bytes")[-2:] == [None, None]


@pytest.mark.parametrize(
    "case",
    [Case(((7, 5),), 1.0, "dense", 3), Case(((7, 5),), 0.4, "csr", 3), Case(((6, 6),), 1.0, "diagonal", 3)],
    ids=lambda case: case.kernel,
)
def test_both_compute_the_same_products(case: Case) -> None:
    made = make(case, 0)
    (kernel, drawn), found = made[0], works(case, made, 0)
    generator = torch.Generator().manual_seed(0)
    post, pre = (
        torch.randn(n, 3, generator=generator) for n in kernel.shape
    )  # what `works` draws from this seed
    matrix = np.zeros(kernel.shape)
    np.add.at(matrix, (drawn.target, drawn.source), drawn.weight)
    outer = (post @ pre.t()).numpy()[drawn.target, drawn.source]
    np.testing.assert_allclose(kernel.outer(post, pre).numpy(), outer, rtol=1e-4, atol=1e-5)
    for work in found.values():
        work["own"]()
    if case.kernel == "csr":
        # torch's work adds to the arrays that the kernel's has added to: after one call of each it stands there twice
        expected = {"product": 2 * (matrix @ pre.numpy()), "transposed": 2 * (matrix.T @ post.numpy())}
        for operation, twice in expected.items():
            done: Any = found[operation]["torch"]()
            np.testing.assert_allclose(done.numpy(), twice, rtol=1e-4, atol=1e-5)
        sampled: Any = found["outer"]["torch"]()
        np.testing.assert_allclose(sampled.values().numpy(), outer, rtol=1e-4, atol=1e-5)


def test_the_convolution_case_is_built() -> None:
    [(kernel, drawn)] = make(kernels.CASES["convolution, 16 of 5x5"], 0)
    # 16 maps of 24 x 24, each with a window of 5 x 5
    assert (kernel.name, len(drawn), kernel.values.numel()) == ("convolution", 16 * 24 * 24 * 25, 16 * 25)


def test_a_solve_of_a_given_number_of_iterations_is_just_that() -> None:
    task = task_of(random_circuit(12, 1.0, 0.9, 3, 0), 1.0, torch.float32)
    equations = controlled_equations(task, random_batch(task, 4, 1.0, 0))
    for method in ("fixed_point", "auto"):
        iterate(task, equations, method, 7)()
        # far beyond where float32 cannot tell two states apart any more
        iterate(task, equations, method, 128)()
    products(task, 4, 0)()
