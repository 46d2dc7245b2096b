"""NEST's connection rules, with its parameter names and its meaning of autapses and multapses.

An autapse is a synapse of a neuron onto itself (same index, source population = target population); multapses
are parallel synapses between the same two neurons. Both are allowed unless the parameters say otherwise.
[NEST documentation, "Connection rules"]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import CHUNK, Synapses
from circuitlab.graph.rule import Parameters, Rule, need, option, probability, same_population, whole
from circuitlab.graph.sampling import bernoulli_positions, distinct

Generator = np.random.Generator


def _no_autapses(source: Population, target: Population, parameters: Parameters) -> bool:
    """Whether the diagonal is left out: autapses exist only within one population."""
    return source.name == target.name and not option(parameters, "allow_autapses", True)


def _pairs(source: Population, target: Population, parameters: Parameters) -> int:
    """How many ordered pairs of neurons a rule may connect."""
    return target.size * (source.size - _no_autapses(source, target, parameters))


def _from_position(
    position: NDArray[np.int64], source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """Synapses from their position in the row-major list of allowed pairs, targets as rows."""
    skip = _no_autapses(source, target, parameters)
    row, column = np.empty(position.size, dtype=np.int32), np.empty(position.size, dtype=np.int32)
    for start in range(0, position.size, CHUNK):
        part = slice(start, start + CHUNK)
        row[part], column[part] = np.divmod(position[part], max(source.size - skip, 1))
        if skip:
            column[part] += column[part] >= row[part]
    return Synapses(column, row)


def _choices(
    generator: Generator,
    rows: int,
    count: int,
    size: int,
    parameters: Parameters,
    skip: bool,
    what: str,
    pool: str,
) -> NDArray[np.int64]:
    """For each of `rows` neurons `count` partners among `size`, shape [row, count], sorted in each row."""
    available = size - skip
    if count and available < 1:
        raise CircuitError(f"{what} is {count}, but {pool} has {size} units and no autapses are allowed")
    if option(parameters, "allow_multapses", True):
        chosen = generator.integers(max(available, 1), size=(rows, count))
        chosen.sort(axis=1)
    elif count > available:
        without = " and no autapses" if skip else ""
        raise CircuitError(
            f"{what} is {count}, but {pool} has {size} units; without multapses{without} at most {available}"
        )
    else:
        chosen = distinct(generator, rows, count, available)
    return chosen + (chosen >= np.arange(rows)[:, None]) if skip else chosen


def all_to_all(
    generator: Generator, source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """Every pair once."""
    if not _no_autapses(source, target, parameters):
        row = np.repeat(np.arange(target.size, dtype=np.int32), source.size)
        return Synapses(np.tile(np.arange(source.size, dtype=np.int32), target.size), row)
    return _from_position(np.arange(_pairs(source, target, parameters)), source, target, parameters)


def one_to_one(
    generator: Generator, source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """Neuron i to neuron i."""
    if source.size != target.size:
        raise CircuitError(
            f"one_to_one needs populations of one size, but '{source.name}' has {source.size} units"
            f" and '{target.name}' {target.size}"
        )
    index = np.arange(0 if _no_autapses(source, target, parameters) else source.size, dtype=np.int32)
    return Synapses(index, index.copy())


def fixed_indegree(
    generator: Generator, source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """`indegree` synapses onto every target neuron, from sources drawn with equal chances."""
    count, skip = whole(parameters, "indegree"), _no_autapses(source, target, parameters)
    chosen = _choices(
        generator,
        target.size,
        count,
        source.size,
        parameters,
        skip,
        "indegree",
        f"the source '{source.name}'",
    )
    return Synapses(chosen.astype(np.int32).ravel(), np.repeat(np.arange(target.size, dtype=np.int32), count))


def fixed_outdegree(
    generator: Generator, source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """`outdegree` synapses from every source neuron, onto targets drawn with equal chances."""
    count, skip = whole(parameters, "outdegree"), _no_autapses(source, target, parameters)
    chosen = _choices(
        generator,
        source.size,
        count,
        target.size,
        parameters,
        skip,
        "outdegree",
        f"the target '{target.name}'",
    )
    return Synapses(np.repeat(np.arange(source.size, dtype=np.int32), count), chosen.astype(np.int32).ravel())


def fixed_total_number(
    generator: Generator, source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """`N` synapses between pairs drawn with equal chances."""
    count, pairs = whole(parameters, "N"), _pairs(source, target, parameters)
    if count and pairs < 1:
        raise CircuitError(f"N is {count}, but there is no pair to connect without autapses")
    if option(parameters, "allow_multapses", True):
        position = generator.integers(max(pairs, 1), size=count)
        position.sort()
    elif count > pairs:
        raise CircuitError(f"N is {count:,}, but without multapses there are only {pairs:,} pairs")
    else:
        position = distinct(generator, 1, count, pairs).ravel()
    return _from_position(position, source, target, parameters)


def pairwise_bernoulli(
    generator: Generator, source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """Each pair with probability `p`, at most once."""
    p, pairs = probability(parameters), _pairs(source, target, parameters)
    return _from_position(bernoulli_positions(generator, pairs, p), source, target, parameters)


def pairwise_poisson(
    generator: Generator, source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """A Poisson number of synapses for each pair, `pairwise_avg_num_conns` in the mean.

    Drawn as a Poisson total thrown uniformly over the pairs, which is the same distribution.
    """
    _needs_multapses("pairwise_poisson", parameters)
    pairs = _pairs(source, target, parameters)
    count = int(generator.poisson(_mean_synapses(parameters) * pairs))
    position = generator.integers(max(pairs, 1), size=count)
    position.sort()
    return _from_position(position, source, target, parameters)


def symmetric_pairwise_bernoulli(
    generator: Generator, source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """Each unordered pair of one population with probability `p`, then in both directions."""
    same_population("symmetric_pairwise_bernoulli", source, target)
    if option(parameters, "allow_autapses", False):
        raise CircuitError("symmetric_pairwise_bernoulli makes no autapses; write allow_autapses: false")
    low, high = _below_diagonal(
        bernoulli_positions(generator, source.size * (source.size - 1) // 2, probability(parameters))
    )
    return Synapses(np.concatenate((low, high)), np.concatenate((high, low)))


def _below_diagonal(position: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Column and row of a position in the strictly lower triangle, position = row (row - 1) / 2 + column."""
    row = ((1 + np.sqrt(1 + 8.0 * position)) / 2).astype(np.int64)
    row -= row * (row - 1) // 2 > position
    row += row * (row + 1) // 2 <= position
    return (position - row * (row - 1) // 2).astype(np.int32), row.astype(np.int32)


def _mean_synapses(parameters: Parameters) -> float:
    mean = float(need(parameters, "pairwise_avg_num_conns"))
    if not 0 <= mean < np.inf:
        raise CircuitError(f"pairwise_avg_num_conns is {mean:g}; it is a finite number, at least 0")
    return mean


def _needs_multapses(rule: str, parameters: Parameters) -> None:
    if not option(parameters, "allow_multapses", True):
        raise CircuitError(f"{rule} makes parallel synapses; it needs allow_multapses: true")


RULES = {
    "all_to_all": Rule(all_to_all, lambda s, t, q: _pairs(s, t, q)),
    "one_to_one": Rule(one_to_one, lambda s, t, q: min(s.size, t.size)),
    "fixed_indegree": Rule(fixed_indegree, lambda s, t, q: whole(q, "indegree") * t.size),
    "fixed_outdegree": Rule(fixed_outdegree, lambda s, t, q: whole(q, "outdegree") * s.size),
    "fixed_total_number": Rule(fixed_total_number, lambda s, t, q: whole(q, "N")),
    "pairwise_bernoulli": Rule(pairwise_bernoulli, lambda s, t, q: probability(q) * _pairs(s, t, q)),
    "pairwise_poisson": Rule(pairwise_poisson, lambda s, t, q: _mean_synapses(q) * _pairs(s, t, q)),
    "symmetric_pairwise_bernoulli": Rule(
        symmetric_pairwise_bernoulli, lambda s, t, q: probability(q) * s.size * (s.size - 1)
    ),
}
