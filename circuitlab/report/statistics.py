"""Degrees, weights, reciprocity and the balance of excitation and inhibition, from the edges as they lie in memory.

Nothing here copies the edges of a whole projection: they are read in blocks, so that a circuit of 3e8 synapses needs a
few tens of megabytes more. Where a number would take minutes it is estimated from edges drawn at random, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitlab.graph.circuit import Circuit, Projection
from circuitlab.graph.edges import Edges
from circuitlab.graph.junctions import turned

BLOCK = 2**21
"""Edges read at once."""
BINS = 20
"""Of a histogram of degrees, at most."""
EXACT_BELOW = 10_000_000
"""Edges among units up to which every edge is asked whether there is one the other way."""
DRAWN = 200_000
"""Edges of each projection that are asked beyond."""


def blocks(edges: Edges) -> Iterator[slice]:
    """The edges in parts."""
    for start in range(0, len(edges), BLOCK):
        yield slice(start, min(start + BLOCK, len(edges)))


def synapses(edges: Edges) -> int:
    """Number of synapses, parallel ones counted each."""
    return int(edges.multiplicity.sum(dtype=np.int64))


def single(projection: Projection) -> NDArray[np.bool_]:
    """Which edges of gap junctions stand for a pair of neurons: within a population each is counted once, whether it is
    listed in one direction or in both, and none of a neuron with itself; shape [edge]."""
    edges = projection.edges
    if projection.source != projection.target:
        return np.ones(len(edges), dtype=bool)
    other = turned(edges)
    return ((other < 0) | (np.arange(len(other)) <= other)) & (edges.source != edges.target)


def junctions(projection: Projection) -> int:
    """Pairs of neurons that a projection of gap junctions joins."""
    return int(single(projection).sum())


def indegrees(edges: Edges, targets: int) -> NDArray[np.int64]:
    """Synapses onto every target neuron, parallel ones counted each; shape [target]."""
    starts = edges.pointers(targets)
    total = np.diff(starts)
    for part in blocks(edges):
        more = np.flatnonzero(edges.multiplicity[part] != 1)
        if more.size:
            row = np.searchsorted(starts, more + part.start, side="right") - 1
            np.add.at(total, row, edges.multiplicity[part][more].astype(np.int64) - 1)
    return total


def outdegrees(edges: Edges, sources: int) -> NDArray[np.int64]:
    """Synapses of every source neuron, parallel ones counted each; shape [source]."""
    total = np.zeros(sources, dtype=np.int64)
    for part in blocks(edges):
        count = edges.multiplicity[part]
        weights = None if (count == 1).all() else count.astype(np.float64)
        found = np.bincount(edges.source[part], weights=weights, minlength=sources)
        total += found.astype(np.int64)
    return total


def spread(values: NDArray) -> dict[str, Any]:
    """Mean, standard deviation, least and most of some whole numbers, and their histogram.

    The bins of the histogram include their lower edge, the last one both; `counts` has one number fewer than `edges`.
    """
    low, high = int(values.min()), int(values.max())
    width = -(-(high - low + 1) // BINS)
    edges = np.arange(low, high + width + 1, width) if high > low else np.array([low, low + 1])
    counts, edges = np.histogram(values, edges)
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": low,
        "max": high,
        "histogram": {"edges": [int(e) for e in edges], "counts": [int(c) for c in counts]},
    }


def mean_and_deviation(values: NDArray) -> tuple[float | None, float | None]:
    """Mean and standard deviation of weights, None where there are none."""
    if not len(values):
        return None, None
    mean = float(values.mean(dtype=np.float64))
    squares = 0.0
    for start in range(0, len(values), BLOCK):
        squares += float(np.square(values[start : start + BLOCK] - mean, dtype=np.float64).sum())
    return mean, float(np.sqrt(squares / len(values)))


class Rows:
    """The edges of one projection, looked up by pair."""

    def __init__(self, edges: Edges, targets: int) -> None:
        self.source = edges.source
        self.starts = edges.pointers(targets)

    def pairs(self, part: Any) -> tuple[NDArray, NDArray]:
        """Target and source of some edges, a slice or an array of their numbers."""
        number = np.arange(part.start, part.stop) if isinstance(part, slice) else part
        return np.searchsorted(self.starts, number, side="right") - 1, self.source[part]

    def have(self, target: NDArray, source: NDArray) -> NDArray[np.bool_]:
        """Whether there is an edge from each source to the target beside it: bisection in the target's sources."""
        low, high = self.starts[target], self.starts[target + 1]
        end = high.copy()
        while (open_ := low < high).any():
            middle = (low + high) // 2
            less = open_.copy()
            less[open_] = self.source[middle[open_]] < source[open_]
            low = np.where(less, middle + 1, low)
            high = np.where(open_ & ~less, middle, high)
        found = low < end
        found[found] = self.source[low[found]] == source[found]
        return found


def reciprocity(circuit: Circuit) -> dict[str, Any]:
    """The share of edges j -> i, j not i, with an edge i -> j: 2 L_mutual / L of Newman, Forrest & Balthrop 2002 (Phys.
    Rev. E 66, 035101), as `networkx.overall_reciprocity` has it; an edge from a neuron to itself counts as one without.

    Edges are pairs of neurons that are no inputs and are joined by chemical projections (any of rate and burst). Gap
    junctions go both ways by nature and are left out.

    Returns:
        `overall`, None without edges; `projections`: share of each projection's own edges, by name; `pairs`: of the
        edges between two populations, both ways together; `how`: `exact`, or `estimated` from some edges.
    """
    inner = set(circuit.units)
    own = [p for p in circuit.projections.values() if p.source in inner and p.kind == "chemical"]
    exact = sum(len(p.edges) for p in own) <= EXACT_BELOW
    rows = {p.name: Rows(p.edges, circuit.populations[p.target].size) for p in own}
    between: dict[tuple[str, str], list[Projection]] = {}
    for p in own:
        between.setdefault((p.source, p.target), []).append(p)
    shares: dict[str, float | None] = {}
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for (source, target), group in between.items():
        back = [rows[q.name] for q in between.get((target, source), [])]
        edges = mutual = 0.0
        for number, p in enumerate(group):
            earlier = [rows[q.name] for q in group[:number]]
            count, answered, new, new_answered = _asked(p, rows[p.name], back, earlier, exact)
            shares[p.name] = answered / count if count else None
            edges, mutual = edges + new, mutual + new_answered
        found[source, target] = edges, mutual
    total = sum(edges for edges, _ in found.values())
    pairs, place = [], {name: number for number, name in enumerate(circuit.populations)}
    for source, target in found:
        if (target, source) in found and place[source] > place[target]:
            continue
        ways = {(source, target), (target, source)} & found.keys()
        edges, mutual = (sum(found[way][k] for way in ways) for k in (0, 1))
        share = mutual / edges if edges else None
        pairs.append({"between": [source, target], "edges": round(edges), "reciprocity": share})
    return {
        "overall": sum(mutual for _, mutual in found.values()) / total if total else None,
        "how": "exact" if exact else "estimated",
        "projections": shares,
        "pairs": pairs,
    }


def _asked(
    p: Projection, own: Rows, back: list[Rows], earlier: list[Rows], exact: bool
) -> tuple[float, float, float, float]:
    """Edges of a projection and how many of them are answered; the same of those that no earlier projection has."""
    count = len(p.edges)
    if exact or count <= DRAWN:
        parts: list[Any] = list(blocks(p.edges))
        scale = 1.0
    else:
        parts = [np.random.default_rng(0).integers(count, size=DRAWN)]
        scale = count / DRAWN
    mutual = new = new_mutual = 0
    for part in parts:
        target, source = own.pairs(part)
        answered = np.zeros(len(target), dtype=bool)
        for other in back:
            answered |= other.have(source, target)
        if p.source == p.target:
            answered &= source != target
        fresh = np.ones(len(target), dtype=bool)
        for other in earlier:
            fresh &= ~other.have(target, source)
        mutual += int(answered.sum())
        new += int(fresh.sum())
        new_mutual += int((answered & fresh).sum())
    return float(count), mutual * scale, new * scale, new_mutual * scale


def balance(circuit: Circuit) -> list[dict[str, Any]]:
    """Excitation and inhibition onto every population that receives chemical, rate-coded synapses.

    A weight above zero excites, one below inhibits. `excitation` and `inhibition` are the sums of a neuron's positive
    weights and of the magnitudes of its negative ones, means over the neurons, inputs included, not weighted by rates;
    `ratio` is excitation over inhibition, None where nothing inhibits; `excitatory` and `inhibitory` are shares of the
    synapses, and what is missing to 1 has weight zero.
    """
    found = []
    for name, population in circuit.populations.items():
        onto = [
            p
            for p in circuit.projections.values()
            if p.target == name and p.carries == "rate" and p.kind == "chemical"
        ]
        sums, counts, total = [0.0, 0.0], [0, 0], 0
        for p in onto:
            for part in blocks(p.edges):
                weight, count = p.edges.weight[part], p.edges.multiplicity[part]
                for k, here in enumerate((weight > 0, weight < 0)):
                    sums[k] += abs(float(weight[here].sum(dtype=np.float64)))
                    counts[k] += int(count[here].sum(dtype=np.int64))
                total += int(count.sum(dtype=np.int64))
        if not total:
            continue
        up, down = (value / population.size for value in sums)
        found.append(
            {
                "population": name,
                "excitation": up,
                "inhibition": down,
                "ratio": up / down if down else None,
                "excitatory": counts[0] / total,
                "inhibitory": counts[1] / total,
            }
        )
    return found
