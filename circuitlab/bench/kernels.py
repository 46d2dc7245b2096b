"""Every kernel's products beside what the machine could do at best, and beside torch's own sparse products."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from circuitlab.bench.circuits import edges, random_edges
from circuitlab.bench.rates import Rates, measure
from circuitlab.bench.results import Cell, Table
from circuitlab.bench.step import step_table
from circuitlab.bench.timing import Spread, alternate
from circuitlab.compile.kernels import Kernel, compile_kernel
from circuitlab.compile.kernels.extra import is_installed
from circuitlab.compile.kernels.low_rank import LowRank
from circuitlab.graph.build import build
from circuitlab.graph.circuit import Projection
from circuitlab.graph.edges import Edges
from circuitlab.spec.circuit import load_circuit

OPERATIONS = {"product": "W rate", "transposed": "W^T control", "outer": "Sampled outer product"}
COLUMNS = ("kernel", "least, ms", "median", "bound, ms", "set by", "least/bound", "torch, ms", "torch/own")
INDEX_BYTES = 4
Work = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Args:
        cases: names of CASES.
        repeats: readings of each operation, fewer where `most_seconds` for one operation are over.
        seed: of weights and activity.
    """

    cases: tuple[str, ...]
    repeats: int = 30
    most_seconds: float = 2.0
    seed: int = 0


@dataclass(frozen=True)
class Case:
    """Kernels measured together, as the projections of one circuit, and the batch.

    Args:
        shapes: (targets, sources) of each. density: of the synapses, 1 for all.
        kernel: dense, csr, diagonal, convolution, low_rank or torch_sparse.
        batch: samples.
        text: a circuit file whose first projection is meant. rank: of a low-rank kernel.
    """

    shapes: tuple[tuple[int, int], ...]
    density: float
    kernel: str
    batch: int
    text: str = field(default="", repr=False)
    rank: int | None = None


CONVOLUTION = """\
circuit: images
populations:
  image: {type: input, shape: [1, 28, 28]}
  maps:  {type: unit, shape: [16, 24, 24]}
  y:     {type: output, size: 1}
projections:
  image_maps: {source: image, target: maps, connect: {rule: convolution, kernel: 5}}
  maps_y:     {source: maps, target: y, connect: {rule: fixed_total_number, N: 1}}
"""
CASES = {
    "dense 256": Case(((256, 256),), 1.0, "dense", 64),
    "dense 1024": Case(((1024, 1024),), 1.0, "dense", 64),
    "layers 784-512-512-256-16": Case(((512, 784), (512, 512), (256, 512), (16, 256)), 1.0, "dense", 64),
    "csr 1024, 0.1": Case(((1024, 1024),), 0.1, "csr", 64),
    "csr 4096, 0.01": Case(((4096, 4096),), 0.01, "csr", 64),
    "csr 4096, 0.1": Case(((4096, 4096),), 0.1, "csr", 64),
    "csr 16384, 0.01": Case(((16384, 16384),), 0.01, "csr", 64),
    "csr 77169, 0.001, batch 32": Case(((77169, 77169),), 0.001, "csr", 32),
    "diagonal 4096": Case(((4096, 4096),), 1.0, "diagonal", 64),
    "convolution, 16 of 5x5": Case(((9216, 784),), 1.0, "convolution", 64, CONVOLUTION),
    "low rank 1024, rank 32": Case(((1024, 1024),), 1.0, "low_rank", 64, rank=32),
}
if is_installed():
    CASES |= {
        "torch-sparse 4096, 0.01": Case(((4096, 4096),), 0.01, "torch_sparse", 64),
        "torch-sparse 77169, 0.001, batch 32": Case(((77169, 77169),), 0.001, "torch_sparse", 32),
    }
SHORT = ("dense 256", "csr 1024, 0.1", "csr 4096, 0.01", "diagonal 4096", "convolution, 16 of 5x5")


@dataclass(frozen=True)
class Needs:
    """What an operation cannot do without.

    Args:
        operations: multiplications and additions.
        bytes_: read and written once. gathered: bytes fetched by index, repetitions counted.
        state: bytes of what is fetched from by index.
    """

    operations: float
    bytes_: float
    gathered: float
    state: float

    def bound(self, rates: Rates) -> tuple[float, str]:
        """Least seconds on a machine, and what sets them: its matrix rate, the bytes once, or the fetched bytes."""
        limits = {
            "matrix rate": self.operations / rates.matrix,
            "bytes": self.bytes_ / rates.bandwidth(self.bytes_),
        }
        if rates.second_bytes < self.state <= rates.third_bytes:
            limits["gathering"] = self.gathered / rates.third
        name = max(limits, key=lambda key: limits[key])
        return limits[name], name


def needs(batch: int, kernels: Sequence[Kernel], operation: str) -> Needs:
    """What an operation of some kernels, done in turn on so many samples, cannot do without, in float32."""
    item = 4
    total = Needs(0.0, 0.0, 0.0, 0.0)
    for kernel in kernels:
        (targets, sources), synapses = kernel.shape, len(kernel.edge_values)
        parameters = kernel.values.numel()
        # a product reads one side and adds to the other; an outer product reads both and writes the parameters
        ends = {"product": 2 * targets + sources, "transposed": 2 * sources + targets}
        traffic = item * (parameters + batch * ends.get(operation, targets + sources))
        gathered = state = 0.0
        if kernel.name.startswith("csr"):
            traffic += INDEX_BYTES * (synapses + 1 + (sources if operation == "transposed" else targets))
            gathered = item * batch * synapses
            state = item * batch * (targets if operation == "transposed" else sources)
        each = 2.0 * synapses
        if isinstance(kernel, LowRank):
            each = 2.0 * kernel.rank * (targets + sources) * (2 if operation == "outer" else 1)
        total = Needs(
            total.operations + each * batch,
            total.bytes_ + traffic,
            total.gathered + gathered,
            max(total.state, state),
        )
    return total


def run(settings: Settings) -> tuple[list[Table], dict[str, Any]]:
    """Measure the machine, every case, and a solver's step; tables and raw numbers."""
    rates = measure()
    rows: dict[str, list[list[Cell]]] = {name: [] for name in OPERATIONS}
    raw = []
    for name in settings.cases:
        case = CASES[name]
        kernels = make(case, settings.seed)
        for operation, work in works(case, kernels, settings.seed).items():
            readings = alternate(work, settings.repeats, settings.most_seconds)
            bound, limit = needs(case.batch, [kernel for kernel, _ in kernels], operation).bound(rates)
            rows[operation].append(row(name, readings, bound, limit))
            raw.append(
                {"case": name, "operation": operation, "bound": bound, "set_by": limit, "seconds": readings}
            )
        del kernels
    steps, numbers = step_table(settings.repeats, settings.seed)
    tables = [_rates_table(rates)]
    tables += [
        Table(f"{words}, float32, batch 64 unless said", COLUMNS, rows[name])
        for name, words in OPERATIONS.items()
    ]
    return [*tables, steps], {"rates": vars(rates), "kernels": raw, "step": numbers}


def _rates_table(rates: Rates) -> Table:
    second, third = (f"{size / 2**20:.3g} MB" for size in (rates.second_bytes, rates.third_bytes))
    return Table(
        "This machine at best, float32",
        ("what", "rate", "unit"),
        [
            ["dense product", rates.matrix / 1e9, "Gflop/s"],
            [f"copy or triad within the second cache ({second})", rates.second / 1e9, "GB/s"],
            [f"copy or triad within the third cache ({third})", rates.third / 1e9, "GB/s"],
            ["copy or triad in memory", rates.memory / 1e9, "GB/s"],
        ],
    )


def row(name: str, readings: dict[str, list[float]], bound: float, limit: str) -> list[Cell]:
    """A table's row; least times count, as a busy machine only adds to them."""
    own = Spread.of(readings["own"])
    beside: list[Cell] = [None, None]
    if "torch" in readings:
        least = Spread.of(readings["torch"]).least
        beside = [1e3 * least, least / own.least]
    return [name, 1e3 * own.least, 1e3 * own.median, 1e3 * bound, limit, own.least / bound, *beside]


def make(case: Case, seed: int) -> list[tuple[Kernel, Edges]]:
    """A case's kernels with random weights, float32, and their edges."""
    if case.text:
        projection = next(iter(build(load_circuit("case", text=case.text), seed).projections.values()))
        return [(compile_kernel(projection, case.shapes[0], torch.float32), projection.edges)]
    generator = np.random.default_rng(seed)
    found = []
    for targets, sources in case.shapes:
        if case.kernel == "diagonal":
            index = np.arange(targets)
            drawn = edges(index, index, generator.standard_normal(targets))
        else:
            drawn = random_edges(generator, targets, sources, case.density)
        projection = Projection("p", "a", "b", "soma", "rate", True, case.kernel, drawn)
        projection = replace(projection, rank=case.rank)
        found.append((compile_kernel(projection, (targets, sources), torch.float32), drawn))
    return found


def works(case: Case, kernels: Sequence[tuple[Kernel, Edges]], seed: int) -> dict[str, Work]:
    """For each operation the functions to be timed: the kernels' own, and torch's where it has one for CSR."""
    generator = torch.Generator().manual_seed(seed)
    calls = []
    for kernel, drawn in kernels:
        post, pre = (torch.randn(n, case.batch, generator=generator) for n in kernel.shape)
        calls.append((kernel, drawn, post, pre, torch.zeros_like(post), torch.zeros_like(pre)))
    outers = [(_outer(kernel), post, pre) for kernel, _, post, pre, _, _ in calls]

    def product() -> None:
        for kernel, _, _, pre, out, _ in calls:
            kernel.add_product(pre, out)

    def transposed() -> None:
        for kernel, _, post, _, _, out in calls:
            kernel.add_transposed(post, out)

    def outer() -> None:
        for call, post, pre in outers:
            call(post, pre)

    own = {"product": product, "transposed": transposed, "outer": outer}
    found: dict[str, Work] = {operation: {"own": function} for operation, function in own.items()}
    if case.kernel == "csr":
        for operation, function in _torch_csr(*calls[0]).items():
            found[operation]["torch"] = function
    return found


def _outer(kernel: Kernel) -> Callable[[Tensor, Tensor], Tensor]:
    """The sampled outer product, into a buffer that is there already where the kernel takes one."""
    call: Any = kernel.outer
    if "out" not in inspect.signature(call).parameters:
        return call
    buffer = torch.zeros_like(kernel.values.detach())
    return lambda post, pre: call(post, pre, out=buffer)


def _torch_csr(kernel: Kernel, drawn: Edges, post: Tensor, pre: Tensor, out: Tensor, back: Tensor) -> Work:
    """torch's own products of the same synapses: CSR times dense, a prebuilt CSR of the transpose, sampled_addmm."""
    weights = sparse.csr_array((drawn.weight, (drawn.target, drawn.source)), shape=kernel.shape)
    matrix, turned = _torch_matrix(weights), _torch_matrix(sparse.csr_array(weights.T))
    return {
        "product": lambda: torch.addmm(out, matrix, pre, out=out),
        "transposed": lambda: torch.addmm(back, turned, post, out=back),
        "outer": lambda: torch.sparse.sampled_addmm(matrix, post, pre.t(), beta=0.0),
    }


def _torch_matrix(weights: Any) -> Tensor:
    rows, columns = (torch.as_tensor(part.astype(np.int32)) for part in (weights.indptr, weights.indices))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
        values = torch.as_tensor(weights.data, dtype=torch.float32)
        return torch.sparse_csr_tensor(rows, columns, values, weights.shape, check_invariants=False)
