"""One equilibrium's variables by population and name, in the form that run files keep: [sample, unit]."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from circuitlab.dynamics.circuit import CircuitSystem, Compartments
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
    """The variables of a batch at one equilibrium; what needs products with W is computed only when asked for.

    Args:
        system: the circuit.
        fields: phi, psi, u.
        x: the inputs, [input unit, sample].
    """

    def __init__(self, system: CircuitSystem, fields: Fields, x: Tensor) -> None:
        self.system, self.fields, self.x = system, fields, x

    @cached_property
    def compartments(self) -> dict[str, Compartments]:
        """Of every non-input population."""
        return self.system.compartments(self.fields.phi, self.fields.psi, self.x)

    def tensor(self, population: str, variable: str) -> Tensor | None:
        """A variable, [unit, sample]; None where the population has none of it."""
        compiled = self.system.compiled
        if population in compiled.inputs:
            return self.x[compiled.inputs[population]] if variable == "rate" else None
        if variable == "controller":
            rows = compiled.outputs.get(population)
            return None if rows is None else self.fields.u[rows]
        rows = compiled.units[population]
        if variable == "soma":
            return self.fields.phi[rows]
        if variable == "control":
            return self.fields.psi[rows]
        return getattr(self.compartments[population], variable)

    def values(self, population: str, variable: str, units: np.ndarray | None = None) -> np.ndarray | None:
        """A variable of some neurons (all where None), [sample, unit]."""
        found = self.tensor(population, variable)
        if found is None:
            return None
        if units is not None:
            found = found[torch.as_tensor(units, device=found.device)]
        return found.t().cpu().numpy()
