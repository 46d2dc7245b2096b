"""What the acyclic part of a circuit does to a small change, and its inverse, population by population.

With P = W diag(sigma'(phi)) of the projections that come from upstream (from a population that is swept earlier, and is
in no recurrent group with the target), (I - P)^-1 is one pass forward and (I - P)^-T one pass backward. So

    (I - P)^-1 (I - P)^-T

is the inverse of the Gauss-Newton curvature of 1/2 |f|^2, exact in an acyclic circuit, and a good guess of it where
recurrence is weak. Without it a descent of the energy is slow in deep circuits with large weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuitlab.compile.compiled import Link
from circuitlab.dynamics.circuit import CircuitSystem


class Cascade:
    """The upstream projections among the first units of a circuit.

    Args:
        system: the circuit.
        units: the units that take part, from the first one on.
    """

    def __init__(self, system: CircuitSystem, units: int) -> None:
        self.system = system
        place = {rows.start: number for number, rows in enumerate(system.order)}
        group = system.group_of
        links = [
            link
            for link in system.compiled.recurrent
            if place[link.source.start] < place[link.target.start]
            and group[link.source.start] != group[link.target.start]
            and link.target.stop <= units
            and link.source.stop <= units
        ]
        self.into: dict[int, list[Link]] = {}
        self.out_of: dict[int, list[Link]] = {}
        for link in links:
            self.into.setdefault(link.target.start, []).append(link)
            self.out_of.setdefault(link.source.start, []).append(link)
        self.share = sum(len(link.projection.edges) for link in links) / system.synapses

    @torch.no_grad()
    def solve(self, phi: Tensor, change: Tensor) -> Tensor:
        """(I - P)^-1 (I - P)^-T change, [unit, sample], with slopes at phi; at twice `share` products."""
        if not self.into:
            return change.clone()
        system, found = self.system, change.clone()
        slopes = system.slopes(phi, system.rates(phi))
        for rows in system.order[::-1]:
            ways = self.out_of.get(rows.start)
            if ways:
                raw = torch.zeros_like(found[rows])
                for link in ways:
                    link.kernel.add_transposed(found[link.target], raw)
                found[rows] += slopes[rows] * raw
        passed = torch.empty_like(found)
        for rows in system.order:
            for link in self.into.get(rows.start, ()):
                link.kernel.add_product(passed[link.source], found[rows])
            if rows.start in self.out_of:
                torch.mul(slopes[rows], found[rows], out=passed[rows])
        return found
