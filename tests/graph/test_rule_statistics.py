"""What the rules draw, over many seeds, against the laws that theory gives: degrees, pairs, autapses, multapses.

Seeds are fixed, so a test passes always or never. Every p-value is compared with ALPHA; there are about 150.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from scipy import stats

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import coalesce
from circuitlab.graph.rules import RULES, draw, transposed
from circuitlab.graph.streams import stream

ALPHA = 1e-4
DRAWS = 1500
SOURCES, TARGETS = 9, 7
Pmf = Callable[[np.ndarray], np.ndarray]


def ends(within: bool, sources: int = SOURCES, targets: int = TARGETS) -> tuple[Population, Population]:
    one = Population("a", "unit", sources)
    return (one, one) if within else (one, Population("b", "unit", targets))


def counts(
    rule: str, source: Population, target: Population, draws: int = DRAWS, **parameters: Any
) -> np.ndarray:
    """Synapses of every pair in every draw, [draw, target, source]."""
    found = np.zeros((draws, target.size, source.size), dtype=np.int64)
    for seed in range(draws):
        made = draw(rule, stream(seed, "edges", rule, str(parameters)), source, target, parameters)
        np.add.at(found[seed], (made.target, made.source), 1)
    return found


def follows(sample: np.ndarray, pmf: Pmf) -> None:
    """Chi-square test of whole numbers against a law; rare values are put together."""
    top = int(sample.max()) + 1
    expected = sample.size * pmf(np.arange(top + 1))
    expected[-1] = max(sample.size - expected[:-1].sum(), 0.0)
    observed = np.bincount(sample.ravel(), minlength=top + 1).astype(float)
    assert observed[expected == 0].sum() == 0
    bins, e, o = [], 0.0, 0.0
    for mean, count in zip(expected, observed, strict=True):
        e, o = e + mean, o + count
        if e >= 5:
            bins.append((o, e))
            e = o = 0.0
    if bins:
        bins[-1] = bins[-1][0] + o, bins[-1][1] + e
    if len(bins) < 2:
        return
    observed, expected = np.array(bins).T
    assert stats.chi2.sf(((observed - expected) ** 2 / expected).sum(), len(bins) - 1) > ALPHA


def every_pair_has(found: np.ndarray, mean: np.ndarray | float, variance: np.ndarray | float) -> None:
    """Mean and variance of every pair's number of synapses; sums of draws are nearly normal."""
    shape = found.shape[1:]
    mean, variance = np.broadcast_to(mean, shape), np.broadcast_to(variance, shape)
    total, never = found.sum(0), variance == 0
    assert np.array_equal(total[never], (len(found) * mean)[never])
    z = (total - len(found) * mean)[~never] / np.sqrt(len(found) * variance[~never])
    limit = stats.norm.isf(ALPHA / 2 / max(z.size, 1))
    assert (np.abs(z) < limit).all()
    spread = (found - mean) ** 2
    assert spread.mean() == pytest.approx(variance.mean(), rel=0.05)


def diagonal(found: np.ndarray) -> np.ndarray:
    return np.diagonal(found, axis1=1, axis2=2)


CASES = [(False, True), (True, True), (True, False)]
"""Within one population or between two, autapses allowed or not."""


@pytest.mark.parametrize(("within", "autapses"), CASES)
def test_pairwise_bernoulli_is_binomial(within: bool, autapses: bool) -> None:
    source, target = ends(within)
    found = counts("pairwise_bernoulli", source, target, p=0.3, allow_autapses=autapses)
    p = np.full((target.size, source.size), 0.3)
    if within and not autapses:
        np.fill_diagonal(p, 0.0)
    every_pair_has(found, p, p * (1 - p))
    follows(found.sum(2), lambda k: stats.binom.pmf(k, (p[0] > 0).sum(), 0.3))
    follows(found.sum(1), lambda k: stats.binom.pmf(k, (p[:, 0] > 0).sum(), 0.3))
    follows(found.sum((1, 2)), lambda k: stats.binom.pmf(k, (p > 0).sum(), 0.3))
    assert found.max() == 1


@pytest.mark.parametrize(("within", "autapses"), CASES)
@pytest.mark.parametrize("mean", [0.4, 2.5])
def test_pairwise_poisson_is_poisson(within: bool, autapses: bool, mean: float) -> None:
    source, target = ends(within)
    found = counts("pairwise_poisson", source, target, pairwise_avg_num_conns=mean, allow_autapses=autapses)
    allowed = np.ones((target.size, source.size), dtype=bool)
    if within and not autapses:
        np.fill_diagonal(allowed, False)
    every_pair_has(found, mean * allowed, mean * allowed)
    follows(found[:, allowed], lambda k: stats.poisson.pmf(k, mean))
    follows(found.sum(2), lambda k: stats.poisson.pmf(k, mean * allowed[0].sum()))
    follows(found.sum(1), lambda k: stats.poisson.pmf(k, mean * allowed[:, 0].sum()))
    follows(found.sum((1, 2)), lambda k: stats.poisson.pmf(k, mean * allowed.sum()))


@pytest.mark.parametrize("multapses", [False, True])
@pytest.mark.parametrize(("within", "autapses"), CASES)
@pytest.mark.parametrize(("rule", "key"), [("fixed_indegree", "indegree"), ("fixed_outdegree", "outdegree")])
@pytest.mark.parametrize("degree", [2, 6])
def test_a_fixed_degree_is_kept_and_the_other_is_binomial(
    rule: str, key: str, within: bool, autapses: bool, multapses: bool, degree: int
) -> None:
    source, target = ends(within)
    parameters = {key: degree, "allow_autapses": autapses, "allow_multapses": multapses}
    found = counts(rule, source, target, **parameters)
    if rule == "fixed_outdegree":
        found = found.transpose(0, 2, 1)
    rows, columns = found.shape[1:]  # rows have the fixed degree, from partners in columns
    pool = columns - (within and not autapses)
    assert (found.sum(2) == degree).all()
    trials = rows - (within and not autapses)
    for column in (0, columns - 1):
        total = found[:, :, column].sum(1)
        if multapses:
            follows(total, lambda k: stats.binom.pmf(k, trials * degree, 1 / pool))
        else:
            follows(total, lambda k: stats.binom.pmf(k, trials, degree / pool))
    allowed = np.ones((rows, columns)) - (np.eye(rows) if within and not autapses else 0)
    if multapses:
        every_pair_has(found, allowed * degree / pool, allowed * degree / pool * (1 - 1 / pool))
        assert found.max() > 1
    else:
        every_pair_has(found, allowed * degree / pool, allowed * degree / pool * (1 - degree / pool))
        assert found.max() == 1


@pytest.mark.parametrize("multapses", [False, True])
@pytest.mark.parametrize(("within", "autapses"), CASES)
@pytest.mark.parametrize("total", [12, 40])
def test_a_fixed_total_is_kept_and_degrees_are_binomial_or_hypergeometric(
    within: bool, autapses: bool, multapses: bool, total: int
) -> None:
    source, target = ends(within)
    found = counts(
        "fixed_total_number", source, target, N=total, allow_autapses=autapses, allow_multapses=multapses
    )
    assert (found.sum((1, 2)) == total).all()
    allowed = np.ones((target.size, source.size)) - (np.eye(source.size) if within and not autapses else 0)
    pairs = int(allowed.sum())
    for degrees, mine in ((found.sum(2), allowed.sum(1)), (found.sum(1), allowed.sum(0))):
        for neuron in (0, degrees.shape[1] - 1):
            n = int(mine[neuron])
            if multapses:
                follows(degrees[:, neuron], lambda k, n=n: stats.binom.pmf(k, total, n / pairs))
            else:
                follows(degrees[:, neuron], lambda k, n=n: stats.hypergeom.pmf(k, pairs, n, total))
    mean = allowed * total / pairs
    every_pair_has(found, mean, mean * (1 - 1 / pairs) if multapses else mean * (1 - mean))
    assert (found.max() > 1) == multapses


def test_symmetric_pairwise_bernoulli_joins_both_ways_or_not_at_all() -> None:
    source, target = ends(True)
    found = counts("symmetric_pairwise_bernoulli", source, target, p=0.35, make_symmetric=True)
    assert np.array_equal(found, found.transpose(0, 2, 1))
    assert not diagonal(found).any()
    p = 0.35 * (1 - np.eye(SOURCES))
    every_pair_has(found, p, p * (1 - p))
    follows(found[:, 0].sum(1), lambda k: stats.binom.pmf(k, SOURCES - 1, 0.35))
    follows(found.sum((1, 2)) // 2, lambda k: stats.binom.pmf(k, SOURCES * (SOURCES - 1) // 2, 0.35))


@pytest.mark.parametrize(("within", "autapses"), CASES)
def test_rules_without_chance(within: bool, autapses: bool) -> None:
    source, target = ends(within)
    allowed = np.ones((target.size, source.size)) - (np.eye(source.size) if within and not autapses else 0)
    assert np.array_equal(counts("all_to_all", source, target, 1, allow_autapses=autapses)[0], allowed)
    equal = ends(within, 6, 6)
    one = counts("one_to_one", *equal, 1, allow_autapses=autapses)[0]
    assert np.array_equal(one, np.eye(6) if not within or autapses else np.zeros((6, 6)))


@pytest.mark.parametrize("periodic", [None, {"x": 1.0}, (1.0, 1.0)])
@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "linear", "constant"])
def test_distance_dependent_has_its_kernel_at_every_pair_and_distance(kernel: str, periodic: Any) -> None:
    points = np.random.default_rng(1).random((2, 14, 2))
    source = Population("a", "unit", 14, positions=points[0])
    target = Population("b", "unit", 14, positions=points[1])
    found = counts(
        "distance_dependent", source, target, 600, kernel=kernel, p=0.8, length=0.3, periodic=periodic
    )
    apart = np.abs(points[1][:, None] - points[0])
    for axis in {None: [], (1.0, 1.0): [0, 1]}.get(periodic if not isinstance(periodic, dict) else "x", [0]):
        apart[..., axis] = np.minimum(apart[..., axis], 1 - apart[..., axis])
    d = np.sqrt((apart**2).sum(-1)) / 0.3
    shape = {"gaussian": np.exp(-(d**2) / 2), "exponential": np.exp(-d), "linear": np.clip(1 - d, 0, None)}
    p = 0.8 * shape.get(kernel, d <= 1)
    every_pair_has(found, p, p * (1 - p))
    joined, edges = found.sum(0), np.quantile(d, np.linspace(0, 1, 9))
    for low, high in itertools.pairwise(edges):
        ring = (d >= low) & (d <= high)
        mean, variance = len(found) * p[ring].sum(), len(found) * (p * (1 - p))[ring].sum()
        assert abs(joined[ring].sum() - mean) <= stats.norm.isf(ALPHA / 2) * np.sqrt(variance)
    # The degree of a neuron is a sum of independent pairs: mean and variance of a Poisson binomial law.
    degree = found[:, 3].sum(1)
    mean, variance = p[3].sum(), (p[3] * (1 - p[3])).sum()
    assert abs(degree.mean() - mean) <= 4 * np.sqrt(variance / len(found)) + 1e-12
    assert degree.var() == pytest.approx(variance, rel=0.25, abs=1e-12)


@pytest.mark.parametrize("p", [0.0, 0.2, 0.7])
def test_small_world_has_the_degrees_of_watts_and_strogatz(p: float) -> None:
    """Degrees are k/2 + Bin(k/2, 1 - p) + Poisson(p k/2) in large graphs [Barrat and Weigt 2000]."""
    n, k = 1200, 8
    one = Population("a", "unit", n)
    degrees = []
    for seed in range(3):
        made = draw("small_world", stream(seed, "s"), one, one, {"k": k, "p": p})
        pairs = set(zip(made.source.tolist(), made.target.tolist(), strict=True))
        assert len(pairs) == len(made) == n * k
        assert all((b, a) in pairs and a != b for a, b in pairs)
        apart = (made.source - made.target) % n
        kept = (np.minimum(apart, n - apart) <= k // 2).sum() // 2
        # Each of the n k/2 edges is rewired with chance p; it lands on the ring's own pairs with chance about k / n.
        mean = n * k / 2 * (1 - p + p * k / n)
        assert abs(kept - mean) <= 4 * np.sqrt(n * k / 2 * p * (1 - p)) + 2 * p * k
        degrees.append(np.bincount(made.target, minlength=n))
    values = np.arange(60)
    law = np.convolve(stats.binom.pmf(values, k // 2, 1 - p), stats.poisson.pmf(values, p * k / 2))[
        : 60 - k // 2
    ]
    law = np.concatenate((np.zeros(k // 2), law))
    assert np.mean(degrees) == k
    follows(np.concatenate(degrees), lambda x: law[x])


def test_scale_free_grows_as_bollobas_and_others_say() -> None:
    """Synapses beyond the first three: one a step until n neurons are there, so a negative binomial number."""
    n, one = 40, Population("a", "unit", 40)
    beta, total, indegrees = 0.54, [], []
    for seed in range(250):
        made = draw("scale_free", stream(seed, "s"), one, one, {"alpha": 0.41, "beta": beta, "gamma": 0.05})
        total.append(len(made) - 3 - (n - 3))
        indegrees.append(np.bincount(made.target, minlength=n).max())
        without = draw(
            "scale_free",
            stream(seed, "s"),
            one,
            one,
            {"alpha": 0.41, "beta": beta, "gamma": 0.05, "allow_autapses": False},
        )
        assert len(without) == (made.source != made.target).sum()
    follows(np.array(total), lambda k: stats.nbinom.pmf(k, n - 3, 1 - beta))
    theirs = [
        max(d for _, d in nx.scale_free_graph(n, alpha=0.41, beta=beta, gamma=0.05, seed=seed).in_degree())
        for seed in range(10_000, 10_250)
    ]
    assert stats.ks_2samp(indegrees, theirs).pvalue > ALPHA


def test_networkx_generators_keep_their_laws() -> None:
    one = Population("a", "unit", 30)
    gnp = counts(
        "networkx", one, one, 400, generator="gnp_random_graph", arguments={"p": 0.2, "directed": True}
    )
    p = 0.2 * (1 - np.eye(30))
    every_pair_has(gnp, p, p * (1 - p))
    follows(gnp[:, 3].sum(1), lambda k: stats.binom.pmf(k, 29, 0.2))
    regular = counts("networkx", one, one, 50, generator="random_regular_graph", arguments={"d": 4})
    assert np.array_equal(regular, regular.transpose(0, 2, 1))
    assert (regular.sum(1) == 4).all()
    assert (regular.sum(2) == 4).all()
    assert regular.max() == 1
    assert not diagonal(regular).any()


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((3, 2), (2, 1), (1, 0)), ((2, 2), (2, 2), (0, 0))]
)
def test_windows_have_the_degrees_that_torch_gives(kernel: Any, stride: Any, padding: Any) -> None:
    """Indegrees are a convolution of ones, outdegrees its gradient."""
    image = torch.ones((1, 2, 6, 5), dtype=torch.float64, requires_grad=True)
    for rule in ("convolution", "pool"):
        filters = torch.ones((3 if rule == "convolution" else 2, 2, *kernel), dtype=torch.float64)
        groups = 1
        if rule == "pool":
            filters, groups, pad = torch.ones((2, 1, *kernel), dtype=torch.float64), 2, (0, 0)
        else:
            pad = padding
        into = torch.nn.functional.conv2d(image, filters, stride=stride, padding=pad, groups=groups)
        (out,) = torch.autograd.grad(into.sum(), image)
        source = Population("a", "unit", 60, shape=(2, 6, 5))
        target = Population("b", "unit", into.numel(), shape=tuple(into.shape[1:]))
        parameters = {
            "kernel": kernel,
            "stride": stride,
            **({"padding": pad} if rule == "convolution" else {}),
        }
        found = counts(rule, source, target, 1, **parameters)[0]
        assert np.array_equal(found.sum(1), into.detach().numpy().ravel())
        assert np.array_equal(found.sum(0), out.numpy().ravel())
        assert found.max() == 1


def test_a_transpose_turns_degrees_round() -> None:
    source, target = ends(False)
    made = draw("fixed_indegree", stream(0, "t"), source, target, {"indegree": 5})
    edges = coalesce(made.source, made.target, np.zeros(len(made)))
    back = transposed(edges)
    assert np.array_equal(np.bincount(back.source, back.multiplicity), np.full(TARGETS, 5))
    degrees = np.bincount(back.target, back.multiplicity, minlength=SOURCES)
    assert np.array_equal(degrees, np.bincount(made.source, minlength=SOURCES))


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize(("within", "autapses"), CASES)
def test_certainty(p: float, within: bool, autapses: bool) -> None:
    source, target = ends(within)
    allowed = np.ones((target.size, source.size)) - (np.eye(source.size) if within and not autapses else 0)
    found = counts("pairwise_bernoulli", source, target, 3, p=p, allow_autapses=autapses)
    assert (found == p * allowed).all()
    if within:
        found = counts("symmetric_pairwise_bernoulli", source, target, 3, p=p)
        assert (found == p * (1 - np.eye(SOURCES))).all()
    assert not counts("pairwise_poisson", source, target, 3, pairwise_avg_num_conns=0.0).any()


@pytest.mark.parametrize(
    ("rule", "parameters"),
    [
        ("all_to_all", {}),
        ("one_to_one", {}),
        ("fixed_indegree", {"indegree": 3}),
        ("fixed_outdegree", {"outdegree": 3}),
        ("fixed_total_number", {"N": 3}),
        ("pairwise_bernoulli", {"p": 1.0}),
        ("pairwise_poisson", {"pairwise_avg_num_conns": 3.0}),
    ],
)
def test_populations_of_one_neuron(rule: str, parameters: dict[str, Any]) -> None:
    between, within = ends(False, 1, 1), ends(True, 1)
    assert counts(rule, *between, 40, **parameters).sum() > 0
    assert counts(rule, *within, 40, **parameters).sum() > 0
    alone = {**parameters, "allow_autapses": False}
    if rule.startswith("fixed"):
        with pytest.raises(CircuitError, match="autapses"):
            counts(rule, *within, 1, **alone)
        for multapses in (True, False):
            none = {**alone, **dict.fromkeys(parameters, 0), "allow_multapses": multapses}
            assert counts(rule, *within, 1, **none).sum() == 0
        with pytest.raises(CircuitError, match="without multapses"):
            counts(rule, *between, 1, **{**parameters, "allow_multapses": False})
    else:
        assert counts(rule, *within, 40, **alone).sum() == 0


def test_the_symmetric_rule_and_networks_of_one_neuron() -> None:
    within = ends(True, 1)
    assert counts("symmetric_pairwise_bernoulli", *within, 3, p=1.0).sum() == 0
    near = [Population("a", "unit", 1, positions=np.zeros((1, 2)))] * 2
    assert counts("distance_dependent", near[0], near[1], 1, length=1.0).sum() == 1
    assert counts("distance_dependent", near[0], near[1], 1, length=1.0, allow_autapses=False).sum() == 0


def test_streams_of_two_projections_and_of_neighbouring_seeds_are_independent() -> None:
    """Pairs that two independent draws of N of all pairs share are hypergeometric in number."""
    source, target = ends(False, 20, 20)
    parameters = {"N": 60, "allow_multapses": False}
    mine, other, later = (
        [
            {*zip(made.source.tolist(), made.target.tolist(), strict=True)}
            for seed in range(600)
            for made in [
                draw("fixed_total_number", stream(seed + shift, "edges", name), source, target, parameters)
            ]
        ]
        for name, shift in (("a", 0), ("b", 0), ("a", 1))
    )
    for others in (other, later):
        shared = np.array([len(a & b) for a, b in zip(mine, others, strict=True)])
        follows(shared, lambda k: stats.hypergeom.pmf(k, 400, 60, 60))


def test_every_rule_is_looked_at_here() -> None:
    text = __import__("pathlib").Path(__file__).read_text()
    assert [rule for rule in RULES if f'"{rule}"' not in text] == []
