"""The manipulations of an experiment: what acts on its graph, before anything is compiled."""

from __future__ import annotations

from collections.abc import Callable

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.graph.nulls import rewired
from circuitlab.spec.experiment import ExperimentSpec
from circuitlab.spec.manipulations import ManipulationSpec, RewireSpec


def manipulated(circuit: Circuit, spec: ExperimentSpec) -> Circuit:
    """The circuit after every manipulation that acts on the graph, in the order of the file.

    Raises:
        CircuitError: one cannot be done on this circuit.
    """
    for name, manipulation in spec.manipulations.items():
        if manipulation.kind in GRAPH:
            try:
                circuit = GRAPH[manipulation.kind](circuit, manipulation, spec)
            except CircuitError as error:
                raise CircuitError(f"manipulations.{name}: {error}") from error
    return circuit


def _rewire(circuit: Circuit, manipulation: ManipulationSpec, spec: ExperimentSpec) -> Circuit:
    assert isinstance(manipulation, RewireSpec)
    transposes = {
        name: projection.connect.parameters["of"]
        for name, projection in spec.circuit.projections.items()
        if projection.connect.rule == "transpose"
    }
    seed = spec.seed if manipulation.seed is None else manipulation.seed
    return rewired(circuit, manipulation.model, manipulation.projections, seed, transposes)


GRAPH: dict[str, Callable[[Circuit, ManipulationSpec, ExperimentSpec], Circuit]] = {"rewire": _rewire}
"""Kinds that act on the graph, once; the others act on the compiled circuit or its state, in a window."""
