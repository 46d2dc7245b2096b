"""Circuits to and from networkx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from circuitlab.errors import CircuitError
from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit
from circuitlab.spec.circuit import load_circuit

RICH = """
circuit: rich
description: Everything that a circuit can have
seed: 5
populations:
  image: {type: input, shape: [1, 5, 5]}
  maps: {type: pyramidal, shape: [2, 3, 3], sign: excitatory, tau: 20 ms,
         bias: {init: normal, scale: 0.1}}
  cells: {type: interneuron, size: 3, sign: inhibitory, names: [AVAL, AVAR, RIA], bias: false,
          controlled: false}
  silent: {type: unit, size: 2, positions: [[0, 1], [2, 3.5]]}
  out: {type: output, size: 4, positions: {random: {extent: [1, 2, 3]}}}
projections:
  conv: {source: image, target: maps, connect: {rule: convolution, kernel: 3}}
  inhibit: {source: cells, target: maps, site: apical, connect: {rule: fixed_indegree, indegree: 5}}
  out: {source: maps, target: out, weights: {init: normal, mean: 0, std: 1}, plastic: false}
  back: {source: out, target: maps, site: apical, carries: burst, connect: {rule: transpose, of: out}}
  none: {source: silent, target: silent, connect: {rule: pairwise_bernoulli, p: 0}}
"""


@pytest.fixture(scope="module")
def rich() -> Circuit:
    return build(load_circuit("rich.yaml", text=RICH))


def test_there_and_back_is_the_same_circuit(rich: Circuit) -> None:
    assert Circuit.from_networkx(rich.to_networkx()).equals(rich)


def test_attributes_named_like_the_graph_s_own_survive(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text("type,volume\nsensory,1.5\nmotor,2.5\n")
    (tmp_path / "edges.csv").write_text(
        "source,target,site,weight,type\n0,1,soma,1,chemical\n1,1,axon,2,gap\n"
    )
    text = """
circuit: attributes
populations:
  x: {type: input, size: 2, attributes: cells.csv}
  y: {type: output, size: 2}
projections:
  p: {source: x, target: y, connect: {rule: explicit, file: edges.csv}}
"""
    c = build(load_circuit("c.yaml", text=text, folder=tmp_path))
    assert c.populations["x"].attributes["type"].tolist() == ["sensory", "motor"]
    assert c.projections["p"].edges.attributes["site"].tolist() == ["soma", "axon"]
    graph = c.to_networkx()
    assert graph.nodes["x/1"]["type"] == "input"
    assert graph.edges["x/1", "y/1", "p"]["type"] == "gap"
    assert Circuit.from_networkx(graph).equals(c)


def test_nodes_and_edges_say_what_they_are(rich: Circuit) -> None:
    graph = rich.to_networkx()
    assert graph.number_of_nodes() == 25 + 18 + 3 + 2 + 4
    assert graph.number_of_edges() == rich.synapses
    assert graph.nodes["cells/1"] == {
        "population": "cells",
        "index": 1,
        "type": "interneuron",
        "name": "AVAR",
    }
    assert graph.nodes["silent/1"]["position"] == (2.0, 3.5)
    edges = rich.projections["inhibit"].edges
    source, target = f"cells/{edges.source[0]}", f"maps/{edges.target[0]}"
    assert graph.edges[source, target, "inhibit"] == {
        "weight": edges.weight[0],
        "multiplicity": edges.multiplicity[0],
        "site": "apical",
        "carries": "rate",
        "plastic": True,
    }
    for name, projection in rich.projections.items():
        assert sum(key == name for *_, key in graph.edges(keys=True)) == len(projection.edges)


def test_the_order_of_nodes_and_edges_does_not_matter(rich: Circuit) -> None:
    graph = rich.to_networkx()
    shuffled = nx.MultiDiGraph(**graph.graph)
    shuffled.add_nodes_from(reversed(list(graph.nodes(data=True))))
    for source, target, key, data in reversed(list(graph.edges(keys=True, data=True))):
        shuffled.add_edge(source, target, key=key, **data)
    assert Circuit.from_networkx(shuffled).equals(rich)


def foreign() -> nx.DiGraph:
    graph = nx.DiGraph(name="worm")
    graph.add_node("s1", population="sensory", type="input")
    graph.add_node("s2", population="sensory", type="input")
    graph.add_node("m1", population="motor", type="pyramidal", sign="excitatory", volume=2.5)
    graph.add_node("m2", population="motor", type="pyramidal", sign="excitatory", volume=3.5)
    graph.add_edge("s2", "m1", weight=-0.5)
    graph.add_edge("m1", "m2", weight=2)
    graph.add_edge("m2", "m2")
    return graph


def test_a_foreign_graph() -> None:
    c = Circuit.from_networkx(foreign())
    assert (c.name, list(c.populations), list(c.projections)) == (
        "worm",
        ["sensory", "motor"],
        ["sensory_motor", "motor_motor"],
    )
    motor = c.populations["motor"]
    assert (motor.sign, motor.activation, motor.attributes["volume"].tolist()) == (
        "excitatory",
        "tanh",
        [2.5, 3.5],
    )
    edges = c.projections["motor_motor"].edges
    assert (edges.source.tolist(), edges.target.tolist(), edges.weight.tolist()) == (
        [0, 1],
        [1, 1],
        [2.0, 1.0],
    )
    assert c.projections["motor_motor"].site == "basal"


def test_an_undirected_multigraph_is_synapses_both_ways() -> None:
    graph = nx.MultiGraph()
    graph.add_nodes_from("ab", population="p", type="unit")
    graph.add_edge("a", "b", weight=1.0)
    graph.add_edge("a", "b", weight=2.0)
    graph.add_edge("b", "b", weight=5.0)
    edges = Circuit.from_networkx(graph).projections["p_p"].edges
    assert list(zip(edges.source.tolist(), edges.target.tolist(), edges.weight.tolist(), strict=True)) == [
        (1, 0, 3.0),
        (0, 1, 3.0),
        (1, 1, 5.0),
    ]
    assert edges.multiplicity.tolist() == [2, 2, 1]


def test_text_keys_and_the_attribute_projection_name_projections() -> None:
    graph = nx.MultiDiGraph()
    graph.add_nodes_from("ab", population="p", type="unit")
    graph.add_edge("a", "b", key="fast")
    graph.add_edge("a", "b", projection="slow")
    assert list(Circuit.from_networkx(graph).projections) == ["fast", "slow"]


def spoil_node(key: str, value: Any) -> Any:
    def spoil(graph: nx.DiGraph) -> None:
        if value is None:
            del graph.nodes["m2"][key]
        else:
            graph.nodes["m2"][key] = value

    return spoil


def spoil_edge(**attributes: Any) -> Any:
    def spoil(graph: nx.DiGraph) -> None:
        graph.add_edge("m1", "m2", **attributes)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            spoil_node("population", None),
            "node 'm2' has no 'population'; every neuron needs the attributes 'population' and 'type'",
        ),
        (
            spoil_node("type", None),
            "node 'm2' has no 'type'; every neuron needs the attributes 'population' and 'type'",
        ),
        (spoil_node("type", "unit"), "population 'motor' has neurons of several types: pyramidal, unit"),
        (
            spoil_node("sign", "inhibitory"),
            "population 'motor' has the sign excitatory, inhibitory; it is excitatory or inhibitory",
        ),
        (spoil_node("sign", None), "population 'motor': only 1 of 2 neurons have 'sign'"),
        (spoil_node("index", 1), "population 'motor': 'index' must count its 2 nodes from 0, each once"),
        (spoil_node("bias", 1.0), "population 'motor': only 1 of 2 neurons have 'bias'"),
        (
            spoil_edge(weight=-1.0),
            "Dale's law: the weight of motor/0 -> motor/1 is -1, "
            "but 'motor' is excitatory; its weights are at least 0",
        ),
        (
            spoil_edge(weight=float("nan")),
            "the weight of motor/0 -> motor/1 is nan; weights are finite numbers",
        ),
        (
            spoil_edge(site="soma"),
            "projection 'motor_motor' has edges with different 'site': ['basal', 'soma']",
        ),
        (
            spoil_edge(projection="sensory_motor"),
            "projection 'sensory_motor' joins several pairs of populations: "
            "motor to motor, sensory to motor; it needs one",
        ),
        (
            lambda graph: graph.add_edge("m1", "s1", weight=1.0),
            "projection 'motor_sensory' reaches the input 'sensory'; inputs are clamped",
        ),
    ],
)
def test_broken_graphs_are_refused(spoil: Any, message: str) -> None:
    graph = foreign()
    spoil(graph)
    with pytest.raises(CircuitError) as refusal:
        Circuit.from_networkx(graph)
    assert str(refusal.value) == message


def test_text_in_place_of_numbers_is_refused() -> None:
    graph = foreign()
    graph.add_edge("m1", "m2", weight="strong")
    with pytest.raises(
        CircuitError, match="projection 'motor_motor': weight and multiplicity must be numbers"
    ):
        Circuit.from_networkx(graph)
    for node, position in (("m1", (0, 1)), ("m2", (0, 1, 2))):
        graph.nodes[node]["position"] = position
    with pytest.raises(CircuitError, match="population 'motor': position is not a number for each neuron"):
        Circuit.from_networkx(graph)


def test_unknown_types_and_empty_graphs_are_refused() -> None:
    graph = nx.DiGraph()
    with pytest.raises(CircuitError, match="the graph has no nodes"):
        Circuit.from_networkx(graph)
    graph.add_node(0, population="p", type="pyramid")
    with pytest.raises(
        CircuitError, match=r"population 'p' has the type 'pyramid'; .* Did you mean 'pyramidal'?"
    ):
        Circuit.from_networkx(graph)
