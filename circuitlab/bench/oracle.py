"""An independent judge of controlled equilibria: descent of the energy from the free state, in double precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from circuitlab.bench.results import Cell, Table
from circuitlab.bench.updates import update_errors
from circuitlab.control.base import Controlled
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import Fields
from circuitlab.learn.base import Batch, LearningRule, Task
from circuitlab.solve.choose import find

DESCENT, POLISH, SOLVED = 1e-6, 1e-10, 1e-8
"""Residuals that descent and what polishes its end aim at, and the largest with which a sample counts as solved."""
MOVED = 1e-3
"""Relative change of the control in polishing above which a sample counts as unsolved: it left where descent ended."""
CLOSE = 1e-3
"""Relative error of a sample's update that counts as the oracle's own."""
PORTION = 64


@dataclass(frozen=True)
class Oracle:
    """Errors of the updates of the samples that the oracle solved.

    Args:
        errors: norm of each sample's difference from the oracle's update; infinite where it was left unconverged.
        norms: of the oracle's updates.
        unsolved: samples that the oracle did not solve itself.
        missed: samples that the rule left unconverged.
    """

    errors: list[float]
    norms: list[float]
    unsolved: int
    missed: int

    @property
    def relative(self) -> list[float]:
        """Each error over its own update's norm."""
        return [
            error / norm if norm else float("inf")
            for error, norm in zip(self.errors, self.norms, strict=True)
        ]

    @property
    def typical(self) -> float:
        """Root mean square of the norms."""
        return (sum(norm**2 for norm in self.norms) / max(len(self.norms), 1)) ** 0.5

    def cells(self) -> list[Cell]:
        """Cells of a row of `table`."""
        if not self.errors:
            return [0, self.unsolved, self.missed, None, None, None, None]
        own = self.relative
        near = sum(error <= CLOSE for error in own) / len(own)
        beside = sum(error <= CLOSE * self.typical for error in self.errors) / len(own)
        finite = torch.tensor(own).clamp(max=1e30)
        worst = float(finite.quantile(0.99))
        return [
            len(own),
            self.unsolved,
            self.missed,
            100 * near,
            100 * beside,
            float(finite.median()),
            worst if worst < 1e29 else None,
        ]

    def data(self) -> dict[str, Any]:
        """Raw numbers."""
        return {
            "errors": self.errors,
            "norms": self.norms,
            "unsolved_by_oracle": self.unsolved,
            "unconverged": self.missed,
        }

    @staticmethod
    def table(rows: list[list[Cell]]) -> Table:
        """The table of all checks."""
        return Table(
            "Each sample's update beside the oracle's: descent from the free state in float64",
            (
                "circuit",
                "alpha",
                "dtype",
                "samples",
                "unsolved",
                "missed",
                "own, %",
                "typical, %",
                "median",
                "99%",
            ),
            rows,
            f"own, typical: samples within {CLOSE:g} of the oracle, relative to their own and to the typical update.",
        )


@dataclass(frozen=True)
class Portion:
    """Some samples, their states, and which of them are solved, bool [sample]."""

    batch: Batch
    fields: Fields
    solved: Tensor


@dataclass(frozen=True)
class Truth:
    """Controlled equilibria found by descent, a portion of the samples at a time."""

    portions: list[Portion]


@torch.no_grad()
def descend(task: Task, batch: Batch) -> Truth:
    """The controlled equilibria that descent of the energy reaches from the free states, polished where it ends.

    Near its minimum the energy tells states apart only to half of all digits, too few for a control much smaller than
    the potentials; accelerated steps from there find the rest, and must stay where the descent ended.

    Args:
        task: of the circuit in double precision.
        batch: samples, in any precision.

    Raises:
        CircuitError: the circuit is too large for the descent, or has no energy.
    """
    own = replace(task.settings, method="auto", tolerance=1e-12, thorough=True)
    judge = replace(task, settings=replace(own, method="levenberg", tolerance=DESCENT))
    polish = replace(own, method="anderson", tolerance=POLISH)
    portions = []
    for start in range(0, batch.x.shape[1], PORTION):
        x, target = (part[:, start : start + PORTION].double() for part in (batch.x, batch.target))
        drive = task.system.drive(x)
        free = replace(task, settings=own).free(drive)
        end = judge.controlled(drive, target, free)
        problem = Controlled(task.system, drive, target, task.loss, task.controller, end.fields.phi)
        true = find(task.pathway.equations(problem), polish, start=end.state)
        psi, moved = true.fields.psi, true.fields.psi - end.fields.psi
        stayed = moved.norm(dim=0) <= MOVED * psi.norm(dim=0)
        portions.append(Portion(Batch(x, target), true.fields, (true.residual <= SOLVED) & stayed))
    return Truth(portions)


@torch.no_grad()
def check(rule: LearningRule, task: Task, truth: Truth, system: CircuitSystem) -> Oracle:
    """Compare the updates a rule makes of each sample with those of the equilibria found by descent.

    Args:
        task: with the circuit in its own precision.
        system: the same circuit in double precision.
    """
    dtype = task.system.tau.dtype
    errors: list[float] = []
    norms: list[float] = []
    unsolved = missed = 0
    for part in truth.portions:
        outcome = rule.outcome(task, Batch(part.batch.x.to(dtype), part.batch.target.to(dtype)))
        apart, size = update_errors(system, outcome.credit.fields, part.fields, part.batch.x)
        apart = torch.where(outcome.used, apart, torch.inf)
        errors += apart[part.solved].tolist()
        norms += size[part.solved].tolist()
        unsolved += int((~part.solved).sum())
        missed += int((~outcome.used).sum())
    return Oracle(errors, norms, unsolved, missed)
