"""Null models: projections rewired, with the same neurons, number of synapses and weights.

What moves is a connection: a pair of neurons with all of its parallel synapses, their weight and attributes.
Every connection goes to another pair, so the multisets of weights and of multiplicities stay, no projection
gets a pair twice, and a neuron is joined with itself only where the original projection has autapses. Names,
positions and all else stay. Gap junctions within one population are unordered pairs, and stay symmetric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import CircuitError, suggestion
from circuitlab.graph.circuit import Circuit, Projection
from circuitlab.graph.edges import Edges, coalesce
from circuitlab.graph.junctions import turned
from circuitlab.graph.streams import stream
from circuitlab.graph.switching import Pairs, switched, switched_undirected

Generator = np.random.Generator


@dataclass(frozen=True)
class Joined:
    """The pairs of a projection and where its connections may go.

    Args:
        source, target: int64, shape [connection].
        sources, targets: number of neurons on either side.
        loops: whether neuron i may be joined with neuron i; false only within one population without autapses.
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    sources: int
    targets: int
    loops: bool


def random(generator: Generator, joined: Joined) -> Pairs:
    """Every connection to another of all allowed pairs, all placements equally likely."""
    n, skip = joined.source.size, not joined.loops
    row = joined.sources - skip
    position = generator.choice(joined.targets * row, n, replace=False) if n else np.empty(0, dtype=np.int64)
    target, source = np.divmod(position, max(row, 1))
    return source + (source >= target) if skip else source, target


def degree_preserving(generator: Generator, joined: Joined) -> Pairs:
    """Every neuron keeps its in- and outdegree, and its outgoing weights: a chain of switches (`graph.switching`)."""
    return switched(
        generator, joined.source, joined.target, joined.sources, joined.targets, loops=joined.loops
    )


def shuffle_weights(generator: Generator, joined: Joined) -> Pairs:
    """The same pairs; weights, multiplicities and attributes change places, all permutations equally likely."""
    order = generator.permutation(joined.source.size)
    return joined.source[order], joined.target[order]


def lattice(generator: Generator, joined: Joined) -> Pairs:
    """Every target neuron from its nearest sources on a ring, in order of index; indegrees and incoming
    weights stay.

    Neuron i of n lies at (i + 1/2) / n of the way round. Of two sources equally near, and of a neuron's
    incoming weights, chance says which comes first.
    """
    n = joined.source.size
    order = np.lexsort((generator.random(n), joined.target))
    target = joined.target[order]
    indegree = np.bincount(target, minlength=joined.targets)
    rank = np.arange(n) - np.repeat(np.cumsum(indegree) - indegree, indegree) + (not joined.loops)
    # Target i lies at (2 i + 1) sources / (2 targets) - 1/2 among the sources; in whole numbers, times 2 targets.
    place = (2 * np.arange(joined.targets) + 1) * joined.sources - joined.targets
    coin = 2 * generator.integers(2, size=joined.targets) - 1
    nearest, rest = np.divmod(place + joined.targets, 2 * joined.targets)
    nearest -= (rest == 0) & (coin < 0)
    side = np.sign(place - 2 * joined.targets * nearest)
    side = np.where(side == 0, coin, side)
    step = np.where(rank % 2 == 1, 1, -1) * ((rank + 1) // 2)
    source = np.empty(n, dtype=np.int64)
    source[order] = (nearest[target] + side[target] * step) % joined.sources
    return source, joined.target


MODELS: dict[str, Callable[[Generator, Joined], Pairs]] = {
    "random": random,
    "degree_preserving": degree_preserving,
    "shuffle_weights": shuffle_weights,
    "lattice": lattice,
}
"""Every null model by name: where each connection goes, in the connections' order."""


def random_undirected(generator: Generator, joined: Joined) -> Pairs:
    """Every connection to another of all unordered pairs of different neurons, all placements equally likely."""
    n, size = joined.source.size, joined.sources
    position = (
        generator.choice(size * (size - 1) // 2, n, replace=False) if n else np.empty(0, dtype=np.int64)
    )
    high = ((1 + np.sqrt(1 + 8.0 * position)) / 2).astype(np.int64)
    high -= high * (high - 1) // 2 > position
    high += high * (high + 1) // 2 <= position
    return position - high * (high - 1) // 2, high


def degree_preserving_undirected(generator: Generator, joined: Joined) -> Pairs:
    """Every neuron keeps its degree: a chain of switches of unordered pairs."""
    return switched_undirected(generator, joined.source, joined.target, joined.sources)


def lattice_undirected(generator: Generator, joined: Joined) -> Pairs:
    """The nearest pairs on a ring: all neighbours, then all second neighbours; the last, partial distance by chance."""
    n, size = joined.source.size, joined.sources
    shell, low = np.divmod(np.arange(-(-n // size) * size), size)
    distance = shell + 1
    keep = (2 * distance < size) | ((2 * distance == size) & (low < size // 2))
    low, distance = low[keep], distance[keep]
    last = distance == distance[n - 1] if n else np.empty(0, dtype=bool)
    whole = np.flatnonzero(~last)
    chosen = np.concatenate((whole, generator.permutation(np.flatnonzero(last))[: n - whole.size]))
    chosen = generator.permutation(chosen)
    low, high = low[chosen], (low[chosen] + distance[chosen]) % size
    return np.minimum(low, high), np.maximum(low, high)


UNDIRECTED: dict[str, Callable[[Generator, Joined], Pairs]] = {
    "random": random_undirected,
    "degree_preserving": degree_preserving_undirected,
    "shuffle_weights": shuffle_weights,
    "lattice": lattice_undirected,
}
"""The null models of gap junctions within one population: unordered pairs, source < target."""


def rewired(
    circuit: Circuit,
    model: str,
    projections: Sequence[str] | None = None,
    seed: int = 0,
    transposes: Mapping[str, str] | None = None,
) -> Circuit:
    """The circuit with projections replaced by a null model.

    Each projection is drawn from its own stream, of the seed, the model and its name. A projection that is
    the transpose of another follows it: its connections, with their own weights, go where the other's go,
    turned round.

    Args:
        model: random, degree_preserving, shuffle_weights or lattice; see MODELS.
        projections: names of those that are rewired; all unless given.
        transposes: transpose -> the projection that it mirrors; found in the edges unless given, by pairs
            that are the same turned round and not all pairs (where two could follow each other, the one that
            carries bursts follows, else the later).

    Raises:
        CircuitError: no such model or projection; one that shares its weights, pools or has a rank; a
            transpose named without its original.
    """
    if model not in MODELS:
        raise CircuitError(
            f"no null model '{model}'; there are {', '.join(MODELS)}.{suggestion(model, MODELS)}"
        )
    names = list(circuit.projections) if projections is None else list(projections)
    if transposes is None:
        transposes = found_transposes(circuit)
    for name in names:
        if name not in circuit.projections:
            known = list(circuit.projections)
            raise CircuitError(
                f"no projection '{name}' to rewire; there are {', '.join(known)}.{suggestion(name, known)}"
            )
        _refuse(circuit.projections[name])
        if transposes.get(name, name) not in names:
            raise CircuitError(
                f"'{name}' is the transpose of '{transposes[name]}' and follows it; rewire '{transposes[name]}'"
            )
    built = dict(circuit.projections)
    moved: dict[str, Pairs] = {}
    for name in names:
        if name not in transposes:
            projection = circuit.projections[name]
            moved[name] = _moved(circuit, projection, model, stream(seed, "rewire", model, name))
    waiting = [name for name in circuit.projections if name in transposes]
    while ready := [name for name in waiting if transposes[name] in moved]:
        for name in ready:
            original = circuit.projections[transposes[name]]
            moved[name] = _followed(circuit.projections[name], original, moved[original.name])
        waiting = [name for name in waiting if name not in moved]
    for name, (source, target) in moved.items():
        built[name] = replace(built[name], edges=_placed(built[name].edges, source, target))
    return replace(circuit, projections=built)


def found_transposes(circuit: Circuit) -> dict[str, str]:
    """Projections whose pairs are another's turned round, transpose -> original; those of all pairs are left out."""
    found: dict[str, str] = {}
    ordered = sorted(circuit.projections.values(), key=lambda p: p.carries == "burst")
    for index, later in enumerate(ordered):
        pairs = circuit.populations[later.source].size * circuit.populations[later.target].size
        if not 0 < len(later.edges) < pairs:
            continue
        for earlier in ordered[:index]:
            ends = (earlier.source, earlier.target) == (later.target, later.source)
            if ends and earlier.name not in found and _mirror(later.edges, earlier.edges) is not None:
                found[later.name] = earlier.name
                break
    return found


def _refuse(projection: Projection) -> None:
    what = None
    if projection.edges.parameter_index is not None:
        what = "shares its weights (convolution)"
    elif projection.geometry is not None:
        what = "is a pooling"
    elif projection.rank is not None:
        what = "has a rank, which joins all pairs"
    if what is not None:
        raise CircuitError(
            f"projection '{projection.name}' {what} and has no null model; name others to rewire"
        )


def _moved(circuit: Circuit, projection: Projection, model: str, generator: Generator) -> Pairs:
    """Where each connection of a projection goes."""
    edges, within = projection.edges, projection.source == projection.target
    source, target = edges.source.astype(np.int64), edges.target.astype(np.int64)
    sizes = circuit.populations[projection.source].size, circuit.populations[projection.target].size
    if projection.kind == "electrical" and within:
        return _moved_junctions(edges, Joined(source, target, *sizes, loops=False), model, generator)
    loops = not within or bool((source == target).any())
    return MODELS[model](generator, Joined(source, target, *sizes, loops))


def _moved_junctions(edges: Edges, joined: Joined, model: str, generator: Generator) -> Pairs:
    """The same for gap junctions within one population: unordered pairs, listed as often and as way round as before.

    A junction of a neuron with itself carries no current, and stays.
    """
    source, target, back = joined.source, joined.target, turned(edges)
    up = source < target
    one = np.flatnonzero((source != target) & (up | (back < 0)))
    pairs = replace(joined, source=np.minimum(source, target)[one], target=np.maximum(source, target)[one])
    low, high = UNDIRECTED[model](generator, pairs)
    new_source, new_target = source.copy(), target.copy()
    new_source[one], new_target[one] = np.where(up[one], low, high), np.where(up[one], high, low)
    both = one[back[one] >= 0]
    new_source[back[both]], new_target[back[both]] = new_target[both], new_source[both]
    return new_source, new_target


def _mirror(edges: Edges, original: Edges) -> NDArray[np.intp] | None:
    """Which connection of the original each connection is the transpose of; None if they are no transposes."""
    if len(edges) != len(original):
        return None
    order = np.lexsort((original.target, original.source))
    same = np.array_equal(original.source[order], edges.target) and np.array_equal(
        original.target[order], edges.source
    )
    return order if same else None


def _followed(projection: Projection, original: Projection, moved: Pairs) -> Pairs:
    order = _mirror(projection.edges, original.edges)
    if order is None:
        raise CircuitError(f"projection '{projection.name}' is no transpose of '{original.name}'")
    return moved[1][order], moved[0][order]


def _placed(edges: Edges, source: NDArray[np.int64], target: NDArray[np.int64]) -> Edges:
    """The connections at their new pairs, sorted again."""
    return coalesce(
        source.astype(np.int32),
        target.astype(np.int32),
        edges.weight,
        edges.multiplicity,
        edges.attributes,
    )
