"""Where a training run is, running sums over its present epoch, and tensors as arrays for a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuitlab.learn.base import Outcome
from circuitlab.solve.choose import PRECONDITIONED_NAME


@dataclass
class Sums:
    """Running sums over the steps of the present epoch."""

    samples: int = 0
    used: int = 0
    answers: int = 0
    right: int = 0
    loss: float = 0.0
    control_cost: float = 0.0
    iterations: int = 0
    products: int = 0
    free_unconverged: int = 0
    kinks: int = 0
    residual: float = 0.0
    energy_checked: int = 0
    energy_lowered: int = 0
    batches: int = 0
    preconditioned: int = 0

    def add(self, outcome: Outcome, answers: int, right: int) -> None:
        """Take in one step, with the number of classes asked for and told right at the free equilibrium."""
        used = outcome.used
        self.answers += answers
        self.right += right
        self.samples += len(used)
        self.used += int(used.sum())
        self.loss += float(outcome.loss.double().sum())
        self.control_cost += float(outcome.control_cost[used].double().sum())
        self.iterations += int(outcome.credit.iterations.sum())
        self.products += int(outcome.credit.products.sum() + outcome.free.products.sum())
        self.free_unconverged += int((~outcome.free.converged).sum())
        self.kinks += int(outcome.credit.kinks.sum())
        self.energy_checked += outcome.energy_checked
        self.energy_lowered += outcome.energy_lowered
        self.batches += 1
        self.preconditioned += outcome.credit.method.startswith(PRECONDITIONED_NAME)
        if bool(used.any()):
            self.residual = max(self.residual, float(outcome.credit.residual[used].max()))

    def metrics(self, unconverged: int) -> dict[str, float]:
        """Means over the epoch's samples."""
        n = max(self.samples, 1)
        return {
            "iterations": self.iterations / n,
            "products": self.products / n,
            "unconverged": unconverged / n,
            "free_unconverged": self.free_unconverged / n,
            "kinks": self.kinks / n,
            "residual": self.residual,
            "preconditioned": self.preconditioned / max(self.batches, 1),
        }


@dataclass
class Progress:
    """Where a run is: epochs finished, steps done in the present one and in all, early stopping's memory; and of the
    feedback weights' own phases: passes done in the present one and before it, steps in this pass and in all."""

    begun: bool = False
    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    unconverged: int = 0
    best: float = float("nan")
    waited: int = 0
    stopped: bool = False
    feedback_pass: int = 0
    feedback_step_in_pass: int = 0
    feedback_passes_before: int = 0
    feedback_step: int = 0
    sums: Sums = field(default_factory=Sums)


def array_of(value: Tensor) -> np.ndarray:
    """A copy for a checkpoint."""
    return value.detach().cpu().numpy().copy()


def plain(tree: Any) -> Any:
    """Nested containers with arrays in place of tensors."""
    if isinstance(tree, Tensor):
        return array_of(tree)
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(plain(value) for value in tree)
    return tree


def tensors(tree: Any) -> Any:
    """The opposite of `plain`."""
    if isinstance(tree, (np.ndarray, np.generic)):
        return torch.as_tensor(tree)
    if isinstance(tree, dict):
        return {key: tensors(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(tensors(value) for value in tree)
    return tree
