"""Null models keep what they say they keep, and are uniform over the rest."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from scipy import stats

import circuitlab
from circuitlab.errors import CircuitError
from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit, Population, Projection
from circuitlab.graph.edges import Edges, coalesce
from circuitlab.graph.nulls import MODELS, rewired
from circuitlab.graph.streams import stream
from circuitlab.graph.switching import switched, switched_undirected
from circuitlab.spec.circuit import load_circuit

P_VALUE = 1e-3
"""Below it a test fails; with the fixed seeds each either always passes or always fails."""

Graph = tuple[tuple[int, int], ...]


def circuit_of(
    pairs: list[tuple[int, int]], sizes: tuple[int, int] = (6, 6), *, within: bool = False, **fields: object
) -> Circuit:
    """One projection `p` of the given (source, target) pairs, the weight of each its place in the list plus one."""
    source, target = (np.array([pair[i] for pair in pairs], dtype=np.int32) for i in (0, 1))
    edges = coalesce(source, target, np.arange(1.0, len(pairs) + 1))
    return circuit_with(edges, sizes, within=within, **fields)


def circuit_with(edges: Edges, sizes: tuple[int, int], *, within: bool, **fields: object) -> Circuit:
    a = Population("a", "unit", sizes[0], sign="excitatory", names=tuple(f"n{i}" for i in range(sizes[0])))
    populations = {"a": a} if within else {"a": a, "b": Population("b", "unit", sizes[1])}
    plain = {"site": "soma", "carries": "rate", "plastic": True, "kernel": "auto"}
    p = Projection("p", "a", "a" if within else "b", edges=edges, **{**plain, **fields})  # pyright: ignore
    return Circuit("c", "", 0, populations, {"p": p})


def drawn(seed: int, n: int, pairs: int, *, within: bool, loops: bool = True) -> list[tuple[int, int]]:
    generator = np.random.default_rng(seed)
    allowed = [(i, j) for i in range(n) for j in range(n) if loops or not within or i != j]
    return [allowed[k] for k in generator.choice(len(allowed), pairs, replace=False)]


def degrees(edges: Edges, sizes: tuple[int, int]) -> tuple[list[int], list[int]]:
    out, into = (
        np.bincount(x, minlength=n) for x, n in zip((edges.source, edges.target), sizes, strict=True)
    )
    return out.tolist(), into.tolist()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("within", "loops", "pairs"),
    [(False, True, 60), (False, True, 250), (True, False, 60), (True, False, 300), (True, True, 80)],
)
def test_what_each_model_keeps(model: str, within: bool, loops: bool, pairs: int) -> None:
    n = 20
    before = circuit_of(
        drawn(1, n, pairs, within=within, loops=loops)
        if not (within and loops)
        else [(0, 0), *[p for p in drawn(1, n, pairs, within=True) if p != (0, 0)]],
        (n, n),
        within=within,
    )
    after = rewired(before, model, seed=5)
    old, new = before.projections["p"].edges, after.projections["p"].edges
    assert after.populations is before.populations
    assert len({*zip(new.source.tolist(), new.target.tolist(), strict=True)}) == len(new) == len(old)
    assert sorted(new.weight) == sorted(old.weight)
    assert ((new.source >= 0) & (new.source < n) & (new.target >= 0) & (new.target < n)).all()
    if within and not loops:
        assert (new.source != new.target).all()
    (out, into), (new_out, new_into) = degrees(old, (n, n)), degrees(new, (n, n))
    same_pairs = np.array_equal(new.source, old.source) and np.array_equal(new.target, old.target)
    assert same_pairs == (model == "shuffle_weights")
    assert not np.array_equal(new.weight, old.weight)
    assert (new_into == into) == (model != "random")
    assert (new_out == out) == (model in ("degree_preserving", "shuffle_weights"))
    end = {"degree_preserving": "source", "lattice": "target"}.get(model)
    for neuron in range(n) if end is not None else ():
        kept, moved = (sorted(e.weight[getattr(e, end) == neuron]) for e in (old, new))
        assert kept == moved, f"{end} {neuron} has other weights"


def test_multapses_and_attributes_travel_with_their_connection() -> None:
    source = np.array([0, 0, 1, 2, 3, 3, 3], dtype=np.int32)
    target = np.array([1, 1, 2, 3, 0, 0, 0], dtype=np.int32)
    label = np.array([10, 10, 20, 30, 40, 40, 40])
    edges = coalesce(source, target, np.array([1.0, 1, 3, 4, 5, 5, 5]), attributes={"label": label})
    before = {
        tuple(row) for row in zip(edges.weight, edges.multiplicity, edges.attributes["label"], strict=True)
    }
    assert before == {(2, 2, 10), (3, 1, 20), (4, 1, 30), (15, 3, 40)}
    for model in MODELS:
        new = rewired(circuit_with(edges, (9, 9), within=True), model, seed=2).projections["p"].edges
        after = {
            tuple(row) for row in zip(new.weight, new.multiplicity, new.attributes["label"], strict=True)
        }
        assert after == before, model


def test_dense_rewiring_keeps_the_weights_of_pairs_that_stay() -> None:
    pairs = drawn(3, 12, 120, within=False)
    before = circuit_of(pairs, (12, 12))
    old, new = (c.projections["p"].edges for c in (before, rewired(before, "degree_preserving")))
    weight = {(s, t): w for s, t, w in zip(new.source, new.target, new.weight, strict=True)}
    kept = [(s, t, w) for s, t, w in zip(old.source, old.target, old.weight, strict=True) if (s, t) in weight]
    assert 90 < len(kept) < 120
    assert all(weight[s, t] == w for s, t, w in kept)


def all_graphs(start: Graph, n: int, allowed: Callable[[int, int], bool], *, directed: bool) -> set[Graph]:
    """Every graph with the degrees of the first, by looking at all sets of as many pairs."""

    def key(graph: Graph) -> tuple[list[int], list[int]]:
        out, into = [0] * n, [0] * n
        for a, b in graph:
            out[a] += 1
            into[b] += 1
        return (out, into) if directed else ([a + b for a, b in zip(out, into, strict=True)], [])

    pairs = [(a, b) for a in range(n) for b in range(n) if allowed(a, b) and (directed or a < b)]
    return {graph for graph in itertools.combinations(pairs, len(start)) if key(graph) == key(start)}


CASES: dict[str, tuple[Graph, int, bool, bool]] = {
    "triangle": (((0, 1), (1, 2), (2, 0)), 3, False, True),
    "loopless": (((0, 1), (1, 2), (2, 0), (3, 0), (0, 3)), 4, False, True),
    "loopless, dense": (
        tuple(
            (a, b)
            for a in range(4)
            for b in range(4)
            if a != b and (a, b) not in ((0, 1), (1, 2), (2, 0), (3, 1))
        ),
        4,
        False,
        True,
    ),
    "with loops": (((0, 0), (0, 1), (1, 2), (2, 0)), 3, True, True),
    "two populations": (((0, 0), (0, 1), (1, 1), (2, 2), (3, 0), (3, 3)), 4, True, True),
    "two populations, dense": (
        tuple((a, b) for a in range(3) for b in range(3) if (a, b) not in ((0, 0), (1, 2), (2, 1))),
        3,
        True,
        True,
    ),
    "unordered ring": (((0, 1), (1, 2), (2, 3), (3, 4), (0, 4)), 5, False, False),
    "unordered": (((0, 1), (1, 2), (2, 3), (0, 3), (0, 4), (4, 5)), 6, False, False),
}


@pytest.mark.parametrize("name", CASES)
def test_every_graph_with_the_same_degrees_is_equally_likely(name: str) -> None:
    start, n, loops, directed = CASES[name]
    graphs = all_graphs(start, n, lambda a, b: loops or a != b, directed=directed)
    source, target = (np.array([pair[i] for pair in start]) for i in (0, 1))
    found: Counter[Graph] = Counter()
    for seed in range(max(8 * len(graphs), 120)):
        generator = stream(seed, "null", name)
        if directed:
            one, other = switched(generator, source, target, n, n, loops=loops)
            assert np.array_equal(one, source)
        else:
            one, other = switched_undirected(generator, source, target, n)
        found[tuple(sorted(zip(one.tolist(), other.tolist(), strict=True)))] += 1
    assert set(found) == graphs
    assert len(graphs) > 1
    assert stats.chisquare([found[graph] for graph in graphs]).pvalue > P_VALUE


@pytest.mark.parametrize("within", [False, True])
def test_random_places_are_equally_likely(within: bool) -> None:
    start = circuit_of([(0, 1), (1, 2)], (3, 3), within=within)
    graphs = list(
        itertools.combinations([(a, b) for a in range(3) for b in range(3) if a != b or not within], 2)
    )
    found: Counter[Graph] = Counter()
    heavy: Counter[tuple[int, int]] = Counter()
    for seed in range(30 * len(graphs)):
        e = rewired(start, "random", seed=seed).projections["p"].edges
        found[tuple(sorted(zip(e.source.tolist(), e.target.tolist(), strict=True)))] += 1
        place = int(np.argmax(e.weight))
        heavy[int(e.source[place]), int(e.target[place])] += 1
    assert set(found) == set(graphs)
    assert stats.chisquare([found[graph] for graph in graphs]).pvalue > P_VALUE
    assert stats.chisquare(list(heavy.values())).pvalue > P_VALUE


def test_shuffled_weights_are_a_uniform_permutation() -> None:
    start = circuit_of([(0, 1), (1, 2), (2, 0), (2, 3)], (4, 4))
    found = Counter(
        tuple(rewired(start, "shuffle_weights", seed=s).projections["p"].edges.weight) for s in range(960)
    )
    assert len(found) == 24
    assert stats.chisquare(list(found.values())).pvalue > P_VALUE


@pytest.mark.parametrize(("sources", "targets"), [(12, 12), (12, 5), (5, 12), (7, 7)])
@pytest.mark.parametrize("within", [False, True])
def test_a_lattice_takes_the_nearest(sources: int, targets: int, within: bool) -> None:
    if within and sources != targets:
        return
    generator = np.random.default_rng(0)
    pairs = [
        (int(s), t)
        for t in range(targets)
        for s in generator.choice(
            [s for s in range(sources) if s != t or not within], t % sources, replace=False
        )
    ]
    e = rewired(circuit_of(pairs, (sources, targets), within=within), "lattice").projections["p"].edges
    for t in range(targets):
        apart = np.abs((np.arange(sources) + 0.5) / sources - (t + 0.5) / targets)
        apart = np.round(np.minimum(apart, 1 - apart), 12)
        if within:
            apart[t] = np.inf
        chosen = np.zeros(sources, dtype=bool)
        chosen[e.source[e.target == t]] = True
        assert chosen.sum() == t % sources
        if chosen.any() and not chosen.all():
            assert apart[chosen].max() <= apart[~chosen].min()


def symmetric(pairs: list[tuple[int, int]], both: bool) -> Edges:
    weight = {pair: float(k + 1) for k, pair in enumerate(pairs)}
    listed = [*pairs, *[(b, a) for a, b in pairs]] if both else pairs
    source, target = (np.array([pair[i] for pair in listed], dtype=np.int32) for i in (0, 1))
    return coalesce(source, target, np.array([weight.get((a, b), weight.get((b, a))) for a, b in listed]))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("both", [False, True])
def test_gap_junctions_within_a_population_stay_symmetric(model: str, both: bool) -> None:
    n = 15
    generator = np.random.default_rng(2)
    pairs = [tuple(generator.permutation(p).tolist()) for p in itertools.combinations(range(n), 2)]
    pairs = [pairs[k] for k in generator.choice(len(pairs), 30, replace=False)]
    edges = symmetric(pairs, both)
    loop = coalesce(
        np.append(edges.source, 4).astype(np.int32),
        np.append(edges.target, 4).astype(np.int32),
        np.append(edges.weight, 99.0),
    )
    before = circuit_with(loop, (n, n), within=True, kind="electrical", plastic=False)
    e = rewired(before, model, seed=1).projections["p"].edges
    unordered = {
        (min(a, b), max(a, b)): w
        for a, b, w in zip(e.source.tolist(), e.target.tolist(), e.weight, strict=True)
    }
    assert unordered.pop((4, 4)) == 99
    assert len(e) == (61 if both else 31)
    assert sorted(unordered.values()) == list(range(1, 31))
    if both:
        table = {(a, b): w for a, b, w in zip(e.source, e.target, e.weight, strict=True)}
        assert all(table[b, a] == w for (a, b), w in table.items())
    degree = np.bincount(np.array(list(unordered)).ravel(), minlength=n)
    old = np.bincount(np.array(pairs).ravel(), minlength=n)
    assert np.array_equal(degree, old) == (model in ("degree_preserving", "shuffle_weights"))
    if model == "lattice":
        assert {min((b - a) % n, (a - b) % n) for a, b in unordered} == {1, 2}
        assert (degree == 4).all()


def test_the_partial_distance_of_an_unordered_lattice() -> None:
    edges = symmetric(list(itertools.combinations(range(6), 2))[:14], both=False)
    e = rewired(circuit_with(edges, (6, 6), within=True, kind="electrical"), "lattice").projections["p"].edges
    apart = Counter(
        min((b - a) % 6, (a - b) % 6) for a, b in zip(e.source.tolist(), e.target.tolist(), strict=True)
    )
    assert apart == {1: 6, 2: 6, 3: 2}


def test_a_rewired_graph_overlaps_with_the_first_no_more_than_chance_has_it() -> None:
    """A pair is joined with about the chance k_out k_in / m, so m (<k_out k_in over edges>) / m pairs stay."""
    n, m = 2000, 40_000
    before = circuit_of(drawn(4, n, m, within=True, loops=False), (n, n), within=True)
    old, new = (c.projections["p"].edges for c in (before, circuitlab.rewired(before, "degree_preserving")))
    out, into = degrees(old, (n, n))
    chance = float((np.array(out)[old.source] * np.array(into)[old.target]).sum() / m)
    kept = np.isin(old.source * np.int64(n) + old.target, new.source * np.int64(n) + new.target).sum()
    assert abs(kept - chance) < 4 * np.sqrt(chance)


def reciprocated(source: np.ndarray, target: np.ndarray) -> int:
    pairs = set(zip(source.tolist(), target.tolist(), strict=True))
    return sum((b, a) in pairs for a, b in pairs) // 2


def test_as_many_reciprocal_pairs_as_networkx_has_in_its_switched_and_random_graphs() -> None:
    n, m, draws = 12, 40, 80
    start = circuit_of(drawn(7, n, m, within=True, loops=False), (n, n), within=True)
    edges = start.projections["p"].edges
    graph = nx.DiGraph(list(zip(edges.source.tolist(), edges.target.tolist(), strict=True)))
    graph.add_nodes_from(range(n))
    theirs: dict[str, list[int]] = {"degree_preserving": [], "random": []}
    for seed in range(draws):
        swapped = graph.copy()
        nx.directed_edge_swap(swapped, nswap=200, max_tries=100_000, seed=seed)
        gnm = nx.gnm_random_graph(n, m, seed=seed, directed=True)
        for model, other in (("degree_preserving", swapped), ("random", gnm)):
            theirs[model].append(reciprocated(*np.array(list(other.edges())).T))
    for model, counts in theirs.items():
        ours = []
        for seed in range(2 * draws):
            e = rewired(start, model, seed=seed).projections["p"].edges
            ours.append(reciprocated(e.source, e.target))
        assert stats.ks_2samp(ours, counts).pvalue > P_VALUE, model


FEEDBACK = """
circuit: feedback
populations:
  x: {type: input, size: 10}
  a: {type: pyramidal, size: 20}
  b: {type: pyramidal, size: 16}
  y: {type: output, size: 3}
projections:
  x_a: {source: x, target: a, connect: {rule: fixed_indegree, indegree: 4, allow_multapses: false}}
  back: {source: b, target: a, site: apical, carries: burst, connect: {rule: transpose, of: a_b}}
  a_b: {source: a, target: b, connect: {rule: pairwise_bernoulli, p: 0.3}}
  own: {source: b, target: a, site: apical, carries: burst, connect: {rule: transpose, of: a_b}, weights: normal}
  again: {source: a, target: b, connect: {rule: transpose, of: own}}
  b_y: {source: b, target: y}
"""


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("told", [False, True])
def test_transposes_follow_what_they_mirror(model: str, told: bool) -> None:
    circuit = build(load_circuit("c.yaml", text=FEEDBACK))
    transposes = {"back": "a_b", "own": "a_b", "again": "own"} if told else None
    null = rewired(circuit, model, ["a_b"], seed=1, transposes=transposes)
    dense = {}
    for which, c in (("old", circuit), ("new", null)):
        for name, p in c.projections.items():
            matrix = np.zeros((c.populations[p.target].size, c.populations[p.source].size))
            matrix[p.edges.target, p.edges.source] = p.edges.weight
            dense[which, name] = matrix
    assert not np.array_equal(dense["new", "a_b"], dense["old", "a_b"])
    assert np.array_equal(dense["new", "back"], dense["new", "a_b"].T)
    assert np.array_equal(dense["new", "own"] != 0, dense["new", "a_b"].T != 0)
    assert np.array_equal(dense["new", "again"], dense["new", "own"].T) == told
    assert sorted(dense["new", "own"].ravel()) == sorted(dense["old", "own"].ravel())
    pairs = dict(zip(dense["old", "a_b"].T.ravel(), dense["old", "own"].ravel(), strict=True))
    for weight, own in zip(dense["new", "a_b"].T.ravel(), dense["new", "own"].ravel(), strict=True):
        assert pairs[weight] == own, "weights of a connection and of its transpose part"
    assert all(null.projections[name] is circuit.projections[name] for name in ("x_a", "b_y"))


def test_every_projection_and_seed_has_its_own_stream() -> None:
    circuit = build(load_circuit("c.yaml", text=FEEDBACK))
    one, two = rewired(circuit, "random", seed=3), rewired(circuit, "random", ["x_a"], seed=3)
    assert one.projections["x_a"].equals(two.projections["x_a"])
    assert one.equals(rewired(circuit, "random", seed=3))
    assert not one.projections["x_a"].equals(rewired(circuit, "random", seed=4).projections["x_a"])


def test_all_pairs_and_no_pairs() -> None:
    full = [(a, b) for a in range(3) for b in range(4)]
    for model in MODELS:
        whole, none = circuit_of(full, (3, 4)), circuit_of([], (3, 4))
        new = rewired(whole, model).projections["p"].edges
        assert np.array_equal(new.source, whole.projections["p"].edges.source), model
        assert len(rewired(none, model).projections["p"].edges) == 0
        assert len(rewired(circuit_of([(0, 0)], (1, 1)), model).projections["p"].edges) == 1
        none = circuit_of([], (3, 3), within=True, kind="electrical")
        assert len(rewired(none, model).projections["p"].edges) == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("ring",), "no null model 'ring'; there are random, degree_preserving, shuffle_weights, lattice."),
        (("random", ["q"]), "no projection 'q' to rewire; there are p."),
    ],
)
def test_what_there_is_not(arguments: tuple, text: str) -> None:
    with pytest.raises(CircuitError, match=text):
        rewired(circuit_of([(0, 1)]), *arguments)


@pytest.mark.parametrize(
    ("fields", "text"),
    [({"rank": 2}, "'p' has a rank"), ({"geometry": {"kernel": (1, 1)}}, "'p' is a pooling")],
)
def test_projections_whose_pairs_are_given_are_refused(fields: dict, text: str) -> None:
    with pytest.raises(CircuitError, match=text):
        rewired(circuit_of([(0, 1)], **fields), "random")


def test_shared_weights_and_lonely_transposes_are_refused() -> None:
    circuit = circuit_of([(0, 1)])
    p = circuit.projections["p"]
    shared = replace(p.edges, parameter_index=np.zeros(1, dtype=np.int64), parameters=np.ones(1))
    with pytest.raises(CircuitError, match="'p' shares its weights"):
        rewired(replace(circuit, projections={"p": replace(p, edges=shared)}), "random")
    with pytest.raises(CircuitError, match="'back' is the transpose of 'a_b' and follows it; rewire 'a_b'"):
        rewired(build(load_circuit("c.yaml", text=FEEDBACK)), "random", ["back"])


def test_a_symmetric_circuit_stays_symmetric() -> None:
    """Found in the edges, as an experiment on a symmetric circuit is told them."""
    text = (
        "circuit: s\npopulations:\n"
        "  x: {type: input, size: 2}\n  h: {type: unit, size: 12}\n  y: {type: output, size: 2}\n"
        "projections:\n  x_h: {source: x, target: h}\n  h_y: {source: h, target: y}\n"
        "  one: {source: h, target: h, connect: {rule: pairwise_bernoulli, p: 0.2, allow_autapses: false}}\n"
        "  back: {source: h, target: h, connect: {rule: transpose, of: one}}\n"
    )
    circuit = build(load_circuit("s.yaml", text=text))
    for model in MODELS:
        null = rewired(circuit, model, seed=1)
        one, back = (null.projections[name].edges for name in ("one", "back"))
        matrices = []
        for e in (one, back):
            matrices.append(np.zeros((12, 12)))
            matrices[-1][e.target, e.source] = e.weight
        assert np.array_equal(matrices[0], matrices[1].T)
        assert not one.equals(circuit.projections["one"].edges)
