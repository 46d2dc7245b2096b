"""Weights as a product of two thin factors: the best approximation, the chain rule, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.compile.kernels import choose, compile_kernel
from circuitlab.compile.kernels.low_rank import LowRank
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Projection
from circuitlab.graph.weights import EXACT_SVD, factorise, of_rank
from tests.oracles.circuits import circuit, edges, population, projection, sparse

TARGETS, SOURCES, RANK = 7, 5, 2


def of_weights(weight: np.ndarray, rank: int = RANK) -> Projection:
    t, s = np.indices(weight.shape).reshape(2, -1)
    return replace(projection("p", "a", "b", edges(s, t, weight.ravel())), rank=rank)


def made(seed: int = 0) -> tuple[LowRank, np.ndarray]:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((TARGETS, RANK)) @ rng.standard_normal((RANK, SOURCES))
    kernel = compile_kernel(of_weights(weight), (TARGETS, SOURCES), torch.float64)
    assert isinstance(kernel, LowRank)
    return kernel, weight


def test_products_equal_those_of_the_whole_matrix() -> None:
    kernel, weight = made()
    assert kernel.name == "low_rank"
    assert kernel.values.shape == ((TARGETS + SOURCES) * RANK,)
    assert kernel.edge_values.numpy() == pytest.approx(weight.ravel(), abs=1e-12)
    for samples in (1, 4, 2, 0):
        x, y = (torch.randn(n, samples, dtype=torch.float64) for n in (SOURCES, TARGETS))
        out, back = torch.ones_like(y), torch.ones_like(x)
        kernel.add_product(x, out)
        kernel.add_transposed(y, back)
        assert out.numpy() == pytest.approx(1 + weight @ x.numpy(), abs=1e-12)
        assert back.numpy() == pytest.approx(1 + weight.T @ y.numpy(), abs=1e-12)


def test_the_update_is_the_gradient_on_the_factors() -> None:
    """Of sum over samples of post^T W pre, whose gradient on W is the outer product, by autograd."""
    kernel, _ = made()
    x, y = (torch.randn(n, 6, dtype=torch.float64) for n in (SOURCES, TARGETS))
    left, right = (part.clone().requires_grad_() for part in kernel.factors())
    (y * (left @ right.t() @ x)).sum().backward()
    assert left.grad is not None
    assert right.grad is not None
    expected = torch.cat([left.grad.flatten(), right.grad.flatten()])
    assert torch.allclose(kernel.outer(y, x), expected)
    buffer = torch.empty_like(expected)
    assert kernel.outer(y, x, out=buffer) is buffer
    assert torch.allclose(buffer, expected)


def test_scaling_scales_the_weights() -> None:
    kernel, weight = made()
    kernel.scale_(0.3)
    assert kernel.edge_values.numpy() == pytest.approx(0.3 * weight.ravel(), abs=1e-12)
    csr = compile_kernel(
        projection("p", "a", "b", sparse(np.random.default_rng(0), 4, 4, 0.4, 1.0)), (4, 4), torch.float64
    )
    before = csr.edge_values.clone()
    csr.scale_(0.3)
    assert torch.allclose(csr.edge_values, 0.3 * before)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (EXACT_SVD + 40, EXACT_SVD + 20)])
def test_the_factors_are_the_best_of_their_rank(shape: tuple[int, int]) -> None:
    """Eckart and Young: what is left has the norm of the singular values that were left out."""
    rng = np.random.default_rng(1)
    weight = (
        rng.standard_normal((shape[0], 12))
        @ np.diag(0.7 ** np.arange(12))
        @ rng.standard_normal((12, shape[1]))
    )
    left, right = factorise(weight, 3)
    assert left.shape == (shape[0], 3)
    assert right.shape == (shape[1], 3)
    values = np.linalg.svd(weight, compute_uv=False)
    rest = np.linalg.norm(weight - left @ right.T)
    assert rest == pytest.approx(np.linalg.norm(values[3:]), rel=1e-6)
    assert np.linalg.norm(left, axis=0) == pytest.approx(np.linalg.norm(right, axis=0))
    again = of_rank(weight.ravel(), *shape, 3)
    assert again.reshape(shape) == pytest.approx(left @ right.T, abs=1e-9)


def test_refuses_what_factors_cannot_be() -> None:
    with pytest.raises(
        CircuitError, match=r"^rank: the initial weights have rank 1, and factors that are zero never"
    ):
        of_rank(np.ones(12), 3, 4, 2)
    with pytest.raises(
        CircuitError, match=r"^rank: a product of two factors joins every source .* 12 pairs, but .* 11"
    ):
        of_rank(np.ones(11), 3, 4, 1)
    whole = of_weights(np.ones((3, 4)), rank=1)
    assert choose(whole, (3, 4)) == choose(replace(whole, kernel="low_rank"), (3, 4)) == "low_rank"
    with pytest.raises(
        CircuitError, match=r"^projections\.p\.kernel: csr cannot hold factors; allowed with a rank: auto"
    ):
        choose(replace(whole, kernel="csr"), (3, 4))
    with pytest.raises(CircuitError, match=r"^projections\.p\.kernel: low_rank needs a rank"):
        choose(replace(whole, rank=None, kernel="low_rank"), (3, 4))
    with pytest.raises(CircuitError, match="low_rank joins every source with every target"):
        compile_kernel(replace(whole, edges=edges([0], [0], [1.0])), (3, 4), torch.float32)


def test_a_compiled_circuit_keeps_what_the_graph_says() -> None:
    rng = np.random.default_rng(3)
    populations = [population("a", "input", SOURCES, activation="linear"), population("b", "output", TARGETS)]
    weight = rng.standard_normal((TARGETS, RANK)) @ rng.standard_normal((RANK, SOURCES))
    compiled = CompiledCircuit(circuit(populations, [of_weights(weight)]))
    assert compiled.kernels_used() == {"p": "low_rank"}
    assert compiled.weights["p"].shape == ((TARGETS + SOURCES) * RANK,)
    full = rng.standard_normal((TARGETS, SOURCES))
    with pytest.raises(
        CircuitError, match=r"^projections\.p\.rank: the weights of its edges are not of rank 2$"
    ):
        CompiledCircuit(circuit(populations, [of_weights(full)]))
    signed = [replace(populations[0], sign="excitatory"), populations[1]]
    with pytest.raises(CircuitError, match=r"^projections\.p\.rank: two factors cannot hold the sign"):
        CompiledCircuit(circuit(signed, [of_weights(np.abs(weight))]))
