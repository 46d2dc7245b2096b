"""Gap junctions as edges: conductances of at least zero, one for each pair of neurons.

Between two populations an edge is a pair. Within one, a pair may be listed once or in both directions, which then
agree; a junction of a neuron with itself carries no current.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit, Population, Projection
from circuitlab.graph.edges import Edges


def turned(edges: Edges) -> NDArray[np.int64]:
    """Which edge lists the same pair of one population in the other direction, -1 where none does, [edge]."""
    if not len(edges):
        return np.empty(0, dtype=np.int64)
    width = int(max(edges.source.max(), edges.target.max())) + 1
    key = edges.target.astype(np.int64) * width + edges.source  # edges are sorted by it
    other = edges.source.astype(np.int64) * width + edges.target
    place = np.minimum(np.searchsorted(key, other), len(key) - 1)
    return np.where(key[place] == other, place, -1)


def agreed(edges: Edges) -> Edges:
    """Drawn edges of one population, those of a pair listed in both directions with the weight of the first of them."""
    other = turned(edges)
    first = np.where(other >= 0, np.minimum(other, np.arange(len(edges))), np.arange(len(edges)))
    return replace(edges, weight=edges.weight[first])


def check_junctions(projection: Projection, source: Population, target: Population) -> None:
    """Refuse gap junctions that join no two somata, or have no one conductance of at least zero.

    Raises:
        CircuitError: names the first such pair.
    """
    edges, what = projection.edges, "gap junctions (kind: electrical)"
    for population in (source, target):
        if population.type == "input":
            raise CircuitError(f"'{population.name}' is an input and has no soma for {what} to join")
    if projection.site != "soma" or projection.carries != "rate":
        raise CircuitError(
            f"{what} join somata and carry no bursts; allowed: site soma, carries rate (found: "
            f"{projection.site}, {projection.carries})"
        )
    if edges.parameter_index is not None or projection.rank is not None or projection.delay_ms:
        raise CircuitError(f"{what} have no shared weights, no rank and no delay")
    wrong = edges.weight < 0
    if wrong.any():
        first = int(np.argmax(wrong))
        raise CircuitError(
            f"the conductance of {_pair(source, target, edges, first)} is {edges.weight[first]:g}; conductances are "
            "at least 0"
        )
    if source.name != target.name:
        return
    other = turned(edges)
    wrong = (other >= 0) & (edges.weight != edges.weight[other])
    if wrong.any():
        first = int(np.argmax(wrong))
        raise CircuitError(
            f"the gap junction {_pair(source, target, edges, first)} has the conductance {edges.weight[first]:g} in "
            f"one direction and {edges.weight[other[first]]:g} in the other; list it once, or with one conductance"
        )


def conductances(circuit: Circuit) -> sparse.csr_array:
    """G of all gap junctions among the units that are not inputs, in file order, symmetric with a zero diagonal, shape
    (units, units): the current into neuron i is sum_j G_ij (phi_j - phi_i)."""
    starts, size = {}, 0
    for name in circuit.units:
        starts[name], size = size, size + circuit.populations[name].size
    rows, columns, values = ([np.zeros(0, kind)] for kind in (np.int64, np.int64, np.float64))
    for p in circuit.projections.values():
        if p.kind != "electrical":
            continue
        e = p.edges
        once = np.ones(len(e), dtype=bool)
        if p.source == p.target:
            other = turned(e)
            once = (e.source != e.target) & ((other < 0) | (np.arange(len(e)) < other))
        rows.append(e.target[once].astype(np.int64) + starts[p.target])
        columns.append(e.source[once].astype(np.int64) + starts[p.source])
        values.append(e.weight[once].astype(np.float64))
    one_way = sparse.coo_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(size, size)
    )
    return sparse.csr_array(one_way + one_way.T)


def _pair(source: Population, target: Population, edges: Edges, index: int) -> str:
    return f"{source.label(int(edges.source[index]))} -- {target.label(int(edges.target[index]))}"
