"""Looking at a solver on its way: the states of some of its iterations, without changing any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from circuitlab.dynamics.equations import Equations, Fields

Take = Callable[[int, Tensor, Fields, Tensor], None]
"""Told of states: iterations made, numbers of the samples [sample], their variables, and their residuals [sample]."""


@dataclass(frozen=True)
class Watch:
    """Somebody who is shown every so many iterations of each sample until it is done.

    Args:
        every: iterations between two states shown; the first one, before any iteration, is shown as well.
        last: iteration after which nothing is shown.
        take: told of the states.
        samples: numbers, within the batch, of the samples at hand; they are counted from 0 where None.
        made: iterations that they have made already, [sample]; none where None.
    """

    every: int
    last: int
    take: Take
    samples: Tensor | None = None
    made: Tensor | None = None

    def part(self, columns: Tensor, made: Tensor) -> Watch:
        """For some of the samples, which have made so many iterations here, [column]."""
        samples = columns if self.samples is None else self.samples[columns]
        made = made if self.made is None else made + self.made[columns]
        return replace(self, samples=samples, made=made)

    def look(
        self,
        count: int,
        equations: Equations,
        state: Tensor,
        residual: Tensor,
        columns: Tensor | None = None,
        opened: Tensor | None = None,
    ) -> None:
        """Show what is wanted of the states after so many iterations.

        Args:
            count: iterations made here. equations: of the samples. state: [row, sample], in the form that is iterated.
            residual: [sample]. columns: which of the samples at hand these are. opened: those still moving.
        """
        if self.made is None and (count % self.every or count > self.last):
            return
        if columns is None:
            columns = torch.arange(state.shape[1], device=state.device)
        made = torch.full_like(columns, count)
        if self.made is not None:
            made += self.made[columns]
        wanted = (made % self.every == 0) & (made <= self.last)
        if opened is not None:
            wanted &= opened
        if not bool(wanted.any()):
            return
        fields = equations.fields(equations.closed(state))
        numbers = columns if self.samples is None else self.samples[columns]
        for iterations in torch.unique(made[wanted]).tolist():
            now = torch.nonzero(wanted & (made == iterations)).squeeze(1)
            some = replace(fields, phi=fields.phi[:, now], psi=fields.psi[:, now], u=fields.u[:, now])
            self.take(int(iterations), numbers[now], some, residual[now])
