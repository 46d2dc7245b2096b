"""Synapses as arrays: raw pairs as a rule draws them, and the unique, sorted edges of a projection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.integer]
FloatArray = NDArray[np.float64]


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

    Args:
        source, target: index of the neuron in its population, int32, shape [edge].
        weight: initial weight, the sum over parallel synapses, float64, dimensionless, shape [edge].
        multiplicity: how many parallel synapses the edge stands for, int32, shape [edge].
        parameter_index, parameters: shared weights (convolution), `weight == parameters[parameter_index]`;
            int64 of shape [edge] and float64 of shape [parameter], or both None.
        attributes: further columns of an edge file, each of shape [edge] (of parallel synapses, the first
            one's).
    """

    source: NDArray[np.int32]
    target: NDArray[np.int32]
    weight: FloatArray
    multiplicity: NDArray[np.int32]
    parameter_index: NDArray[np.int64] | None = None
    parameters: FloatArray | None = None
    attributes: Mapping[str, NDArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.source.size

    def equals(self, other: Edges) -> bool:
        """Whether every array agrees with the other's, exactly."""
        pairs = [
            (getattr(self, name), getattr(other, name))
            for name in ("source", "target", "weight", "multiplicity", "parameter_index", "parameters")
        ]
        return all(same_array(a, b) for a, b in pairs) and same_arrays(self.attributes, other.attributes)


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
    if source.size == 0:
        order, starts = None, np.empty(0, dtype=np.intp)
    else:
        key = target.astype(np.int64) * (int(source.max()) + 1) + source
        order = None if np.all(key[1:] >= key[:-1]) else np.argsort(key, kind="stable")
        key = key if order is None else key[order]
        starts = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
        del key
    unique = starts.size == source.size

    def first(array: NDArray) -> NDArray:
        if unique:
            return array if order is None else array[order]
        return array[starts] if order is None else array[order[starts]]

    def total(array: NDArray) -> NDArray:
        if unique:
            return first(array)
        return np.add.reduceat(array if order is None else array[order], starts)

    if multiplicity is not None:
        counts = total(multiplicity)
    elif unique:
        counts = np.ones(source.size, dtype=np.int32)
    else:
        counts = np.diff(starts, append=source.size)
    assert parameter_index is None or unique
    return Edges(
        source=first(source).astype(np.int32, copy=False),
        target=first(target).astype(np.int32, copy=False),
        weight=total(np.asarray(weight, dtype=np.float64)),
        multiplicity=counts.astype(np.int32, copy=False),
        parameter_index=None
        if parameter_index is None
        else first(parameter_index).astype(np.int64, copy=False),
        parameters=parameters,
        attributes={name: first(array) for name, array in attributes.items()},
    )
