"""An independent judge of controlled equilibria: descent of the energy from the free state, in double precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from circuitlab.bench.results import Cell, Table
from circuitlab.bench.timing import Spread
from circuitlab.bench.updates import update_errors
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.learn.base import Batch, LearningRule, Task
from circuitlab.solve.base import Solution

AIM, SOLVED = 1e-9, 1e-8
"""The residual that descent aims at, and the largest with which a sample counts as solved by it."""
CLOSE = 1e-3
"""Relative error of a sample's update that counts as the oracle's own."""
PORTION = 64


@dataclass(frozen=True)
class Oracle:
    """Errors of the updates of some samples.

    Args:
        errors: relative error of every sample that the oracle solved; infinite where it was left unconverged.
        unsolved: samples that the oracle did not solve itself.
        missed: samples that the contender left unconverged.
    """

    errors: list[float]
    unsolved: int
    missed: int

    @property
    def share(self) -> float:
        """Samples within CLOSE of the oracle, of those it solved; an unconverged sample is not within."""
        return sum(error <= CLOSE for error in self.errors) / max(len(self.errors), 1)

    def cells(self) -> list[Cell]:
        """Cells of a row of `table`."""
        if not self.errors:
            return [0, self.unsolved, self.missed, None, None, None]
        worst = float(torch.tensor(self.errors).quantile(0.99, interpolation="lower"))
        return [
            len(self.errors), self.unsolved, self.missed, 100 * self.share, Spread.of(self.errors).median, worst,
        ]  # fmt: skip

    def data(self) -> dict[str, Any]:
        """Raw numbers."""
        return {"errors": self.errors, "unsolved_by_oracle": self.unsolved, "unconverged": self.missed}

    @staticmethod
    def table(rows: list[list[Cell]]) -> Table:
        """The table of all checks."""
        return Table(
            "Each sample's update beside the oracle's: descent from the free state in float64",
            ("circuit", "alpha", "dtype", "samples", "unsolved", "missed", "<1e-3, %", "median", "99%"),
            rows,
            "",
        )


@dataclass(frozen=True)
class Truth:
    """Controlled equilibria found by descent, a portion of the samples at a time."""

    portions: list[tuple[Batch, Solution]]


@torch.no_grad()
def descend(task: Task, batch: Batch) -> Truth:
    """The controlled equilibria that descent of the energy reaches from the free states.

    Args:
        task: of the circuit in double precision.
        batch: samples, in any precision.

    Raises:
        CircuitError: the circuit is too large for the descent, or has no energy.
    """
    own = replace(task.settings, method="auto", tolerance=1e-12, thorough=True)
    judge = replace(task, settings=replace(own, method="levenberg", tolerance=AIM))
    portions = []
    for start in range(0, batch.x.shape[1], PORTION):
        x, target = (part[:, start : start + PORTION].double() for part in (batch.x, batch.target))
        drive = task.system.drive(x)
        free = replace(task, settings=own).free(drive)
        portions.append((Batch(x, target), judge.controlled(drive, target, free)))
    return Truth(portions)


@torch.no_grad()
def check(rule: LearningRule, task: Task, truth: Truth, system: CircuitSystem) -> Oracle:
    """Compare the updates a rule makes of each sample with those of the equilibria found by descent.

    Args:
        task: with the circuit in its own precision.
        system: the same circuit in double precision.
    """
    dtype = task.system.tau.dtype
    errors: list[Tensor] = []
    unsolved = missed = 0
    for batch, true in truth.portions:
        outcome = rule.outcome(task, Batch(batch.x.to(dtype), batch.target.to(dtype)))
        apart = update_errors(system, outcome.credit.fields, true.fields, batch.x)
        apart = torch.where(outcome.used, apart, torch.inf)
        solved = true.residual <= SOLVED
        errors.append(apart[solved])
        unsolved += int((~solved).sum())
        missed += int((~outcome.used).sum())
    return Oracle(torch.cat(errors).tolist(), unsolved, missed)
