"""How long a circuit takes: to compile, to find a free equilibrium, for an update, and for an epoch.

An estimate, not a promise. This machine is calibrated for a moment: each of the circuit's own kernels does its products
on random numbers (of a projection with more than `SLICE` synapses, the kernel of its first target neurons, its time
scaled up), and so do passes over the state. The times are multiplied by a number of sweeps that is predicted from a few
products with W: how many GMRES would take on the circuit linearised with activations of slope `SLOPE`. Assumed are the
default solver and tolerance, and an alpha about 1. Training that unsettles a circuit, several equilibria, an alpha much
smaller, or a loaded machine make it longer; preconditioning and warm starts make it shorter.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from circuitlab.compile.kernels import Kernel, compile_kernel
from circuitlab.graph.circuit import Circuit, Projection
from circuitlab.graph.edges import Edges
from circuitlab.learn.rules import RULES
from circuitlab.report.spectrum import Krylov
from circuitlab.report.timing import alternate
from circuitlab.solve.base import default_tolerance
from circuitlab.solve.choose import LAGGING, LONG, LONGER, SLOW, SolveSettings
from circuitlab.spec.combinations import default_control

SLICE = 1_000_000
"""Synapses up to which a whole projection is compiled to be measured."""
REPEATS, MOST_SECONDS = 3, 0.05
"""Readings of each product, and seconds after which no further one is taken."""
SHORT_OF_GMRES = 1.2
"""Sweeps that remember few steps take so many times as many as GMRES, which remembers all."""
SLOPE, STEEPEST = 0.75, 0.9
"""Mean slope of an activation, and the largest rate of convergence that is believed."""
ACYCLIC = 6
"""Iterations under control of a circuit whose free state takes one sweep."""
START = 0.1
"""Tolerance of a free state that control starts from, `solve.free_tolerance`."""
PASSES, PASSES_OF_MEMORY, EXACT_PASSES = 24.0, 3.0, 2.0
"""Passes over a state, reading two arrays and writing one: of an iteration of Anderson acceleration, of mixing each
state that it remembers, and of one exact sweep."""
SOLVER_STATES, HELD_BYTES = 16, 2**27
"""States that the passes are timed among, and bytes that they take at most."""
OPTIMIZER = 8.0
"""Passes over the parameters of an update by Adam."""
ITERATION, CALL = 3e-4, 1e-5
"""Seconds of an iteration's Python, and more for each projection and population."""


@dataclass(frozen=True)
class Products:
    """Seconds of one projection's operations on a batch, and what its kernel takes.

    Args:
        name: of the kernel.
        bytes_: that it stores; scaled up where `whole` is false.
        compiling: seconds to make it and its transpose. forward, back, outer: W rate, W^T control and the sampled outer
            product.
        whole: whether the whole projection was compiled.
    """

    name: str
    bytes_: float
    compiling: float
    forward: float
    back: float
    outer: float
    whole: bool


@dataclass(frozen=True)
class Duration:
    """Estimated seconds.

    Args:
        building: measured while this circuit was built, None where that was not timed.
        compiling: to make all kernels.
        product: W rate of all projections among units, for a batch.
        free: a free equilibrium of a batch, to the default tolerance.
        update: an update of a minibatch, None where the rule is none that sweeps.
        epoch: updates on `samples` samples, None likewise.
        free_sweeps, credit_sweeps: predicted; samples: of the epoch.
    """

    building: float | None
    compiling: float
    product: float
    free: float
    update: float | None
    epoch: float | None
    free_sweeps: int
    credit_sweeps: int | None
    samples: int


def part_of(circuit: Circuit, p: Projection) -> tuple[Projection, tuple[int, int], float]:
    """A projection that is small enough to be compiled in a moment, its shape, and how many of it make the whole.

    It is the projection itself, or the synapses of its first target neurons.
    """
    shape = circuit.populations[p.target].size, circuit.populations[p.source].size
    if len(p.edges) <= SLICE or p.edges.parameter_index is not None or p.rank is not None:
        return p, shape, 1.0
    rows = max(1, round(shape[0] * SLICE / len(p.edges)))
    starts = p.edges.pointers(shape[0])[: rows + 1]
    stop = int(starts[-1])
    target = np.repeat(np.arange(rows, dtype=p.edges.source.dtype), np.diff(starts))
    edges = Edges(p.edges.source[:stop], target, p.edges.weight[:stop], p.edges.multiplicity[:stop])
    return replace(p, edges=edges), (rows, shape[1]), len(p.edges) / max(1, stop)


def measure(kernel: Kernel, batch: int, dtype: torch.dtype) -> tuple[float, float, float]:
    """Least seconds of W rate, W^T control and the sampled outer product on random numbers, of the machine at hand."""
    generator = torch.Generator().manual_seed(0)
    post, pre = (torch.randn(n, batch, generator=generator, dtype=dtype) for n in kernel.shape)
    to, fro = torch.zeros_like(post), torch.zeros_like(pre)
    work = {
        "forward": lambda: kernel.add_product(pre, to),
        "back": lambda: kernel.add_transposed(post, fro),
        "outer": lambda: kernel.outer(post, pre),
    }
    readings = alternate(work, REPEATS, MOST_SECONDS)
    forward, back, outer = (min(readings[name]) for name in work)
    return forward, back, outer


def products(circuit: Circuit, p: Projection, batch: int, dtype: torch.dtype) -> Products:
    """Compile a projection, or a part of it, and measure it."""
    from circuitlab.report.memory import stored_bytes

    part, shape, times = part_of(circuit, p)
    begun = time.perf_counter()
    kernel = compile_kernel(part, shape, dtype)
    bytes_ = stored_bytes(kernel)
    compiling = time.perf_counter() - begun
    forward, back, outer = (value * times for value in measure(kernel, batch, dtype))
    return Products(kernel.name, bytes_ * times, compiling * times, forward, back, outer, times == 1)


def state_pass(units: int, batch: int, dtype: torch.dtype) -> float:
    """Seconds of one pass over a state of [unit, sample], two arrays read and one written, among the many that a solver
    remembers."""
    count = max(3, min(3 * SOLVER_STATES, HELD_BYTES // (units * batch * dtype.itemsize)))
    arrays = [torch.ones(units, batch, dtype=dtype) for _ in range(count)]

    def passes() -> None:
        for a, b, out in zip(arrays[::3], arrays[1::3], arrays[2::3], strict=False):
            torch.add(a, b, alpha=0.5, out=out)

    readings = alternate({"passes": passes}, REPEATS, MOST_SECONDS)
    return min(readings["passes"]) / (count // 3)


def sweeps(found: Krylov | None, tolerance: float) -> tuple[int, float]:
    """Predicted sweeps until a free state is within a relative tolerance, and the rate they shrink the residual by.

    Accelerated sweeps come near to what GMRES does on the linearised circuit. Beyond the products that were tried, the
    residual is taken to shrink as it did in the last half of them.

    Args:
        found: of the recurrent weights, None for an acyclic circuit.
    """
    if found is None:
        return 1, 0.0
    left = np.maximum(found.residuals(SLOPE), 1e-16)
    half = max(0, len(left) // 2 - 1)
    rate = float((left[-1] / left[half]) ** (1 / max(1, len(left) - 1 - half)))
    rate = min(max(rate, 0.05), STEEPEST)
    enough = np.flatnonzero(left <= tolerance)
    count = int(enough[0]) + 1 if len(enough) else len(left) + math.log(tolerance / left[-1]) / math.log(rate)
    return max(3, math.ceil(SHORT_OF_GMRES * count)), rate


def estimate(
    circuit: Circuit,
    kernels: dict[str, Products],
    found: Krylov | None,
    *,
    batch: int,
    rule: str,
    dtype: torch.dtype,
    samples: int,
    building: float | None = None,
) -> Duration:
    """Seconds of a circuit's equilibria and updates on this machine with the present number of threads.

    Args:
        kernels: of every projection, measured at this batch and precision.
        found: of the recurrent weights, None for an acyclic circuit.
        samples: of an epoch. building: seconds that building the circuit took.
    """
    inner = set(circuit.units)
    among = [p for p in circuit.projections.values() if p.source in inner and p.carries == "rate"]
    into = [p for p in circuit.projections.values() if p.source not in inner]
    forward, back = (sum(getattr(kernels[p.name], way) for p in among) for way in ("forward", "back"))
    drive = sum(kernels[p.name].forward for p in into)
    outer = sum(kernels[p.name].outer for p in (*among, *into) if p.plastic)
    units = sum(circuit.populations[name].size for name in inner)
    once = state_pass(units, batch, dtype)
    tolerance, calls = default_tolerance(dtype), ITERATION + CALL * (len(among) + len(inner))
    exact, rate = sweeps(found, tolerance)
    recurrent = exact > 1

    def iterating(count: int, one: float, states: float, depth: float) -> float:
        """Seconds of so many iterations that mix states of `states` times the units."""
        kept = min(depth, count) if recurrent or states > 1 else 0.0
        mixing = states * (PASSES + PASSES_OF_MEMORY * kept) if recurrent or states > 1 else EXACT_PASSES
        return count * (one + once * mixing + calls)

    depth = SolveSettings().depth * (LONGER if rate > SLOW else 1.0)
    free = drive + iterating(exact, forward, 1.0, depth)
    credit, update = _credit(rule, exact, recurrent), None
    if credit is not None:
        parameters = sum(len(p.edges) for p in (*among, *into) if p.plastic)
        renewing = OPTIMIZER * once * parameters / max(1, units * batch)
        if RULES[rule].controls:
            first = 1 if not recurrent else max(2, math.ceil(math.log(START) / math.log(rate)))
            long = LONG / 2 if rate > LAGGING else depth
            begun = drive + iterating(first, forward, 1.0, depth)
            second = iterating(credit, forward + back, 2.0, long)
        else:
            begun, second = free, iterating(credit, back, 1.0, depth)
        update = begun + second + outer + renewing
    return Duration(
        building=building,
        compiling=sum(k.compiling for k in kernels.values()),
        product=forward,
        free=free,
        update=update,
        epoch=None if update is None else update * math.ceil(samples / batch),
        free_sweeps=exact,
        credit_sweeps=credit,
        samples=samples,
    )


def _credit(rule: str, exact: int, recurrent: bool) -> int | None:
    """Predicted iterations of the phase that carries the credit, None for rules that do not sweep for it."""
    control = default_control(rule).get("pathway", "dynamic_inversion")
    if RULES[rule].controls:
        if control != "dynamic_inversion":
            return None
        return exact if recurrent else ACYCLIC
    if RULES[rule].contrasts:
        return None
    return exact if recurrent else 1
