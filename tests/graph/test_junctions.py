"""Gap junctions as edges: one conductance for each pair, through files, rules, networkx and run files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from circuitlab.errors import CircuitError, SpecError
from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit, Noise
from circuitlab.graph.junctions import conductances
from circuitlab.report.spectrum import spectral_radius
from circuitlab.spec.advice import warnings
from circuitlab.spec.circuit import load_circuit
from circuitlab.spec.experiment import load_experiment
from tests.oracles.circuits import circuit, edges, population, projection

HEAD = """
circuit: gaps
populations:
  x: {type: input, size: 3}
  a: {type: unit, size: 12, names: [A0, A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11], gain: 2, threshold: 0.5,
      noise: {std: 0.1, tau: 4 ms}}
  p: {type: pyramidal, size: 6, sign: inhibitory}
  y: {type: output, size: 2}
projections:
  x_a: {source: x, target: a, delay: 2 ms}
  a_p: {source: a, target: p}
  p_y: {source: p, target: y}
"""


def made(line: str, tmp_path: Path, gaps: str = "") -> Circuit:
    (tmp_path / "gaps.csv").write_text(gaps)
    return build(
        load_circuit(tmp_path / "c.yaml", text=HEAD + f"  gap: {{{line}, kind: electrical}}\n"), seed=1
    )


@pytest.mark.parametrize(
    "rule",
    [
        "all_to_all",
        "{rule: pairwise_bernoulli, p: 0.5}",
        "{rule: fixed_indegree, indegree: 4}",
        "{rule: symmetric_pairwise_bernoulli, p: 0.4, allow_autapses: false, make_symmetric: true}",
        "{rule: small_world, k: 4, p: 0.3}",
    ],
)
def test_drawn_conductances_are_positive_and_one_for_each_pair(rule: str, tmp_path: Path) -> None:
    gap = made(f"source: a, target: a, connect: {rule}", tmp_path).projections["gap"]
    assert (gap.edges.weight >= 0).all() and (gap.edges.weight > 0).any()
    of = {(i, j): g for i, j, g in zip(gap.edges.target, gap.edges.source, gap.edges.weight, strict=True)}
    both = [pair for pair in of if pair[::-1] in of and pair[0] != pair[1]]
    assert both
    assert all(of[pair] == of[pair[::-1]] for pair in both)
    assert not gap.plastic and gap.site == "soma" and gap.kind == "electrical"


def test_conductances_are_of_any_sender_whatever_its_sign(tmp_path: Path) -> None:
    built = made("source: p, target: a", tmp_path)
    assert (built.projections["gap"].edges.weight > 0).all()
    assert built.projections["gap"].site == "soma"
    assert made("source: a, target: p", tmp_path).projections["gap"].site == "soma", "not basal"


def test_a_file_lists_pairs_once_or_in_both_directions(tmp_path: Path) -> None:
    line = "source: a, target: a, connect: {rule: explicit, file: gaps.csv}"
    text = "pre,post,weight\nA0,A1,2\nA1,A0,2\nA3,A5,1\nA7,A7,4\n"
    built = made(line, tmp_path, text)
    assert len(built.projections["gap"].edges) == 4, "the edges that the file has"
    expected = np.zeros((20, 20))
    expected[[0, 1, 3, 5], [1, 0, 5, 3]] = 2, 2, 1, 1
    assert (conductances(built).toarray() == expected).all()


@pytest.mark.parametrize(
    ("gaps", "said"),
    [
        ("A0,A1,2\nA1,A0,3\n", "a/A1 -- a/A0 has the conductance 3 in one direction and 2 in the other"),
        ("A0,A1,-2\n", "at least 0"),
    ],
)
def test_what_is_no_conductance_is_refused_with_its_pair(gaps: str, said: str, tmp_path: Path) -> None:
    line = "source: a, target: a, connect: {rule: explicit, file: gaps.csv}"
    with pytest.raises(CircuitError, match=said.replace("(", r"\(")) as caught:
        made(line, tmp_path, "pre,post,weight\n" + gaps)
    assert "gap" in str(caught.value) and "c.yaml:" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("source: x, target: a", "'x' is an input, clamped to the data, and has no soma"),
        ("source: a, target: x", "'x' is an input"),
        ("source: a, target: p, site: apical", "join somata; allowed: soma"),
        ("source: a, target: p, site: apical, carries: burst", "carry current, not bursts"),
        ("source: a, target: p, delay: 1 ms", "have no delay"),
        ("source: a, target: p, rank: 2", "no product of factors"),
        (
            "source: a, target: a, kernel: diagonal, connect: one_to_one",
            "no kernel 'diagonal'; allowed: auto, dense, csr",
        ),
        ("source: p, target: a, connect: {rule: transpose, of: a_p}", "have no rule 'transpose'"),
        ("source: a, target: p, weights: {init: constant, value: -0.1}", "conductances are not negative"),
        (
            "source: a, target: p, kind: electrical}\n  back: {source: p, target: a",
            "'gap' already joins 'a' and 'p'",
        ),
    ],
)
def test_what_gap_junctions_cannot_be_is_refused_at_its_line(line: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        made(line, tmp_path)
    assert said in str(caught.value)
    assert "c.yaml:" in str(caught.value)


def test_networkx_brings_back_every_field(tmp_path: Path) -> None:
    built = made("source: a, target: a, plastic: true, connect: {rule: small_world, k: 2, p: 0}", tmp_path)
    a = built.populations["a"]
    assert (a.gain, a.threshold, a.noise) == (2.0, 0.5, Noise(0.1, 4.0))
    assert built.projections["x_a"].delay_ms == 2.0
    graph = built.to_networkx()
    assert Circuit.from_networkx(graph).equals(built)
    assert graph.edges["a/0", "a/1", "gap"]["kind"] == "electrical"
    for change in (dict(gain=1.0), dict(threshold=0.0), dict(noise=None), dict(noise=Noise(0.1, 5.0))):
        assert not replace(built, populations={**built.populations, "a": replace(a, **change)}).equals(built)
    for name, change in (("gap", dict(kind="chemical")), ("x_a", dict(delay_ms=1.0))):
        moved = {**built.projections, name: replace(built.projections[name], **change)}
        assert not replace(built, projections=moved).equals(built)


def test_a_foreign_graph_may_have_gap_junctions_and_delays() -> None:
    graph = nx.MultiDiGraph()
    for n, kind in (("s", "input"), ("m", "pyramidal"), ("o", "output")):
        for i in range(2):
            graph.add_node(f"{n}{i}", population=n, type=kind)
    graph.add_edge("s0", "m0", delay_ms=1.5)
    graph.add_edge("m0", "m1", key="gap", kind="electrical", weight=0.5)
    graph.add_edge("m1", "o1")
    found = Circuit.from_networkx(graph)
    gap = found.projections["gap"]
    assert (gap.kind, gap.site, gap.plastic, found.projections["s_m"].delay_ms) == (
        "electrical",
        "soma",
        False,
        1.5,
    )
    graph.add_edge("m1", "m0", key="gap", kind="electrical", weight=0.7)
    with pytest.raises(CircuitError, match=r"0\.[57] in one direction"):
        Circuit.from_networkx(graph)
    graph.remove_edge("m1", "m0", "gap")
    graph.add_edge("s1", "m0", key="other", kind="electrical")
    with pytest.raises(CircuitError, match="projection 'other': 's' is an input"):
        Circuit.from_networkx(graph)


def test_junctions_couple_both_ways_in_the_graph_and_its_spectrum() -> None:
    """x -> a -> b with a gap junction between a and b is a loop; a linear chain of neighbours stays below radius 1."""
    small = circuit(
        [
            population("x", "input", 1, activation="linear"),
            population("a", "unit", 2),
            population("b", "unit", 2, gain=3.0),
            population("y", "output", 1),
        ],
        [
            projection("x_a", "x", "a", edges([0], [0], [1.0])),
            projection("b_y", "b", "y", edges([0], [0], [1.0])),
            replace(projection("a_b", "a", "b", edges([0, 1], [0, 1], [2.0, 2.0])), kind="electrical"),
        ],
    )
    assert small.strongly_connected() == [("a", "b")]
    order = small.sweep_order()
    assert order.index("x") < order.index("a") and order.index("b") < order.index("y")
    assert not small.is_acyclic
    assert spectral_radius(small) == pytest.approx(2 / 3), "g / (1 + g) between two neurons"
    loop = replace(projection("b_b", "b", "b", edges([0, 1], [0, 1], [0.2, 0.2])), kind="chemical")
    only = circuit(
        list(small.populations.values()), [small.projections["x_a"], small.projections["b_y"], loop]
    )
    assert spectral_radius(only) == pytest.approx(0.6), "the gain of the sender counts"


def test_validate_tells_an_experiment_what_it_does_not_see(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(HEAD)
    assert warnings(load_circuit(tmp_path / "c.yaml")) == []
    (tmp_path / "e.yaml").write_text("experiment: e\ncircuit: c.yaml\ndata: digits\n")
    told = warnings(load_experiment(tmp_path / "e.yaml"))
    assert any(line.startswith("projections.x_a: 'delay' acts in real-time simulation only") for line in told)
    assert any(line.startswith("populations.a: 'noise' acts in real-time simulation only") for line in told)
