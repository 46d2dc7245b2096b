"""Graphs grown by networkx as connections."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest
from scipy import stats

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import Synapses
from circuitlab.graph.rules import draw


def drawn(
    rule: str, size: int, seed: int = 0, target: Population | None = None, **parameters: Any
) -> Synapses:
    source = Population("a", "unit", size)
    return draw(rule, np.random.default_rng(seed), source, target or source, parameters)


def matrix(synapses: Synapses, size: int) -> np.ndarray:
    counts = np.zeros((size, size), dtype=int)
    np.add.at(counts, (synapses.target, synapses.source), 1)
    return counts


def test_small_world_without_rewiring_is_a_ring() -> None:
    distance = np.abs(np.subtract.outer(np.arange(20), np.arange(20)))
    ring = np.isin(np.minimum(distance, 20 - distance), [1, 2]).astype(int)
    assert np.array_equal(matrix(drawn("small_world", 20, k=4, p=0.0), 20), ring)


def test_small_world_keeps_its_edges_symmetric_and_rewires_a_share_p() -> None:
    n, k, p = 3000, 10, 0.2
    counts = matrix(drawn("small_world", n, k=k, p=p), n)
    assert np.array_equal(counts, counts.T)
    assert (counts.sum(), counts.max(), counts.trace()) == (n * k, 1, 0)
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    far = np.minimum(distance, n - distance) > k // 2
    # A rewired edge lands anywhere else: a share k/n of them back in the neighbourhood.
    assert stats.binomtest(int(counts[far].sum()) // 2, n * k // 2, p * (1 - k / n)).pvalue > 1e-3


def test_scale_free_is_networkx_own_graph_and_has_hubs() -> None:
    n = 3000
    counts = matrix(drawn("scale_free", n), n)
    degrees = counts.sum(axis=1)
    assert degrees.max() > 30 * degrees.mean(), "a Poisson degree would hardly reach 10 times its mean"
    assert counts.trace() > 0
    assert matrix(drawn("scale_free", n, allow_autapses=False), n).trace() == 0


def test_any_generator_by_name() -> None:
    assert np.array_equal(
        matrix(drawn("networkx", 7, generator="complete_graph"), 7), 1 - np.eye(7, dtype=int)
    )
    regular = matrix(drawn("networkx", 30, generator="random_regular_graph", arguments={"d": 4}), 30)
    assert np.array_equal(regular.sum(axis=0), np.full(30, 4))
    directed = drawn("networkx", 6, generator="gn_graph")
    assert len(directed) == 5, "a growing tree of six nodes has five edges, each in one direction"


def test_a_generator_may_join_two_populations_of_one_size() -> None:
    synapses = drawn("networkx", 5, target=Population("b", "unit", 5), generator="path_graph")
    expected = np.eye(5, k=1, dtype=int) + np.eye(5, k=-1, dtype=int)
    assert np.array_equal(matrix(synapses, 5), expected)


def test_the_stream_alone_decides() -> None:
    first, again, other = (
        drawn("networkx", 40, seed, generator="barabasi_albert_graph", arguments={"m": 2})
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first.source, again.source)
    assert not np.array_equal(first.source, other.source)


def test_edges_point_the_way_of_the_graph() -> None:
    synapses = drawn(
        "networkx", 9, seed=4, generator="gnp_random_graph", arguments={"p": 0.3, "directed": True}
    )
    seed = int(np.random.default_rng(4).integers(2**31))
    graph = nx.gnp_random_graph(9, 0.3, seed=seed, directed=True)
    assert set(zip(synapses.source.tolist(), synapses.target.tolist(), strict=True)) == set(graph.edges())


@pytest.mark.parametrize(
    ("generator", "arguments", "message"),
    [
        (
            "barabasi_albert",
            {},
            "networkx has no graph generator 'barabasi_albert' that takes n nodes. "
            "Did you mean 'barabasi_albert_graph'?",
        ),
        ("read_graphml", {}, "networkx has no graph generator 'read_graphml' that takes n nodes."),
        ("hypercube_graph", {}, "networkx has no graph generator 'hypercube_graph' that takes n nodes."),
        (
            "random_regular_graph",
            {"degree": 3},
            "random_regular_graph has no argument 'degree'; there are d, n.",
        ),
        (
            "barabasi_albert_graph",
            {"m": 50},
            "barabasi_albert_graph cannot make the graph: ",
        ),
        ("ladder_graph", {}, "ladder_graph makes 20 nodes, but there are 10 units"),
        ("random_regular_graph", {}, "random_regular_graph cannot make the graph: "),
    ],
)
def test_what_networkx_cannot_make_is_refused(
    generator: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(CircuitError) as refusal:
        drawn("networkx", 10, generator=generator, arguments=arguments)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_recurrent_rules_refuse_two_populations() -> None:
    for rule, parameters in (("small_world", {"k": 2, "p": 0.1}), ("scale_free", {})):
        with pytest.raises(CircuitError, match=f"{rule} connects a population with itself, not 'a' with 'b'"):
            drawn(rule, 5, target=Population("b", "unit", 5), **parameters)
