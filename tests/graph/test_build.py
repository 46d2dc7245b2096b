"""Whole circuits from files: independent streams, transposes, given and shared weights, Dale's law."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from circuitlab.errors import CircuitError, CircuitlabError
from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit
from circuitlab.spec.circuit import load_circuit

POPULATIONS = """
  x: {type: input, size: 30, positions: {random: {extent: [1, 1]}}}
  a: {type: pyramidal, size: 40, positions: {random: {extent: [1, 1]}}, bias: {init: normal, scale: 0.1}}
  b: {type: unit, size: 20, sign: inhibitory, bias: {init: uniform, scale: 0.2}}
  y: {type: output, size: 10}
"""
PROJECTIONS = """
  xa: {source: x, target: a, connect: {rule: distance_dependent, length: 0.2, cutoff: 0.6}}
  aa: {source: a, target: a, connect: {rule: small_world, k: 4, p: 0.3}}
  ab: {source: a, target: b, connect: {rule: fixed_indegree, indegree: 30}}
  ba: {source: b, target: a, site: soma, connect: {rule: pairwise_poisson, pairwise_avg_num_conns: 0.5}}
  ay: {source: a, target: y, connect: {rule: pairwise_bernoulli, p: 0.5}}
  ya: {source: y, target: a, site: apical, carries: burst, connect: {rule: transpose, of: ay}}
"""


def built(
    populations: str = POPULATIONS, projections: str = PROJECTIONS, seed: int = 0, folder: Path | None = None
) -> Circuit:
    """The circuit of these populations and projections; one onto the output is added where there is none."""
    if "target: y" not in projections:
        first = populations.split(":")[0].strip()
        projections += f"\n  {first}_y: {{source: {first}, target: y}}"
    text = f"circuit: c\npopulations:\n{populations}\nprojections:\n{projections}"
    return build(load_circuit("c.yaml", text=text, folder=folder), seed)


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_the_same_seed_gives_the_same_circuit_and_another_another() -> None:
    assert built().equals(built())
    first, other = built(), built(seed=1)
    for name in ("xa", "aa", "ab", "ba", "ay"):
        assert not first.projections[name].edges.equals(other.projections[name].edges)
    for name in ("a", "b"):
        assert not first.populations[name].equals(other.populations[name])


def test_reordering_the_file_changes_nothing_but_the_order() -> None:
    backwards = built("\n".join(reversed(lines(POPULATIONS))), "\n".join(reversed(lines(PROJECTIONS))))
    first = built()
    assert list(backwards.projections) == list(reversed(list(first.projections)))
    assert all(p.equals(backwards.projections[name]) for name, p in first.projections.items())
    assert all(p.equals(backwards.populations[name]) for name, p in first.populations.items())


def test_adding_and_taking_away_changes_no_other() -> None:
    more = built(
        "  new: {type: unit, size: 7, positions: {random: {extent: [2, 2]}}, bias: {init: normal}}\n"
        + POPULATIONS,
        "  new: {source: new, target: a, connect: {rule: pairwise_bernoulli, p: 0.5}}\n" + PROJECTIONS,
    )
    first = built()
    assert all(p.equals(more.projections[name]) for name, p in first.projections.items())
    assert all(p.equals(more.populations[name]) for name, p in first.populations.items())
    for name in ("xa", "ba"):
        line = next(line for line in lines(PROJECTIONS) if line.startswith(f"  {name}:"))
        assert built(projections=line).projections[name].equals(first.projections[name])


def test_twins_are_drawn_independently() -> None:
    twin = "{type: unit, size: 200, positions: {random: {extent: [1, 1]}}, bias: {init: normal}}"
    rule = "connect: {rule: pairwise_bernoulli, p: 0.3}, weights: {init: normal, std: 1}"
    every = "weights: {init: normal, std: 1}"
    c = built(
        f"  x: {{type: input, size: 100}}\n  p: {twin}\n  q: {twin}\n  y: {{type: output, size: 100}}",
        f"  e: {{source: x, target: y, {rule}}}\n  f: {{source: x, target: y, {rule}}}\n"
        f"  g: {{source: x, target: y, {every}}}\n  h: {{source: x, target: y, {every}}}",
    )
    dense = np.zeros((2, 100, 100))
    for index, name in enumerate("ef"):
        edges = c.projections[name].edges
        dense[index, edges.target, edges.source] = 1
    twins = [
        (dense[0].ravel(), dense[1].ravel()),
        (c.projections["g"].edges.weight, c.projections["h"].edges.weight),
        (c.populations["p"].bias, c.populations["q"].bias),
        (c.populations["p"].positions, c.populations["q"].positions),
    ]
    for one, other in twins:
        assert one is not None
        assert other is not None
        correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(one.size)


def test_the_file_s_seed_wins() -> None:
    text = f"circuit: c\nseed: 3\npopulations:\n{POPULATIONS}\nprojections:\n{PROJECTIONS}"
    c = build(load_circuit("c.yaml", text=text), seed=9)
    assert c.seed == 3
    assert c.projections["xa"].equals(built(seed=3).projections["xa"])


def test_the_transpose_mirrors_edges_and_weights() -> None:
    c = built()
    forward, back = c.projections["ay"].edges, c.projections["ya"].edges
    dense, mirrored = np.zeros((10, 40)), np.zeros((40, 10))
    dense[forward.target, forward.source] = forward.weight
    mirrored[back.target, back.source] = back.weight
    assert np.array_equal(mirrored, dense.T)
    key = back.target.astype(int) * 10 + back.source
    assert (np.diff(key) > 0).all()


def test_transposes_of_transposes_of_parallel_synapses() -> None:
    c = built(
        projections="""
  third: {source: b, target: a, connect: {rule: transpose, of: second}, weights: {scale: 0.5}}
  second: {source: a, target: y, connect: {rule: transpose, of: first}}
  first: {source: y, target: a, connect: {rule: fixed_indegree, indegree: 25}}
""".replace("source: b, target: a", "source: y, target: a")
    )
    first, third = c.projections["first"].edges, c.projections["third"].edges
    assert np.array_equal(first.source, third.source)
    assert np.array_equal(first.weight * 0.5, third.weight)
    assert np.array_equal(first.multiplicity, third.multiplicity)
    assert first.multiplicity.max() > 1


def test_weights_drawn_for_a_transpose_count_parallel_synapses() -> None:
    c = built(
        projections="""
  there: {source: a, target: b, connect: {rule: fixed_total_number, N: 20000}}
  back: {source: b, target: a, connect: {rule: transpose, of: there}, weights: {init: normal, std: 1}}
"""
    )
    edges = c.projections["back"].edges
    assert (edges.weight <= 0).all()
    # Each edge is minus the sum of m half-normal weights: mean m sqrt(2/pi), variance m (1 - 2/pi).
    m = edges.multiplicity
    z = (-edges.weight - m * np.sqrt(2 / np.pi)) / np.sqrt(m * (1 - 2 / np.pi))
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert z.var() == pytest.approx(1, abs=4 * np.sqrt(2 / z.size) + 0.05)


def test_weights_are_drawn_for_each_parallel_synapse_before_they_are_summed() -> None:
    c = built(
        projections="""
  p: {source: x, target: y, connect: {rule: fixed_indegree, indegree: 3000}, weights: {init: normal, std: 1}}
"""
    )
    edges = c.projections["p"].edges
    assert stats.kstest(edges.weight / np.sqrt(edges.multiplicity), stats.norm.cdf).pvalue > 1e-3
    constant = built(
        projections="""
  p: {source: x, target: y, connect: {rule: fixed_indegree, indegree: 300},
      weights: {init: constant, value: 0.5}}
"""
    ).projections["p"]
    assert np.array_equal(constant.edges.weight, 0.5 * constant.edges.multiplicity)
    assert constant.edges.multiplicity.sum() == 3000


def test_dale_s_law_holds_for_drawn_weights() -> None:
    assert (built().projections["ba"].edges.weight < 0).all()


GRID = """
  image: {type: input, shape: [2, 6, 6]}
  maps: {type: unit, shape: [3, 4, 4], bias: false}
  small: {type: unit, shape: [3, 2, 2]}
  back: {type: unit, size: 72}
  y: {type: output, size: 2}
"""


def test_convolutions_share_their_weights() -> None:
    c = built(
        GRID,
        """
  conv: {source: image, target: maps, connect: {rule: convolution, kernel: 3}}
  pool: {source: maps, target: small, connect: {rule: pool, kernel: 2}}
  back: {source: maps, target: back, connect: {rule: transpose, of: up}}
  up: {source: back, target: maps, connect: {rule: pairwise_bernoulli, p: 0.1}}
""",
    )
    conv = c.projections["conv"].edges
    assert conv.parameters is not None
    assert conv.parameter_index is not None
    assert conv.parameters.size == 3 * 2 * 3 * 3
    assert np.array_equal(conv.weight, conv.parameters[conv.parameter_index])
    assert np.abs(conv.parameters).max() <= 1 / np.sqrt(18), (
        "torch_linear with the kernel's fan-in, 2 * 3 * 3"
    )
    assert np.unique(conv.parameters).size == 54
    pool = c.projections["pool"]
    assert np.array_equal(pool.edges.weight, np.full(3 * 4 * 4, 0.25))
    assert pool.geometry is not None
    assert pool.geometry["out_shape"] == (3, 2, 2)
    assert c.projections["back"].geometry is None
    assert c.populations["maps"].bias is None


def test_files_of_edges_weights_names_positions_and_biases(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text("name,x,y,bias\nAVAL,0,1,0.5\nAVAR,2,3,0.25\n")
    (tmp_path / "edges.csv").write_text("pre,post,weight\nAVAL,AVAR,4\nAVAR,AVAL,2\nAVAL,AVAR,1\n")
    np.save(tmp_path / "w.npy", [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    c = built(
        """
  x: {type: input, size: 3}
  cells: {type: unit, size: 2, names: cells.csv, positions: cells.csv, bias: {file: cells.csv}}
  y: {type: output, size: 1}
""",
        """
  xc: {source: x, target: cells, weights: {file: w.npy, scale: 2}}
  cc: {source: cells, target: cells, connect: {rule: explicit, file: edges.csv}, weights: {scale: 0.01}}
""",
        folder=tmp_path,
    )
    cells = c.populations["cells"]
    assert cells.names == ("AVAL", "AVAR")
    assert cells.positions is not None
    assert cells.positions.tolist() == [[0, 1], [2, 3]]
    assert cells.bias is not None
    assert cells.bias.tolist() == [0.5, 0.25]
    edges = c.projections["cc"].edges
    assert edges.source.tolist() == [1, 0]
    assert edges.target.tolist() == [0, 1]
    assert edges.weight.tolist() == pytest.approx([0.02, 0.05])
    assert edges.multiplicity.tolist() == [1, 2]
    assert c.projections["xc"].edges.weight.tolist() == [2, 4, 6, 8, 10, 12]


def test_edges_without_weights_get_drawn_ones(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("source,target\n0,0\n1,0\n2,0\n3,0\n")
    c = built(
        "  x: {type: input, size: 4}\n  y: {type: output, size: 1}",
        "  p: {source: x, target: y, connect: {rule: explicit, file: edges.csv}}",
        folder=tmp_path,
    )
    weight = c.projections["p"].edges.weight
    assert np.abs(weight).max() <= 0.5, "torch_linear: 1 / sqrt(4)"
    assert np.unique(weight).size == 4


@pytest.mark.parametrize(
    ("projection", "message"),
    [
        (
            "{source: b, target: y, weights: {file: w.npy}}",
            "projections.p: Dale's law: the weight of b/3 -> y/0 is 0.1, but 'b' is inhibitory; "
            "its weights are at most 0",
        ),
        (
            "{source: a, target: a, connect: {rule: networkx, generator: ladder_graph}}",
            "projections.p: ladder_graph makes 80 nodes, but there are 40 units",
        ),
        (
            "{source: b, target: y, connect: {rule: explicit, file: e.csv}}",
            "e.csv:3: no neuron 20: population 'b' has 20 units, 0 to 19",
        ),
    ],
)
def test_errors_say_which_projection_or_file(tmp_path: Path, projection: str, message: str) -> None:
    weights = np.zeros((10, 20))
    weights[0, 3] = 0.1
    np.save(tmp_path / "w.npy", weights)
    (tmp_path / "e.csv").write_text("source,target\n0,0\n20,0\n")
    with pytest.raises(CircuitlabError) as refusal:
        built(projections=f"  p: {projection}", folder=tmp_path)
    told = str(refusal.value).replace(f"{tmp_path}/", "")
    assert re.sub(r"^c\.yaml:\d+:\d+: (?=projections)", "", told) == message


def test_copied_weights_of_the_wrong_sign_are_refused() -> None:
    with pytest.raises(
        CircuitError, match=r"projections\.back: Dale's law: the weight of b/0 -> a/0 is 1, but"
    ):
        built(
            projections="""
  there: {source: a, target: b, weights: {init: constant, value: 1}}
  back: {source: b, target: a, connect: {rule: transpose, of: there}}
"""
        )
