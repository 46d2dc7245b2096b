"""The closed form of the principle's protocol for a compiled circuit: no autograd anywhere.

f(phi) = -phi + W sigma(phi) + U x + b  [eq. 11, 110], with the rate-coded input to apical sites as part of f, and
L phi of gap junctions (`circuitlab.dynamics.junctions`), which the prediction then includes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from circuitlab.compile.compiled import CompiledCircuit, Link
from circuitlab.dynamics.activations import (
    ACTIVATIONS,
    Activation,
    at_kink,
    kink_distance,
    kinked_control,
    with_gain,
)
from circuitlab.dynamics.junctions import Junctions, JunctionSweep, lean
from circuitlab.dynamics.sweep import Back, CircuitSweep, Plan, Route, Sweep, plan_back
from circuitlab.dynamics.system import Point, System


class CircuitSystem(System):
    """A compiled circuit seen as a dynamical system."""

    def __init__(self, compiled: CompiledCircuit) -> None:
        self.compiled = compiled
        self.size, self.output = compiled.size, compiled.output_rows
        circuit = compiled.circuit
        self.activations: list[tuple[slice, Activation]] = [
            (rows, with_gain(ACTIVATIONS[p.activation], p.gain, p.threshold))
            for p, rows in ((circuit.populations[name], rows) for name, rows in compiled.units.items())
        ]
        self.kinked = [(rows, a) for rows, a in self.activations if a.kink and rows.start < self.output.start]
        self.synapses = max(1, sum(len(k.projection.edges) for k in compiled.recurrent))
        self.groups = [[compiled.units[n] for n in names] for names in compiled.circuit.strongly_connected()]
        self.order = _order(compiled)
        last = [rows for rows in self.order if rows.start >= self.output.start]
        self.backward_order = last[::-1] + [rows for rows in self.order[::-1] if rows not in last]
        self.group_of = {rows.start: rows.start for rows in self.order}
        self.group_of |= {rows.start: group[0].start for group in self.groups for rows in group}
        self.plans = _plans(self)
        self.junctions = Junctions(compiled) if compiled.electrical else None
        self.swept = not any(plan.late for plan in self.plans) and self.junctions is None
        self.tied = self.plan_back([Route(k.kernel, True, k.target, k.source) for k in compiled.recurrent])
        self.swept_back = all(back.fresh for ways in self.tied.values() for back in ways)
        self.swept_back = self.swept_back and self.junctions is None

    @property
    def tau(self) -> Tensor:
        return self.compiled.tau

    @property
    def lag(self) -> float:
        return 1.0 if self.junctions is None else float(1 + self.junctions.loads().max())

    @property
    def controlled(self) -> Tensor | None:
        return None if self.compiled.all_controlled else self.compiled.controlled

    @torch.no_grad()
    def drive(self, x: Tensor) -> Tensor:
        return self.compiled.drive(x)

    @cached_property
    def kinks(self) -> Tensor | None:
        """Where on their potentials neurons have kinks, if they do, [unit, 1]; None where all of these are at zero."""
        if not any(activation.threshold for _, activation in self.kinked):
            return None
        found = torch.zeros_like(self.tau)
        for rows, activation in self.kinked:
            found[rows] = activation.threshold
        return found

    def rates(self, phi: Tensor) -> Tensor:
        """sigma(phi), [unit, sample]."""
        out = torch.empty_like(phi)
        for rows, activation in self.activations:
            activation.rate(phi[rows], out[rows])
        return out

    def slopes(self, phi: Tensor, rate: Tensor) -> Tensor:
        """sigma'(phi), [unit, sample]."""
        out = torch.empty_like(phi)
        for rows, activation in self.activations:
            activation.slope_into(phi[rows], rate[rows], out[rows])
        return out

    def plan_back(self, routes: Sequence[Route]) -> dict[int, list[Back]]:
        """How control travels in a sweep: the outputs' first, then against the order of the forward pass."""
        return plan_back(self.backward_order, self.group_of, routes)

    def sweep(self, drive: Tensor) -> Sweep:
        return self.along(drive)

    def transport(self, drive: Tensor) -> Sweep:
        return self.along(drive, self.tied, kinked=False, masked=False)

    def along(
        self,
        drive: Tensor,
        back: Mapping[int, list[Back]] | None = None,
        kinked: bool = True,
        masked: bool = True,
    ) -> Sweep:
        """Passes with control travelling along these ways; see `CircuitSweep`."""
        kind = CircuitSweep if self.junctions is None else JunctionSweep
        return kind(self, drive, back, kinked, masked)

    @torch.no_grad()
    def arriving(self, rate: Tensor, drive: Tensor) -> Tensor:
        """W sigma(phi) + U x + b, from the rates sigma(phi) and the drive, each [unit, sample]."""
        out = drive.clone()
        self.add_products(self.compiled.recurrent, rate, out)
        return out

    def sent(self, link: Link, values: Tensor) -> Tensor:
        """What arrives at a link's synapses, [source, sample]: its source's rows of the rates (or inputs, or controls);
        in real time those of some milliseconds ago where the projection has a delay."""
        return values[link.source]

    def add_products(self, links: Sequence[Link], values: Tensor, out: Tensor) -> None:
        """out += W values, summed over the links."""
        for link in links:
            link.kernel.add_product(self.sent(link, values), out[link.target])

    @torch.no_grad()
    def linearise(self, phi: Tensor, drive: Tensor) -> CircuitPoint:
        rate = self.rates(phi)
        prediction = self.arriving(rate, drive)
        if self.junctions is not None:
            self.junctions.add(phi, prediction)
        return CircuitPoint(self, phi, rate, prediction)

    @torch.no_grad()
    def update(self, phi: Tensor, psi: Tensor, x: Tensor, gated: bool = False) -> dict[str, Tensor]:
        """dW = psi sigma(phi)^T, dU = psi x^T, db = psi, summed over samples  [eq. 12, 116, 117], and of gap junctions
        dg_ij = (psi_i - psi_j) (phi_j - phi_i)."""
        rate = self.rates(phi)
        if gated:
            psi = psi * self.slopes(phi, rate)
        updates = self.synaptic(psi, rate, x)
        return updates if self.junctions is None else updates | self.junctions.update(phi, psi)

    @torch.no_grad()
    def synaptic(self, post: Tensor, rate: Tensor | None, x: Tensor | None) -> dict[str, Tensor]:
        """Sums over samples of post_i pre_j for every plastic synapse, and of post_i for every plastic bias.

        Args:
            post: [unit, sample].
            rate: sigma(phi), [unit, sample]; projections among units are passed over where None.
            x: [input unit, sample]; projections from inputs, and biases, are passed over where None.
        """
        updates = {}
        for links, pre in ((self.compiled.feedforward, x), (self.compiled.recurrent, rate)):
            for link in links:
                if pre is not None and link.projection.plastic:
                    updates[link.projection.name] = link.kernel.outer(post[link.target], pre[link.source])
        for link in self.compiled.held:
            if link.projection.plastic:
                updates[link.projection.name] = torch.zeros_like(link.kernel.values)
        for name, bias in self.compiled.biases.items() if x is not None else ():
            if bias.requires_grad:
                updates[f"{name}_bias"] = post[self.compiled.units[name]].sum(1)
        return updates


@dataclass(frozen=True, eq=False)
class CircuitPoint(Point):
    """A circuit evaluated at phi."""

    system: CircuitSystem
    phi: Tensor
    rate: Tensor
    prediction: Tensor

    def slopes(self) -> Tensor:
        return self.system.slopes(self.phi, self.rate)

    def feedback_input(self, psi: Tensor) -> Tensor:
        """W^T psi, [unit, sample]."""
        raw = torch.zeros_like(psi)
        for link in self.system.compiled.recurrent:
            link.kernel.add_transposed(psi[link.target], raw[link.source])
        return raw

    def transported(self, psi: Tensor, controlled_only: bool = True) -> Tensor:
        out = self.slopes() * self.feedback_input(psi)
        if self.system.junctions is not None:
            self.system.junctions.add(psi, out)
        if controlled_only and self.system.controlled is not None:
            out *= self.system.controlled
        return out

    def curvature(self, psi: Tensor) -> Tensor:
        """sigma''(phi) (W^T psi), the state's part of the Jacobian of `transported`, [unit, sample]."""
        parts = [a.bend(self.phi[rows], self.rate[rows]) for rows, a in self.system.activations]
        return torch.cat(parts) * self.feedback_input(psi)

    def slope_of_energy(self, psi: Tensor) -> tuple[Tensor, Tensor | None]:
        """d(1/2 |f|^2)/dphi = psi - sigma'(phi) (W^T psi) - L psi for psi = -f(phi), [unit, sample], and by how much it
        rises where a neuron passes its kink from below, None where no population has one."""
        raw = self.feedback_input(psi)
        jump = torch.zeros_like(raw) if self.system.kinked else None
        for rows, activation in self.system.kinked:
            assert activation.kink is not None
            assert jump is not None
            jump[rows] = (activation.kink[0] - activation.kink[1]) * raw[rows]
        rest = self.slopes() * raw
        if self.system.junctions is not None:
            self.system.junctions.add(psi, rest)
        return psi - rest, jump

    def gate(self, raw: Tensor) -> Tensor:
        """sigma'(phi) raw for the next control of a circuit without gap junctions, with neurons on a kink solved
        exactly, [unit, sample]."""
        out = self.slopes() * raw
        for rows, activation in self.system.kinked:
            assert activation.kink is not None
            phi, prediction = activation.above(self.phi[rows]), activation.above(self.prediction[rows])
            out[rows] = kinked_control(activation.kink, phi, raw[rows], prediction)
        if self.system.controlled is not None:
            out *= self.system.controlled
        return out

    def gate_imbalance(self, raw: Tensor, psi: Tensor) -> Tensor:
        """sigma'(phi) raw + L psi - psi, an inclusion where a neuron rests exactly on its kink, [unit, sample]."""
        target, own = self.slopes() * raw, psi
        if self.system.junctions is not None:
            own = -psi
            self.system.junctions.add(psi, own)
            own.neg_()  # psi - L psi: what the junctions do not bring
            target += psi - own
        if self.system.controlled is not None:
            target *= self.system.controlled
        out = target - psi
        for rows, activation in self.system.kinked:
            assert activation.kink is not None
            distance = kink_distance(activation.kink, activation.above(self.phi[rows]), raw[rows], own[rows])
            if self.system.controlled is not None:
                free = self.system.controlled[rows] == 0
                distance = torch.where(free, -psi[rows], distance)
            out[rows] = distance
        return out

    def kinks(self, raw: Tensor, psi: Tensor | None = None) -> Tensor:
        """Which neurons control holds on a kink, bool [unit, sample], for S psi and psi, each [unit, sample]; psi makes
        a difference where there are gap junctions, and must be given there."""
        out = torch.zeros_like(raw, dtype=torch.bool)
        leaning = None if psi is None else self._lean(psi)
        for rows, activation in self.system.kinked:
            assert activation.kink is not None
            ahead = activation.above(self.prediction[rows]) if leaning is None else leaning[rows]
            out[rows] = at_kink(activation.kink, raw[rows], ahead)
        if self.system.controlled is not None:
            out &= self.system.controlled > 0
        return out

    def _lean(self, psi: Tensor) -> Tensor | None:
        """With gap junctions, what takes the place of the prediction from the threshold on, [unit, sample]."""
        junctions = self.system.junctions
        if junctions is None:
            return None
        loads, near = junctions.loads(), torch.zeros_like(psi)
        junctions.add_neighbours(psi, near)
        return lean(self.system, loads, self.prediction + loads * self.phi, near)


def _order(compiled: CompiledCircuit) -> list[slice]:
    """Populations in the order of a sweep: upstream groups first, as in the file within a group."""
    return [compiled.units[name] for name in compiled.circuit.sweep_order() if name in compiled.units]


def _plans(system: CircuitSystem) -> list[Plan]:
    compiled = system.compiled
    place = {rows.start: number for number, rows in enumerate(system.order)}
    activations = {rows.start: activation for rows, activation in system.activations}
    routes = [Route(k.kernel, False, k.source, k.target) for k in compiled.recurrent]
    group = system.group_of
    early = [
        place[r.source.start] < place[r.target.start] and group[r.source.start] != group[r.target.start]
        for r in routes
    ]
    return [
        Plan(
            rows,
            activations[rows.start],
            bool(compiled.controlled[rows.start] > 0),
            tuple(r for r, soon in zip(routes, early, strict=True) if soon and r.target == rows),
            tuple(r for r, soon in zip(routes, early, strict=True) if not soon and r.target == rows),
            any(soon and r.source == rows for r, soon in zip(routes, early, strict=True)),
            any(not soon and r.source == rows for r, soon in zip(routes, early, strict=True)),
        )
        for rows in system.order
    ]
