"""From a SONATA edge population to projections of a circuit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import FormatError, suggestion
from circuitlab.graph.circuit import Projection
from circuitlab.graph.edges import coalesce
from circuitlab.graph.foreign.options import safe_name
from circuitlab.graph.foreign.sonata_nodes import Cells, origin_groups, origin_types
from circuitlab.graph.foreign.sonata_tables import EdgeList
from circuitlab.graph.foreign.sonata_weights import delays, positive_inhibition, read_weights, weight_of

RESERVED = frozenset(
    {
        *("source", "target", "pre", "post", "weight", "multiplicity", "parameter_index", "syn_weight"),
        *(
            "edge_row",
            "edge_type_id",
            "edge_group_id",
            "synapse_weight",
            "name",
            "bias",
            "x",
            "y",
            "z",
            "edge",
        ),
    }
)
"""Names that attributes of edges cannot have, because edge files or run files give them a meaning."""


@dataclass
class Synapses:
    """What became of one edge population: projections, what an export needs, and what a user should know."""

    projections: list[Projection]
    origin: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def projections_of(
    edges: EdgeList,
    populations: Mapping[str, Cells],
    types: Mapping[str, str],
    scale: float,
    known: Mapping[tuple[str, str], str],
    taken: set[str],
    own: bool = False,
) -> Synapses:
    """The projections between the parts of two node populations.

    Args:
        populations: SONATA node populations by name. types: type of each of the circuit's populations.
        scale: multiplies the weights.
        known: names of projections by their two populations, where an earlier export says so.
        taken: names of projections that are there already; those made here are added.
        own: whether circuitlab wrote the file from a circuit of its own: weights are as they stand.

    Raises:
        FormatError: names the file and the row.
    """
    entries = edges.entries
    where = f"{entries.path}: /edges/{edges.name}"
    for end, name in (("source", edges.source), ("target", edges.target)):
        if name not in populations:
            near = suggestion(name, populations)
            raise FormatError(
                f"{where}/{end}_node_id: no node population '{name}'; there are {', '.join(populations)}.{near}"
            )
    source, target = populations[edges.source], populations[edges.target]
    pre = source.rows(edges.source_ids, f"{where}/source_node_id")
    post = target.rows(edges.target_ids, f"{where}/target_node_id")
    read = read_weights(edges)
    inhibitory = source.sign[pre] < 0
    flips = not own and positive_inhibition(read.synapse, inhibitory)
    flip = inhibitory & flips
    weight = weight_of(read.synapse, read.count, flip, scale)
    columns, place = _columns(edges, read.synapse, own)
    time = delays(edges)
    origin = {
        "file": entries.path.name,
        "source": edges.source,
        "target": edges.target,
        "groups": origin_groups(entries, place),
        **origin_types(entries, edges.types),
        "flip": flips,
        "scale": scale,
        "projections": {},
    }
    made = Synapses([], origin)
    count = entries.columns.get("multiplicity") if own else read.count
    parts = source.part[pre] * len(target.parts) + target.part[post]
    pairs, first = np.unique(parts, return_index=True)
    if own and not entries.rows:
        # A projection without synapses: nothing but what circuitlab wrote says between which parts it leads.
        ends_known = [(source.parts.index(a), target.parts.index(b)) for a, b in known]
        pairs = np.array([a * len(target.parts) + b for a, b in ends_known], dtype=np.int64)
        first = np.zeros(len(pairs), dtype=np.int64)
    for pair in pairs[np.argsort(first)].tolist():
        at = slice(None) if len(pairs) == 1 else np.flatnonzero(parts == pair)
        a, b = source.parts[pair // len(target.parts)], target.parts[pair % len(target.parts)]
        ends = [name for name, group in ((a, source), (b, target)) if len(group.parts) > 1]
        name = known.get((a, b)) or _name(edges, ends if len(pairs) > 1 else [], taken)
        taken.add(name)
        index = columns.get("parameter_index") if own else None
        delay = np.zeros(1) if time is None or not entries.rows else np.unique(np.nan_to_num(time[at]))
        chosen = {key: values[at] for key, values in columns.items() if key != "parameter_index" or not own}
        if len(delay) > 1 and time is not None:
            chosen.setdefault("delay", time[at])
            made.notes.append(
                f"{name}: its delays differ, {delay.min():g} to {delay.max():g} ms; a projection has one delay, so "
                "none acts, and they are kept as attribute 'delay'"
            )
        made.projections.append(
            Projection(
                name=name,
                source=a,
                target=b,
                site="basal" if types[b] == "pyramidal" else "soma",
                carries="rate",
                plastic=True,
                kernel="auto",
                edges=coalesce(
                    source.index[pre[at]].astype(np.int32),
                    target.index[post[at]].astype(np.int32),
                    weight[at],
                    None if count is None else count[at].astype(np.int32),
                    chosen,
                    None if index is None else index[at],
                    keep_rows=index is None,
                ),
                delay_ms=float(delay[0]) if len(delay) == 1 else 0.0,
            )
        )
        origin["projections"][name] = [a, b]
    if not read.given.all():
        without = int(np.count_nonzero(~read.given))
        made.notes.append(
            f"{edges.name}: {without} of {entries.rows} edges have no syn_weight; each counts as 1"
        )
    return made


def _columns(edges: EdgeList, synapse: NDArray, own: bool) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Attributes of the edges by their name in the circuit, and what each dataset is called there."""
    entries = edges.entries
    columns: dict[str, NDArray] = {}
    if not own:
        columns["edge_row"] = np.arange(entries.rows, dtype=np.int64)
        if entries.type_ids is not None:
            columns["edge_type_id"] = entries.type_ids
        if set(entries.groups) != {"0"}:
            columns["edge_group_id"] = entries.group_ids
    place = {}
    for name, values in entries.columns.items():
        if name in ("syn_weight", "nsyns") or (own and name == "multiplicity"):
            place[name] = f"={name}"
        elif own and name == "parameter_index":
            place[name], columns[name] = f"={name}", values.astype(np.int64)
        else:
            place[name] = f"sonata_{name}" if name in RESERVED else name
            columns[place[name]] = values
    if "syn_weight" in entries.columns and not own:
        columns["synapse_weight"] = synapse
    return columns, place


def _name(edges: EdgeList, parts: list[str], taken: set[str]) -> str:
    """A projection's name: the edge population's, with the parts it joins behind where it falls into several."""
    wholes = (f"{edges.source}_", f"{edges.target}_")
    ends = [
        next((part.removeprefix(whole) for whole in wholes if part.startswith(whole)), part) for part in parts
    ]
    return safe_name("_".join([edges.name, *ends]), taken)
