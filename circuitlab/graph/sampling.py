"""Exact sparse sampling of very many pairs, in memory proportional to those drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitlab.graph.edges import CHUNK


def bernoulli_positions(generator: np.random.Generator, total: int, p: float) -> NDArray[np.int64]:
    """Sorted positions of the successes among `total` independent trials of probability p.

    The gaps between successes are geometric with parameter p: only successes are ever drawn.
    """
    if p <= 0 or total <= 0:
        return np.empty(0, dtype=np.int64)
    if p >= 1:
        return np.arange(total, dtype=np.int64)
    parts, last = [], -1
    while last < total:
        remaining = (total - 1 - last) * p
        count = int(min(remaining + 4 * np.sqrt(remaining) + 16, CHUNK))
        gaps = np.minimum(generator.geometric(p, size=count), total + 1)
        positions = last + np.cumsum(gaps, dtype=np.int64)
        last = int(positions[-1])
        parts.append(positions if last < total else positions[: np.searchsorted(positions, total)])
    return np.concatenate(parts)


def distinct(generator: np.random.Generator, rows: int, count: int, size: int) -> NDArray[np.int64]:
    """For each row `count` different numbers below `size`, all subsets equally likely; [row, count], sorted.

    Numbers are drawn one after another and repeats drawn again, in all rows at once; where more than half are
    wanted, those left out are drawn instead.
    """
    assert 0 <= count <= size
    if rows == 0 or count == 0:
        return np.empty((rows, count), dtype=np.int64)
    if 2 * count > size:
        keep = np.ones((rows, size), dtype=bool)
        left_out = distinct(generator, rows, size - count, size)
        np.put_along_axis(keep, left_out, False, axis=1)
        return np.nonzero(keep)[1].reshape(rows, count)
    offset = np.arange(rows, dtype=np.int64) * size
    found = _unique((offset[:, None] + generator.integers(size, size=(rows, count))).ravel())
    while found.size < rows * count:
        missing = count - np.bincount(found // size, minlength=rows)
        fresh = np.repeat(offset, missing) + generator.integers(size, size=int(missing.sum()))
        found = _unique(np.concatenate((found, fresh)))
    return found.reshape(rows, count) - offset[:, None]


def _unique(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sorted distinct values, sorted in place."""
    values.sort()
    return values[np.concatenate(([True], values[1:] != values[:-1]))]
