"""The CSR kernel at every width of a batch, over both of its paths, and what it allocates."""

from __future__ import annotations

import copy
import io
import shutil
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from scipy import sparse as scipy_sparse

from circuitlab import native
from circuitlab.compile.kernels import Kernel, compile_kernel
from circuitlab.graph.edges import Edges
from tests.oracles.circuits import edges, projection
from tests.oracles.images import IMAGES, convolution

TARGETS, SOURCES = 23, 31
WIDTHS = [*range(36), 40, 47, 48, 49, 63, 64, 65, 70, 79, 80, 81, 95, 128, 129, 200]


@pytest.fixture(params=["native", "torch"], autouse=True)
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test here runs over the compiled loops and over torch's own products."""
    if request.param == "native":
        yield "native"
        return
    with native.disabled():
        yield "torch"


def irregular(seed: int = 0, targets: int = TARGETS, sources: int = SOURCES) -> Edges:
    """Rows of very different lengths: full ones, empty ones at both ends and between, and some with one edge."""
    rng = np.random.default_rng(seed)
    mask = rng.random((targets, sources)) < rng.random((targets, 1)) ** 2
    mask[[0, 5, 6, targets - 1]] = False
    mask[3], mask[:, 7] = True, False
    mask[8], mask[8, 2] = False, True
    t, s = np.nonzero(mask)
    return edges(s, t, rng.standard_normal(len(t)))


def csr(e: Edges, dtype: torch.dtype, shape: tuple[int, int] = (TARGETS, SOURCES)) -> Kernel:
    return compile_kernel(projection("p", "a", "b", e, kernel="csr"), shape, dtype)


def matrix(e: Edges, shape: tuple[int, int] = (TARGETS, SOURCES)) -> np.ndarray:
    return scipy_sparse.coo_array((e.weight, (e.target, e.source)), shape=shape).toarray()


@pytest.mark.compiled
def test_the_compiled_loops_are_there_where_a_compiler_is(path: str) -> None:
    if path == "native":
        assert native.available() or not shutil.which("c++"), native.reason()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_number_of_samples(dtype: torch.dtype) -> None:
    """Against numpy in float64, with rounding of at most 4 eps per term of a sum."""
    rng, e = np.random.default_rng(1), irregular()
    kernel, w = (
        csr(e, dtype),
        matrix(e).astype(np.float32 if dtype == torch.float32 else np.float64).astype(float),
    )
    eps = torch.finfo(dtype).eps
    for samples in WIDTHS:
        x, y = (torch.tensor(rng.standard_normal((n, samples)), dtype=dtype) for n in (SOURCES, TARGETS))
        before, behind = torch.randn_like(y), torch.randn_like(x)
        out, back = before.clone(), behind.clone()
        kernel.add_product(x, out)
        kernel.add_transposed(y, back)
        xd, yd = x.double().numpy(), y.double().numpy()
        size = np.abs(before.double().numpy()) + np.abs(w) @ np.abs(xd)
        assert (
            np.abs(out.double().numpy() - (before.double().numpy() + w @ xd)) <= 4 * eps * size * 32
        ).all()
        size = np.abs(behind.double().numpy()) + np.abs(w.T) @ np.abs(yd)
        assert (
            np.abs(back.double().numpy() - (behind.double().numpy() + w.T @ yd)) <= 4 * eps * size * 32
        ).all()
        update = kernel.outer(y, x).double().numpy()
        expected, size = ((a @ b.T)[e.target, e.source] for a, b in ((yd, xd), (np.abs(yd), np.abs(xd))))
        assert (np.abs(update - expected) <= 4 * eps * size * max(samples, 1)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("samples", [1, 2, 3, 5, 8, 11, 16, 19, 33, 64, 70])
def test_slices_of_larger_buffers_leave_the_rest_alone(dtype: torch.dtype, samples: int) -> None:
    """Rows and samples cut out of larger states: what lies around them is neither read nor written."""
    e = irregular()
    kernel, w = csr(e, dtype), torch.tensor(matrix(e), dtype=dtype)
    generator = torch.Generator().manual_seed(samples)
    margin = float("nan")
    states = []
    for units in (SOURCES, TARGETS):
        state = torch.full((units + 4, samples + 7), margin, dtype=dtype)
        state[2:-2, 3:-4] = torch.randn(units, samples, generator=generator, dtype=dtype)
        states.append(state)
    (x, y), (around_x, around_y) = (s[2:-2, 3:-4] for s in states), (s.clone() for s in states)
    expected_y, expected_x = y + w @ x, x + w.t() @ y
    per_edge = (y @ x.t())[e.target, e.source]
    tolerance = dict(rtol=1e-4, atol=1e-4) if dtype == torch.float32 else dict(rtol=1e-11, atol=1e-11)
    assert torch.allclose(kernel.outer(y, x), per_edge, **tolerance)
    kept = x.clone()
    kernel.add_transposed(y, x)
    assert torch.allclose(x, expected_x, **tolerance)
    x.copy_(kept)
    kernel.add_product(x, y)
    assert torch.allclose(y, expected_y, **tolerance)
    for state, around in zip(states, (around_x, around_y), strict=True):
        state[2:-2, 3:-4] = around[2:-2, 3:-4]
        assert torch.equal(state.isnan(), around.isnan())
    strided = torch.full((TARGETS, 2 * samples), 0.5, dtype=dtype)
    kernel.add_product(kept, strided[:, ::2])
    assert torch.allclose(strided[:, ::2], 0.5 + w @ kept, **tolerance)
    assert (strided[:, 1::2] == 0.5).all()


def test_empty_matrices() -> None:
    for shape in ((3, 4), (0, 4), (3, 0), (0, 0)):
        kernel = csr(edges([], [], []), torch.float32, shape)
        out, back = torch.ones(shape[0], 5), torch.ones(shape[1], 5)
        kernel.add_product(back, out)
        kernel.add_transposed(out, back)
        assert (out == 1).all()
        assert (back == 1).all()
        assert kernel.outer(out, back).shape == (0,)


def test_writes_into_a_given_buffer() -> None:
    e = irregular()
    kernel = csr(e, torch.float64)
    y, x = torch.randn(TARGETS, 9, dtype=torch.float64), torch.randn(SOURCES, 9, dtype=torch.float64)
    buffer = torch.full_like(kernel.values.detach(), float("nan"))
    assert kernel.outer(y, x, out=buffer) is buffer
    assert torch.equal(buffer, kernel.outer(y, x))
    assert kernel.outer(y[:, :0], x[:, :0], out=buffer) is buffer
    assert (buffer == 0).all()


def test_infinity_and_nan_pass_through() -> None:
    """A neuron that has run away is seen by those it reaches, and by no other."""
    e = irregular()
    w = matrix(e)
    for wrong in (float("inf"), float("-inf"), float("nan")):
        kernel = csr(e, torch.float32)
        x, out = torch.ones(SOURCES, 18), torch.zeros(TARGETS, 18)
        x[2, 17] = wrong
        kernel.add_product(x, out)
        reached = torch.zeros(TARGETS, 18, dtype=torch.bool)
        reached[torch.tensor(w[:, 2] != 0), 17] = True
        assert torch.equal(~out.isfinite(), reached)
        update = kernel.outer(torch.ones(TARGETS, 18), x)
        assert torch.equal(~update.isfinite(), torch.as_tensor(e.source == 2))


def test_the_number_of_threads_changes_no_bit(path: str) -> None:
    rng = np.random.default_rng(5)
    shape = (700, 900)
    mask = rng.random(shape) < rng.random((shape[0], 1)) ** 4
    t, s = np.nonzero(mask)
    e = edges(s, t, rng.standard_normal(len(t)))
    before = torch.get_num_threads()
    try:
        for samples in (1, 3, 7, 16, 50, 64, 100):
            x, y = (torch.tensor(rng.standard_normal((n, samples)), dtype=torch.float32) for n in shape[::-1])
            found = []
            for threads in (1, 2, 3, 5):
                torch.set_num_threads(threads)
                kernel = csr(e, torch.float32, shape)
                out, back = torch.zeros(shape[0], samples), torch.zeros(shape[1], samples)
                kernel.add_product(x, out)
                kernel.add_transposed(y, back)
                found.append(torch.cat([out.flatten(), back.flatten(), kernel.outer(y, x)]))
            if path == "native":
                assert all(torch.equal(found[0], other) for other in found[1:])
            assert all(torch.allclose(found[0], other, atol=1e-3) for other in found[1:])
    finally:
        torch.set_num_threads(before)


def test_copies_stand_on_their_own_values() -> None:
    e = irregular()
    kernel = csr(e, torch.float64)
    x = torch.randn(SOURCES, 6, dtype=torch.float64)
    kernel.add_product(x, torch.zeros(TARGETS, 6, dtype=torch.float64))
    stream = io.BytesIO()
    torch.save(kernel, stream)
    stream.seek(0)
    for other in (copy.deepcopy(kernel), torch.load(stream, weights_only=False)):
        with torch.no_grad():
            kernel.values.mul_(3)
        out = torch.zeros(TARGETS, 6, dtype=torch.float64)
        other.add_product(x, out)
        assert torch.allclose(out, torch.tensor(matrix(e)) @ x)
        with torch.no_grad():
            kernel.values.div_(3)


@pytest.mark.parametrize("wrong", ["dtype", "sources", "targets", "samples"])
def test_tensors_that_do_not_fit_are_refused(wrong: str) -> None:
    kernel = csr(irregular(), torch.float32)
    x, out = torch.ones(SOURCES, 4), torch.zeros(TARGETS, 4)
    x, out = {
        "dtype": (x.double(), out),
        "sources": (x[1:], out),
        "targets": (x, out[1:].clone()),
        "samples": (x[:, :3], out),
    }[wrong]
    with pytest.raises(RuntimeError):
        kernel.add_product(x, out)


def allocated(work: Callable[[], object]) -> int:
    """Bytes that torch asks for in the second call and the third, given back or not."""
    work()
    with torch.profiler.profile(profile_memory=True) as profile:
        work()
        work()
    results = profile.profiler.kineto_results.events()
    return sum(max(event.nbytes(), 0) for event in results if event.name() == "[memory]")


def test_allocations_are_noticed() -> None:
    x = torch.ones(20, 20)
    assert allocated(lambda: (x + x).sum()) >= 2 * x.nbytes
    assert allocated(lambda: torch.add(x, x, out=x)) == 0


@pytest.mark.parametrize("name", ["csr", "dense", "dense with holes", "csr shared"])
def test_products_and_updates_allocate_nothing(path: str, name: str) -> None:
    """Where the solver iterates no memory is asked for; torch's own CSR product has work space of its own."""
    e, shape = irregular(), (TARGETS, SOURCES)
    if name == "dense":
        t, s = np.indices(shape).reshape(2, -1)
        e = edges(s, t, np.ones(t.size))
    p = projection("p", "a", "b", e, kernel=name.split()[0])
    if name == "csr shared":
        conv, shape = convolution(*IMAGES["plain"])
        p = type(conv)(**{**conv.__dict__, "kernel": "csr"})
    kernel = compile_kernel(p, shape, torch.float32)
    state = torch.randn(shape[0] + shape[1] + 3, 20)
    pre, post = state[: shape[1]], state[shape[1] + 3 :]
    update = torch.empty_like(kernel.values.detach())

    def work(outer: bool) -> None:
        kernel.add_product(pre, post)
        kernel.add_transposed(post, pre)
        if outer:
            kernel.outer(post, pre, out=update)

    assert allocated(lambda: work(outer=False)) == 0
    if "csr" not in name or (path == "native" and native.available()):
        assert allocated(lambda: work(outer=True)) == 0
