"""What a connection rule is: how it draws and how much; and how rules read their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import Synapses

Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """A connection rule.

    Args:
        draw: (generator, source population, target population, parameters) -> Synapses; raises CircuitError.
        expected: (source population, target population, parameters) -> expected number of synapses.
    """

    draw: Callable[[np.random.Generator, Population, Population, Parameters], Synapses]
    expected: Callable[[Population, Population, Parameters], float]


def need(parameters: Parameters, name: str) -> Any:
    """A parameter that has no default."""
    value = parameters.get(name)
    if value is None:
        raise CircuitError(f"the parameter '{name}' is missing")
    return value


def option(parameters: Parameters, name: str, default: Any) -> Any:
    """A parameter that has a default."""
    value = parameters.get(name)
    return default if value is None else value


def probability(parameters: Parameters, name: str = "p") -> float:
    """A parameter that is a probability."""
    value = float(need(parameters, name))
    if not 0 <= value <= 1:
        raise CircuitError(f"{name} is {value:g}; a probability lies between 0 and 1")
    return value


def whole(parameters: Parameters, name: str) -> int:
    """A parameter that counts something."""
    value = need(parameters, name)
    if isinstance(value, bool) or int(value) != value or value < 0:
        raise CircuitError(f"{name} is {value!r}; it is a whole number, at least 0")
    return int(value)


def same_population(rule: str, source: Population, target: Population) -> None:
    """Refuse a rule for recurrent projections between two populations."""
    if source.name != target.name:
        raise CircuitError(
            f"{rule} connects a population with itself, not '{source.name}' with '{target.name}'"
        )
