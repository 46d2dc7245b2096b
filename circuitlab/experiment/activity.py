"""One equilibrium's variables by population and name, in the form that run files keep: [sample, unit]."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import cast

import numpy as np
import torch
from torch import Tensor

from circuitlab.compile.compiled import Link
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import Fields

VARIABLES = ("soma", "rate", "basal", "apical", "control")


def described(name: str) -> tuple[str, str]:
    """Axes and meaning of a pathway's own weights, by their name in the run file."""
    symbol, _, place = name.partition("/")
    if symbol == "Q":
        return "unit, output unit", f"psi = Q u of population {place}"
    if symbol == "S":
        return "edge", f"S from the target back to the source of each edge of projection {place}"
    if place.endswith("_bias"):
        return "unit", f"b_I, bias of the interneurons of population {place.removesuffix('_bias')}"
    return "edge", f"weights of the interneurons' copy of each edge of projection {place}"


class Activity:
    """The variables of a batch in one state; only what is asked for is computed, of the neurons asked for.

    `basal` and `apical` are measured by their own sums over synapses, never taken from the balance of an equilibrium
    (soma = basal + apical), which holds at a converged one alone.

    Args:
        system: the circuit, with the weights that the state was found with.
        fields: phi, psi, u.
        x: the inputs, [input unit, sample].
        drive: U x + b where it is known already, [unit, sample].
    """

    def __init__(self, system: CircuitSystem, fields: Fields, x: Tensor, drive: Tensor | None = None) -> None:
        self.system, self.fields, self.x = system, fields, x
        links = system.compiled.feedforward
        self.drive = None if any(link.projection.site == "apical" for link in links) else drive
        self._rates = _Rates(system, fields.phi)

    def tensor(self, population: str, variable: str, units: slice | Tensor | None = None) -> Tensor | None:
        """A variable of some neurons of a population, [unit, sample]; None where the population has none of it.

        Args:
            units: which of the population's, a range or their numbers; all where None.
        """
        compiled = self.system.compiled
        if population in compiled.inputs:
            return _some(self.x[compiled.inputs[population]], units) if variable == "rate" else None
        if variable == "controller":
            place = compiled.outputs.get(population)
            return None if place is None else _some(self.fields.u[place], units)
        rows = compiled.units[population]
        if variable == "soma":
            return _some(self.fields.phi[rows], units)
        if variable == "control":
            return _some(self.fields.psi[rows], units)
        if variable == "rate":
            return _some(self._rates[rows], units)
        return self._basal(population, units) if variable == "basal" else self._apical(population, units)

    def values(
        self, population: str, variable: str, units: slice | np.ndarray | None = None
    ) -> np.ndarray | None:
        """A variable of some neurons, [sample, unit]; see `tensor`."""
        place = torch.as_tensor(units, device=self.x.device) if isinstance(units, np.ndarray) else units
        found = self.tensor(population, variable, place)
        return None if found is None else found.t().cpu().numpy()

    def _basal(self, population: str, units: slice | Tensor | None) -> Tensor:
        compiled = self.system.compiled
        rows = compiled.units[population]
        if self.drive is not None:
            out = _some(self.drive[rows], units).clone()
        else:
            out = _some(self.fields.phi[rows], units).new_zeros(self._count(rows, units), self.x.shape[1])
            if population in compiled.biases:
                out += _some(compiled.biases[population].detach().unsqueeze(1), units)
            self._add(compiled.feedforward, population, False, units, out)
        self._add(compiled.recurrent, population, False, units, out)
        if self.system.junctions is not None:
            out += _some(self._currents[rows], units)
        return out

    def _apical(self, population: str, units: slice | Tensor | None) -> Tensor | None:
        compiled = self.system.compiled
        if compiled.circuit.populations[population].type != "pyramidal":
            return None
        out = _some(self.fields.psi[compiled.units[population]], units).clone()
        self._add(compiled.feedforward, population, True, units, out)
        self._add(compiled.recurrent, population, True, units, out)
        return out

    def _add(
        self,
        links: Sequence[Link],
        population: str,
        apical: bool,
        units: slice | Tensor | None,
        out: Tensor,
    ) -> None:
        """out += what arrives at one site of some neurons, [unit, sample]."""
        for link in links:
            if link.projection.target != population or (link.projection.site == "apical") != apical:
                continue
            outside = link.projection.source in self.system.compiled.inputs
            pre = self.system.sent(link, self.x if outside else cast(Tensor, self._rates))
            if units is None:
                link.kernel.add_product(pre, out)
            else:
                link.kernel.add_rows(pre, units, out)

    @cached_property
    def _currents(self) -> Tensor:
        """L phi of gap junctions, [unit, sample]."""
        assert self.system.junctions is not None
        out = torch.zeros_like(self.fields.phi)
        self.system.junctions.add(self.fields.phi, out)
        return out

    def _count(self, rows: slice, units: slice | Tensor | None) -> int:
        size = rows.stop - rows.start
        if units is None:
            return size
        return len(range(*units.indices(size))) if isinstance(units, slice) else len(units)


class _Rates:
    """sigma(phi) by the rows of a population, each computed when it is first asked for."""

    def __init__(self, system: CircuitSystem, phi: Tensor) -> None:
        self.phi = phi
        self.activations = {rows.start: activation for rows, activation in system.activations}
        self.found: dict[int, Tensor] = {}

    def __getitem__(self, rows: slice) -> Tensor:
        if rows.start not in self.found:
            phi = self.phi[rows]
            self.found[rows.start] = torch.empty_like(phi, memory_format=torch.contiguous_format)
            self.activations[rows.start].rate(phi, self.found[rows.start])
        return self.found[rows.start]


def _some(tensor: Tensor, units: slice | Tensor | None) -> Tensor:
    return tensor if units is None else tensor[units]
