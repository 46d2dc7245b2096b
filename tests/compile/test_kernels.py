"""Every kernel against a dense numpy matrix, before and after its values change in every way that torch knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab import native
from circuitlab.compile.kernels import Kernel, choose, compile_kernel, dense_from
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Projection
from circuitlab.graph.edges import Edges
from tests.oracles.circuits import edges, projection, sparse
from tests.oracles.images import IMAGES, convolution


@pytest.fixture(params=["native", "torch"], autouse=True)
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test here runs over the compiled loops and over torch's own products."""
    if request.param == "native":
        yield "native"
        return
    with native.disabled():
        yield "torch"


def shared(rng: np.random.Generator) -> Edges:
    e = sparse(rng, 6, 7, 0.4, 1.0)
    parameters, index = rng.standard_normal(4), rng.integers(4, size=len(e))
    return replace(e, weight=parameters[index], parameters=parameters, parameter_index=index)


def cases() -> dict[str, tuple[Projection, tuple[int, int]]]:
    rng = np.random.default_rng(0)
    one_to_one = edges(np.arange(5), np.arange(5), rng.standard_normal(5))
    found = {
        "dense full": (projection("p", "a", "b", sparse(rng, 5, 4, 1.1, 1.0), kernel="dense"), (5, 4)),
        "dense with holes": (projection("p", "a", "b", sparse(rng, 5, 4, 0.5, 1.0), kernel="dense"), (5, 4)),
        "csr": (projection("p", "a", "b", sparse(rng, 7, 9, 0.2, 1.0), kernel="csr"), (7, 9)),
        "csr full": (projection("p", "a", "b", sparse(rng, 4, 3, 1.1, 1.0), kernel="csr"), (4, 3)),
        "csr shared": (projection("p", "a", "b", shared(rng), kernel="csr"), (6, 7)),
        "csr without synapses": (projection("p", "a", "b", edges([], [], []), kernel="csr"), (3, 4)),
        "diagonal": (projection("p", "a", "b", one_to_one, kernel="diagonal"), (5, 5)),
    }
    for name, image in IMAGES.items():
        conv, shape = convolution(*image)
        found[f"convolution, {name}"] = (conv, shape)
        found[f"convolution as csr, {name}"] = (replace(conv, kernel="csr"), shape)
    return found


CASES = cases()
every_kernel = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def twin(kernel: Kernel, p: Projection, shape: tuple[int, int]) -> np.ndarray:
    """The matrix that the kernel's present values mean."""
    values = kernel.values.detach().double().numpy()
    index = p.edges.parameter_index
    matrix = np.zeros(shape)
    matrix[p.edges.target, p.edges.source] = values if index is None else values[index]
    return matrix


def check(
    kernel: Kernel, p: Projection, shape: tuple[int, int], tolerance: float = 1e-12, samples: int = 3
) -> None:
    rng = np.random.default_rng(7)
    dtype = kernel.values.dtype
    matrix = twin(kernel, p, shape)
    pre, post = rng.standard_normal((shape[1], samples)), rng.standard_normal((shape[0], samples))
    before, behind = rng.standard_normal(post.shape), rng.standard_normal(pre.shape)

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.tensor(array, dtype=dtype)

    out = tensor(before)
    kernel.add_product(tensor(pre), out)
    assert out.double().numpy() == pytest.approx(before + matrix @ pre, abs=tolerance)
    back = tensor(behind)
    kernel.add_transposed(tensor(post), back)
    assert back.double().numpy() == pytest.approx(behind + matrix.T @ post, abs=tolerance)
    for turned, x, base, m in ((False, pre, before, matrix), (True, post, behind, matrix.T)):
        product, given, out = kernel.product(turned), tensor(base), tensor(np.full(base.shape, np.nan))
        product(tensor(x), given, out)
        assert out.double().numpy() == pytest.approx(base + m @ x, abs=tolerance)
        assert torch.equal(given, tensor(base))
        product(tensor(x), out, out)
        assert out.double().numpy() == pytest.approx(base + 2 * m @ x, abs=2 * tolerance)
        out.fill_(torch.nan)
        product(tensor(x), None, out)
        assert out.double().numpy() == pytest.approx(m @ x, abs=tolerance)
    per_edge = (post @ pre.T)[p.edges.target, p.edges.source]
    if p.edges.parameters is None or p.edges.parameter_index is None:
        expected = per_edge
    else:
        expected = np.bincount(p.edges.parameter_index, per_edge, len(p.edges.parameters))
    assert kernel.outer(tensor(post), tensor(pre)).double().numpy() == pytest.approx(
        expected, abs=10 * tolerance
    )
    assert kernel.edge_values.double().numpy() == pytest.approx(
        matrix[p.edges.target, p.edges.source], abs=tolerance
    )


def compiled(case: tuple[Projection, tuple[int, int]], dtype: torch.dtype = torch.float64) -> Kernel:
    return compile_kernel(case[0], case[1], dtype)


@every_kernel
def test_products_equal_a_dense_matrix(case) -> None:
    kernel = compiled(case)
    assert kernel.name == case[0].kernel
    assert twin(kernel, *case)[case[0].edges.target, case[0].edges.source] == pytest.approx(
        case[0].edges.weight
    )
    check(kernel, *case)
    check(kernel, *case)
    check(kernel, *case, samples=1)


@every_kernel
def test_no_samples_give_no_update(case) -> None:
    """The mean over no usable sample is asked for when none converged."""
    kernel = compiled(case)
    update = kernel.outer(torch.zeros(case[1][0], 0).double(), torch.zeros(case[1][1], 0).double())
    assert update.shape == kernel.values.shape
    assert (update == 0).all()


@every_kernel
def test_rows_of_a_larger_state_and_transposed_inputs(case) -> None:
    """The compiled circuit hands in rows of its state; a user may hand in a transposed view."""
    kernel, (targets, sources) = compiled(case), case[1]
    matrix = twin(kernel, *case)
    rng = np.random.default_rng(3)
    pre, post = (
        torch.tensor(rng.standard_normal((2, sources))),
        torch.tensor(rng.standard_normal((2, targets))),
    )
    state = torch.ones(targets + 4, 2, dtype=torch.float64)
    kernel.add_product(pre.t(), state[2 : 2 + targets])
    assert state[2:-2].numpy() == pytest.approx(1 + matrix @ pre.numpy().T, abs=1e-12)
    assert (state[:2] == 1).all()
    assert (state[-2:] == 1).all()
    state = torch.ones(sources + 4, 2, dtype=torch.float64)
    kernel.add_transposed(post.t(), state[2 : 2 + sources])
    assert state[2:-2].numpy() == pytest.approx(1 + matrix.T @ post.numpy().T, abs=1e-12)
    expected = kernel.outer(post.t().contiguous(), pre.t().contiguous())
    assert torch.allclose(kernel.outer(post.t(), pre.t()), expected)


@every_kernel
def test_follows_values_written_in_place(case) -> None:
    kernel = compiled(case)
    check(kernel, *case)
    for factor in (-2.0, 0.3):
        with torch.no_grad():
            kernel.values.mul_(factor)
        check(kernel, *case)
    with torch.no_grad():
        kernel.values[: len(kernel.values) // 2] += 1
    check(kernel, *case)


@every_kernel
def test_follows_a_loaded_state(case) -> None:
    kernel, other = compiled(case), compiled(case)
    with torch.no_grad():
        other.values.add_(0.7)
    check(kernel, *case)
    kernel.load_state_dict(other.state_dict())
    assert torch.equal(kernel.values, other.values)
    check(kernel, *case)
    with torch.no_grad():
        other.values.mul_(-1)
    kernel.load_state_dict(other.state_dict(), assign=True)
    check(kernel, *case)
    assert set(kernel.state_dict()) == {"values"}


@every_kernel
def test_follows_changes_of_precision(case) -> None:
    kernel = compiled(case, torch.float32)
    check(kernel, *case, tolerance=1e-5)
    kernel.to(torch.float64)
    with torch.no_grad():
        kernel.values.add_(1e-9)
    check(kernel, *case)
    kernel.to(torch.float32)
    check(kernel, *case, tolerance=1e-5)
    kernel.to(torch.float64)
    with torch.no_grad():
        kernel.values.mul_(3)
    kernel.to(torch.float32).to(torch.float64)
    check(kernel, *case)


@every_kernel
@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.1, foreach=False),
        lambda p: torch.optim.Adam(p, lr=0.1, foreach=True),
        lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
        lambda p: torch.optim.Rprop(p, lr=0.1),
    ],
    ids=["sgd", "adam", "adam, foreach", "adamw, fused", "rprop"],
)
def test_follows_optimizer_steps(case, make) -> None:
    kernel = compiled(case)
    optimizer = make([kernel.values])
    check(kernel, *case)
    for _ in range(2):
        before = kernel.values.detach().clone()
        kernel.values.grad = torch.ones_like(kernel.values)
        optimizer.step()
        assert not (kernel.values == before).any()
        check(kernel, *case)


def test_native_convolution_equals_its_edges_and_torch() -> None:
    for image in IMAGES.values():
        p, shape = convolution(*image)
        native, as_csr = (
            compile_kernel(replace(p, kernel=k), shape, torch.float64) for k in ("convolution", "csr")
        )
        x = torch.randn(shape[1], 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        out = [torch.zeros(shape[0], 2, dtype=torch.float64) for _ in range(2)]
        native.add_product(x, out[0])
        as_csr.add_product(x, out[1])
        in_shape, channels, kernel, stride, padding = image
        weight = native.values.detach().view(channels, in_shape[0], *kernel)
        direct = torch.nn.functional.conv2d(
            x.t().reshape(2, *in_shape), weight, stride=stride, padding=padding
        )
        assert torch.allclose(out[0], out[1])
        assert torch.allclose(out[0], direct.flatten(1).t())


def test_indices_are_int32() -> None:
    kernel = compiled(CASES["csr"])
    for name in ("rows", "columns", "rows_back", "columns_back"):
        assert getattr(kernel, name).dtype == torch.int32


def test_values_follow_the_order_of_the_edges() -> None:
    for name, case in CASES.items():
        initial = case[0].edges.weight if case[0].edges.parameters is None else case[0].edges.parameters
        assert compiled(case).values.detach().numpy() == pytest.approx(initial), name


def test_frozen_projections_have_frozen_values() -> None:
    for case in CASES.values():
        assert compiled(case).values.requires_grad
        assert not compile_kernel(
            replace(case[0], plastic=False), case[1], torch.float64
        ).values.requires_grad


def test_the_kernel_is_chosen_by_structure_and_density() -> None:
    shape = (4, 5)
    cells = [(s, t) for t in range(4) for s in range(5)]

    def of(count: int) -> Edges:
        s, t = np.array(cells[:count]).T
        return edges(s, t, np.ones(count))

    enough = round(dense_from() * 20)
    assert choose(projection("p", "a", "b", of(enough)), shape) == "dense"
    assert choose(projection("p", "a", "b", of(enough - 1)), shape) == "csr"
    straight = edges(range(4), range(4), np.ones(4))
    assert choose(projection("p", "a", "b", straight), (4, 4)) == "diagonal"
    assert choose(projection("p", "a", "b", straight), (4, 8)) == "csr"
    crossed = edges([1, 0, 2, 3], range(4), np.ones(4))
    assert choose(projection("p", "a", "b", crossed), (4, 4)) == ("csr" if native.available() else "dense")
    conv, image = convolution(*IMAGES["plain"])
    assert choose(replace(conv, kernel="auto"), image) == "convolution"
    assert choose(replace(conv, kernel="auto", geometry=None), image) == "csr"
    pooled = replace(conv, edges=replace(conv.edges, parameters=None, parameter_index=None), kernel="auto")
    assert choose(pooled, image) in ("csr", "dense")
    for kernel in ("dense", "csr", "diagonal"):
        assert choose(projection("p", "a", "b", straight, kernel=kernel), (4, 4)) == kernel


@pytest.mark.parametrize(
    ("kernel", "case", "message"),
    [
        (
            "diagonal",
            "csr",
            "projections.p.kernel: diagonal needs exactly the synapses i -> i; allowed here: csr, dense",
        ),
        (
            "convolution",
            "csr",
            "projections.p.kernel: convolution needs connect: {rule: convolution}; allowed here: csr, dense",
        ),
        (
            "dense",
            "csr shared",
            "projections.p.kernel: dense cannot share weights; allowed here: convolution, csr",
        ),
    ],
)
def test_refuses_a_kernel_that_does_not_fit(kernel: str, case: str, message: str) -> None:
    p, shape = CASES[case]
    with pytest.raises(CircuitError) as error:
        compile_kernel(replace(p, kernel=kernel), shape, torch.float32)
    assert str(error.value) == message


def test_pooling_has_fixed_shapes_but_weights_of_its_own() -> None:
    """Pooling has a geometry but no shared parameter: it cannot run as a native convolution."""
    conv, shape = convolution(*IMAGES["plain"])
    pooled = replace(conv, edges=replace(conv.edges, parameters=None, parameter_index=None))
    with pytest.raises(CircuitError, match=r"projections\.p\.kernel: convolution needs"):
        compile_kernel(pooled, shape, torch.float32)
