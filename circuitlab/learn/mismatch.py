"""How far the control of lateral inhibition is from that of dynamic inversion with the same S."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from circuitlab.control.dynamic_inversion import DynamicInversion
from circuitlab.control.feedback import AmongUnits
from circuitlab.learn.base import Batch, Task
from circuitlab.learn.evaluate import CONTROL_PORTION, CONTROL_SAMPLES, Split
from circuitlab.learn.parallel import ALONE, Group


@torch.no_grad()
def mismatch(task: Task, batch: Batch) -> Tensor:
    """|psi - psi_DI| / |psi_DI| of every sample, [sample]; NaN where one of the two equilibria was not reached.

    Args:
        task: with a pathway in which control travels from unit to unit.
        batch: samples; each equilibrium is looked for from the free state.
    """
    assert isinstance(task.pathway, AmongUnits)
    drive = task.system.drive(batch.x)
    free = task.free(drive)
    found = task.controlled(drive, batch.target, free, batch.x)
    other = replace(task, pathway=DynamicInversion(task.pathway.feedback))
    exact = other.controlled(drive, batch.target, free, batch.x)
    size = torch.linalg.vector_norm(exact.fields.psi, dim=0)
    apart = torch.linalg.vector_norm(found.fields.psi - exact.fields.psi, dim=0) / size
    return torch.where(found.converged & exact.converged, apart, torch.nan)


def mean_mismatch(task: Task, split: Split, group: Group = ALONE) -> float:
    """Mean of the mismatch over a split's first samples; NaN where none of them settled."""
    share, total, count = group.share(min(CONTROL_SAMPLES, len(split))), 0.0, 0
    for start in range(share.start, share.stop, CONTROL_PORTION):
        found = mismatch(task, split.batch(np.arange(start, min(start + CONTROL_PORTION, share.stop))))
        settled = torch.isfinite(found)
        total, count = total + float(found[settled].double().sum()), count + int(settled.sum())
    total, count = group.sum(np.array([total, count], dtype=np.float64)).tolist()
    return total / count if count else float("nan")
