"""Drawing takes memory in proportion to the synapses, never to the pairs; large projections are kept in little."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from circuitlab.graph import build as building
from circuitlab.graph import edges as edges_module
from circuitlab.graph import rules_random, sampling, weights
from circuitlab.graph.build import build
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import LARGE, Edges, coalesce
from circuitlab.graph.memory import DRAWING_BYTES, LARGE_GRAPH_BYTES, SORTING_BYTES
from circuitlab.graph.rules import RULES, draw
from circuitlab.spec.circuit import load_circuit

N = 40_000
PAIRS = N * N
LINE = np.arange(N, dtype=float)[:, None]
CASES = {
    "one_to_one": {},
    "fixed_indegree": {"indegree": 8},
    "fixed_indegree, distinct": {"indegree": 8, "allow_multapses": False, "allow_autapses": False},
    "fixed_outdegree": {"outdegree": 8},
    "fixed_total_number": {"N": 8 * N},
    "fixed_total_number, distinct": {"N": 8 * N, "allow_multapses": False},
    "pairwise_bernoulli": {"p": 8 / N},
    "pairwise_poisson": {"pairwise_avg_num_conns": 8 / N},
    "symmetric_pairwise_bernoulli": {"p": 8 / N},
    "distance_dependent": {"kernel": "constant", "p": 1.0, "length": 4.0, "cutoff": 4.0},
    "small_world": {"k": 8, "p": 0.1},
    "scale_free": {"alpha": 0.41, "beta": 0.54, "gamma": 0.05},
    "networkx": {"generator": "random_regular_graph", "arguments": {"d": 8}},
}
"""Sparse draws among 1.6e9 pairs: even one bit a pair would be 200 MB."""
GROWN = ("small_world", "scale_free", "networkx")
"""Rules whose graphs networkx holds as Python objects."""
IMAGES = {
    "convolution": {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1)},
    "pool": {"kernel": (2, 2), "stride": (2, 2)},
}


def peak_of(rule: str, source: Population, target: Population, parameters: dict) -> tuple[int, int]:
    """Bytes at the highest point of a draw, and how many synapses it made."""
    tracemalloc.start()
    try:
        drawn = draw(rule, np.random.default_rng(0), source, target, parameters)
        return tracemalloc.get_traced_memory()[1], len(drawn)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", CASES)
def test_drawing_takes_memory_in_proportion_to_the_synapses(case: str) -> None:
    rule = case.split(",")[0]
    size = N // 20 if rule in GROWN else N
    a = Population("a", "unit", size, positions=LINE[:size])
    b = a if rule in ("symmetric_pairwise_bernoulli", *GROWN) or "autapses" in str(CASES[case]) else None
    target = b or Population("b", "unit", size, positions=LINE[:size])
    peak, synapses = peak_of(rule, a, target, CASES[case])
    assert synapses >= size
    assert peak < (1500 if rule in GROWN else 150) * (synapses + size), peak / synapses


@pytest.mark.parametrize("rule", IMAGES)
def test_images_take_memory_in_proportion_to_the_synapses(rule: str) -> None:
    side, outer = 100, 100 if rule == "convolution" else 50
    a = Population("a", "unit", 2 * side * side, shape=(2, side, side))
    b = Population("b", "unit", 2 * outer * outer, shape=(2, outer, outer))
    peak, synapses = peak_of(rule, a, b, IMAGES[rule])
    assert peak < 150 * synapses, peak / synapses
    assert 150 * synapses < a.size * b.size


def test_every_rule_is_looked_at() -> None:
    """all_to_all makes every pair, and so is in proportion by nature."""
    assert {case.split(",")[0] for case in CASES} | set(IMAGES) | {"all_to_all"} == set(RULES)


RECURRENT = """
circuit: one
populations:
  x: {type: input, size: 4}
  h: {type: unit, size: SIZE, sign: excitatory}
  y: {type: output, size: 2}
projections:
  x_h: {source: x, target: h}
  h_h: {source: h, target: h, connect: RULE}
  h_y: {source: h, target: y}
"""


@pytest.mark.parametrize(
    "rule",
    [
        "{rule: fixed_total_number, N: 2400000}",
        "{rule: fixed_indegree, indegree: 300}",
        "{rule: pairwise_bernoulli, p: 0.0375}",
        "{rule: fixed_outdegree, outdegree: 300}",
    ],
)
def test_building_a_large_projection_takes_no_more_than_is_said(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `refuse_too_large` counts for drawing and sorting, against numpy's own allocations."""
    for module in (edges_module, sampling, rules_random, weights):
        monkeypatch.setattr(module, "CHUNK", 1 << 16)
    spec = load_circuit("one.yaml", text=RECURRENT.replace("SIZE", "8000").replace("RULE", rule))
    tracemalloc.start()
    try:
        circuit = build(spec)
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    synapses = int(circuit.projections["h_h"].edges.multiplicity.sum())
    assert synapses > LARGE
    said = SORTING_BYTES if "outdegree" in rule else DRAWING_BYTES
    assert 0.5 * said < peak / synapses < said
    assert (
        left / synapses < LARGE_GRAPH_BYTES + 0.6
    )  # the small projections of 8,000 neurons, and their names


def test_a_large_projection_is_the_small_one_in_fewer_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same draws: equal pairs and numbers of parallel synapses, weights rounded to single precision."""
    rule = "{rule: fixed_total_number, N: 20000}"
    spec = load_circuit("one.yaml", text=RECURRENT.replace("SIZE", "100").replace("RULE", rule))
    small = build(spec).projections["h_h"].edges
    monkeypatch.setattr(edges_module, "LARGE", 1000)
    monkeypatch.setattr(building, "LARGE", 1000)
    large = build(spec).projections["h_h"].edges
    assert (large.weight.dtype, large.multiplicity.dtype) == (np.float32, np.uint8)
    assert np.array_equal(large.source, small.source)
    assert np.array_equal(large.target, small.target)
    assert large.target.dtype == np.int32
    assert np.array_equal(large.multiplicity, small.multiplicity)
    assert large.multiplicity.max() > 1
    assert np.allclose(large.weight, small.weight, rtol=1e-6)
    assert large.nbytes < 9 * len(large) + 8 * 102
    for count in (100, 130):
        assert np.array_equal(large.pointers(count), np.searchsorted(small.target, np.arange(count + 1)))
        assert np.array_equal(small.pointers(count), large.pointers(count))


def test_given_weights_keep_their_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges_module, "LARGE", 4)
    target, source = (i.ravel() for i in np.indices((3, 3)))
    made = coalesce(source, target, np.arange(9) / 3.0, np.array([300, *[1] * 8]))
    assert made.weight.dtype == np.float64
    assert made.multiplicity.dtype == np.int32
    assert made.multiplicity[0] == 300
    assert np.array_equal(made.target, target)
    assert made.equals(made)


def test_targets_out_of_order_are_kept_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges_module, "LARGE", 2)
    target = np.array([2, 0, 1], dtype=np.int32)
    made = Edges(target, target, np.ones(3), np.ones(3, dtype=np.int32))
    assert np.array_equal(made.target, target)
