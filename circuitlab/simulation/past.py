"""What delayed synapses see: the last few milliseconds of their source, in ring buffers."""

from __future__ import annotations

import torch
from torch import Tensor


class Past:
    """Some rows at the last steps, and halfway between them.

    At the time t_n + c dt a synapse with a delay of k steps sees the values of t_{n-k} + c dt: for c = 0 and 1 those of
    a step, for c = 1/2 what a caller found between two steps. Before the first step rows were what they are there.

    Args:
        initial: values at the first step, [unit, sample].
        longest: the longest delay, in steps, at least 1.
        halves: whether values between steps are kept as well.
    """

    def __init__(self, initial: Tensor, longest: int, halves: bool) -> None:
        self.nodes = initial.unsqueeze(0).repeat(longest + 1, 1, 1)
        self.middles = initial.unsqueeze(0).repeat(longest if halves else 0, 1, 1)

    def keep(self, step: int, values: Tensor) -> None:
        """Values at a step, [unit, sample]."""
        self.nodes[step % len(self.nodes)] = values

    def keep_middle(self, step: int, values: Tensor) -> None:
        """Values halfway from a step to the next, [unit, sample]."""
        self.middles[step % len(self.middles)] = values

    def seen(self, step: int, delay: int, stage: float) -> Tensor:
        """What synapses with a delay of so many steps see at step + stage, [unit, sample]."""
        if stage == 0.5:
            return self.middles[(step - delay) % len(self.middles)]
        node = step - delay + (1 if stage else 0)
        return self.nodes[node % len(self.nodes)]


def middle(before: Tensor, after: Tensor, leaving: Tensor, arriving: Tensor, dt_ms: float) -> Tensor:
    """The value halfway between two steps by the cubic through both values and both time derivatives (Hermite): its
    error is dt^4/384 times the fourth derivative.

    Args:
        before, after: values, [row, sample]. leaving, arriving: time derivatives in 1/ms.
    """
    return torch.add(before, after).mul_(0.5).add_(leaving - arriving, alpha=dt_ms / 8)
