"""A circuit whose synapses see the past: delays, inputs that change, and noise, as part of f.

    tau dphi/dt = -phi + W sigma(phi(t - delay)) + U x(t - delay) + b + psi + eps

It is the circuit of the equilibria in everything else: equations, controllers and pathways see it through the same
protocol. At rest the past is the present, so delays leave every resting state where it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from circuitlab.compile.compiled import CompiledCircuit, Link
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.simulation.past import Past
from circuitlab.simulation.signal import Signal


class TimedCircuit(CircuitSystem):
    """A compiled circuit at a moment of a simulation.

    Args:
        compiled: the circuit.
        delays: of its projections, in steps; those without are left out.
        signal: inputs over time.

    Attributes:
        number, stage: the moment, step + stage (0, 1/2 or 1).
        rate_past: of the rates, by the first row of the population that sends. control_past: of the control (bursts).
    """

    def __init__(self, compiled: CompiledCircuit, delays: Mapping[str, int], signal: Signal) -> None:
        super().__init__(compiled)
        self.delays, self.signal = {name: steps for name, steps in delays.items() if steps}, signal
        self.number, self.stage = 0, 0.0
        self.rate_past: dict[int, Past] = {}
        self.control_past: dict[int, Past] = {}
        self._x: dict[int, Tensor] = {}
        self._inputs = {link.projection.name for link in compiled.feedforward}
        self._bursts = {link.projection.name for link in compiled.burst}

    @property
    def remembers(self) -> bool:
        """Whether any projection among units has a delay."""
        return bool(self.delays.keys() - self._inputs)

    def begin(self, phi: Tensor, psi: Tensor, halves: bool) -> None:
        """Set the past to a state that has always been there.

        Args:
            phi, psi: potentials and control at the first step, [unit, sample].
            halves: whether values between steps will be asked for.
        """
        rate = self.rates(phi)
        for links, past, values in (
            (self.compiled.recurrent, self.rate_past, rate),
            (self.compiled.burst, self.control_past, psi),
        ):
            past.clear()
            for rows, longest in self._sending(links):
                past[rows.start] = Past(values[rows], longest, halves)

    def _sending(self, links: Sequence[Link]) -> list[tuple[slice, int]]:
        """Rows that send with a delay, and the longest one of each."""
        found: dict[tuple[int, int], int] = {}
        for link in links:
            steps = self.delays.get(link.projection.name, 0)
            rows = (link.source.start, link.source.stop)
            if steps:
                found[rows] = max(steps, found.get(rows, 0))
        return [(slice(*rows), longest) for rows, longest in found.items()]

    def keep(self, phi: Tensor, psi: Tensor) -> None:
        """Remember the state at the present step, [unit, sample]."""
        for values, past in ((self.rates(phi), self.rate_past), (psi, self.control_past)):
            for start, one in past.items():
                one.keep(self.number, values[start : start + one.nodes.shape[1]])

    def keep_middle(self, step: int, phi: Tensor, psi: Tensor) -> None:
        """Remember the state halfway from a step to the next, [unit, sample]."""
        for values, past in ((self.rates(phi), self.rate_past), (psi, self.control_past)):
            for start, one in past.items():
                one.keep_middle(step, values[start : start + one.nodes.shape[1]])

    def sent(self, link: Link, values: Tensor) -> Tensor:
        name = link.projection.name
        steps = self.delays.get(name, 0)
        if not steps:
            return values[link.source]
        if name in self._inputs:
            return self.inputs(self.number - steps)[link.source]
        past = self.control_past if name in self._bursts else self.rate_past
        return past[link.source.start].seen(self.number, steps, self.stage)

    def inputs(self, step: int) -> Tensor:
        """What the inputs are clamped to from a step to the next, [input unit, sample]."""
        index = self.signal.index(step)
        if index not in self._x:
            oldest = self.signal.index(self.number - max(self.delays.values(), default=0))
            for one in [one for one in self._x if one < oldest]:
                del self._x[one]
            values = torch.as_tensor(self.signal.at(step).T, dtype=self.compiled.dtype)
            self._x[index] = values.to(self.compiled.device, memory_format=torch.contiguous_format)
        return self._x[index]

    def seen(self, step: int) -> tuple[int, ...]:
        """Which inputs every projection from inputs sees in a step: the drive is the same while this is."""
        return tuple(
            self.signal.index(step - self.delays.get(link.projection.name, 0))
            for link in self.compiled.feedforward
        )

    @torch.no_grad()
    def present_drive(self) -> Tensor:
        """U x(t - delay) + b at the present step, [unit, sample]."""
        x = self.inputs(self.number)
        out = self.compiled.drive(torch.zeros_like(x))
        self.add_products(self.compiled.feedforward, x, out)
        return out
