"""Graphs grown by networkx: small world, scale free, and any of its generators by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np

from circuitlab.errors import CircuitError, suggestion
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import Synapses
from circuitlab.graph.rule import Parameters, Rule, need, option, probability, same_population, whole


def small_world(
    generator: np.random.Generator, source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """Watts and Strogatz's graph, each of its edges in both directions."""
    same_population("small_world", source, target)
    arguments = {"k": whole(parameters, "k"), "p": probability(parameters)}
    return _grow(generator, "watts_strogatz_graph", source, target, arguments, parameters)


def scale_free(
    generator: np.random.Generator, source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """The directed scale-free graph of Bollobas et al. 2003; parallel synapses are kept."""
    same_population("scale_free", source, target)
    arguments = {
        name: float(parameters[name])
        for name in ("alpha", "beta", "gamma")
        if parameters.get(name) is not None
    }
    return _grow(generator, "scale_free_graph", source, target, arguments, parameters)


def any_generator(
    generator: np.random.Generator, source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """The generator of networkx called `generator`, with its `arguments`, `n` being the population's size."""
    arguments = option(parameters, "arguments", {})
    return _grow(generator, str(need(parameters, "generator")), source, target, arguments, parameters)


NOT_NODES = {
    "binomial_tree",
    "dorogovtsev_goltsev_mendes_graph",
    "hypercube_graph",
    "kneser_graph",
    "mycielski_graph",
    "sudoku_graph",
}
"""Generators whose `n` is an order, not a number of nodes: their graphs grow beyond any memory with it."""


def generators() -> dict[str, Callable[..., nx.Graph]]:
    """The graph generators of networkx that take the number of nodes `n`, by name."""
    found = {}
    for name in dir(nx):
        function = getattr(nx, name)
        ours = str(getattr(function, "__module__", "")).startswith("networkx.generators")
        if name in NOT_NODES or not ours or not inspect.isfunction(function):
            continue
        if "n" in inspect.signature(function).parameters:
            found[name] = function
    return found


def _grow(
    generator: np.random.Generator,
    name: str,
    source: Population,
    target: Population,
    arguments: dict[str, Any],
    parameters: Parameters,
) -> Synapses:
    available = generators()
    if name not in available:
        raise CircuitError(
            f"networkx has no graph generator '{name}' that takes n nodes.{suggestion(name, available)}"
        )
    if source.size != target.size:
        raise CircuitError(
            f"{name} needs populations of one size, but '{source.name}' has {source.size} units"
            f" and '{target.name}' {target.size}"
        )
    function = available[name]
    known = inspect.signature(function).parameters
    allowed = [key for key in known if key not in ("seed", "create_using", "backend", "backend_kwargs")]
    for key in arguments:
        if key not in allowed:
            raise CircuitError(
                f"{name} has no argument '{key}'; there are {', '.join(allowed)}.{suggestion(key, allowed)}"
            )
    seed = {"seed": int(generator.integers(2**31))} if "seed" in known else {}
    try:
        graph = function(**{"n": source.size, **arguments, **seed})
    except (nx.NetworkXException, TypeError, ValueError, ZeroDivisionError, IndexError) as error:
        raise CircuitError(f"{name} cannot make the graph: {error}") from error
    if not isinstance(graph, nx.Graph):
        raise CircuitError(f"{name} returns no graph but {type(graph).__name__}")
    if graph.number_of_nodes() != source.size:
        raise CircuitError(f"{name} makes {graph.number_of_nodes()} nodes, but there are {source.size} units")
    index = {node: i for i, node in enumerate(graph)}
    pairs = np.array([(index[a], index[b]) for a, b in graph.edges()], dtype=np.int32).reshape(-1, 2)
    if not graph.is_directed():
        pairs = np.concatenate((pairs, pairs[pairs[:, 0] != pairs[:, 1]][:, ::-1]))
    if source.name == target.name and not option(parameters, "allow_autapses", True):
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return Synapses(pairs[:, 0].copy(), pairs[:, 1].copy())


def _expected(source: Population, target: Population, parameters: Parameters) -> float:
    """A guess from the usual arguments: neighbours k, d or m of a neuron, or the probability p of a pair."""
    arguments = {**parameters, **option(parameters, "arguments", {})}
    if "complete" in str(arguments.get("generator")):
        return source.size**2
    for name, edges in (("k", 1), ("d", 1), ("m", 2)):
        if isinstance(arguments.get(name), int):
            return edges * arguments[name] * source.size
    p = arguments.get("p")
    return p * source.size**2 if isinstance(p, int | float) else 3 * source.size


RULES = {
    "small_world": Rule(small_world, _expected),
    "scale_free": Rule(scale_free, _expected),
    "networkx": Rule(any_generator, _expected),
}
