"""A solver's iteration beside the products it cannot do without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from circuitlab.bench.circuits import random_batch, random_circuit, task_of
from circuitlab.bench.results import Cell, Table
from circuitlab.bench.timing import Spread, alternate
from circuitlab.control.base import Controlled
from circuitlab.dynamics.equations import Equations
from circuitlab.errors import CircuitError
from circuitlab.learn.base import Batch, Task
from circuitlab.solve.choose import find

NEURONS, OUTPUTS, BATCH = 256, 10, 64
FEW, MANY = 6, 14
"""Iterations of the two solves whose difference is the time of MANY - FEW iterations and nothing else."""
NEVER = -1.0
"""A tolerance that not even a residual of exactly zero meets, which float32 does reach."""
NUDGE = 0.01
METHODS = {
    "plain steps": ("fixed_point", None),
    "`auto`, where steps shrink fast (3 remembered)": ("auto", 0.3),
    "`auto`, where nothing is known (4 remembered)": ("auto", None),
}
"""Words for the table: the method, and the rate of the free state's first steps that it is told."""
COLUMNS = ("solver", "iteration least, us", "median", "products least, us", "ratio")


def step_table(
    repeats: int, seed: int, neurons: int = NEURONS, batch: int = BATCH
) -> tuple[Table, dict[str, Any]]:
    """Time of an iteration of the controlled solve, and of W rate and W^T control alone, both of every projection."""
    rows: list[list[Cell]] = []
    raw: dict[str, Any] = {}
    task = task_of(random_circuit(neurons, 1.0, 0.9, OUTPUTS, seed), 6.4, torch.float32)
    samples = random_batch(task, batch, 1.0, seed)
    equations = controlled_equations(task, samples)
    for words, (method, rate) in METHODS.items():
        work = {
            "few": iterate(task, equations, method, FEW, rate),
            "many": iterate(task, equations, method, MANY, rate),
            "products": products(task, batch, seed),
        }
        readings = alternate(work, repeats)
        few, many, alone = (Spread.of(readings[name]) for name in ("few", "many", "products"))
        least, median = ((f(many) - f(few)) / (MANY - FEW) for f in (_least, _median))
        rows.append([words, 1e6 * least, 1e6 * median, 1e6 * alone.least, least / alone.least])
        raw[words] = readings
    title = f"A controlled iteration beside its products alone, {neurons} neurons, all joined, batch {batch}, float32"
    return Table(title, COLUMNS, rows), raw


def _least(spread: Spread) -> float:
    return spread.least


def _median(spread: Spread) -> float:
    return spread.median


def controlled_equations(task: Task, batch: Batch) -> Equations:
    """The equations of the controlled equilibrium, to be started from zero."""
    drive = task.system.drive(batch.x)
    start = torch.zeros_like(drive)
    problem = Controlled(task.system, drive, batch.target, task.loss, task.controller, start)
    return task.pathway.equations(problem)


def iterate(
    task: Task, equations: Equations, method: str, count: int, rate: float | None = None
) -> Callable[[], None]:
    """A solve of exactly so many iterations, as no residual meets its tolerance.

    Raises:
        CircuitError: some sample stopped earlier.
    """
    settings = replace(task.settings, method=method, max_iterations=count, tolerance=NEVER)
    settings = replace(settings, preconditioner="none")
    start = equations.start()
    # without a positive tolerance a residual has no floor: no variable may begin at zero, which it is relative to
    start = start + NUDGE * torch.randn(
        start.shape, generator=torch.Generator().manual_seed(0), dtype=start.dtype
    )

    def solve() -> None:
        found = find(equations, settings, start, rate, fallback=False)
        if bool((found.iterations != count).any()):
            raise CircuitError(f"a solver stopped before {count} iterations; its step cannot be timed so")

    return solve


def products(task: Task, batch: int, seed: int) -> Callable[[], None]:
    """W rate and W^T control of every recurrent projection, as a sweep asks for them: W rate added to a
    drive, into arrays that are there already."""
    system = task.system
    compiled = system.compiled  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(seed)
    rate, control = (
        torch.randn(system.size, batch, generator=generator, dtype=compiled.dtype) for _ in range(2)
    )
    forward, back = torch.zeros_like(rate), torch.zeros_like(rate)

    drive = torch.zeros_like(rate)
    calls = []
    for link in compiled.recurrent:
        there, home = link.kernel.product(), link.kernel.product(turned=True)
        calls.append((there, rate[link.source], drive[link.target], forward[link.target]))
        calls.append((home, control[link.target], None, back[link.source]))

    def once() -> None:
        for product, source, base, out in calls:
            product(source, base, out)

    return once
