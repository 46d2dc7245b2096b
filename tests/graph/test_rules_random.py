"""NEST's rules: degree distributions against theory, autapses and multapses, and what cannot be drawn."""

from __future__ import annotations

import time
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import Synapses, coalesce
from circuitlab.graph.rules import draw, expected_edges
from circuitlab.graph.sampling import bernoulli_positions, distinct

# Each statistical test has a fixed seed; a right sampler fails one of them with this probability.
P_VALUE = 1e-3


def population(size: int, name: str = "a") -> Population:
    return Population(name, "unit", size)


def drawn(rule: str, sources: int, targets: int | None = None, seed: int = 0, **parameters: Any) -> Synapses:
    """One population with itself where `targets` is None, else two."""
    target = population(sources) if targets is None else population(targets, "b")
    return draw(rule, np.random.default_rng(seed), population(sources), target, parameters)


def counts(synapses: Synapses, targets: int, sources: int) -> NDArray[np.int64]:
    """Synapses of each pair, [target, source]."""
    matrix = np.zeros((targets, sources), dtype=np.int64)
    np.add.at(matrix, (synapses.target, synapses.source), 1)
    return matrix


def goodness_of_fit(observed: NDArray[np.int64], distribution: Any) -> float:
    """p value of integers against a distribution, in cells of at least five expected, tails pooled."""
    values = range(int(distribution.ppf(1e-6)), int(distribution.isf(1e-6)) + 1)
    edges = [q for q in values if distribution.pmf(q) * observed.size >= 5]
    low, high = edges[0], edges[-1]
    probabilities = np.array(
        [distribution.cdf(low), *distribution.pmf(edges[1:-1]), distribution.sf(high - 1)]
    )
    cells = np.bincount(np.clip(observed, low, high) - low, minlength=len(edges))
    return stats.chisquare(cells, probabilities * observed.size).pvalue


def test_all_to_all_is_every_pair_once() -> None:
    assert np.array_equal(counts(drawn("all_to_all", 4, 3), 3, 4), np.ones((3, 4)))
    without = counts(drawn("all_to_all", 5, allow_autapses=False), 5, 5)
    assert np.array_equal(without, 1 - np.eye(5, dtype=int))
    assert len(drawn("all_to_all", 4, 3, allow_autapses=False)) == 12, (
        "autapses exist within one population only"
    )


def test_one_to_one_is_the_identity() -> None:
    assert np.array_equal(counts(drawn("one_to_one", 6, 6), 6, 6), np.eye(6))
    assert len(drawn("one_to_one", 6, allow_autapses=False)) == 0


def test_bernoulli_degrees_are_binomial() -> None:
    n, p = 3000, 0.02
    synapses = drawn("pairwise_bernoulli", n, p=p)
    assert stats.binomtest(len(synapses), n * n, p).pvalue > P_VALUE
    for ends in (synapses.source, synapses.target):
        assert goodness_of_fit(np.bincount(ends, minlength=n), stats.binom(n, p)) > P_VALUE
    assert coalesce(synapses.source, synapses.target, np.ones(len(synapses))).multiplicity.max() == 1


@pytest.mark.parametrize("p", [0.05, 0.5, 0.95])
def test_bernoulli_pairs_are_equally_likely_and_independent(p: float) -> None:
    generator, repeats = np.random.default_rng(1), 4000
    hits = np.zeros((repeats, 12))
    for repeat in range(repeats):
        hits[repeat, bernoulli_positions(generator, 12, p)] = 1
    assert stats.chisquare(hits.sum(axis=0)).pvalue > P_VALUE
    assert goodness_of_fit(hits.sum(axis=1).astype(int), stats.binom(12, p)) > P_VALUE
    neighbours = stats.contingency.crosstab(hits[:, :-1].ravel(), hits[:, 1:].ravel()).count
    independence: Any = stats.chi2_contingency(neighbours)
    assert independence.pvalue > P_VALUE


def test_bernoulli_without_autapses_leaves_other_pairs_alone() -> None:
    n, p = 2000, 0.01
    synapses = drawn("pairwise_bernoulli", n, p=p, allow_autapses=False)
    assert not (synapses.source == synapses.target).any()
    assert stats.binomtest(len(synapses), n * (n - 1), p).pvalue > P_VALUE
    assert goodness_of_fit(np.bincount(synapses.source, minlength=n), stats.binom(n - 1, p)) > P_VALUE


def test_bernoulli_at_its_ends() -> None:
    assert len(drawn("pairwise_bernoulli", 50, p=0.0)) == 0
    assert np.array_equal(counts(drawn("pairwise_bernoulli", 5, 4, p=1.0), 4, 5), np.ones((4, 5)))
    assert len(drawn("pairwise_bernoulli", 50, p=1e-300)) == 0


@pytest.mark.parametrize("fixed", ["fixed_indegree", "fixed_outdegree"])
@pytest.mark.parametrize("autapses", [True, False])
@pytest.mark.parametrize("multapses", [True, False])
def test_fixed_degree_is_exact_and_the_other_binomial(fixed: str, autapses: bool, multapses: bool) -> None:
    n, k = 2500, 40
    degree = fixed.removeprefix("fixed_")
    synapses = drawn(fixed, n, **{degree: k}, allow_autapses=autapses, allow_multapses=multapses)
    exact, free = (
        (synapses.target, synapses.source) if degree == "indegree" else (synapses.source, synapses.target)
    )
    assert np.array_equal(np.bincount(exact, minlength=n), np.full(n, k))
    partners = n if autapses else n - 1
    law = stats.binom(n * k, 1 / n) if multapses and autapses else None
    if multapses and not autapses:
        law = stats.binom((n - 1) * k, 1 / partners)
    if not multapses:
        law = stats.binom(partners, k / partners)
    assert goodness_of_fit(np.bincount(free, minlength=n), law) > P_VALUE
    diagonal = int((synapses.source == synapses.target).sum())
    if autapses:
        assert stats.binomtest(diagonal, n * k, 1 / n).pvalue > P_VALUE
    else:
        assert diagonal == 0
    multiplicity = coalesce(synapses.source, synapses.target, np.ones(len(synapses))).multiplicity
    assert (multiplicity.max() > 1) is np.bool_(multapses)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_draws_without_repeats_take_every_subset_equally_often(count: int) -> None:
    rows = 20_000
    chosen = distinct(np.random.default_rng(5), rows, count, 5)
    assert chosen.shape == (rows, count)
    subsets = list(combinations(range(5), count))
    observed = [(chosen == np.array(subset, dtype=int)).all(axis=1).sum() for subset in subsets]
    assert sum(observed) == rows
    if len(subsets) > 1:
        assert stats.chisquare(observed).pvalue > P_VALUE


def test_fixed_total_number_spreads_evenly_over_pairs() -> None:
    n, count = 30, 45_000
    synapses = drawn("fixed_total_number", n, N=count)
    assert len(synapses) == count
    assert stats.chisquare(counts(synapses, n, n).ravel()).pvalue > P_VALUE
    without = counts(drawn("fixed_total_number", n, N=count, allow_autapses=False), n, n)
    assert without.trace() == 0
    assert stats.chisquare(without[~np.eye(n, dtype=bool)]).pvalue > P_VALUE


@pytest.mark.parametrize("count", [300, 700, 870])
def test_fixed_total_number_without_multapses(count: int) -> None:
    matrix = counts(
        drawn("fixed_total_number", 30, N=count, allow_multapses=False, allow_autapses=False), 30, 30
    )
    assert (matrix.sum(), matrix.max(), matrix.trace()) == (count, 1, 0)


def test_poisson_multiplicities_are_poisson() -> None:
    n, mean = 400, 0.7
    matrix = counts(drawn("pairwise_poisson", n, pairwise_avg_num_conns=mean), n, n)
    assert goodness_of_fit(matrix.ravel(), stats.poisson(mean)) > P_VALUE
    assert goodness_of_fit(matrix.sum(axis=0), stats.poisson(mean * n)) > P_VALUE


def test_symmetric_bernoulli_is_symmetric_with_the_right_density() -> None:
    n, p = 700, 0.03
    matrix = counts(drawn("symmetric_pairwise_bernoulli", n, p=p), n, n)
    assert np.array_equal(matrix, matrix.T)
    assert (matrix.max(), matrix.trace()) == (1, 0)
    assert stats.binomtest(int(np.triu(matrix).sum()), n * (n - 1) // 2, p).pvalue > P_VALUE
    assert goodness_of_fit(matrix.sum(axis=0), stats.binom(n - 1, p)) > P_VALUE
    assert np.array_equal(
        counts(drawn("symmetric_pairwise_bernoulli", 9, p=1.0), 9, 9), 1 - np.eye(9, dtype=int)
    )


RULES: dict[str, dict[str, Any]] = {
    "all_to_all": {},
    "fixed_indegree": {"indegree": 3},
    "fixed_outdegree": {"outdegree": 3},
    "fixed_total_number": {"N": 11},
    "pairwise_bernoulli": {"p": 0.4},
    "pairwise_poisson": {"pairwise_avg_num_conns": 0.6},
}


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(sorted(RULES)),
    st.integers(4, 12),
    st.integers(4, 12),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_every_rule_keeps_range_autapses_and_multapses(
    rule: str, sources: int, targets: int, recurrent: bool, autapses: bool, multapses: bool, seed: int
) -> None:
    multapses = multapses or rule == "pairwise_poisson"
    options = {"allow_autapses": autapses, "allow_multapses": multapses}
    targets = sources if recurrent else targets
    synapses = drawn(rule, sources, None if recurrent else targets, seed, **RULES[rule], **options)
    matrix = counts(synapses, targets, sources)
    assert synapses.source.min(initial=0) >= 0
    assert synapses.target.min(initial=0) >= 0
    if recurrent and not autapses:
        assert matrix.trace() == 0
    if not multapses:
        assert matrix.max(initial=0) <= 1
    again = drawn(rule, sources, None if recurrent else targets, seed, **RULES[rule], **options)
    assert np.array_equal(synapses.source, again.source)
    assert np.array_equal(synapses.target, again.target)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_expected_edges_are_the_mean(rule: str) -> None:
    expected = expected_edges(rule, population(8), population(8), {**RULES[rule], "allow_autapses": False})
    found = [len(drawn(rule, 8, None, seed, **RULES[rule], allow_autapses=False)) for seed in range(400)]
    # The number of synapses of a pair has a variance of at most 0.6 here: four standard errors of the mean.
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.sqrt(0.6 * 56 / 400))


@pytest.mark.parametrize(
    ("rule", "sources", "targets", "parameters", "message"),
    [
        (
            "fixed_indegree",
            5,
            3,
            {"indegree": 6, "allow_multapses": False},
            "indegree is 6, but the source 'a' has 5 units; without multapses at most 5",
        ),
        (
            "fixed_indegree",
            5,
            None,
            {"indegree": 5, "allow_multapses": False, "allow_autapses": False},
            "indegree is 5, but the source 'a' has 5 units; without multapses and no autapses at most 4",
        ),
        (
            "fixed_outdegree",
            3,
            5,
            {"outdegree": 6, "allow_multapses": False},
            "outdegree is 6, but the target 'b' has 5 units; without multapses at most 5",
        ),
        (
            "fixed_indegree",
            1,
            None,
            {"indegree": 1, "allow_autapses": False},
            "indegree is 1, but the source 'a' has 1 units and no autapses are allowed",
        ),
        (
            "fixed_total_number",
            3,
            2,
            {"N": 7, "allow_multapses": False},
            "N is 7, but without multapses there are only 6 pairs",
        ),
        (
            "one_to_one",
            3,
            2,
            {},
            "one_to_one needs populations of one size, but 'a' has 3 units and 'b' 2",
        ),
        ("pairwise_bernoulli", 3, 2, {"p": 1.5}, "p is 1.5; a probability lies between 0 and 1"),
        ("pairwise_bernoulli", 3, 2, {}, "the parameter 'p' is missing"),
        ("fixed_indegree", 3, 2, {"indegree": 1.5}, "indegree is 1.5; it is a whole number, at least 0"),
        (
            "pairwise_poisson",
            3,
            2,
            {"pairwise_avg_num_conns": 1.0, "allow_multapses": False},
            "pairwise_poisson makes parallel synapses; it needs allow_multapses: true",
        ),
        (
            "symmetric_pairwise_bernoulli",
            3,
            2,
            {"p": 0.5},
            "symmetric_pairwise_bernoulli connects a population with itself, not 'a' with 'b'",
        ),
        (
            "symmetric_pairwise_bernoulli",
            3,
            None,
            {"p": 0.5, "allow_autapses": True},
            "symmetric_pairwise_bernoulli makes no autapses; write allow_autapses: false",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    rule: str, sources: int, targets: int | None, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(CircuitError) as refusal:
        drawn(rule, sources, targets, **parameters)
    assert str(refusal.value) == message


def test_an_unknown_rule_is_refused_with_a_suggestion() -> None:
    with pytest.raises(
        CircuitError, match=r"no connection rule 'fixed_indegre'.*Did you mean 'fixed_indegree'"
    ):
        drawn("fixed_indegre", 3)


def test_five_million_synapses_take_seconds() -> None:
    start = time.perf_counter()
    synapses = drawn("pairwise_bernoulli", 50_000, 50_000, p=0.002)
    edges = coalesce(synapses.source, synapses.target, np.ones(len(synapses)))
    assert time.perf_counter() - start < 10
    assert stats.binomtest(len(edges), 50_000**2, 0.002).pvalue > P_VALUE
