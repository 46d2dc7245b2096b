"""Connections that hang on distance, between populations whose neurons have positions.

Distance is measured along some or all axes, in a space that may close on itself along any of them. A kernel says
what share of the probability at distance 0 is left; synapses are drawn pair by pair, or a fixed number for
each target from sources with chances in proportion to the kernel (NEST: `pairwise_bernoulli` and
`fixed_indegree` of spatial layers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from circuitlab.errors import CircuitError, suggestion
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import FloatArray, IntArray, Synapses
from circuitlab.graph.rule import Parameters, Rule, need, option, probability, whole

CHUNK = 1 << 21
SAMPLED_TARGETS = 64
AXES = "xyz"
ROUNDING = 1 + 1e-12
"""Pairs are looked up a little beyond the reach; the kernel then decides by the distance itself."""

SHAPES: dict[str, Callable[[FloatArray], FloatArray]] = {
    "gaussian": lambda r: np.exp(-(r**2) / 2),
    "exponential": lambda r: np.exp(-r),
    "linear": lambda r: np.maximum(0.0, 1 - r),
    "constant": lambda r: (r <= 1).astype(np.float64),
}
"""Share of the probability at distance 0 that is left at the distance r, in lengths."""
KERNELS = (*SHAPES, "difference_of_gaussians", "table")


def distance_dependent(
    generator: np.random.Generator, source: Population, target: Population, parameters: Parameters
) -> Synapses:
    """Each pair, at most once, with probability p * kernel, and none beyond `cutoff`; or `indegree` for each target.

    Pairs within reach are found by a k-d tree where there is a cutoff (linear, constant and table have one of
    their own), else row by row; memory is never more than a block of rows beside the synapses themselves.
    """
    by_indegree = parameters.get("indegree") is not None
    space, kernel = _space(source, target, parameters), _kernel(parameters)
    no_autapses = source.name == target.name and not option(parameters, "allow_autapses", True)
    top = probability({"p": option(parameters, "p", 1.0)})
    rows, columns = [], []
    for block, row, column, apart in _near(space, kernel.reach, np.arange(target.size)):
        share = kernel.share(apart)
        if by_indegree:
            if no_autapses:
                share[row == column] = 0.0
            row, column = _chosen(generator, block, row, column, share, parameters, target, source)
        else:
            made = generator.random(row.size) < top * share
            if no_autapses:
                made &= row != column
            row, column = row[made], column[made]
        rows.append(row.astype(np.int32))
        columns.append(column.astype(np.int32))
    row = np.concatenate(rows) if rows else np.empty(0, dtype=np.int32)
    column = np.concatenate(columns) if columns else np.empty(0, dtype=np.int32)
    return Synapses(column, row)


def _chosen(
    generator: np.random.Generator,
    block: NDArray[np.intp],
    row: IntArray,
    column: IntArray,
    share: FloatArray,
    parameters: Parameters,
    target: Population,
    source: Population,
) -> tuple[IntArray, IntArray]:
    """`indegree` sources for each target of a block, one after another with chances in proportion to the share.

    Without multapses a source that was drawn is out. That is the order of waiting times of mean 1 / share: the
    first `indegree` of them are the drawn ones [Efraimidis and Spirakis 2006, Inf. Process. Lett. 97, 181].
    """
    count, multapses = whole(parameters, "indegree"), bool(option(parameters, "allow_multapses", False))
    possible = share > 0
    row, column, share = row[possible], column[possible], share[possible]
    there = np.searchsorted(row, block, side="right") - np.searchsorted(row, block)
    lacking = there < (min(count, 1) if multapses else count)
    if lacking.any():
        first = int(np.argmax(lacking))
        which = "; allow_multapses: true would take one more than once" if there[first] else ""
        raise CircuitError(
            f"indegree is {count}, but {target.label(int(block[first]))} has {there[first]} neurons of '{source.name}'"
            f" within reach{which}"
        )
    start = np.cumsum(there) - there
    if not multapses:
        wait = np.log(generator.standard_exponential(row.size)) - np.log(share)
        order = np.lexsort((wait, row))
        rank = np.arange(row.size) - np.repeat(start, there)
        kept = np.sort(order[rank < count])
        return row[kept], column[kept]
    if not count or not row.size:
        return row[:0], column[:0]
    total = np.cumsum(share)
    before = (total - share)[start]
    mass = total[start + there - 1] - before
    point = before[:, None] + mass[:, None] * generator.random((block.size, count))
    place = np.clip(np.searchsorted(total, point, side="right"), start[:, None], (start + there - 1)[:, None])
    place = np.sort(place, axis=1).ravel()
    return row[place], column[place]


def _expected(source: Population, target: Population, parameters: Parameters) -> float:
    """Estimated from evenly spaced target neurons, all of them in small populations."""
    space, kernel = _space(source, target, parameters), _kernel(parameters)
    if parameters.get("indegree") is not None:
        return whole(parameters, "indegree") * target.size
    top = probability({"p": option(parameters, "p", 1.0)})
    sample = np.unique(np.linspace(0, target.size - 1, min(target.size, SAMPLED_TARGETS)).astype(np.intp))
    near = _near(space, kernel.reach, sample)
    return top * sum(float(kernel.share(apart).sum()) for *_, apart in near) * target.size / sample.size


@dataclass(frozen=True)
class _Kernel:
    """How the probability falls: `share` of [axis, pair] differences, none beyond `reach`."""

    share: Callable[[FloatArray], FloatArray]
    reach: float


def _kernel(parameters: Parameters) -> _Kernel:
    name = option(parameters, "kernel", "gaussian")
    if name not in KERNELS:
        raise CircuitError(
            f"no distance kernel '{name}'; there are {', '.join(KERNELS)}.{suggestion(name, KERNELS)}"
        )
    cutoff = float(option(parameters, "cutoff", np.inf))
    if name == "table":
        points = np.asarray(need(parameters, "points"), dtype=np.float64).reshape(-1, 2)
        if (
            not len(points)
            or (np.diff(points[:, 0]) <= 0).any()
            or (points < 0).any()
            or (points[:, 1] > 1).any()
        ):
            raise CircuitError(
                "points are [distance, probability] pairs, distances growing, from 0 on, at most 1"
            )
        reach = min(cutoff, float(points[-1, 0]))

        def shape(apart: FloatArray) -> FloatArray:
            return np.interp(_norm(apart), points[:, 0], points[:, 1], right=0.0)

    else:
        length = _lengths(parameters, "length")
        reach = min(cutoff, length.max()) if name in ("linear", "constant") else cutoff
        if name == "difference_of_gaussians":
            surround, share = _lengths(parameters, "surround_length"), probability(parameters, "surround")

            def shape(apart: FloatArray) -> FloatArray:
                gaussian = SHAPES["gaussian"]
                return np.maximum(
                    0.0, gaussian(_norm(apart, length)) - share * gaussian(_norm(apart, surround))
                )

        else:

            def shape(apart: FloatArray) -> FloatArray:
                return SHAPES[name](_norm(apart, length))

    if not np.isfinite(cutoff):
        return _Kernel(shape, reach)
    return _Kernel(lambda apart: np.where(_norm(apart) <= cutoff, shape(apart), 0.0), reach)


def _lengths(parameters: Parameters, name: str) -> FloatArray:
    """One length for all axes, or one for each."""
    value = np.atleast_1d(np.asarray(need(parameters, name), dtype=np.float64))
    if not (value > 0).all():
        shown = f"{value[0]:g}" if value.size == 1 else str([float(part) for part in value])
        raise CircuitError(f"{name} is {shown}; it is more than 0")
    return value


def _norm(apart: FloatArray, length: FloatArray | None = None) -> FloatArray:
    """Distances of pairs from their differences [axis, pair], in lengths (one, or one for each axis)."""
    if length is not None and length.size not in (1, apart.shape[0]):
        raise CircuitError(
            f"{length.size} lengths for {apart.shape[0]} axes; one is wanted, or one for each axis"
        )
    if length is not None:
        apart = apart / length[:, None]
    return np.sqrt(np.einsum("ap,ap->p", apart, apart))


@dataclass(frozen=True)
class _Space:
    """Positions [unit, axis] of sources and targets along the axes that count; period 0 where an axis is open."""

    sources: FloatArray
    targets: FloatArray
    period: FloatArray


def _space(source: Population, target: Population, parameters: Parameters) -> _Space:
    positions = []
    for population in (source, target):
        if population.positions is None:
            raise CircuitError(
                f"distance_dependent needs positions, and population '{population.name}' has none"
            )
        positions.append(population.positions)
    here, there = positions
    axes, box = option(parameters, "axes", None), option(parameters, "periodic", None)
    if axes is None:
        if here.shape[1] != there.shape[1]:
            raise CircuitError(
                f"positions have {here.shape[1]} dimensions in '{source.name}', "
                f"{there.shape[1]} in '{target.name}'"
            )
        axes = AXES[: here.shape[1]]
    for population, place in ((source, here), (target, there)):
        for axis in axes:
            if axis not in AXES[: place.shape[1]]:
                raise CircuitError(
                    f"axes: positions in '{population.name}' have no {axis}; there are "
                    f"{', '.join(AXES[: place.shape[1]])}"
                )
    index = [AXES.index(axis) for axis in axes]
    period = np.zeros(len(axes))
    if isinstance(box, Mapping):
        for axis, extent in box.items():
            if axis not in axes:
                raise CircuitError(f"periodic: distances have no {axis}; there are {', '.join(axes)}")
            period[list(axes).index(axis)] = extent
    elif box is not None:
        if len(box) != len(axes):
            what = (
                f"positions in '{source.name}' {len(axes)}"
                if len(axes) == here.shape[1]
                else f"{len(axes)} axes"
            )
            raise CircuitError(f"periodic has {len(box)} numbers, but {what}")
        period[:] = box
    return _Space(_wrapped(here[:, index], period), _wrapped(there[:, index], period), period)


def _wrapped(positions: FloatArray, period: FloatArray) -> FloatArray:
    wrapped = positions.astype(np.float64)
    for axis in np.flatnonzero(period):
        column = np.mod(wrapped[:, axis], period[axis])
        wrapped[:, axis] = np.where(column < period[axis], column, 0.0)
    return wrapped


def _apart(here: FloatArray, there: FloatArray, period: float) -> FloatArray:
    """Differences along one axis, the shorter way round where it closes on itself."""
    difference = np.abs(there - here)
    return np.minimum(difference, period - difference) if period else difference


def _near(
    space: _Space, reach: float, chosen: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], IntArray, IntArray, FloatArray]]:
    """(targets, target, source, differences [axis, pair]) of pairs within reach, sorted, in blocks of whole rows."""
    here, there, axes = space.sources, space.targets, range(space.period.size)
    if np.isfinite(reach) and len(here):
        for block, row, column in _near_by_tree(space, reach * ROUNDING, chosen):
            yield (
                block,
                row,
                column,
                np.stack([_apart(here[column, a], there[row, a], space.period[a]) for a in axes]),
            )
        return
    step = max(CHUNK // max(len(here), 1), 1)
    for start in range(0, chosen.size, step):
        block = chosen[start : start + step]
        apart = [_apart(here[:, a], there[block, a][:, None], space.period[a]).ravel() for a in axes]
        yield block, np.repeat(block, len(here)), np.tile(np.arange(len(here)), block.size), np.stack(apart)


def _near_by_tree(
    space: _Space, reach: float, chosen: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], IntArray, IntArray]]:
    box = space.period if space.period.any() else None
    tree, there = KDTree(space.sources, boxsize=box), space.targets
    start = 0
    while start < chosen.size:
        ahead = chosen[start : start + 1024]
        counts = np.cumsum(tree.query_ball_point(there[ahead], reach, return_length=True))
        stop = start + max(int(np.searchsorted(counts, CHUNK, side="right")), 1)
        block = chosen[start:stop]
        found = KDTree(there[block], boxsize=box).sparse_distance_matrix(tree, reach, output_type="ndarray")
        found = found[np.lexsort((found["j"], found["i"]))]
        yield block, block[found["i"]], found["j"]
        start = stop


RULES = {"distance_dependent": Rule(distance_dependent, _expected)}
