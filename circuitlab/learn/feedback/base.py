"""How the feedback weights of a pathway learn, beside the circuit's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from circuitlab.control.base import Pathway
from circuitlab.learn.base import Batch, Outcome, Task
from circuitlab.learn.learnable import Learnable


class FeedbackRule(ABC):
    """A rule, local in space and time, for the parameters of a pathway.

    Attributes:
        name: in experiment files.
        noisy: whether it draws noise (which many processes could not share).
        pretraining: passes over the training samples in which it alone learns, before the first epoch.
        passes: as many before each later epoch; where this is 0 it learns with the circuit, from each minibatch.
        always: whether it learns from minibatches of which the circuit can use no sample.
    """

    name: str
    noisy: bool = False
    pretraining: int = 0
    passes: int = 0
    always: bool = False

    def teaches(self, name: str) -> bool:
        """Whether a parameter of the pathway, by its name, is one that it changes; all are, as a rule."""
        return True

    @abstractmethod
    def updates(self, task: Task, batch: Batch, outcome: Outcome | None, step: int) -> dict[str, Tensor]:
        """Mean over the used samples of the change of each parameter of `task.pathway`, by its name.

        Args:
            outcome: what the circuit's rule found on the batch; None in a phase of its own.
            step: number of the update, which noise is drawn for.
        """

    def after_step(self, task: Task, compiled: Learnable) -> None:
        """What else happens after the weights have changed, such as decay; nothing, as a rule."""
        return


@dataclass(frozen=True)
class FeedbackLearning:
    """A feedback rule at work.

    Args:
        rule: what changes.
        optimizer: applies it; None where the parameters are in the circuit's own optimizer.
    """

    rule: FeedbackRule
    optimizer: torch.optim.Optimizer | None = None

    @property
    def alone(self) -> bool:
        """Whether it learns in phases of its own."""
        return self.rule.passes > 0 or self.rule.pretraining > 0

    def taught(self, pathway: Pathway) -> dict[str, nn.Parameter]:
        """The pathway's parameters that it changes, by name."""
        return {name: value for name, value in pathway.parameters().items() if self.rule.teaches(name)}

    @torch.no_grad()
    def apply(self, task: Task, updates: dict[str, Tensor]) -> None:
        """Take one step along the updates; where there is no optimizer of its own, only prepare it."""
        for name, parameter in self.taught(task.pathway).items():
            parameter.grad = updates[name].neg() if name in updates else None
        if self.optimizer is not None:
            self.optimizer.step()


PREFIX = "feedback/"
"""Before a feedback parameter's name where it stands among the circuit's."""


def joined(updates: dict[str, Tensor], feedback: dict[str, Tensor]) -> dict[str, Tensor]:
    """Updates of circuit and feedback in one mapping."""
    return {**updates, **{PREFIX + name: value for name, value in feedback.items()}}


def parted(updates: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The opposite of `joined`."""
    own = {name: value for name, value in updates.items() if not name.startswith(PREFIX)}
    return own, {name.removeprefix(PREFIX): updates[name] for name in updates if name.startswith(PREFIX)}


def names(rules: Iterable[FeedbackLearning]) -> str:
    """Their names for a message."""
    return ", ".join(learning.rule.name for learning in rules)
