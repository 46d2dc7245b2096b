"""All connection rules by name, and what they are expected to draw."""

from __future__ import annotations

import numpy as np

from circuitlab.errors import CircuitError, suggestion
from circuitlab.graph import rules_grid, rules_networkx, rules_random, rules_spatial
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import Edges, Synapses
from circuitlab.graph.rule import Parameters, Rule

RULES: dict[str, Rule] = {
    **rules_random.RULES,
    **rules_spatial.RULES,
    **rules_networkx.RULES,
    **rules_grid.RULES,
}
"""The rules that draw from the populations alone; `transpose` and `explicit` take edges from elsewhere."""

GIVEN = ("transpose", "explicit")


def draw(
    rule: str, generator: np.random.Generator, source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """The synapses of one projection by the rule of that name, parallel ones repeated.

    Raises:
        CircuitError: there is no such rule, or it cannot be satisfied.
    """
    return _rule(rule).draw(generator, source, target, parameters)


def expected_edges(rule: str, source: Population, target: Population, parameters: Parameters) -> float:
    """Expected number of synapses of a drawn rule, parallel ones counted, without drawing any."""
    return float(_rule(rule).expected(source, target, parameters))


def transposed(edges: Edges) -> Synapses:
    """The edges of a projection turned round, with their weights, multiplicity and shared parameters."""
    return Synapses(
        source=edges.target,
        target=edges.source,
        weight=edges.weight,
        parameter_index=edges.parameter_index,
        parameter_shape=None if edges.parameters is None else (edges.parameters.size,),
        parameters=edges.parameters,
        multiplicity=edges.multiplicity,
    )


def _rule(name: str) -> Rule:
    if name not in RULES:
        allowed = [*RULES, *GIVEN]
        raise CircuitError(
            f"no connection rule '{name}'; there are {', '.join(allowed)}.{suggestion(name, allowed)}"
        )
    return RULES[name]
