"""Circuits whose rate-coded weights among units are symmetric, and updates that keep them so.

A weight w between neurons i and j is two synapses, i -> j and j -> i: of two projections that are each other's
transposes, or of one that is its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from circuitlab.compile.compiled import Link
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError

ALIKE = 1e-5
"""Difference between the weights of two partners, relative to the largest, that counts as rounding."""


@dataclass(frozen=True)
class Pair:
    """Two projections that are each other's transposes, or one that is its own.

    Args:
        first, second: their links; the same one twice where it is its own transpose.
        order: for each synapse j -> i of `first`, the place of i -> j in `second`, [edge].
    """

    first: Link
    second: Link
    order: Tensor


def symmetric_pairs(system: CircuitSystem) -> list[Pair]:
    """The rate-coded projections among units, in pairs of transposes.

    Raises:
        CircuitError: an output is not linear, a projection has no partner, or there are gap junctions; names the first.
    """
    circuit = system.compiled.circuit
    if system.junctions is not None:
        raise CircuitError(
            "learn.energy: hopfield's energy is of rates, and gap junctions carry differences of potentials "
            f"({system.junctions.names}); allowed here: discrepancy"
        )
    for name in circuit.outputs:
        p = circuit.populations[name]
        if p.activation != "linear":
            raise CircuitError(
                f"learn.energy: hopfield nudges rates, so the output '{name}' must be linear, not "
                f"{p.activation}; allowed here: discrepancy"
            )
        if p.gain != 1 or p.threshold != 0:
            raise CircuitError(
                f"learn.energy: hopfield nudges rates, so the output '{name}' must have gain 1 and threshold 0, not "
                f"{p.gain:g} and {p.threshold:g}; allowed here: discrepancy"
            )
    left, pairs = list(system.compiled.recurrent), []
    while left:
        first = left[0]
        p = first.projection
        if p.edges.parameters is not None or p.rank is not None:
            how = "shares its weights" if p.rank is None else f"has weights of rank {p.rank}"
            raise CircuitError(
                f"learn.energy: hopfield needs a weight of its own for every pair of neurons, and the projection "
                f"'{p.name}' {how}; allowed here: discrepancy"
            )
        pair = next((found for found in (_pair(first, other) for other in left) if found is not None), None)
        if pair is None:
            raise CircuitError(
                f"learn.energy: hopfield needs symmetric weights, and the projection '{p.name}' has no partner from "
                f"'{p.target}' to '{p.source}' with its weights transposed; add {{source: {p.target}, target: "
                f"{p.source}, connect: {{rule: transpose, of: {p.name}}}}}, or write energy: discrepancy"
            )
        pairs.append(pair)
        left = [link for link in left if link is not first and link is not pair.second]
    return pairs


def symmetric_update(pairs: list[Pair], psi: Tensor, rate: Tensor) -> dict[str, Tensor]:
    """(psi_i r_j + r_i psi_j) / 2 for every plastic synapse, summed over samples; to the bit the same for both synapses
    of a weight.

    Args:
        psi, rate: [unit, sample].
    """
    updates = {}
    for pair in pairs:
        link = pair.first
        if not link.projection.plastic:
            continue
        one = link.kernel.outer(psi[link.target], rate[link.source]).clone()
        update = (one + link.kernel.outer(rate[link.target], psi[link.source])) / 2
        if pair.second is link:
            update = (update + update[pair.order]) / 2
        else:
            other = torch.empty_like(update)
            other[pair.order] = update
            updates[pair.second.projection.name] = other
        updates[link.projection.name] = update
    return updates


def _pair(first: Link, second: Link) -> Pair | None:
    """The pair, or None where the second projection is not the transpose of the first."""
    one, other = first.projection, second.projection
    a, b = one.edges, other.edges
    if (one.source, one.target) != (other.target, other.source) or one.plastic != other.plastic:
        return None
    if len(a) != len(b) or b.parameters is not None or other.rank is not None:
        return None
    forth, back = np.lexsort((a.source, a.target)), np.lexsort((b.target, b.source))
    if not (
        np.array_equal(a.source[forth], b.target[back]) and np.array_equal(a.target[forth], b.source[back])
    ):
        return None
    order = np.empty(len(a), dtype=np.int64)
    order[forth] = back
    places = torch.as_tensor(order, device=first.kernel.values.device)
    here, there = first.kernel.edge_values, second.kernel.edge_values[places]
    largest = float(here.abs().amax()) if len(here) else 0.0
    if len(here) and float((here - there).abs().amax()) > ALIKE * largest:
        return None
    return Pair(first, second, places)
