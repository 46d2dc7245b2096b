"""What a SONATA edge weighs in a circuit, and back: type tables, numbers of synapses, signs, scale.

    weight = sign * syn_weight * nsyns * scale

sign is -1 where the source is inhibitory (`ei` is i) and the edge population writes its weights as positive numbers,
which the inhibitory synapse model then subtracts; else 1. scale is the user's (`--weight-scale`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import FormatError
from circuitlab.graph.edges import Edges, FloatArray, coalesce
from circuitlab.graph.foreign.sonata_tables import EdgeList
from circuitlab.graph.foreign.type_tables import MISSING, TypeTable


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of an edge population as its files say them, of shape [edge] each.

    Args:
        synapse: weight of one synapse: the group's `syn_weight`, else the type's, else 1.
        count: number of synapses, `nsyns`; 1 without. given: whether any file gives a weight.
    """

    synapse: FloatArray
    count: NDArray[np.int64]
    given: NDArray[np.bool_]


def weight_of(synapse: FloatArray, count: NDArray, flip: NDArray[np.bool_], scale: float) -> FloatArray:
    """The weight in the circuit, shape [edge]; the equation above."""
    return np.where(flip, -synapse, synapse) * count * scale


def synapse_of(weight: FloatArray, count: NDArray, flip: NDArray[np.bool_], scale: float) -> FloatArray:
    """The weight of one synapse in the file, shape [edge]: `weight_of` solved for it."""
    synapse = weight / (count * scale)
    return np.where(flip, -synapse, synapse)


def read_weights(edges: EdgeList) -> Weights:
    """Weights and numbers of synapses of an edge population.

    Raises:
        FormatError: a weight that is not a finite number, a number of synapses below 1.
    """
    entries, where = edges.entries, f"{edges.entries.path}: /edges/{edges.name}"
    synapse, given = np.ones(entries.rows), np.zeros(entries.rows, dtype=bool)
    if edges.types is not None and "syn_weight" in edges.types.columns and entries.type_ids is not None:
        of_type = _of_types(edges.types, "syn_weight")
        if entries.rows:
            each = of_type[edges.types.rows(entries.type_ids, f"{where}/edge_type_id")]
            given = np.isfinite(each)
            synapse = np.where(given, each, 1.0)
    if "syn_weight" in entries.columns:
        values, has = entries.columns["syn_weight"], entries.having("syn_weight")
        if values.dtype.kind not in "iuf":
            raise FormatError(f"{where}: syn_weight holds {values.dtype}; numbers are needed")
        wrong = has & ~np.isfinite(values)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise FormatError(
                f"{where}: syn_weight is {values[row]} in row {row}; weights are finite numbers"
            )
        synapse, given = np.where(has, values.astype(np.float64), synapse), given | has
    count = np.ones(entries.rows, dtype=np.int64)
    if "nsyns" in entries.columns:
        values, has = entries.columns["nsyns"], entries.having("nsyns")
        wrong = has & ~((values >= 1) & (values < 2**31)) if values.dtype.kind in "iu" else has
        if wrong.any():
            row = int(np.argmax(wrong))
            raise FormatError(f"{where}: nsyns is {values[row]} in row {row}; it is a whole number from 1")
        count = np.where(has, values, 1).astype(np.int64)
    return Weights(synapse, count, given)


def _of_types(types: TypeTable, name: str) -> FloatArray:
    """A column of the type table as finite numbers, nan where it says NULL, shape [type]."""
    numbers = np.full(len(types.lines), np.nan)
    for row, (text, line) in enumerate(zip(types.columns[name], types.lines, strict=True)):
        if text == MISSING:
            continue
        try:
            numbers[row] = float(text)
        except ValueError:
            raise FormatError(f"{types.path}:{line}: {name} is '{text}', not a number") from None
        if not np.isfinite(numbers[row]):
            raise FormatError(f"{types.path}:{line}: {name} is {text}; it must be a finite number")
    return numbers


def delays(edges: EdgeList) -> FloatArray | None:
    """Delay of every edge in milliseconds: the group's `delay`, else the type's; nan where there is none.

    Returns:
        Shape [edge], or None where the files have no delays.
    """
    entries, types = edges.entries, edges.types
    found = None
    if types is not None and "delay" in types.columns and entries.type_ids is not None and entries.rows:
        rows = types.rows(entries.type_ids, f"{entries.path}: /edges/{edges.name}/edge_type_id")
        found = _of_types(types, "delay")[rows]
    values = entries.columns.get("delay")
    if values is not None and values.dtype.kind in "iuf":
        of_type = np.full(entries.rows, np.nan) if found is None else found
        found = np.where(entries.having("delay"), values.astype(np.float64), of_type)
    if found is not None and (found < 0).any():
        row = int(np.argmax(found < 0))
        raise FormatError(f"{entries.path}: /edges/{edges.name}: the delay is {found[row]:g} ms in row {row}")
    return found


def positive_inhibition(synapse: FloatArray, inhibitory: NDArray[np.bool_]) -> bool:
    """Whether an edge population writes the weights of inhibitory sources as positive numbers."""
    return bool(inhibitory.any() and (synapse[inhibitory] >= 0).all())


def row_weights(edges: Edges) -> FloatArray:
    """Weight of every single row of the edge file, with what learning changed, shape [row] ([edge] without rows).

    Parallel rows share the change of their edge in proportion to the size of their own weights (equally, where all
    are zero): w_row + (W - sum w) |w_row| / sum |w|, where W is the edge's weight now and w the rows' first ones.
    Where all have one sign this is w_row W / sum w. An edge that did not change gives its rows' weights exactly.
    """
    weight = np.asarray(edges.weight, dtype=np.float64)
    rows = edges.rows
    if rows is None:
        return weight
    first = np.asarray(rows.weight, dtype=np.float64)
    source, target = edges.source[rows.edge], edges.target[rows.edge]
    before = coalesce(source, target, first).weight
    size = np.bincount(rows.edge, weights=np.abs(first), minlength=len(edges))
    number = np.bincount(rows.edge, minlength=len(edges))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(size[rows.edge] > 0, np.abs(first) / size[rows.edge], 1 / number[rows.edge])
    change = (weight - before)[rows.edge]
    return np.where(change == 0, first, first + change * share)
