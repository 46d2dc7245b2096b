"""The manipulations of an experiment: what acts on its graph, before anything is compiled, and what in a window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.graph.nulls import rewired
from circuitlab.spec.experiment import ExperimentSpec
from circuitlab.spec.manipulations import ClampSpec, ManipulationSpec, RewireSpec


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


def clamps(spec: ExperimentSpec, window: Literal["training", "test"]) -> tuple[str, ...]:
    """Names of the populations whose apical potential is held at zero in a window, in the order of the circuit."""
    held = {
        name
        for manipulation in spec.manipulations.values()
        if isinstance(manipulation, ClampSpec) and manipulation.during in (window, "both")
        for name in manipulation.population
    }
    return tuple(name for name in spec.circuit.populations if name in held)


def as_learned(circuit: Circuit, spec: ExperimentSpec) -> Circuit:
    """The circuit with the populations that are clamped while it learns marked as without control."""
    held = clamps(spec, "training")
    if not held:
        return circuit
    return replace(
        circuit,
        populations={
            name: replace(population, controlled=population.controlled and name not in held)
            for name, population in circuit.populations.items()
        },
    )
