"""Initial weights and biases by name, with the fan-in and fan-out of the graph itself, and Dale's law."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import CHUNK, Edges, FloatArray, IntArray, Synapses

Generator = np.random.Generator
EXACT_SVD = 1000
"""Smaller side of a matrix up to which all its singular values are computed."""
SIGNS = {"excitatory": 1.0, "inhibitory": -1.0}


def _default(value: float | None, default: float) -> float:
    return default if value is None else float(value)


def _uniform(bound: Callable[[float, float, float], float], gain: float) -> Callable[..., FloatArray]:
    """U(-bound, bound) of (fan-in, fan-out, gain)."""

    def draw(generator: Generator, size: int, fan_in: float, fan_out: float, weights: Any) -> FloatArray:
        limit = bound(fan_in, fan_out, _default(weights.gain, gain))
        return generator.uniform(-limit, limit, size)

    return draw


def _gaussian(deviation: Callable[[float, float, float], float], gain: float) -> Callable[..., FloatArray]:
    """N(0, deviation^2) of (fan-in, fan-out, gain)."""

    def draw(generator: Generator, size: int, fan_in: float, fan_out: float, weights: Any) -> FloatArray:
        return generator.normal(0.0, deviation(fan_in, fan_out, _default(weights.gain, gain)), size)

    return draw


def _normal(generator: Generator, size: int, fan_in: float, fan_out: float, weights: Any) -> FloatArray:
    return generator.normal(_default(weights.mean, 0.0), _default(weights.std, 1 / np.sqrt(fan_in)), size)


def _lognormal(generator: Generator, size: int, fan_in: float, fan_out: float, weights: Any) -> FloatArray:
    return generator.lognormal(_default(weights.mean, 0.0), _default(weights.std, 1.0), size)


def _between(generator: Generator, size: int, fan_in: float, fan_out: float, weights: Any) -> FloatArray:
    low, high = _default(weights.low, -1 / np.sqrt(fan_in)), _default(weights.high, 1 / np.sqrt(fan_in))
    if low > high:
        raise CircuitError(f"weights.low is {low:g}, above weights.high, {high:g}")
    return generator.uniform(low, high, size)


RANDOM_WEIGHTS: dict[str, Callable[..., FloatArray]] = {
    "xavier_uniform": _uniform(lambda fan_in, fan_out, gain: gain * np.sqrt(6 / (fan_in + fan_out)), 1.0),
    "xavier_normal": _gaussian(lambda fan_in, fan_out, gain: gain * np.sqrt(2 / (fan_in + fan_out)), 1.0),
    "kaiming_uniform": _uniform(lambda fan_in, fan_out, gain: gain * np.sqrt(3 / fan_in), np.sqrt(2.0)),
    "kaiming_normal": _gaussian(lambda fan_in, fan_out, gain: gain / np.sqrt(fan_in), np.sqrt(2.0)),
    "torch_linear": _uniform(lambda fan_in, fan_out, gain: gain / np.sqrt(fan_in), 1.0),
    "normal": _normal,
    "uniform": _between,
    "lognormal": _lognormal,
}
"""Random weights by name: (generator, size, fan-in, fan-out, parameters) -> weights of shape [size].

xavier: Glorot and Bengio 2010. kaiming: He et al. 2015, gain sqrt(2). torch_linear: U(-1/sqrt(fan_in),
1/sqrt(fan_in)), torch's `Linear`. normal: `mean` 0, `std` 1/sqrt(fan_in). uniform: from `low` to `high`, else
as torch_linear. lognormal: `mean` 0 and `std` 1 are those of the logarithm.
"""


def fans(synapses: Synapses) -> tuple[float, float]:
    """Mean number of synapses onto a target neuron that has any, and from a source neuron that has any."""
    if len(synapses) == 0:
        return 1.0, 1.0
    return len(synapses) / _present(synapses.target), len(synapses) / _present(synapses.source)


def _present(index: IntArray) -> int:
    """How many different numbers there are among indices."""
    seen = np.zeros(int(index.max()) + 1, dtype=bool)
    for start in range(0, index.size, CHUNK):
        seen[index[start : start + CHUNK]] = True
    return int(np.count_nonzero(seen))


def random_weights(
    generator: Generator,
    synapses: Synapses,
    size: int,
    weights: Any,
    sign: str | None,
    dtype: type[np.floating] = np.float64,
) -> NDArray[np.floating]:
    """Weights drawn by name; under Dale's law |weight| times the sign.

    They are drawn a part after another in double precision: how they are kept changes no draw.

    Args:
        size: how many to draw. dtype: the precision in which they are kept.
        weights: has the attributes init, scale, gain, mean, std, low, high.
        sign: excitatory, inhibitory or None: the source population's.

    Raises:
        CircuitError: a parameter of the initialisation is impossible.
    """
    if weights.std is not None and weights.std < 0:
        raise CircuitError(f"weights.std is {weights.std:g}; a standard deviation is at least 0")
    scale, mean_fans = _default(weights.scale, 1.0), fans(synapses)
    values = np.empty(size, dtype=dtype)
    for start in range(0, max(size, 1), CHUNK):
        part = RANDOM_WEIGHTS[weights.init](generator, min(CHUNK, size - start), *mean_fans, weights)
        part *= scale
        values[start : start + CHUNK] = part if sign is None else SIGNS[sign] * np.abs(part)
    return values


def check_weights(
    source: Population, target: Population, synapses: Synapses | Edges, weight: NDArray[np.floating]
) -> None:
    """Refuse weights that are not finite or that break Dale's law.

    Args:
        weight: of each synapse, dimensionless, shape [synapse].

    Raises:
        CircuitError: names the first such synapse and its weight.
    """
    wrong = ~np.isfinite(weight)
    if wrong.any():
        at = _synapse(source, target, synapses, int(np.argmax(wrong)))
        raise CircuitError(f"the weight of {at} is {weight[np.argmax(wrong)]}; weights are finite numbers")
    if source.sign is None:
        return
    wrong = weight * SIGNS[source.sign] < 0
    if wrong.any():
        first = int(np.argmax(wrong))
        allowed = "at least 0" if source.sign == "excitatory" else "at most 0"
        raise CircuitError(
            f"Dale's law: the weight of {_synapse(source, target, synapses, first)} is {weight[first]:g}, "
            f"but '{source.name}' is {source.sign}; its weights are {allowed}"
        )


def _synapse(source: Population, target: Population, synapses: Synapses | Edges, index: int) -> str:
    return f"{source.label(int(synapses.source[index]))} -> {target.label(int(synapses.target[index]))}"


def factorise(weight: FloatArray, rank: int) -> tuple[FloatArray, FloatArray]:
    """The two factors of the best approximation of a matrix by one of a lower rank, of equal size each.

    Args:
        weight: [target, source].

    Returns:
        A [target, rank] and B [source, rank], with weight = A B^T where the matrix has that rank.
    """
    smaller = min(weight.shape)
    if smaller <= EXACT_SVD or 4 * rank >= smaller:
        left, values, right = np.linalg.svd(weight, full_matrices=False)
        left, values, right = left[:, :rank], values[:rank], right[:rank]
    else:
        found: Any = svds(weight, k=rank, v0=np.ones(smaller), solver="arpack")
        left, values, right = found
        left, values, right = left[:, ::-1], values[::-1], right[::-1]
    root = np.sqrt(values)
    return left * root, right.T * root


def of_rank(weight: FloatArray, targets: int, sources: int, rank: int) -> FloatArray:
    """The weights of every pair, brought to a rank: their best approximation by it, shape [edge].

    Args:
        weight: of every source on every target, sorted by target, then source, shape [edge].

    Raises:
        CircuitError: they have a lower rank already: factors that are zero would never learn.
    """
    if weight.size != targets * sources:
        raise CircuitError(
            f"rank: a product of two factors joins every source with every target, {targets * sources:,} pairs, "
            f"but there are {weight.size:,} synapses"
        )
    left, right = factorise(weight.reshape(targets, sources), rank)
    sizes = np.linalg.norm(left, axis=0)
    found = int(np.count_nonzero(sizes > 1e-6 * sizes.max(initial=0.0)))
    if found < rank:
        raise CircuitError(
            f"rank: the initial weights have rank {found}, and factors that are zero never learn; "
            f"allowed: 1 to {found}"
        )
    return (left @ right.T).ravel()


def initial_bias(generator: Generator, size: int, bias: Any) -> FloatArray:
    """Initial bias, shape [unit]: zeros, constant (`value`), uniform U(-scale, scale) or normal N(0,
    scale^2).

    Args:
        bias: has the attributes init, value, scale; a bias from a file is read by `formats`.
    """
    scale = _default(bias.scale, 1.0)
    if bias.init == "zeros":
        return np.zeros(size)
    if bias.init == "constant":
        return np.full(size, _default(bias.value, 0.0))
    if bias.init == "uniform":
        return generator.uniform(-scale, scale, size)
    assert bias.init == "normal"
    return generator.normal(0.0, scale, size)
