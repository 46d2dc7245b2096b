"""Random graphs with given degrees: a Markov chain of switches, many of them at once.

A switch takes two connections a -> b and c -> d and makes them a -> d and c -> b, which keeps every degree;
it is done only where neither new pair exists. The chain of switches is symmetric, so its graphs become
uniform over all that it can reach: all graphs with these degrees between two populations or with autapses
[Ryser 1957], and all unordered ones [Taylor 1981]. Directed graphs without autapses need turns of three
connections as well, a -> b, c -> d, e -> f to a -> d, c -> f, e -> b, which turn a directed triangle round
[Rao, Jana and Bandyopadhyay 1996, Sankhya A 58, 225].

A round groups all connections at random, in pairs or in threes, and does at once every switch whose pairs, old
and new, no other connection or proposal of the round has. A switch and its way back have the same pairs, so
whether it is done hangs on nothing that the round changes: a round is as symmetric as a single switch. There
are as many rounds as give every connection MOVES moves in the mean, judged by the first PILOT rounds. A round
costs a sort of twice the connections, about 0.15 s for a million, and there are some 40 in a sparse graph.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]

MOVES = 20
"""Moves of each connection in the mean."""
PILOT = 20
MOST_ROUNDS = 2000
ACTIVE = 0.75
"""Share of a round's switches that are tried at all: a chain that may rest has no period."""

SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""Odd multiplier that spreads keys over a table (Fibonacci hashing)."""


def switched(
    generator: np.random.Generator,
    source: Indices,
    target: Indices,
    sources: int,
    targets: int,
    *,
    loops: bool,
) -> Pairs:
    """The pairs of a random directed graph with the same degrees; connection i keeps its source.

    Args:
        source, target: unique pairs, shape [connection].
        loops: whether pairs (i, i) are allowed.

    Returns:
        source and target of each connection, in the given order. Where more than half of all pairs are
        connected, the pairs left out are switched in their place; then connections whose pair is kept stay,
        and the others go to their source's new targets in random order.
    """
    allowed = sources * (targets - (not loops))
    if 2 * source.size <= allowed:
        return source, _run(generator, source, target, targets, loops)
    free = np.ones((sources, targets), dtype=bool)
    free[source, target] = False
    if not loops:
        np.fill_diagonal(free, False)
    row, column = np.nonzero(free)
    column = _run(generator, row, column, targets, loops)
    after = np.ones((sources, targets), dtype=bool)
    after[row, column] = False
    if not loops:
        np.fill_diagonal(after, False)
    left = np.flatnonzero(~after[source, target])
    fresh = after
    fresh[source, target] = False
    to_source, to_target = np.nonzero(fresh)
    order = left[np.lexsort((generator.random(left.size), source[left]))]
    result = target.copy()
    assert np.array_equal(source[order], to_source)
    result[order] = to_target
    return source, result


def _run(
    generator: np.random.Generator, source: Indices, target: Indices, targets: int, loops: bool
) -> Indices:
    chain = _Chain(generator, source, target, targets, loops=loops)
    chain.run()
    return chain.target


def switched_undirected(generator: np.random.Generator, one: Indices, other: Indices, size: int) -> Pairs:
    """The unordered pairs, lower index first, of a random graph with the same degrees; no neuron with itself."""
    chain = _Chain(generator, one, other, size, loops=False, directed=False)
    chain.run()
    return np.minimum(chain.source, chain.target), np.maximum(chain.source, chain.target)


class _Chain:
    """Unique pairs and the rounds that switch them."""

    def __init__(
        self,
        generator: np.random.Generator,
        source: Indices,
        target: Indices,
        targets: int,
        *,
        loops: bool,
        directed: bool = True,
    ) -> None:
        self.generator, self.loops, self.directed = generator, loops, directed
        self.source, self.target, self.targets = source.copy(), target.copy(), targets
        bits = min(max(int(8 * source.size).bit_length(), 10), 24)
        self.table, self.shift = np.zeros(1 << bits, dtype=bool), np.uint64(64 - bits)

    def run(self) -> None:
        """As many rounds as give every connection MOVES moves in the mean."""
        size = self.source.size
        if size < 2:
            return
        moves = sum(self.round() for _ in range(PILOT))
        wanted = int(np.ceil(MOVES * size * PILOT / moves)) if moves else MOST_ROUNDS
        for _ in range(min(max(wanted, PILOT), MOST_ROUNDS)):
            self.round()

    def round(self) -> int:
        """One round; how many connections it moved."""
        draw, size = self.generator, self.source.size
        turns = self.directed and not self.loops and size >= 3 and draw.random() < 0.5
        group = 3 if turns else 2
        order = draw.permutation(size)
        chosen = order[: size // group * group].reshape(group, -1)
        chosen = chosen[:, draw.random(chosen.shape[1]) < ACTIVE]
        if not self.directed:
            flip = draw.random(size) < 0.5
            self.source[flip], self.target[flip] = self.target[flip], self.source[flip]
        there = self.target[chosen]
        there = np.roll(there, 1, axis=0)
        if turns:
            back = draw.random(chosen.shape[1]) < 0.5
            there[:, back] = np.roll(there[:, back], 1, axis=0)
        here = self.source[chosen]
        now, then = self._key(self.source, self.target), self._key(here, there)
        taken = self._taken(np.concatenate((now, then.ravel())))
        done = ~(taken(now[chosen]) | taken(then)).any(axis=0)
        if not self.loops:
            done &= (here != there).all(axis=0)
        self.target[chosen[:, done]] = there[:, done]
        return group * int(np.count_nonzero(done))

    def _key(self, one: Indices, other: Indices) -> NDArray[np.uint64]:
        """One number for each pair, the same for both orders of an unordered one."""
        if not self.directed:
            one, other = np.minimum(one, other), np.maximum(one, other)
        return (one * self.targets + other).view(np.uint64)

    def _taken(self, keys: NDArray[np.uint64]) -> Callable[[NDArray[np.uint64]], NDArray[np.bool_]]:
        """Whether a pair stands more than once among the keys (or shares its place in the table with one that does)."""
        keys.sort()
        twice = keys[1:][keys[1:] == keys[:-1]]

        def place(key: NDArray[np.uint64]) -> NDArray[np.uint64]:
            return (key * SPREAD) >> self.shift

        self.table[:] = False
        self.table[place(twice)] = True
        return lambda key: self.table[place(key)]
