"""Warm starts in training: a sample's equilibria are looked for from its last ones, or from the mean of its class.

What is remembered is how far an equilibrium lay from the equations' own start, per unit of the error that the free
state makes: the circuit has moved since, and the free state that a controlled one starts from is new. So

    start = own start + |dL/dy| d,   d = (equilibrium - own start) / |dL/dy| when it was last found

in the phase that carries the credit, and the same without |dL/dy| in the free phase. A start at the
remembered state itself costs more products than none: its rounding is noise that no feedback pathway would make.

Nothing here reaches an evaluation: a start serves only batches of the training set, which are known by their sample
indices. Where no start is known the equations' own is taken. A sample that does not come to rest from its warm start is
solved again from the equations' own, so a bad start costs time and never a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from circuitlab.dynamics.equations import Equations
from circuitlab.errors import CircuitError
from circuitlab.solve.base import Solution
from circuitlab.solve.choose import merge

Solver = Callable[[Equations, Tensor | None, bool], Solution]
FREE, CREDIT = "free", "credit"
"""The two phases of every rule: the free equilibrium, and what carries the credit (the controlled equilibrium, or the
second phase of a baseline)."""
DECAY = 0.9
"""What is left of a class's mean after each batch in which the class appears."""
STORED = torch.bfloat16
"""Precision of what is remembered of each sample: 8 bits of mantissa are finer than what an epoch of learning changes,
and the range is that of float32, so that a small control survives."""


@dataclass(frozen=True)
class Classes:
    """Class of every training sample, int64 [sample], and how many classes there are."""

    labels: Tensor
    count: int


class Starts:
    """What the equilibria of earlier updates leave for later ones.

    The mean of a class is m <- DECAY m + (1 - DECAY) (mean of d over the class's samples in the batch), begun with the
    first batch's. A sample's own last d is kept in `STORED` precision, for the samples with the first indices, as many
    as fit; the others start from the means of their classes, where there are classes.

    Args:
        kind: `class_mean` (of the phase that carries the credit; the free phase knows no classes), or `last` (both
            phases).
        rows: rows of the state of each phase.
        samples: of the training set.
        classes: of the training samples, or None where targets are no classes.
        memory: bytes that the samples' own starts may take (`last`).
        dtype, device: of the states.

    Raises:
        CircuitError: class means without classes, or a memory below one sample's states.
    """

    def __init__(
        self,
        kind: str,
        rows: Mapping[str, int],
        samples: int,
        classes: Classes | None,
        memory: float,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        if kind == "class_mean" and classes is None:
            raise CircuitError("solve.start: class_mean needs class labels; allowed here: free, zero, last")
        self.classes = classes
        self.kept = 0
        if kind == "last":
            each = STORED.itemsize * sum(rows.values())
            self.kept = min(samples, int(memory // each))
            if self.kept == 0:
                raise CircuitError(
                    f"solve.start_memory: {memory:,.0f} bytes hold no sample: one takes {each:,} bytes"
                )
        self.last = {
            phase: torch.zeros(self.kept, length, dtype=STORED, device=device)
            for phase, length in rows.items()
        }
        self.seen = {phase: torch.zeros(self.kept, dtype=torch.bool, device=device) for phase in rows}
        count = 0 if classes is None else classes.count
        self.means = torch.zeros(count, rows[CREDIT], dtype=dtype, device=device)
        self.met = torch.zeros(count, dtype=torch.bool, device=device)

    def of(self, sample_ids: Any) -> SampleStarts:
        """The starts of a batch, by the samples' indices in the training set."""
        return SampleStarts(self, torch.as_tensor(sample_ids, device=self.means.device))

    def recall(self, phase: str, ids: Tensor) -> tuple[Tensor, Tensor]:
        """d of every sample of a batch, [row, sample], zero where none is known, and where one is, bool [sample]."""
        d = torch.zeros(len(ids), self.last[phase].shape[1], dtype=self.means.dtype, device=ids.device)
        known = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        if phase == CREDIT and self.classes is not None:
            label = self.classes.labels[ids]
            d, known = self.means[label], self.met[label]
        if self.kept:
            place = torch.where(ids < self.kept, ids, 0)
            own = (ids < self.kept) & self.seen[phase][place]
            d = torch.where(own.unsqueeze(1), self.last[phase][place].to(d.dtype), d)
            known = known | own
        return d.t(), known

    def keep(self, phase: str, ids: Tensor, d: Tensor) -> None:
        """Remember d, [row, sample], of these samples."""
        if phase == CREDIT and self.classes is not None and len(ids):
            member = F.one_hot(self.classes.labels[ids], self.classes.count).to(d.dtype)
            number = member.sum(0)
            mean = (d @ member / number.clamp(min=1)).t()
            share = torch.where(self.met, 1 - DECAY, 1.0).to(d.dtype) * (number > 0)
            self.means.lerp_(mean, share.unsqueeze(1))
            self.met |= number > 0
        inside = ids < self.kept
        self.last[phase][ids[inside]] = d[:, inside].t().to(STORED)
        self.seen[phase][ids[inside]] = True

    def state(self) -> dict[str, Any]:
        """What later updates depend on, for a checkpoint; samples' own starts as the bits of `STORED`."""
        last = {phase: d.view(torch.int16) for phase, d in self.last.items()}
        return {"means": self.means, "met": self.met, "last": last, "seen": self.seen}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.means.copy_(state["means"])
        self.met.copy_(state["met"])
        for phase in self.last:
            self.last[phase].view(torch.int16).copy_(state["last"][phase])
            self.seen[phase].copy_(state["seen"][phase])


@dataclass(frozen=True)
class SampleStarts:
    """The starts of the samples of one batch, in their order.

    Args:
        starts: of the whole training set.
        ids: indices of the samples in it, [sample].
    """

    starts: Starts
    ids: Tensor = field(repr=False)

    def find(self, phase: str, equations: Equations, solver: Solver, error: Tensor | None = None) -> Solution:
        """The equilibria of a batch from their warm starts, and from the equations' own where that fails.

        Args:
            phase: FREE or CREDIT.
            solver: solves equations from a start (None: their own), with or without the solvers after the first; a
                warm attempt takes the first alone.
            error: dL/dy at the free state, [output unit, sample], whose norm is the unit of d; 1 where None.
        """
        own = equations.start()
        unit = torch.ones_like(own[0]) if error is None else torch.linalg.vector_norm(error, dim=0)
        unit = unit.clamp(min=torch.finfo(own.dtype).eps)
        d, known = self.starts.recall(phase, self.ids)
        if bool(known.any()):
            found = solver(equations, own + unit * d, False)
            left = torch.nonzero(~found.converged).squeeze(1)
            if len(left):
                found = merge(equations, found, solver(equations.select(left), None, True), left)
        else:
            found = solver(equations, None, True)
        ok = found.converged
        self.starts.keep(phase, self.ids[ok], ((found.state - own) / unit)[:, ok])
        return found
