"""Connection probability that falls with distance, between populations whose neurons have positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from circuitlab.errors import CircuitError, suggestion
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import FloatArray, IntArray, Synapses
from circuitlab.graph.rule import Parameters, Rule, need, option, probability

CHUNK = 1 << 21
SAMPLED_TARGETS = 64

KERNELS: dict[str, Callable[[FloatArray, float], FloatArray]] = {
    "gaussian": lambda d, length: np.exp(-(d**2) / (2 * length**2)),
    "exponential": lambda d, length: np.exp(-d / length),
    "linear": lambda d, length: np.maximum(0.0, 1 - d / length),
    "constant": lambda d, length: (d <= length).astype(np.float64),
}
"""Share of the probability at distance 0 that is left at distance d."""


def distance_dependent(
    generator: np.random.Generator, source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """Each pair, at most once, with probability p * kernel(distance / length), and none beyond `cutoff`.

    Pairs within reach are found by a k-d tree where there is a cutoff (linear and constant have one of their
    own), else row by row; memory is never more than a block of rows beside the synapses themselves.
    """
    rows, columns = [], []
    for row, column, distance in _near(source, target, parameters, np.arange(target.size)):
        chosen = generator.random(distance.size) < _probability(distance, parameters)
        rows.append(row[chosen].astype(np.int32))
        columns.append(column[chosen].astype(np.int32))
    row = np.concatenate(rows) if rows else np.empty(0, dtype=np.int32)
    column = np.concatenate(columns) if columns else np.empty(0, dtype=np.int32)
    if source.name == target.name and not option(parameters, "allow_autapses", True):
        row, column = row[row != column], column[row != column]
    return Synapses(column, row)


def _expected(source: Population, target: Population, parameters: Parameters) -> float:
    """Estimated from evenly spaced target neurons, all of them in small populations."""
    sample = np.unique(np.linspace(0, target.size - 1, min(target.size, SAMPLED_TARGETS)).astype(np.intp))
    near = _near(source, target, parameters, sample)
    return sum(float(_probability(d, parameters).sum()) for _, _, d in near) * target.size / sample.size


def _probability(distance: FloatArray, parameters: Parameters) -> FloatArray:
    kernel = KERNELS[option(parameters, "kernel", "gaussian")]
    return probability({"p": option(parameters, "p", 1.0)}) * kernel(
        distance, float(need(parameters, "length"))
    )


def _near(
    source: Population, target: Population, parameters: Parameters, chosen: NDArray[np.intp]
) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
    """(target, source, distance) of the pairs within reach of the chosen targets, sorted, in blocks."""
    kernel, length = option(parameters, "kernel", "gaussian"), float(need(parameters, "length"))
    if kernel not in KERNELS:
        raise CircuitError(
            f"no distance kernel '{kernel}'; there are {', '.join(KERNELS)}.{suggestion(kernel, KERNELS)}"
        )
    if not length > 0:
        raise CircuitError(f"length is {length:g}; it is more than 0")
    box = option(parameters, "periodic", None)
    here, there = (_positions(population, box) for population in (source, target))
    if here.shape[1] != there.shape[1]:
        raise CircuitError(
            f"positions have {here.shape[1]} dimensions in '{source.name}', "
            f"{there.shape[1]} in '{target.name}'"
        )
    cutoff = float(option(parameters, "cutoff", np.inf))
    reach = min(cutoff, length) if kernel in ("linear", "constant") else cutoff
    if np.isfinite(reach) and source.size:
        yield from _near_by_tree(here, there, chosen, reach, box)
        return
    period = None if box is None else np.asarray(box, dtype=np.float64)
    step = max(CHUNK // max(source.size, 1), 1)
    for start in range(0, chosen.size, step):
        block = chosen[start : start + step]
        squared = np.zeros((block.size, source.size))
        for axis in range(here.shape[1]):
            difference = np.abs(there[block, axis][:, None] - here[:, axis])
            if period is not None:
                difference = np.minimum(difference, period[axis] - difference)
            squared += difference**2
        columns = np.tile(np.arange(source.size), block.size)
        yield np.repeat(block, source.size), columns, np.sqrt(squared.ravel())


def _near_by_tree(
    here: FloatArray, there: FloatArray, chosen: NDArray[np.intp], reach: float, box: tuple[float, ...] | None
) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
    tree = KDTree(here, boxsize=box)
    start = 0
    while start < chosen.size:
        ahead = chosen[start : start + 1024]
        counts = np.cumsum(tree.query_ball_point(there[ahead], reach, return_length=True))
        stop = start + max(int(np.searchsorted(counts, CHUNK, side="right")), 1)
        block = chosen[start:stop]
        found = KDTree(there[block], boxsize=box).sparse_distance_matrix(tree, reach, output_type="ndarray")
        found = found[np.lexsort((found["j"], found["i"]))]
        yield block[found["i"]], found["j"], found["v"]
        start = stop


def _positions(population: Population, box: tuple[float, ...] | None) -> FloatArray:
    positions = population.positions
    if positions is None:
        raise CircuitError(f"distance_dependent needs positions, and population '{population.name}' has none")
    if box is None:
        return positions
    if len(box) != positions.shape[1]:
        raise CircuitError(
            f"periodic has {len(box)} numbers, but positions in '{population.name}' {positions.shape[1]}"
        )
    period = np.asarray(box, dtype=np.float64)
    wrapped = np.mod(positions, period)
    return np.where(wrapped < period, wrapped, 0.0)


RULES = {"distance_dependent": Rule(distance_dependent, _expected)}
