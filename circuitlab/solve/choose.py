"""Which solver runs: the one asked for, or by the equations, with fallbacks for the samples that it leaves over."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from circuitlab.dynamics.equations import Equations
from circuitlab.dynamics.preconditioned import WHOLE, Minibatch
from circuitlab.solve.anderson import Anderson
from circuitlab.solve.base import Solution, Solver, default_tolerance, solve
from circuitlab.solve.euler import Euler
from circuitlab.solve.fixed_point import FixedPoint
from circuitlab.solve.lbfgs import Lbfgs
from circuitlab.solve.levenberg import Levenberg, fits
from circuitlab.solve.watch import Watch

PATIENCE = 150
"""Iterations that `auto` gives Anderson acceleration where Levenberg's descent can take over."""
FEW = 16
"""Training gives Levenberg's descent at most one sample in this many; more mean that the circuit is unsettled."""
PRECONDITIONED = 8
"""Sweeps that a preconditioned iteration takes, as measured on dense circuits at the default tolerances."""
CONTRACTING = 0.9
"""Rate above which the free state itself is hard to find: an iteration that follows the energy's slope is safer there
than one so near to Newton's, which does not mind a saddle."""
SLOW, LONGER, FAST_MEMORY = 0.5, 2.5, 3
"""Rate above which `auto` remembers more steps, so many times as many, as what is remembered longer pays where many are
needed; and the steps it remembers below, where few are."""
LAGGING, AHEAD = 0.65, 1.5
"""Rate above which (and below `CONTRACTING`) sweeps under control take their slopes ahead of the potentials, and by how
many of their steps: where potentials take many sweeps to come to rest, slopes that trail make it many more."""
LONG, HISTORY = 64, 2**28
"""Differences that a slow iteration may come to remember there, and bytes that they may take."""
MARGIN = 0.8
"""Share of the cost without preconditioning below which it is worth its build."""
PRECONDITIONED_NAME = "preconditioned"
"""How a solution's method begins where the first solver's sweeps were preconditioned."""
METHODS = ("auto", "anderson", "fixed_point", "lbfgs", "levenberg", "euler")


@dataclass(frozen=True)
class SolveSettings:
    """How equilibria are found.

    Args:
        method: one of METHODS.
        tolerance: largest block-wise relative residual; None for 1e-5 in single and 1e-6 in double precision.
        max_iterations: evaluations per solver.
        depth: differences that Anderson acceleration remembers, and steps that L-BFGS does.
        damping: share of a full step.
        dt_ms, max_time_ms: step and longest duration of the real-time dynamics, in ms.
        free_tolerance: largest relative residual of a free state that only serves as a start.
        preconditioner: `auto` (where it pays), `mean_response` (always) or `none`.
        thorough: whether `auto` spares no effort on samples that are hard to settle; training does not wait for
            more than a few of them in a batch.
        minibatch: of which the batches are, where many processes share it.
        watch: shown the states on the way; nobody where None.
    """

    method: str = "auto"
    tolerance: float | None = None
    max_iterations: int = 500
    depth: int = 4
    damping: float = 1.0
    dt_ms: float = 1.0
    max_time_ms: float = 20_000.0
    free_tolerance: float = 0.1
    preconditioner: str = "auto"
    thorough: bool = False
    minibatch: Minibatch = WHOLE
    watch: Watch | None = None

    def at(self, dtype: torch.dtype) -> float:
        """The tolerance for a precision."""
        return default_tolerance(dtype) if self.tolerance is None else self.tolerance


def pays(equations: Equations, settings: SolveSettings, rate: float, dtype: torch.dtype, phases: int) -> bool:
    """Whether preconditioning costs fewer products than it saves.

    The rate at which the first steps towards the free state shrank the residual tells how many sweeps it takes without;
    with it about `PRECONDITIONED` do, each as dear as the group is full.

    Args:
        rate: of the free state's first steps, in (0, 1) where they converge.
        phases: products with W per sample in one sweep of all that the preconditioner would serve.
    """
    build = equations.build_cost()
    if build is None or settings.preconditioner == "none" or settings.method not in ("auto", "anderson"):
        return False
    if settings.preconditioner == "mean_response":
        return True
    if settings.method != "auto":
        return False
    rate, build = settings.minibatch.agreed(rate, build * settings.minibatch.fraction)
    if not rate < CONTRACTING:
        return False
    sweeps = math.log(settings.at(dtype)) / math.log(max(rate, 0.01))
    with_it = build + PRECONDITIONED * phases * equations.preconditioned_sweep()
    return with_it < MARGIN * sweeps * phases


def attempts(equations: Equations, settings: SolveSettings, dtype: torch.dtype) -> list[Solver]:
    """Solvers in the order they are tried, each on the samples that the ones before left unconverged.

    `auto` takes one sweep where that is exact (the free state of an acyclic circuit), else Anderson
    acceleration; then Levenberg's descent where the circuit is small enough for it; then a damped, deeper Anderson.
    Equations that descend an energy by themselves begin with L-BFGS in place of the first Anderson.
    """
    tolerance, most = settings.at(dtype), settings.max_iterations
    anderson = Anderson(tolerance, most, settings.depth, settings.damping)
    if settings.method == "fixed_point":
        return [FixedPoint(tolerance, most, settings.damping)]
    if settings.method == "anderson":
        return [anderson]
    if settings.method == "lbfgs":
        return [Lbfgs(tolerance, most, settings.depth, settings.damping)]
    if settings.method == "euler":
        return [Euler(tolerance, max(1, round(settings.max_time_ms / settings.dt_ms)), settings.dt_ms)]
    levenberg = Levenberg(
        tolerance, min(most, 100 if settings.thorough or settings.method == "levenberg" else 25)
    )
    if settings.method == "levenberg":
        return [levenberg]
    longest = most if settings.thorough else min(most, PATIENCE)
    careful = Anderson(tolerance, longest, 2 * settings.depth, 0.5 * settings.damping)
    chain: list[Solver] = [anderson, careful]
    if equations.direct:
        chain = [FixedPoint(tolerance, most)]
    elif fits(equations):
        chain = [replace(anderson, max_iterations=min(most, PATIENCE)), levenberg, careful]
    if equations.descends:
        longest = min(most, PATIENCE) if fits(equations) else most
        chain[0] = Lbfgs(tolerance, longest, 2 * settings.depth, settings.damping)
    return chain


@torch.no_grad()
def approach(equations: Equations, settings: SolveSettings, start: Tensor | None = None) -> Solution:
    """States near the equilibria of a batch, by the first solver of `attempts` alone: good enough to start from."""
    dtype = equations.time_constants.dtype
    loose = replace(settings, tolerance=max(settings.free_tolerance, settings.at(dtype)))
    solver = attempts(equations, loose, dtype)[0]
    return solve(equations, solver, start, verify=False)


@torch.no_grad()
def find(
    equations: Equations,
    settings: SolveSettings,
    start: Tensor | None = None,
    rate: float | None = None,
    fallback: bool = True,
) -> Solution:
    """Equilibria of a batch by the solvers of `attempts`; samples that none brings to rest stay unconverged.

    Args:
        start: state to begin with, [row, sample]; the equations' own where None.
        rate: of the first steps towards the free state, which tells whether preconditioning pays.
        fallback: whether solvers after the first are tried on what it leaves over.
    """
    first, *others = attempts(equations, settings, equations.time_constants.dtype)
    state = first.start(equations) if start is None else start
    problem, foresight = equations, 0.0
    careful = settings.thorough or settings.method != "auto" or start is not None
    if rate is not None and 0 < rate < CONTRACTING and not careful:
        foreseen = equations.foreseen(state, rate, settings.minibatch)
        state, foresight = (state, 0.0) if foreseen is None else foreseen
    if rate is not None and pays(equations, settings, rate, state.dtype, equations.products):
        problem = equations.preconditioned(equations.fields(state).phi, settings.minibatch)
    elif rate is not None and settings.method == "auto" and isinstance(first, Anderson):
        depth = round(LONGER * first.depth) if rate > SLOW else min(first.depth, FAST_MEMORY)
        first = replace(first, depth=depth)
        if LAGGING < rate < CONTRACTING:
            problem = equations.anticipating(AHEAD)
            first = replace(first, longest=_longest(equations, state))
    method = first.name if problem.preconditioner is None else f"{PRECONDITIONED_NAME} {first.name}"
    solution = solve(problem, first, state, watch=settings.watch)
    solution = replace(solution, method=method, products=solution.products + foresight)
    for solver in others if fallback else ():
        left = torch.nonzero(~solution.converged).squeeze(1)
        if not len(left):
            break
        if isinstance(solver, Levenberg) and not settings.thorough:
            left = left[: max(1, state.shape[1] // FEW)]
        part = None if settings.watch is None else settings.watch.part(left, solution.iterations[left])
        again = solve(equations.select(left), solver, state[:, left], watch=part)
        solution = merge(equations, solution, again, left)
    return solution


def _longest(equations: Equations, state: Tensor) -> int:
    """Differences, of images and of residuals, that there is room for."""
    mixed = state[equations.mixed]
    return room(mixed.numel() * mixed.element_size())


def room(size: int) -> int:
    """Differences that the memory of a slow circuit comes to hold.

    Args:
        size: bytes of what is mixed, of all samples together.
    """
    return min(LONG, HISTORY // max(1, 2 * size))


def merge(equations: Equations, solution: Solution, other: Solution, columns: Tensor) -> Solution:
    """A solution with some samples replaced where the other's residual is smaller; iterations and products add up."""
    wins = other.residual < solution.residual[columns]
    chosen = columns[wins]
    state, converged, residual, kinks = (
        t.clone() for t in (solution.state, solution.converged, solution.residual, solution.kinks)
    )
    state[:, chosen], converged[chosen] = other.state[:, wins], other.converged[wins]
    residual[chosen], kinks[chosen] = other.residual[wins], other.kinks[wins]
    return replace(
        solution,
        fields=equations.fields(state),
        state=state,
        converged=converged,
        residual=residual,
        kinks=kinks,
        iterations=solution.iterations.index_add(0, columns, other.iterations),
        products=solution.products.index_add(0, columns, other.products),
        method=solution.method if other.method in solution.method else f"{solution.method}, {other.method}",
    )
