"""How well the circuit does on its own: loss and accuracy at the free equilibrium."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from circuitlab.learn.base import Batch, Task
from circuitlab.learn.parallel import ALONE, Group

PORTION = 250
"""Samples evaluated at a time; their states are what an evaluation's memory goes to."""
CONTROL_PORTION = 125
"""Samples whose controlled equilibria are found at a time in an evaluation."""
CONTROL_SAMPLES = 250
"""Training samples on which the control that the circuit still needs is measured."""


@dataclass(frozen=True)
class Split:
    """A part of a data set on the circuit's device.

    Args:
        x: [sample, input unit].
        target: [sample, output unit].
        classes: rows (within the output units) of every output population whose targets are classes.
    """

    x: Tensor
    target: Tensor
    classes: tuple[slice, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, sample_ids: np.ndarray) -> Batch:
        """The samples of these indices, with the sample as last axis."""
        index = torch.as_tensor(sample_ids, device=self.x.device)
        return Batch(self.x[index].t().contiguous(), self.target[index].t().contiguous())


@dataclass(frozen=True)
class Evaluation:
    """Means over a split; accuracy is the share of right classes over all output populations with classes, or None."""

    loss: float
    accuracy: float | None
    unconverged: float

    def metrics(self) -> dict[str, float]:
        """By name; `unconverged` is the share of free equilibria that were not reached."""
        found = {"loss": self.loss, "unconverged": self.unconverged}
        return found if self.accuracy is None else {**found, "accuracy": self.accuracy}


def count_right(task: Task, split: Split, phi: Tensor, batch: Batch) -> int:
    """Number of classes, over a batch of the split, that the outputs at phi tell right."""
    y = task.outputs(phi)
    return sum(int((y[rows].argmax(0) == batch.target[rows].argmax(0)).sum()) for rows in split.classes)


@torch.no_grad()
def evaluate(task: Task, split: Split, group: Group = ALONE) -> Evaluation:
    """Loss and accuracy at the free equilibrium; samples that did not converge count with their best state.

    Every process of the group takes its share of the split.
    """
    loss, right, missing = 0.0, 0, 0
    share = group.share(len(split))
    for start in range(share.start, share.stop, PORTION):
        batch = split.batch(np.arange(start, min(start + PORTION, share.stop)))
        free = task.free(task.system.drive(batch.x))
        y = task.outputs(free.fields.phi)
        loss += float(task.loss.value(y, batch.target).double().sum())
        missing += int((~free.converged).sum())
        right += count_right(task, split, free.fields.phi, batch)
    loss, missing, right = group.sum(np.array([loss, missing, right], dtype=np.float64)).tolist()
    n = max(len(split), 1)
    accuracy = right / (n * len(split.classes)) if split.classes else None
    return Evaluation(loss / n, accuracy, missing / n)


@torch.no_grad()
def control_cost(task: Task, split: Split, group: Group = ALONE) -> float:
    """Mean of H = 1/2 |psi|^2 at the controlled equilibria of the split's first samples; NaN where none converged."""
    share, total, count = group.share(min(CONTROL_SAMPLES, len(split))), 0.0, 0
    for start in range(share.start, share.stop, CONTROL_PORTION):
        batch = split.batch(np.arange(start, min(start + CONTROL_PORTION, share.stop)))
        drive = task.system.drive(batch.x)
        found = task.controlled(drive, batch.target, task.free(drive), batch.x)
        total += float(0.5 * found.fields.psi[:, found.converged].double().square().sum())
        count += int(found.converged.sum())
    total, count = group.sum(np.array([total, count], dtype=np.float64)).tolist()
    return total / count if count else float("nan")
