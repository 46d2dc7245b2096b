"""One driver for all solvers: stopping, statistics and acceptance are per sample, on residuals of the equations.

A solver only says how a state is judged and where to go next. The driver alone owns the step limit, non-finite values,
the set of samples still moving, and the final verdict, which is taken on residuals recomputed from scratch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from circuitlab.compile import loops
from circuitlab.dynamics.equations import Equations, Fields
from circuitlab.solve.watch import Watch

NEVER = 2**62
"""Iterations that nothing reaches."""
COMPRESS_AT = 0.75
"""The samples still moving are gathered when they are at most this share of those being carried along."""
PARTS, PARTS_ELSEWHERE = 16, 2
"""Parts in which they are gathered, one after the other, on the CPU and on a device where every call costs time."""
SMALL = 2**20
"""Bytes up to which they are gathered at once: many short copies take longer than one."""
REACH = 5.0
"""Times the target within which an iteration may stop one sweep early; the residuals recomputed then decide."""
STRICTER = (1.0, 0.6, 0.2, 0.02)
"""Shares of the tolerance that an iteration aims at in turn, should the recomputed residuals ask for more."""
LOOKS, GPU_LOOKS = {"cpu": 1}, 4
"""Iterations between two looks at the residuals, by device; on a GPU a look waits for all that was asked for before."""


@dataclass(frozen=True)
class Solution:
    """Equilibria of a batch.

    Args:
        fields: phi, psi, u; for a sample that did not converge, the best state seen.
        converged: whether every recomputed residual is within the tolerance, bool [sample].
        residual: largest block-wise relative residual, recomputed from the equations, [sample].
        iterations: sweeps used by each sample, [sample].
        products: products with W or its transpose used by each sample, verification and builds included, [sample].
        kinks: neurons that rest exactly on the kink of their activation function, [sample].
        method: solvers used.
        rate: factor by which the first steps shrank the residual, median over samples; 1 where there were too few.
    """

    fields: Fields
    state: Tensor
    converged: Tensor
    residual: Tensor
    iterations: Tensor
    products: Tensor
    kinks: Tensor
    method: str
    rate: float = 1.0


class Iteration(ABC):
    """A solver at work on one batch.

    Attributes:
        equations: of the samples still carried along.
        state: where it is, [row, sample].
        best: what it would give for each sample if it had to stop, [row, sample].
        norms: squared norms of each judged block's residual and variable, [block, 2, sample], float64.
        limits: a residual so many times above the sample's best restarts it from there, and so do so many iterations
            without a smaller one (whatever is not finite restarts anyway); and the share of the target within which
            the residual of the last image, one sweep on, must be expected for a sample to stop there already.
        products: with W per sample and iteration; those of a sweep of the equations where None.
        lag: how many times larger the recomputed residual may be than the one that is judged.
    """

    limits: tuple[float, int, float] = (math.inf, NEVER, 0.0)
    products: float | None = None
    lag: float = 1.0

    def __init__(self, equations: Equations, state: Tensor, blocks: int) -> None:
        self.equations, self.state = equations, state
        self.best = state.clone()
        self.norms = state.new_zeros((blocks, 2, state.shape[1]), dtype=torch.float64)

    @property
    def floors(self) -> Tensor:
        """Smallest scale of each judged block, [block, sample], float64."""
        return self.equations.floors

    @abstractmethod
    def judge(self) -> None:
        """Evaluate the equations and write `norms`."""

    @abstractmethod
    def advance(self, better: Tensor, trouble: Tensor) -> None:
        """Keep what is better, and take the next step; samples in trouble restart from their best. Bool [sample]."""

    @abstractmethod
    def keep(self, better: Tensor) -> None:
        """Take what is better into `best`, bool [sample]."""

    def select(self, keep: Tensor) -> None:
        """Go on with some of the samples. `best` as it was stays whole: it is what the samples left out have found."""
        self.equations.release()
        self.equations = self.equations.select(keep)
        self.state, self.best = gathered(self.state, keep), self.best[:, keep]
        self.norms = self.norms[:, :, keep]


@dataclass(frozen=True)
class Solver(ABC):
    """An iteration towards an equilibrium.

    Args:
        tolerance: largest relative residual of any block.
        max_iterations: sweeps after which a sample counts as unconverged.
    """

    tolerance: float
    max_iterations: int

    name = "solver"

    def start(self, equations: Equations) -> Tensor:
        """The state to begin with where none is given, [row, sample]."""
        return equations.start()

    @abstractmethod
    def begin(self, equations: Equations, state: Tensor) -> Iteration:
        """Start from a state, [row, sample], which becomes the iteration's own."""


def gathered(tensor: Tensor, keep: Tensor) -> Tensor:
    """Some of the last axis' samples, in ascending order, moved to the front of the tensor's own memory: the tensor
    itself is not to be used any more, and only a small part of it is ever there twice."""
    if not tensor.is_contiguous() or not tensor.numel():
        return tensor[..., keep]
    rows, left = tensor.view(-1, tensor.shape[-1]), len(keep)
    out = tensor.view(-1)[: len(rows) * left].view(-1, left)
    parts = PARTS if tensor.device.type == "cpu" else PARTS_ELSEWHERE
    step = len(rows) if tensor.nbytes <= SMALL else -(-len(rows) // parts)
    for first in range(0, len(rows), step):  # rows come to lie before all rows that are still to be read
        part = slice(first, first + step)
        out[part] = rows[part].index_select(1, keep)
    return out.view(*tensor.shape[:-1], left)


def default_tolerance(dtype: torch.dtype) -> float:
    """1e-5 in single and 1e-6 in double precision."""
    return 1e-5 if dtype == torch.float32 else 1e-6


@torch.no_grad()
def solve(
    equations: Equations,
    solver: Solver,
    start: Tensor | None = None,
    verify: bool = True,
    watch: Watch | None = None,
) -> Solution:
    """Solve every sample of a batch; never raises for samples that do not converge.

    Args:
        equations: of the batch.
        solver: how to iterate.
        start: state to begin with, [row, sample]; the equations' own start where None.
        verify: recompute the residuals from the equations at the end. Without it the iteration's own residuals stand,
            and products are saved: enough for a state that only serves as a start.
        watch: shown the states on the way.
    """
    state = solver.start(equations) if start is None else start
    found = _iterate(equations, solver, state, STRICTER[0], verify, watch)
    for strictness in STRICTER[1:] if verify and not equations.direct else ():
        again = torch.nonzero(~found.converged & found.reached).squeeze(1)
        if not len(again):
            break
        part = None if watch is None else watch.part(again, found.iterations[again])
        more = _iterate(equations.select(again), solver, found.state[:, again], strictness, verify, part)
        found = found.merged(more, again)
    return Solution(
        equations.fields(found.state),
        found.state,
        found.converged,
        found.residual,
        found.iterations,
        found.products + equations.extra,
        equations.kinks(found.state),
        solver.name,
        found.rate,
    )


def resumed(before: Solution, after: Solution) -> Solution:
    """A solution that was begun where another ended: iterations and products add up."""
    iterations, products = before.iterations + after.iterations, before.products + after.products
    return replace(after, iterations=iterations, products=products, rate=before.rate)


@dataclass(frozen=True)
class _Found:
    state: Tensor
    reached: Tensor
    converged: Tensor
    residual: Tensor
    iterations: Tensor
    products: Tensor
    rate: float

    def merged(self, other: _Found, columns: Tensor) -> _Found:
        """This result with some samples replaced; iterations and products add up."""
        state, reached, converged, residual = (
            t.clone() for t in (self.state, self.reached, self.converged, self.residual)
        )
        state[:, columns], reached[columns] = other.state, other.reached
        converged[columns], residual[columns] = other.converged, other.residual
        return replace(
            self,
            state=state,
            reached=reached,
            converged=converged,
            residual=residual,
            iterations=self.iterations.index_add(0, columns, other.iterations),
            products=self.products.index_add(0, columns, other.products),
        )


def _iterate(
    equations: Equations,
    solver: Solver,
    state: Tensor,
    strictness: float,
    verify: bool,
    watch: Watch | None = None,
) -> _Found:
    samples, device, double = state.shape[1], state.device, torch.float64
    limit = solver.max_iterations
    iterations = torch.full((samples,), limit, dtype=torch.long, device=device)
    reached = torch.zeros(samples, dtype=torch.bool, device=device)
    least, each = torch.full((samples,), torch.inf, dtype=double, device=device), None
    if equations.direct:
        result, rate = torch.empty_like(state), 1.0
        if watch is not None:
            watch.look(0, equations, state, equations.relative(equations.imbalance(state), state).amax(0))
        equations.sweep(state, result)
        iterations.fill_(1)
        reached.fill_(True)
        least.zero_()
    else:
        opened = equations.opened(state)
        opened = opened.clone(memory_format=torch.contiguous_format) if opened is state else opened
        run = solver.begin(equations, opened)
        if not verify:
            run.limits = (*run.limits[:2], 0.0)  # what nobody looks at again must be there
        del opened
        each = run.products
        result, rate = _run(run, solver, strictness / run.lag, iterations, reached, least, watch)
        del run
        result = equations.closed(result)
    equations.release()
    settled = equations.settle(result)
    residual = least.to(state.dtype)
    products = iterations.to(double) * (each or equations.products * equations.dearer)
    if verify:
        residual = equations.relative(equations.imbalance(settled), settled).amax(0)
        residual = torch.where(torch.isfinite(residual), residual, torch.inf)
        products += equations.products
    return _Found(settled, reached, residual <= solver.tolerance, residual, iterations, products, rate)


def _run(
    run: Iteration,
    solver: Solver,
    strictness: float,
    iterations: Tensor,
    reached: Tensor,
    least: Tensor,
    watch: Watch | None,
) -> tuple[Tensor, float]:
    """Iterate until every sample is done or the limit is reached; writes the last three, and returns the best states,
    [row, sample], and the rate of the first steps."""
    samples, device = len(reached), reached.device
    columns, target = torch.arange(samples, device=device), solver.tolerance * strictness
    counts, smallest, waited = iterations.clone(), least.clone(), torch.zeros_like(iterations)
    flags = torch.zeros(3, samples, dtype=torch.bool, device=device)
    flags[0] = True
    _, better, trouble = flags.unbind()
    pause = LOOKS.get(device.type, GPU_LOOKS)
    first: Tensor | None = None
    shrunk: Tensor | None = None
    result: Tensor | None = None
    for count in range(1, solver.max_iterations + 1):
        run.judge()
        if watch is not None:
            watch.look(count - 1, run.equations, run.state, relative_of(run), columns, flags[0])
        look = count % pause == 0
        left = judge(run.norms, run.floors, target, run.limits, count, smallest, waited, flags, counts, look)
        if count <= 2:
            size = run.norms[0, 0].sqrt()
            if first is not None:
                shrunk = (size / first).nanmedian()
            first = size
        if left == 0 or count == solver.max_iterations:
            run.keep(better)
            break
        run.advance(better, trouble)
        if left <= COMPRESS_AT * len(columns):
            keep, gone = (torch.nonzero(which).squeeze(1) for which in (flags[0], ~flags[0]))
            result = _store(
                run.best, counts, smallest, ~flags[0], columns, gone, result, iterations, least, reached
            )
            run.select(keep)
            columns, counts, smallest, flags = columns[keep], counts[keep], smallest[keep], flags[:, keep]
            _, better, trouble = flags.unbind()
            waited, first = waited[keep], first[keep] if first is not None else None
    run.equations.release()
    everything = torch.arange(len(columns), device=device)
    result = _store(
        run.best, counts, smallest, ~flags[0], columns, everything, result, iterations, least, reached
    )
    return result, 1.0 if shrunk is None else float(shrunk)


def _store(
    best: Tensor,
    counts: Tensor,
    smallest: Tensor,
    done: Tensor,
    columns: Tensor,
    which: Tensor,
    result: Tensor | None,
    iterations: Tensor,
    least: Tensor,
    reached: Tensor,
) -> Tensor:
    """Write what was found for some of the samples; the first `best`, of all samples, becomes the result itself."""
    to = columns[which]
    iterations[to], least[to], reached[to] = counts[which], smallest[which], done[which]
    if result is None:
        return best
    result[:, to] = best if len(which) == best.shape[1] else best[:, which]
    return result


def relative_of(run: Iteration) -> Tensor:
    """Largest relative residual of the judged blocks of each sample, [sample]."""
    return (run.norms[:, 0].sqrt() / torch.maximum(run.norms[:, 1].sqrt(), run.floors)).amax(0)


def judge(
    norms: Tensor,
    floors: Tensor,
    target: float,
    limits: tuple[float, int, float],
    count: int,
    least: Tensor,
    waited: Tensor,
    flags: Tensor,
    counts: Tensor,
    look: bool,
) -> int:
    """Compare residuals with the target: brings the smallest residual `least`, the iterations `waited` since, the
    `counts` of samples that are done, and `flags` (open, better than ever, in trouble) up to date.

    Args:
        norms: squared norms of residual and variable, [block, 2, sample]. floors: smallest scales, [block, sample].
        limits: what counts as trouble, and as nearly done; see `Iteration.limits`.
        look: whether to count the samples left; else all are said to be left, and nothing waits for the device.

    Returns:
        Samples still open.
    """
    if loops.usable(norms):
        return loops.judge(norms, floors, target, *limits, count, least, waited, flags, counts)
    scales = torch.maximum(norms[:, 1].sqrt(), floors)
    worst = (norms[:, 0].sqrt() / scales).amax(0)
    worst = torch.where(torch.isfinite(worst) & torch.isfinite(scales).all(0), worst, torch.inf)
    opened, better, trouble = flags
    torch.logical_and(opened, worst < least, out=better)
    soon = better & torch.isfinite(least) & (worst <= REACH * target)
    soon &= worst * (worst / least) <= limits[2] * target
    torch.where(better, worst, least, out=least)
    waited.add_(1).masked_fill_(better, 0)
    bad = torch.isinf(worst) | (worst > limits[0] * least) | (waited >= limits[1])
    torch.logical_and(opened, bad, out=trouble)
    waited.masked_fill_(trouble, 0)
    done = opened & ((worst <= target) | soon)
    counts.masked_fill_(done, count)
    opened.logical_and_(~done)
    return int(opened.sum()) if look else len(least)
