"""Synapses as arrays: raw pairs as a rule draws them, and the unique, sorted edges of a projection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.integer]
FloatArray = NDArray[np.floating]

LARGE = 1 << 18
"""Synapses from which a projection is kept in little memory: targets as row pointers, drawn weights in single
precision, numbers of parallel synapses in one byte."""
CHUNK = 1 << 22
"""Synapses that are worked on at once where what a step needs for a while would be large."""


@dataclass(frozen=True, eq=False)
class Synapses:
    """What a connection rule returns: pairs in the rule's own order, parallel synapses repeated.

    Args:
        source, target: index of the neuron in its population, shape [synapse].
        weight: given weights, shape [synapse]; None where the projection's `weights` draw them.
        parameter_index: which shared parameter each synapse uses, shape [synapse], or None.
        parameter_shape: shape of the shared parameters, such as [out, in, kernel_y, kernel_x].
        parameters: given values of the shared parameters, shape [parameter], or None.
        multiplicity: how many parallel synapses each entry stands for, shape [synapse]; one if None.
        geometry: of a convolution or pooling: in_shape, out_shape, kernel, stride, padding.
        attributes: further columns of an edge file, each of shape [synapse].
    """

    source: IntArray
    target: IntArray
    weight: FloatArray | None = None
    parameter_index: IntArray | None = None
    parameter_shape: tuple[int, ...] | None = None
    parameters: FloatArray | None = None
    multiplicity: IntArray | None = None
    geometry: dict[str, tuple[int, ...]] | None = None
    attributes: Mapping[str, NDArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.source.size


@dataclass(frozen=True, eq=False)
class Edges:
    """The synapses of a projection: unique pairs sorted by (target, source).

    From `LARGE` edges on, `target` is kept as row pointers and made anew at every reading, 4 bytes an edge that
    nobody holds; whoever can, takes `pointers` in its place.

    Args:
        source, target: index of the neuron in its population, int32, shape [edge].
        weight: initial weight, the sum over parallel synapses, dimensionless, shape [edge]; float64, or float32
            where `build` drew a large projection.
        multiplicity: how many parallel synapses the edge stands for, int32 (uint8 in large projections where
            it fits), shape [edge].
        parameter_index, parameters: shared weights (convolution), `weight == parameters[parameter_index]`;
            int64 of shape [edge] and float64 of shape [parameter], or both None.
        attributes: further columns of an edge file, each of shape [edge] (of parallel synapses, the first
            one's).
    """

    source: NDArray[np.int32]
    target: NDArray[np.int32]
    weight: NDArray[np.floating]
    multiplicity: NDArray[np.integer]
    parameter_index: NDArray[np.int64] | None = None
    parameters: FloatArray | None = None
    attributes: Mapping[str, NDArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.source.size

    def pointers(self, targets: int) -> NDArray[np.int64]:
        """Where the edges of each target begin, and their number at the end, shape [target + 1]."""
        kept = self.__dict__["target"]
        if isinstance(kept, _Rows):
            return np.pad(kept.starts, (0, targets + 1 - kept.starts.size), mode="edge")
        return _starts(kept, targets)

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take."""
        kept = self.__dict__["target"]
        arrays = [
            self.source,
            kept.starts if isinstance(kept, _Rows) else kept,
            self.weight,
            self.multiplicity,
        ]
        arrays += [self.parameter_index, self.parameters, *self.attributes.values()]
        return sum(array.nbytes for array in arrays if array is not None)

    def equals(self, other: Edges) -> bool:
        """Whether every array agrees with the other's, exactly."""
        pairs = [
            (getattr(self, name), getattr(other, name))
            for name in ("source", "target", "weight", "multiplicity", "parameter_index", "parameters")
        ]
        return all(same_array(a, b) for a, b in pairs) and same_arrays(self.attributes, other.attributes)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Sorted targets as row pointers: where the edges of each begin, int64, shape [target + 1]."""

    starts: NDArray[np.int64]


def _starts(target: IntArray, targets: int) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(np.bincount(target, minlength=targets)))).astype(np.int64)


class _Targets:
    """The field `target` of `Edges`: many sorted targets are kept as row pointers."""

    def __get__(self, edges: Edges | None, owner: type | None = None) -> NDArray[np.int32]:
        if edges is None:
            raise AttributeError("target belongs to one object")
        kept = edges.__dict__["target"]
        if isinstance(kept, _Rows):
            return np.repeat(np.arange(kept.starts.size - 1, dtype=np.int32), np.diff(kept.starts))
        return kept

    def __set__(self, edges: Edges, target: NDArray[np.int32]) -> None:
        large = target.size >= LARGE and bool(np.all(target[1:] >= target[:-1]))
        if large:
            numbers = np.arange(int(target[-1]) + 2, dtype=target.dtype)
            target = _Rows(np.searchsorted(target, numbers))  # type: ignore[assignment]
        edges.__dict__["target"] = target


setattr(Edges, "target", _Targets())  # noqa: B010  (after the dataclass is made: the field has no default)


def same_array(a: NDArray | None, b: NDArray | None) -> bool:
    """Whether two arrays, or absences of one, are equal."""
    if a is None or b is None:
        return a is b
    return bool(np.array_equal(a, b))


def same_arrays(a: Mapping[str, NDArray], b: Mapping[str, NDArray]) -> bool:
    """Whether two dictionaries of arrays are equal, their order apart."""
    return a.keys() == b.keys() and all(same_array(a[name], b[name]) for name in a)


def coalesce(
    source: IntArray,
    target: IntArray,
    weight: FloatArray,
    multiplicity: IntArray | None = None,
    attributes: Mapping[str, NDArray] | None = None,
    parameter_index: IntArray | None = None,
    parameters: FloatArray | None = None,
) -> Edges:
    """Unique pairs sorted by (target, source); parallel synapses summed in weight, counted in multiplicity.

    Time n log n (n where the pairs come sorted) and memory in proportion to the n synapses.

    Args:
        source, target, weight: shape [synapse].
        multiplicity: synapses each entry already stands for; one if None.
        attributes: further arrays of shape [synapse]; parallel synapses keep the first one's.
        parameter_index, parameters: shared weights; their pairs are unique already.
    """
    attributes = attributes or {}
    order, new = None, np.ones(source.size, dtype=bool)
    pairs = source, target
    if source.size:
        below, same = target[1:] < target[:-1], target[1:] == target[:-1]
        if np.any(below | (same & (source[1:] < source[:-1]))):
            key = target.astype(np.int64) * (int(source.max()) + 1) + source
            order = np.argsort(key, kind="stable")
            del key
            pairs = source[order], target[order]
            same = pairs[1][1:] == pairs[1][:-1]
        same &= pairs[0][1:] == pairs[0][:-1]
        np.logical_not(same, out=new[1:])
        del below, same
    unique = bool(new.all())

    def ordered(array: NDArray) -> NDArray:
        return array if order is None else array[order]

    def first(array: NDArray) -> NDArray:
        return ordered(array) if unique else ordered(array)[new]

    if multiplicity is not None:
        counts = ordered(multiplicity) if unique else _totals(ordered(multiplicity), new)
    else:
        counts = np.ones(source.size, dtype=np.uint8) if unique else _totals(None, new)
    weight = weight if weight.dtype == np.float32 else np.asarray(weight, dtype=np.float64)
    assert parameter_index is None or unique
    few = len(counts) >= LARGE and counts.max() < 256
    return Edges(
        source=(pairs[0] if unique else pairs[0][new]).astype(np.int32, copy=False),
        target=(pairs[1] if unique else pairs[1][new]).astype(np.int32, copy=False),
        weight=ordered(weight) if unique else _totals(ordered(weight), new),
        multiplicity=counts.astype(np.uint8 if few else np.int32, copy=False),
        parameter_index=None
        if parameter_index is None
        else first(parameter_index).astype(np.int64, copy=False),
        parameters=parameters,
        attributes={name: first(array) for name, array in attributes.items()},
    )


def _totals(array: NDArray | None, new: NDArray[np.bool_]) -> NDArray:
    """Sums over parallel synapses, shape [edge], a part after another so that little lies beside them.

    Args:
        array: what is summed, shape [synapse]; ones if None.
        new: whether a synapse is the first of its pair, shape [synapse].
    """
    whole = np.int64 if new.size < LARGE or array is not None else np.int32
    kind = array.dtype if array is not None and array.dtype.kind == "f" else whole
    sums, at, low = np.empty(int(np.count_nonzero(new)), dtype=kind), 0, 0
    while low < new.size:
        high = min(low + CHUNK, new.size)
        while high < new.size and not new[high]:
            high += 1
        starts = np.flatnonzero(new[low:high])
        if array is None:
            part = np.diff(starts, append=high - low)
        else:
            part = np.add.reduceat(array[low:high], starts, dtype=kind)
        sums[at : at + starts.size] = part
        at, low = at + starts.size, high
    return sums
