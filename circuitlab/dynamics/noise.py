"""Noise on the neurons, drawn anew for every number of an update, so that a resumed run draws the same."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from circuitlab.graph.streams import stream


def generator(seed: int, name: str, step: int, device: torch.device) -> torch.Generator:
    """Torch's generator for the noise of one update: nothing is carried from one update to the next."""
    number = int(stream(seed, "noise", name, str(step)).integers(2**62))
    return torch.Generator(device=device).manual_seed(number)


class OrnsteinUhlenbeck:
    """tau_eps d eps/dt = -eps + white noise, scaled so that every eps has standard deviation 1  [eq. 122].

    In steps, eps <- a eps + sqrt(1 - a^2) xi with a = exp(-dt / tau_eps), exact at any step. The paper's form
    (eq. 138) has the variance 1/(2 tau_eps) instead, which depends on the unit of time. It begins at rest.

    Args:
        like: a tensor of the shape, precision and device wanted, [unit, sample].
        tau_ms, dt_ms: time constant and step in ms.
        source: of the random numbers.
    """

    def __init__(self, like: Tensor, tau_ms: float, dt_ms: float, source: torch.Generator) -> None:
        self.kept = math.exp(-dt_ms / tau_ms)
        self.added = math.sqrt(1 - self.kept**2)
        self.source = source
        self.value = torch.empty_like(like).normal_(generator=source)
        self.fresh = torch.empty_like(like)

    def step(self) -> Tensor:
        """The noise one step later, [unit, sample]; always the same tensor."""
        self.fresh.normal_(generator=self.source)
        return self.value.mul_(self.kept).add_(self.fresh, alpha=self.added)
