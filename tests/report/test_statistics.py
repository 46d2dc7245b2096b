"""A circuit in numbers: degrees, reciprocity, balance and spectral radius beside networkx and numpy."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest

from circuitlab.graph.circuit import Circuit
from circuitlab.report import spectrum, statistics
from circuitlab.report.duration import part_of
from circuitlab.report.spectrum import krylov, radius, rate_weights
from circuitlab.report.statistics import (
    balance,
    indegrees,
    mean_and_deviation,
    outdegrees,
    reciprocity,
    spread,
)
from circuitlab.report.summary import summarize
from tests.report.conftest import circuit_of

TWO = """\
circuit: two
populations:
  x: {type: input, size: 5}
  a: {type: pyramidal, size: 30, sign: excitatory, gain: 2}
  b: {type: interneuron, size: 20, sign: inhibitory}
  y: {type: output, size: 3}
projections:
  x_a: {source: x, target: a, connect: {rule: fixed_total_number, N: 200}}
  a_a: {source: a, target: a, connect: {rule: pairwise_bernoulli, p: 0.2}}
  a_a_again: {source: a, target: a, site: apical, connect: {rule: pairwise_bernoulli, p: 0.1}}
  a_b: {source: a, target: b, connect: {rule: fixed_indegree, indegree: 6}}
  b_a: {source: b, target: a, site: soma, connect: {rule: pairwise_bernoulli, p: 0.3}}
  b_b: {source: b, target: b, connect: {rule: fixed_outdegree, outdegree: 3}}
  b_gap: {source: b, target: b, kind: electrical, connect: {rule: pairwise_bernoulli, p: 0.2}, weights: HALF}
  a_y: {source: a, target: y}
""".replace("HALF", "{init: constant, value: 0.5}")


def _graph(circuit: Circuit, projections: list[str]) -> nx.DiGraph:
    """Neurons by population and index, joined where some of these projections join them."""
    graph = nx.DiGraph()
    for name in projections:
        p = circuit.projections[name]
        pairs = zip(p.edges.source.tolist(), p.edges.target.tolist(), strict=True)
        graph.add_edges_from(((p.source, i), (p.target, j)) for i, j in pairs)
    return graph


@pytest.fixture
def two() -> Circuit:
    return circuit_of(TWO)


@pytest.mark.parametrize("block", [7, statistics.BLOCK])
def test_degrees_count_every_synapse(two: Circuit, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "BLOCK", block)
    for p in two.projections.values():
        targets, sources = two.populations[p.target].size, two.populations[p.source].size
        dense = np.zeros((targets, sources), dtype=int)
        np.add.at(dense, (p.edges.target, p.edges.source), p.edges.multiplicity)
        assert indegrees(p.edges, targets).tolist() == dense.sum(1).tolist()
        assert outdegrees(p.edges, sources).tolist() == dense.sum(0).tolist()
        mean, deviation = mean_and_deviation(p.edges.weight)
        assert (mean, deviation) == pytest.approx((p.edges.weight.mean(), p.edges.weight.std()))
    assert two.projections["a_b"].edges.multiplicity.max() > 1  # parallel synapses are among what was counted


@pytest.mark.parametrize("values", [[3, 3, 3], [0, 1, 5], list(range(100)), [0, 1000]])
def test_a_histogram_counts_all_and_says_where(values: list[int]) -> None:
    found = spread(np.array(values))
    edges, counts = found["histogram"]["edges"], found["histogram"]["counts"]
    assert (found["mean"], found["std"]) == pytest.approx((np.mean(values), np.std(values)))
    assert (found["min"], found["max"]) == (min(values), max(values))
    assert len(edges) == len(counts) + 1 <= statistics.BINS + 1
    expected = [sum(low <= v < high for v in values) for low, high in pairwise(edges)]
    assert counts == expected and sum(counts) == len(values)


@pytest.mark.parametrize("block", [11, statistics.BLOCK])
def test_reciprocity_is_that_of_networkx(two: Circuit, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "BLOCK", block)
    found = reciprocity(two)
    chemical = ["a_a", "a_a_again", "a_b", "b_a", "b_b", "a_y"]
    whole = _graph(two, chemical)
    assert found["how"] == "exact"
    assert found["overall"] == pytest.approx(nx.overall_reciprocity(whole))
    assert whole.number_of_edges() == sum(pair["edges"] for pair in found["pairs"])
    pairs = {tuple(pair["between"]): pair["reciprocity"] for pair in found["pairs"]}
    assert pairs.keys() == {("a", "a"), ("a", "b"), ("b", "b"), ("a", "y")}
    for between, names in (
        (("a", "a"), ["a_a", "a_a_again"]),
        (("a", "b"), ["a_b", "b_a"]),
        (("b", "b"), ["b_b"]),
        (("a", "y"), ["a_y"]),
    ):
        assert pairs[between] == pytest.approx(nx.overall_reciprocity(_graph(two, names)))
    assert found["projections"]["b_b"] == pytest.approx(nx.overall_reciprocity(_graph(two, ["b_b"])))
    both = _graph(two, ["a_b", "b_a"])
    share = np.mean([both.has_edge(j, i) for i, j in both.edges if i[0] == "a"])
    assert found["projections"]["a_b"] == pytest.approx(share)
    assert "b_gap" not in found["projections"] and "x_a" not in found["projections"]


def test_reciprocity_of_a_ring_of_both_ways_and_of_none() -> None:
    text = """\
circuit: rings
populations: {{x: {{type: input, size: 1}}, r: {{type: unit, size: 12}}, y: {{type: output, size: 1}}}}
projections:
  x_r: {{source: x, target: r}}
  r_r: {{source: r, target: r, connect: {rule}}}
  x_y: {{source: x, target: y}}
"""
    both = circuit_of(text.format(rule="{rule: small_world, k: 4, p: 0}"))
    assert reciprocity(both)["overall"] == 1
    own = circuit_of(text.format(rule="one_to_one"))
    assert reciprocity(own)["overall"] == 0  # a neuron's synapse onto itself has no other way
    none = replace(both, projections={"x_r": both.projections["x_r"]})
    assert reciprocity(none)["overall"] is None


def test_of_many_edges_reciprocity_is_estimated_and_says_so(
    two: Circuit, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = circuit_of(TWO.replace("size: 30", "size: 300").replace("size: 20", "size: 200"))
    exact = reciprocity(big)
    monkeypatch.setattr(statistics, "EXACT_BELOW", 100)
    monkeypatch.setattr(statistics, "DRAWN", 2000)
    found = reciprocity(big)
    assert found["how"] == "estimated"
    # 2000 draws of a share p: a standard deviation of sqrt(p (1 - p) / 2000) < 0.012, five of them
    for name, share in exact["projections"].items():
        assert found["projections"][name] == pytest.approx(share, abs=0.06)
    assert found["overall"] == pytest.approx(exact["overall"], abs=0.03)


def test_excitation_and_inhibition_are_sums_over_a_neurons_synapses(two: Circuit) -> None:
    found = {row["population"]: row for row in balance(two)}
    dense = np.zeros((30, 30 + 20 + 5))
    for name, start in (("a_a", 0), ("a_a_again", 0), ("b_a", 30), ("x_a", 50)):
        e = two.projections[name].edges
        np.add.at(dense, (e.target, e.source + start), e.weight)
    split = np.zeros((2, 30))
    for name in ("a_a", "a_a_again", "b_a", "x_a"):
        e = two.projections[name].edges
        np.add.at(split[0], e.target, np.maximum(e.weight, 0))
        np.add.at(split[1], e.target, np.maximum(-e.weight, 0))
    row = found["a"]
    assert row["excitation"] == pytest.approx(split[0].mean())
    assert row["inhibition"] == pytest.approx(split[1].mean())
    assert row["ratio"] == pytest.approx(split[0].mean() / split[1].mean())
    assert dense.sum(1).mean() == pytest.approx(row["excitation"] - row["inhibition"])
    counts = {name: int(two.projections[name].edges.multiplicity.sum()) for name in two.projections}
    assert found["b"]["excitatory"] == pytest.approx(counts["a_b"] / (counts["a_b"] + counts["b_b"]))
    assert found["b"]["excitatory"] + found["b"]["inhibitory"] == pytest.approx(1)
    assert found["y"]["ratio"] is None
    assert "x" not in found


def test_the_spectral_radius_is_that_of_weights_times_gains(two: Circuit) -> None:
    full = np.zeros((53, 53))
    start = {"a": 0, "b": 30, "y": 50}
    for name in ("a_a", "a_a_again", "a_b", "b_a", "b_b", "a_y"):
        p = two.projections[name]
        gain = two.populations[p.source].gain
        np.add.at(
            full, (p.edges.target + start[p.target], p.edges.source + start[p.source]), gain * p.edges.weight
        )
    # with gap junctions of 0.5, phi_i (1 + sum_j g_ij) = (W phi)_i + sum_j g_ij phi_j
    conductance = np.zeros((53, 53))
    gap = two.projections["b_gap"].edges
    conductance[gap.target + 30, gap.source + 30] = conductance[gap.source + 30, gap.target + 30] = 0.5
    np.fill_diagonal(conductance, 0)
    full = (full + conductance) / (1 + conductance.sum(1))[:, None]
    expected = np.abs(np.linalg.eigvals(full)).max()
    found = radius(two)
    assert (found.value, found.how) == (pytest.approx(expected), "exact")
    # with as many products as units, Arnoldi's iteration is exact
    assert krylov(two, 53).radius == pytest.approx(expected, rel=1e-6)


def test_of_many_synapses_the_radius_is_estimated_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = circuit_of(TWO.replace("size: 30", "size: 600").replace("size: 20", "size: 150"))
    exact = radius(circuit).value
    assert exact is not None
    monkeypatch.setattr(spectrum, "EXACT_BELOW", 1000)
    found = radius(circuit)
    assert found.how == "estimated"
    assert found.value == pytest.approx(exact, rel=0.1)


def test_what_gmres_leaves_is_what_scipy_finds(two: Circuit) -> None:
    from scipy.sparse.linalg import gmres

    size = rate_weights(two).shape[0]
    matrix = np.eye(size) - 0.1 * rate_weights(two).toarray()
    start = np.random.default_rng(0).standard_normal(size)
    left: list[float] = []
    gmres(matrix, start, rtol=1e-14, restart=20, maxiter=1, callback=left.append, callback_type="pr_norm")
    assert len(left) > 10
    assert krylov(two, 20).residuals(0.1)[: len(left)] == pytest.approx(np.array(left), rel=1e-6, abs=1e-12)


def test_gap_junctions_are_counted_once_and_are_no_synapses(two: Circuit) -> None:
    shown = summarize(two)
    edges = two.projections["b_gap"].edges
    junctions = nx.Graph(
        (i, j) for i, j in zip(edges.source.tolist(), edges.target.tolist(), strict=True) if i != j
    )
    row = next(p for p in shown["projections"] if p["name"] == "b_gap")
    assert (row["kind"], row["synapses"]) == ("electrical", junctions.number_of_edges())
    assert shown["gap_junctions"] == junctions.number_of_edges()
    assert row["density"] == pytest.approx(junctions.number_of_edges() / (20 * 19 / 2))
    degrees = [junctions.degree(i) if i in junctions else 0 for i in range(20)]
    assert (row["indegrees"]["mean"], row["indegrees"]["max"]) == (
        pytest.approx(np.mean(degrees)),
        max(degrees),
    )
    total = sum(p["synapses"] for p in shown["projections"] if p["kind"] == "chemical")
    assert shown["synapses"] == total


def test_a_part_of_a_projection_is_its_first_targets(monkeypatch: pytest.MonkeyPatch, two: Circuit) -> None:
    from circuitlab.report import duration

    monkeypatch.setattr(duration, "SLICE", 50)
    whole = two.projections["a_a"]
    part, (rows, columns), times = part_of(two, whole)
    kept = whole.edges.target < rows
    assert columns == 30 and 0 < kept.sum() < len(whole.edges)
    assert part.edges.source.tolist() == whole.edges.source[kept].tolist()
    assert part.edges.target.tolist() == whole.edges.target[kept].tolist()
    assert times == pytest.approx(len(whole.edges) / kept.sum())
    assert part_of(two, two.projections["b_b"])[0].edges.target.size <= len(two.projections["b_b"].edges)
