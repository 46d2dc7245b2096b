"""Coalescing against a dense twin."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitlab.graph.edges import coalesce


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(1, 7), st.integers(1, 7), st.integers(0, 60))
def test_coalesced_edges_are_the_dense_matrix(
    data: st.DataObject, sources: int, targets: int, count: int
) -> None:
    source = np.array(
        data.draw(st.lists(st.integers(0, sources - 1), min_size=count, max_size=count)), dtype=np.int64
    )
    target = np.array(
        data.draw(st.lists(st.integers(0, targets - 1), min_size=count, max_size=count)), dtype=np.int64
    )
    # Eighths add without rounding, so that the two orders of summation agree exactly.
    weight = (
        np.array(data.draw(st.lists(st.integers(-80, 80), min_size=count, max_size=count)), dtype=float) / 8
    )
    matrix, counts = np.zeros((targets, sources)), np.zeros((targets, sources), dtype=int)
    np.add.at(matrix, (target, source), weight)
    np.add.at(counts, (target, source), 1)

    edges = coalesce(source, target, weight)

    row, column = np.nonzero(counts)  # in the order of (target, source)
    assert np.array_equal(edges.target, row)
    assert np.array_equal(edges.source, column)
    assert np.array_equal(edges.weight, matrix[row, column])
    assert np.array_equal(edges.multiplicity, counts[row, column])
    assert (edges.source.dtype, edges.weight.dtype, edges.multiplicity.dtype) == (
        np.int32,
        np.float64,
        np.int32,
    )


def test_parallel_synapses_keep_the_first_attribute_and_add_multiplicities() -> None:
    edges = coalesce(
        np.array([1, 0, 1]),
        np.array([0, 0, 0]),
        np.array([1.0, 2.0, 4.0]),
        np.array([2, 1, 3]),
        {"kind": np.array(["first", "other", "second"])},
    )
    assert edges.source.tolist() == [0, 1]
    assert edges.weight.tolist() == [2.0, 5.0]
    assert edges.multiplicity.tolist() == [1, 5]
    assert edges.attributes["kind"].tolist() == ["other", "first"]


def test_pairs_beyond_32_bits_are_told_apart() -> None:
    big = 2**31 - 2
    edges = coalesce(np.array([big, 0, big]), np.array([big, big, 0]), np.ones(3))
    assert list(zip(edges.target.tolist(), edges.source.tolist(), strict=True)) == [
        (0, big),
        (big, 0),
        (big, big),
    ]
