"""Rules that bear NEST's names draw what NEST draws: degrees, pairs, autapses, multapses, refusals.

NEST runs in a process of its own. Seeds are fixed on both sides, so each test passes always or never.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Population
from circuitlab.graph.rules import draw
from circuitlab.graph.streams import stream
from tests.oracles.simulators import python_with

pytestmark = pytest.mark.nest

ALPHA = 1e-4
DRAWS = 60
SOURCES, TARGETS = 14, 11
PLACES = np.random.default_rng(3).random((2, 14, 2)).round(6) - 0.5

LAWS: dict[str, list[dict[str, Any]]] = {
    "all_to_all": [{}],
    "one_to_one": [{}],
    "fixed_indegree": [{"indegree": 5}, {"indegree": 9, "allow_multapses": False}],
    "fixed_outdegree": [{"outdegree": 5}, {"outdegree": 9, "allow_multapses": False}],
    "fixed_total_number": [{"N": 60}],
    "pairwise_bernoulli": [{"p": 0.3}],
    "pairwise_poisson": [{"pairwise_avg_num_conns": 0.7}],
}
SYMMETRIC = {"p": 0.3, "allow_autapses": False, "make_symmetric": True}
CASES: dict[str, tuple[str, dict[str, Any], bool]] = {}
for _rule, _laws in LAWS.items():
    for _number, _law in enumerate(_laws):
        for _where in ("between", "within", "within_no_autapses"):
            if _rule == "one_to_one" and _where == "within_no_autapses":
                continue
            _more = {"allow_autapses": False} if _where == "within_no_autapses" else {}
            CASES[f"{_rule}_{_number}_{_where}"] = (_rule, {**_law, **_more}, _where != "between")

REFUSED: dict[str, tuple[str, dict[str, Any], bool]] = {
    "indegree_beyond_the_population": ("fixed_indegree", {"indegree": 15, "allow_multapses": False}, False),
    "outdegree_beyond_the_population": (
        "fixed_outdegree",
        {"outdegree": 12, "allow_multapses": False},
        False,
    ),
    "more_than_all_pairs": ("fixed_total_number", {"N": 155, "allow_multapses": False}, False),
    "other_sizes": ("one_to_one", {}, False),
    "no_probability": ("pairwise_bernoulli", {"p": 1.5}, False),
    "no_mean": ("pairwise_poisson", {"pairwise_avg_num_conns": -1.0}, False),
    "poisson_without_multapses": (
        "pairwise_poisson",
        {"pairwise_avg_num_conns": 0.5, "allow_multapses": False},
        False,
    ),
    "symmetric_with_autapses": (
        "symmetric_pairwise_bernoulli",
        {"p": 0.5, "allow_autapses": True, "make_symmetric": True},
        True,
    ),
    "a_negative_degree": ("fixed_indegree", {"indegree": -1}, False),
}
SPATIAL = {"open": None, "closed": [1.0, 1.0]}


def sizes(rule: str, within: bool) -> tuple[int, int]:
    return (SOURCES, SOURCES if within or (rule == "one_to_one") else TARGETS)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Every case as NEST draws it."""
    cases = []
    for name, (rule, law, within) in {**CASES, **REFUSED}.items():
        sources, targets = (SOURCES, TARGETS) if name in REFUSED else sizes(rule, within)
        cases.append(
            {
                "name": name,
                "rule": {"rule": rule, **law},
                "sources": sources,
                "targets": None if within else targets,
                "draws": 1 if name in REFUSED else DRAWS,
                "positions": None,
            }
        )
    for name, box in SPATIAL.items():
        rule = {"rule": "pairwise_bernoulli", "std": 0.25, "top": 0.8}
        cases.append(
            {
                "name": name,
                "rule": rule,
                "sources": 14,
                "targets": 14,
                "draws": DRAWS,
                "positions": PLACES.tolist(),
                "box": box,
            }
        )
    cases.append(
        {
            "name": "symmetric",
            "rule": {"rule": "symmetric_pairwise_bernoulli", **SYMMETRIC},
            "sources": SOURCES,
            "targets": TARGETS,
            "draws": DRAWS,
            "positions": None,
        }
    )
    out = tmp_path_factory.mktemp("nest") / "draws.npz"
    python = python_with("nest")
    assert python is not None
    done = subprocess.run(
        [python, str(Path(__file__).with_name("nest_draws.py")), str(out)],
        input=json.dumps(cases),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(out))


def counted(pairs: np.ndarray, sources: int, targets: int) -> np.ndarray:
    """Synapses of every pair in every draw, [draw, target, source]."""
    found = np.zeros((DRAWS, targets, sources), dtype=np.int64)
    np.add.at(found, (pairs[:, 0], pairs[:, 2], pairs[:, 1]), 1)
    return found


def ours(rule: str, law: dict[str, Any], source: Population, target: Population) -> np.ndarray:
    parts = []
    for seed in range(DRAWS):
        made = draw(rule, stream(seed, "nest", str(law)), source, target, law)
        parts.append(np.column_stack((np.full(len(made), seed), made.source, made.target)))
    return counted(np.concatenate(parts), source.size, target.size)


def one_law(mine: np.ndarray, other: np.ndarray) -> None:
    """Two samples of whole numbers come from one law: a chi-square test of their table, rare values put together."""
    values = np.arange(max(mine.max(), other.max()) + 1)
    table = np.stack([np.bincount(x.ravel(), minlength=values.size) for x in (mine, other)])
    bins: list[np.ndarray] = [np.zeros(2)]
    for column in table.T:
        if bins[-1].sum() >= 10:
            bins.append(np.zeros(2))
        bins[-1] = bins[-1] + column
    if len(bins) > 1 and bins[-1].sum() < 10:
        last = bins.pop()
        bins[-1] = bins[-1] + last
    if len(bins) > 1:
        assert stats.chi2_contingency(np.array(bins).T).pvalue > ALPHA
    else:
        assert np.array_equal(np.unique(mine), np.unique(other))


@pytest.mark.parametrize("name", CASES)
def test_as_nest_draws(name: str, theirs: Any) -> None:
    rule, law, within = CASES[name]
    sources, targets = sizes(rule, within)
    one = Population("a", "unit", sources)
    other = one if within else Population("b", "unit", targets)
    mine, nests = ours(rule, law, one, other), counted(theirs[f"{name}_pairs"], sources, targets)
    for statistic in (
        lambda found: found.sum(2),
        lambda found: found.sum(1),
        lambda found: found.sum((1, 2)),
        lambda found: found,
    ):
        one_law(statistic(mine), statistic(nests))
    assert (mine.max() > 1) == (nests.max() > 1)
    if within:
        diagonals = [np.diagonal(found, axis1=1, axis2=2) for found in (mine, nests)]
        one_law(*diagonals)
        assert diagonals[0].any() == diagonals[1].any()
        # How often both directions of a pair are there at once.
        one_law(*((np.minimum(found, found.transpose(0, 2, 1))).sum((1, 2)) for found in (mine, nests)))


def test_symmetric_pairs_as_nest_draws_them(theirs: Any) -> None:
    """Between two populations in NEST, between two halves of one here.

    Within one population NEST goes through every pair twice, once from either end, so that it can join a pair
    twice in both directions; here a pair is one pair.
    """
    there, back = (
        counted(theirs[f"symmetric_{which}"], *shape)
        for which, shape in (("pairs", (SOURCES, TARGETS)), ("back", (TARGETS, SOURCES)))
    )
    assert np.array_equal(there, back.transpose(0, 2, 1))
    one = Population("a", "unit", SOURCES + TARGETS)
    mine = ours("symmetric_pairwise_bernoulli", SYMMETRIC, one, one)
    assert np.array_equal(mine, mine.transpose(0, 2, 1))
    block = mine[:, SOURCES:, :SOURCES]
    for axis in (1, 2, (1, 2)):
        one_law(block.sum(axis), there.sum(axis))
    one_law(block, there)


@pytest.mark.parametrize("name", REFUSED)
def test_what_nest_refuses_we_refuse(name: str, theirs: Any) -> None:
    rule, law, within = REFUSED[name]
    assert f"{name}_error" in theirs, "NEST takes it"
    one = Population("a", "unit", SOURCES)
    with pytest.raises(CircuitError):
        draw(rule, stream(0, "nest"), one, one if within else Population("b", "unit", TARGETS), law)


@pytest.mark.parametrize("name", SPATIAL)
def test_distance_dependent_as_nest_draws_it_in_space(name: str, theirs: Any) -> None:
    source, target = (
        Population(which, "unit", 14, positions=places) for which, places in zip("ab", PLACES, strict=True)
    )
    law = {"kernel": "gaussian", "p": 0.8, "length": 0.25, "periodic": SPATIAL[name]}
    mine, nests = ours("distance_dependent", law, source, target), counted(theirs[f"{name}_pairs"], 14, 14)
    one_law(mine.sum(2), nests.sum(2))
    one_law(mine.sum(1), nests.sum(1))
    # Every pair has its own probability: the frequencies of 196 pairs differ by chance alone.
    a, b = mine.sum(0).ravel().astype(float), nests.sum(0).ravel().astype(float)
    mixed = (a + b > 0) & (a + b < 2 * DRAWS)
    p = (a + b)[mixed] / (2 * DRAWS)
    z = (a - b)[mixed] / np.sqrt(2 * DRAWS * p * (1 - p))
    assert stats.chi2.sf((z**2).sum(), z.size) > ALPHA
