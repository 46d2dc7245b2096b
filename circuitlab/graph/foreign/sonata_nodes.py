"""From SONATA's node populations to a circuit's: parts, attributes, names, positions, what `ei` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import FormatError, suggestion
from circuitlab.graph.edges import FloatArray
from circuitlab.graph.foreign.options import safe_name
from circuitlab.graph.foreign.sonata_tables import Column, Entries, Nodes
from circuitlab.graph.foreign.type_tables import TypeTable

AXES = ("x", "y", "z")
RESERVED = frozenset({"name", "bias", *AXES, "syn_weight", "multiplicity", "parameter_index"})
"""Names that attributes cannot have, because run files give them a meaning."""
IDS = ("node_id", "node_type_id", "node_group_id", "node_row")
MOST_PARTS = 200
_EXCITATORY, _INHIBITORY = ("e", "exc", "excitatory"), ("i", "inh", "inhibitory")


@dataclass(frozen=True, eq=False)
class Cells:
    """A SONATA node population, ready to become populations of a circuit.

    Args:
        nodes: as read. columns: name in SONATA -> values of all nodes, a group's before its type's, shape [node].
        attributes: the same by the name in the circuit, without names, positions and bias.
        names, positions, bias: of the neurons, or None.
        sign: +1 where `ei` says excitatory, -1 inhibitory, 0 where it says nothing, shape [node].
        part: which part each node belongs to, and index: its place there, shape [node].
        parts: names of the circuit's populations.
        origin: what an export needs, as plain data.
    """

    nodes: Nodes
    columns: Mapping[str, NDArray]
    attributes: Mapping[str, NDArray]
    names: tuple[str, ...] | None
    positions: FloatArray | None
    bias: FloatArray | None
    sign: NDArray[np.int8]
    part: NDArray[np.int64]
    index: NDArray[np.int64]
    parts: tuple[str, ...]
    origin: dict[str, Any]
    order: NDArray[np.int64] = field(repr=False)

    def rows(self, ids: NDArray[np.int64], where: str) -> NDArray[np.int64]:
        """Row of each node id, shape [id].

        Raises:
            FormatError: an id that no node has.
        """
        known = self.nodes.ids[self.order]
        if not known.size:
            place = np.zeros(len(ids), dtype=np.int64)
            wrong = np.ones(len(ids), dtype=bool)
        else:
            place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
            wrong = known[place] != ids
        if wrong.any():
            row = int(np.argmax(wrong))
            span = f"{len(known)} nodes with ids from {known[0]} to {known[-1]}" if known.size else "no nodes"
            raise FormatError(
                f"{where} is {ids[row]} in row {row}, but population '{self.nodes.name}' has {span}"
            )
        return self.order[place]

    def virtual(self, part: int) -> bool:
        """Whether a part's nodes stand for input from outside."""
        if self.nodes.virtual is not None:
            return self.nodes.virtual
        kinds = self.columns.get("model_type")
        return kinds is not None and bool((kinds[self.part == part] == "virtual").all())


def merged_columns(entries: Entries, types: TypeTable | None, where: str) -> dict[str, NDArray]:
    """Every attribute of every row, shape [row] each: the group's value, else the type's."""
    columns = dict(entries.columns)
    if types is None or entries.type_ids is None:
        return columns
    rows = types.rows(entries.type_ids, where)
    for name in types.attributes:
        of_type = types.values(name)[rows] if len(types.lines) else np.empty(0, dtype=np.str_)
        if name not in columns:
            columns[name] = of_type
            continue
        of_group, has = columns[name], entries.having(name)
        if has.all():
            continue
        if "U" in (of_group.dtype.kind, of_type.dtype.kind):
            of_group, of_type = of_group.astype(np.str_), of_type.astype(np.str_)
        columns[name] = np.where(has, of_group, of_type)
    return columns


def cells(
    nodes: Nodes, split: str | None, given: NDArray[np.int64] | None, names: tuple[str, ...] | None
) -> Cells:
    """A node population with its attributes and parts.

    Args:
        split: column whose values part the population.
        given: which part each node belongs to, and `names` of these parts, where an earlier export says so.

    Raises:
        FormatError: no such column, or one with too many values.
    """
    entries, types = nodes.entries, nodes.types
    columns = merged_columns(entries, types, f"{entries.path}: /nodes/{nodes.name}/node_type_id")
    place: dict[str, str] = {}
    found_names, positions, bias = (
        _names(entries, columns),
        _positions(entries, columns),
        _bias(entries, columns),
    )
    for name in columns:
        own = (name == "name" and found_names) or (name == "bias" and bias is not None)
        axis = positions is not None and name in AXES[: positions.shape[1]]
        renamed = f"sonata_{name}" if name in RESERVED or name in IDS else name
        place[name] = f"={name}" if own or axis else renamed
    attributes = {
        place[name]: values
        for name, values in columns.items()
        if not place[name].startswith("=") and not _empty(name, values, entries)
    }
    ids: dict[str, NDArray] = {"node_id": nodes.ids}
    if entries.type_ids is not None:
        ids["node_type_id"] = entries.type_ids
    if set(entries.groups) != {"0"}:
        ids["node_group_id"] = entries.group_ids
    part, labels = _parts(nodes, columns, split) if given is None else (given, names or ())
    if len(labels) > 1 and not (np.diff(nodes.ids) > 0).all():
        ids["node_row"] = np.arange(entries.rows, dtype=np.int64)
    index = np.zeros(entries.rows, dtype=np.int64)
    for number in range(len(labels)):
        members = np.flatnonzero(part == number)
        index[members] = np.arange(len(members))
    origin = {
        "file": entries.path.name,
        "groups": origin_groups(entries, place),
        **origin_types(entries, types),
        "type_attributes": [place[name] for name in columns if name not in entries.columns],
    }
    return Cells(
        nodes=nodes,
        columns=columns,
        attributes={**ids, **attributes},
        names=found_names,
        positions=positions,
        bias=bias,
        sign=_signs(columns, entries.rows),
        part=part,
        index=index,
        parts=labels,
        origin=origin,
        order=np.argsort(nodes.ids, kind="stable"),
    )


def origin_groups(entries: Entries, place: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """For export: of every group, every dataset's type and what it is called in the circuit."""

    def plain(name: str, kind: Column) -> dict[str, Any]:
        return kind.plain() | {"as": place[name]}

    return {
        group: {name: plain(name, kind) for name, kind in columns.items()}
        for group, columns in entries.groups.items()
    }


def origin_types(entries: Entries, types: TypeTable | None) -> dict[str, Any]:
    """For export: the type table, and whether there are types at all."""
    return {
        "has_types": entries.type_ids is not None,
        "types_file": None if types is None else types.path.name,
        "types": None if types is None else types.plain(),
    }


def _empty(name: str, values: NDArray, entries: Entries) -> bool:
    """Whether a column of the type table says nothing about any of these neurons."""
    if name in entries.columns:
        return False
    return bool(
        (values == "").all()
        if values.dtype.kind == "U"
        else values.dtype.kind == "f" and np.isnan(values).all()
    )


def _names(entries: Entries, columns: Mapping[str, NDArray]) -> tuple[str, ...] | None:
    found = columns.get("name")
    if found is None or "name" not in entries.columns or found.dtype.kind != "U" or not entries.rows:
        return None
    if not entries.having("name").all() or (found == "").any() or len(np.unique(found)) < len(found):
        return None
    return tuple(found.tolist())


def _positions(entries: Entries, columns: Mapping[str, NDArray]) -> FloatArray | None:
    axes = []
    for axis in AXES:
        values = columns.get(axis)
        if values is None or axis not in entries.columns or values.dtype.kind not in "iuf":
            break
        if not entries.having(axis).all() or not np.isfinite(values).all():
            break
        axes.append(values.astype(np.float64))
    return np.stack(axes, axis=1) if axes else None


def _bias(entries: Entries, columns: Mapping[str, NDArray]) -> FloatArray | None:
    found = columns.get("bias")
    if found is None or found.dtype.kind != "f" or "bias" not in entries.columns:
        return None
    return found.astype(np.float64) if entries.having("bias").all() and np.isfinite(found).all() else None


def _signs(columns: Mapping[str, NDArray], rows: int) -> NDArray[np.int8]:
    for name in ("ei", "EI", "synapse_class"):
        if name in columns and columns[name].dtype.kind == "U":
            words = np.char.lower(columns[name])
            return np.where(
                np.isin(words, _EXCITATORY), 1, np.where(np.isin(words, _INHIBITORY), -1, 0)
            ).astype(np.int8)
    return np.zeros(rows, dtype=np.int8)


def _parts(
    nodes: Nodes, columns: Mapping[str, NDArray], split: str | None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Part of every node, and the parts' names: the values of a column in the order in which they come."""
    rows = nodes.entries.rows
    if split is None:
        return np.zeros(rows, dtype=np.int64), (safe_name(nodes.name),)
    if split not in columns:
        raise FormatError(
            f"{nodes.entries.path}: population '{nodes.name}' has no column '{split}' to split it by; there are "
            f"{', '.join(columns) or 'none'}.{suggestion(split, columns)}"
        )
    values, first, inverse = np.unique(columns[split].astype(np.str_), return_index=True, return_inverse=True)
    if len(values) > MOST_PARTS:
        raise FormatError(
            f"{nodes.entries.path}: column '{split}' parts population '{nodes.name}' into {len(values)} populations; "
            f"at most {MOST_PARTS}"
        )
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    labels: list[str] = []
    for value in values[order].tolist():
        labels.append(safe_name(f"{nodes.name}_{value or 'none'}", labels))
    return rank[inverse].astype(np.int64), tuple(labels)
