"""Noise currents into somata: an Ornstein-Uhlenbeck process of its own for every neuron and sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.dynamics.noise import OrnsteinUhlenbeck, generator


class Process(Protocol):
    """A process of standard deviation 1; `value` is its present one, [unit, sample], and `step` makes the next."""

    value: Tensor

    def step(self) -> Tensor:
        """The noise one step later."""
        ...


@dataclass(frozen=True)
class Source:
    """The noise of one population.

    Args:
        rows: that it reaches. std: its standard deviation, dimensionless like potentials. process: of deviation 1.
    """

    rows: slice
    std: float
    process: Process


def currents(compiled: CompiledCircuit, samples: int, dt_ms: float, seed: int) -> list[Source]:
    """The noise of every population that has any, begun in its stationary state.

    Each population draws from a stream of its own, made of the seed and its name: a population more or less, or another
    time constant elsewhere, changes no other's noise.
    """
    found = []
    for name, rows in compiled.units.items():
        noise = compiled.circuit.populations[name].noise
        if noise is not None and noise.std > 0:
            source = generator(seed, f"simulation {name}", 0, compiled.device)
            like = compiled.tau.new_empty(rows.stop - rows.start, samples)
            found.append(Source(rows, noise.std, OrnsteinUhlenbeck(like, noise.tau_ms, dt_ms, source)))
    return found
