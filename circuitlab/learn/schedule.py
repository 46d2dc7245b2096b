"""What changes from one update to the next beside the learning rate: the controller's leak, and checks of the energy.

Both follow from the number of the update alone, so that a resumed run needs nothing but that number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from circuitlab.learn.base import Task


@dataclass(frozen=True)
class AlphaSchedule:
    """The leak alpha of each update, from strong leak (weak control) to little, or the other way.

    geometric   alpha = start (end/start)^p
    linear      alpha = start + (end - start) p        with p = min(1, update / (over updates))

    Args:
        start, end: leaks, dimensionless, above 0.
        updates: number of updates in all.
        over: share of them after which `end` is reached.
        geometric: the shape.
    """

    start: float
    end: float
    updates: int
    over: float = 0.7
    geometric: bool = True

    def at(self, update: int) -> float:
        """The leak of an update, counted from 0."""
        share = min(1.0, update / (self.over * self.updates))
        if share == 1.0:
            return self.end
        if self.geometric:
            return self.start * (self.end / self.start) ** share
        return self.start + (self.end - self.start) * share

    def aimed(self, task: Task, update: int) -> Task:
        """The task with the leak of an update."""
        alpha = self.at(update)
        controller = task.controller.with_leak(alpha)
        return task if task.controller == controller else replace(task, controller=controller)


@dataclass(frozen=True)
class EnergyCheck:
    """When the lower of two equilibria is looked for.

    Args:
        every: updates from one check to the next.
        samples: samples of the batch that are checked.
    """

    every: int
    samples: int

    def due(self, update: int) -> bool:
        """Whether an update, counted from 0, is the last of `every` in a row."""
        return (update + 1) % self.every == 0
