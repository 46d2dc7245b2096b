"""GraphML, node-link JSON, CSV and npz: circuits come back the same, other programs' files come in."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import scipy.sparse

import circuitlab
from circuitlab.cli.main import main
from circuitlab.errors import CircuitlabError
from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit
from circuitlab.graph.foreign.formats import WRITERS, read_foreign
from circuitlab.graph.foreign.options import Options
from circuitlab.spec.circuit import load_circuit

RICH = """
circuit: "rich, & <all>"
description: Everything that a circuit can have
seed: 5
layers: {deep: {from: -5, to: 5}}
populations:
  image: {type: input, shape: [1, 5, 5]}
  maps: {type: pyramidal, shape: [2, 3, 3], sign: excitatory, tau: 20.5 ms, gain: 1.5, threshold: 0.25,
         noise: {std: 0.1, tau: 5 ms}, bias: {init: normal, scale: 0.1}}
  means: {type: unit, shape: [2, 1, 1], bias: {init: constant, value: 0.1, plastic: false}}
  cells: {type: interneuron, size: 3, sign: inhibitory, names: [AVAL, "2", "7, a"], bias: false,
          attributes: cells.csv, controlled: false}
  silent: {type: unit, size: 3, layer: deep, positions: [[0, 1], [2, 3.5], [-1e-7, 0.1]], bias: {plastic: false}}
  out: {type: output, size: 4, positions: {random: {extent: [1, 2, 3]}}}
projections:
  conv: {source: image, target: maps, connect: {rule: convolution, kernel: 3}}
  means: {source: maps, target: means, connect: {rule: pool, kernel: 3}}
  inhibit: {source: cells, target: maps, site: apical, connect: {rule: fixed_indegree, indegree: 5}}
  out: {source: maps, target: out, weights: {init: normal, mean: 0, std: 1}, plastic: false, delay: 1.5 ms}
  back: {source: out, target: maps, site: apical, carries: burst, connect: {rule: transpose, of: out}}
  none: {source: silent, target: silent, connect: {rule: pairwise_bernoulli, p: 0}, kernel: csr}
  thin: {source: silent, target: out, rank: 2}
  gap: {source: silent, target: silent, kind: electrical, weights: {init: constant, value: 0.2}}
  rows: {source: cells, target: silent, connect: {rule: explicit, file: rows.csv}}
"""
CELLS = (
    "type,volume,code:str,flag:bool,small:uint8,f:float32\n"
    'sensory,nan,001,True,3,0.1\n"mo,tor",2.5,x,False,4,1.5\n"",1e300, y ,True,255,nan\n'
)
ROWS = 'source,target,weight,pos\nAVAL,0,-1,0.5\n2,1,-0.1,1.5\nAVAL,0,-0.2,2.5\nAVAL,0,-0.3,3.5\n"7, a",2,-1,nan\n'


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Circuit:
    """A circuit with every property that circuits have."""
    folder = tmp_path_factory.mktemp("rich")
    (folder / "cells.csv").write_text(CELLS)
    (folder / "rows.csv").write_text(ROWS)
    circuit = build(load_circuit("rich.yaml", text=RICH, folder=folder))
    assert circuit.projections["rows"].edges.rows is not None
    return circuit


@pytest.mark.parametrize("kind", WRITERS)
def test_a_circuit_comes_back_the_same(kind: str, rich: Circuit, tmp_path: Path) -> None:
    circuitlab.export(rich, kind, tmp_path / "out")
    assert circuitlab.load(tmp_path / "out").equals(rich)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_trained_circuit_comes_back_the_same(kind: str, rich: Circuit, tmp_path: Path) -> None:
    """Other weights than the rows of a file had; parallel rows share the change."""
    out = rich.projections["out"]
    trained = replace(out, edges=replace(out.edges, weight=out.edges.weight * 1.25 - 1e-3))
    rows = rich.projections["rows"]
    changed = replace(rows, edges=replace(rows.edges, weight=rows.edges.weight * 2))
    biases = {"means": replace(rich.populations["means"], bias=np.array([1 / 3, -1e-17]))}
    circuit = replace(
        rich,
        populations={**rich.populations, **biases},
        projections={**rich.projections, "out": trained, "rows": changed},
    )
    circuitlab.export(circuit, kind, tmp_path / "out")
    back = circuitlab.load(tmp_path / "out")
    assert back.projections["out"].equals(trained)
    assert back.populations["means"].equals(biases["means"])
    np.testing.assert_allclose(back.projections["rows"].edges.weight, changed.edges.weight, rtol=1e-15)


@pytest.mark.parametrize("kind", ["graphml", "json"])
def test_networkx_reads_what_is_exported(kind: str, rich: Circuit, tmp_path: Path) -> None:
    circuitlab.export(rich, kind, tmp_path / "out")
    if kind == "graphml":
        graph = nx.read_graphml(tmp_path / "out" / "circuit.graphml", force_multigraph=True)
    else:
        data = json.loads((tmp_path / "out" / "circuit.json").read_text())
        graph = nx.node_link_graph(data, edges="edges")
    assert graph.is_directed()
    assert graph.number_of_nodes() == sum(p.size for p in rich.populations.values())
    assert graph.number_of_edges() == rich.synapses
    assert graph.nodes["cells/0"]["name"] == "AVAL"
    edges = rich.projections["out"].edges
    between = graph.get_edge_data(f"maps/{edges.source[0]}", f"out/{edges.target[0]}")
    assert [data["weight"] for data in between.values()] == [edges.weight[0]]


def test_pandas_like_readers_find_plain_csv(rich: Circuit, tmp_path: Path) -> None:
    circuitlab.export(rich, "csv", tmp_path / "out")
    lines = (tmp_path / "out" / "edges" / "inhibit.csv").read_text().splitlines()
    assert lines[0] == "source,target,weight,multiplicity"
    assert len(lines) - 1 == len(rich.projections["inhibit"].edges)
    assert {line.split(",")[0] for line in lines[1:]} <= {"AVAL", "2", '"7'}


def test_text_that_xml_cannot_hold_is_refused(rich: Circuit, tmp_path: Path) -> None:
    cells = replace(rich.populations["cells"], names=("a", "b\x01", "c"))
    circuit = replace(rich, populations={**rich.populations, "cells": cells})
    with pytest.raises(
        CircuitlabError, match=r"cells/1: the text 'b\\x01' has characters that XML cannot hold"
    ):
        circuitlab.export(circuit, "graphml", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    circuitlab.export(circuit, "json", tmp_path / "out")
    assert circuitlab.load(tmp_path / "out").equals(circuit)


def test_a_plain_digraph_becomes_a_population(tmp_path: Path) -> None:
    graph = nx.gnp_random_graph(12, 0.3, seed=1, directed=True)
    weights = {edge: 0.5 + number for number, edge in enumerate(graph.edges)}
    nx.set_edge_attributes(graph, weights, "weight")
    expected = nx.to_numpy_array(graph).T
    nx.write_graphml(graph, tmp_path / "g.graphml")
    (tmp_path / "g.json").write_text(json.dumps(nx.node_link_data(graph, edges="links")))
    scipy.sparse.save_npz(tmp_path / "g.npz", scipy.sparse.csr_matrix(expected))
    pre, post = np.array(list(graph.edges)).T
    np.savez(tmp_path / "arrays.npz", source=pre, target=post, weight=np.array(list(weights.values())))
    rows = "".join(f"{a},{b},{w}\n" for (a, b), w in weights.items())
    (tmp_path / "g.csv").write_text("pre,post,weight\n" + rows)
    for name in ("g.graphml", "g.json", "g.npz", "arrays.npz", "g.csv"):
        circuit = circuitlab.load(tmp_path / name)
        (population,), (projection,) = circuit.populations.values(), circuit.projections.values()
        assert (population.name, population.type, population.size, population.names) == (
            "neurons",
            "unit",
            12,
            None,
        )
        matrix = np.zeros((12, 12))
        matrix[projection.edges.target, projection.edges.source] = projection.edges.weight
        np.testing.assert_array_equal(matrix, expected, err_msg=name)


def test_a_matrix_that_is_not_square_leads_from_inputs(tmp_path: Path) -> None:
    matrix = scipy.sparse.csr_matrix([[0, 1.5, 0], [2.5, 0, 0]])
    scipy.sparse.save_npz(tmp_path / "w.npz", matrix)
    circuit = circuitlab.load(tmp_path / "w.npz")
    assert {name: (p.type, p.size) for name, p in circuit.populations.items()} == {
        "inputs": ("input", 3),
        "neurons": ("unit", 2),
    }
    edges = circuit.projections["inputs_neurons"].edges
    assert list(zip(edges.source, edges.target, edges.weight, strict=True)) == [(1, 0, 1.5), (0, 1, 2.5)]


def test_a_table_of_nodes_names_places_and_types_the_neurons(tmp_path: Path) -> None:
    (tmp_path / "nodes.csv").write_text(
        "name,population,type,x,y,cell,sign\nAVAL,inter,unit,0,1.5,command,excitatory\n"
        "ASEL,sensory,input,1,0,,\nAVAR,inter,unit,2,2.5,command,excitatory\n"
    )
    (tmp_path / "edges.csv").write_text(
        "source,target,weight,kind_of\nASEL,AVAR,0.5,x\nAVAL,AVAR,1.5,y\nAVAL,AVAR,0.25,z\n"
    )
    circuit = circuitlab.load(tmp_path / "edges.csv", tmp_path / "nodes.csv")
    inter = circuit.populations["inter"]
    assert (inter.names, inter.sign) == (("AVAL", "AVAR"), "excitatory")
    assert inter.positions is not None
    assert inter.positions.tolist() == [[0, 1.5], [2, 2.5]]
    assert inter.attributes["cell"].tolist() == ["command", "command"]
    recurrent = circuit.projections["inter_inter"].edges
    assert (recurrent.source.tolist(), recurrent.target.tolist(), recurrent.weight.tolist()) == (
        [0],
        [1],
        [1.75],
    )
    assert recurrent.rows is not None
    assert recurrent.rows.attributes["kind_of"].tolist() == ["y", "z"]
    with pytest.raises(CircuitlabError, match=r"edges.csv:2: no node 'ASER' in the table of nodes"):
        (tmp_path / "edges.csv").write_text("source,target\nASER,AVAR\n")
        circuitlab.load(tmp_path / "edges.csv", tmp_path / "nodes.csv")


def test_an_undirected_multigraph_is_a_synapse_each_way(tmp_path: Path) -> None:
    graph = nx.MultiGraph()
    graph.add_edge("a", "b", weight=1.0)
    graph.add_edge("a", "b", weight=2.0)
    graph.add_edge("b", "b", weight=4.0)
    nx.write_graphml(graph, tmp_path / "g.graphml")
    found = read_foreign([tmp_path / "g.graphml"])
    edges = found.circuit.projections["neurons_neurons"].edges
    assert list(zip(edges.source, edges.target, edges.weight, strict=True)) == [
        (1, 0, 3),
        (0, 1, 3),
        (1, 1, 4),
    ]
    assert found.circuit.populations["neurons"].names == ("a", "b")
    assert any("undirected" in note for note in found.notes)


def test_places_of_networkx_and_of_gephi(tmp_path: Path) -> None:
    """`pos` of networkx's generators, and x, y of other programs, are positions; names that files need step aside."""
    graph = nx.random_geometric_graph(6, 0.5, seed=1)
    (tmp_path / "g.json").write_text(json.dumps(nx.node_link_data(graph, edges="edges")))
    expected = [graph.nodes[node]["pos"] for node in range(6)]
    found = circuitlab.load(tmp_path / "g.json").populations["neurons"].positions
    assert found is not None
    assert found.tolist() == expected
    for node in graph:
        graph.nodes[node].update(population="p", type="unit")
    found = Circuit.from_networkx(graph).populations["p"].positions
    assert found is not None
    assert found.tolist() == expected
    gephi = nx.DiGraph([("a", "b")])
    nx.set_node_attributes(
        gephi, {"a": {"x": 1.0, "y": 2, "z": "deep"}, "b": {"x": 3.0, "y": 4, "z": "flat"}}
    )
    nx.set_edge_attributes(gephi, {("a", "b"): {"source": "lab", "weight": 2.5}})
    nx.write_graphml(gephi, tmp_path / "g.graphml")
    assert main(["import", str(tmp_path / "g.graphml"), "-o", str(tmp_path / "out")]) == 0
    circuit = circuitlab.load(tmp_path / "out")
    neurons = circuit.populations["neurons"]
    assert neurons.positions is not None
    assert neurons.positions.tolist() == [[1, 2], [3, 4]]
    assert neurons.attributes["z_attribute"].tolist() == ["deep", "flat"]
    assert circuit.projections["neurons_neurons"].edges.attributes["source_attribute"].tolist() == ["lab"]


def test_foreign_types_and_gaps_in_columns_are_kept(tmp_path: Path) -> None:
    graph = nx.DiGraph()
    graph.add_node("s", type="sensory", size=2, tag="x", name="same")
    graph.add_node("m", type="motor", name="same")
    graph.add_edge("s", "m", weight=1.0, length=3)
    graph.add_edge("m", "m", weight=2.0)
    nx.write_graphml(graph, tmp_path / "g.graphml")
    found = read_foreign(
        [tmp_path / "g.graphml"], Options(split={"neurons": "type"}, types={"neurons_sensory": "input"})
    )
    sensory, motor = found.circuit.populations["neurons_sensory"], found.circuit.populations["neurons_motor"]
    assert (sensory.type, sensory.names, motor.type, motor.names) == (
        *("input", ("same",)),
        *("unit", ("same",)),
    )
    assert sensory.attributes["node_type"].tolist() == ["sensory"]
    assert set(found.circuit.projections) == {"neurons_sensory_neurons_motor", "neurons_motor_neurons_motor"}
    whole = read_foreign([tmp_path / "g.graphml"]).circuit
    assert whole.populations["neurons"].names == ("s", "m")
    assert whole.populations["neurons"].attributes["label"].tolist() == ["same", "same"]
    np.testing.assert_array_equal(whole.populations["neurons"].attributes["size"], [2, np.nan])
    assert whole.populations["neurons"].attributes["tag"].tolist() == ["x", ""]
    np.testing.assert_array_equal(
        whole.projections["neurons_neurons"].edges.attributes["length"], [3, np.nan]
    )


GRAPHML = (
    '<?xml version="1.0"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n'
    '<key id="w" for="edge" attr.name="weight" attr.type="double"/>\n<graph edgedefault="directed">\n'
    '<node id="a"/>\n<node id="b"/>\n<edge source="a" target="b"><data key="w">1.0</data></edge>\n</graph></graphml>\n'
)
NODE_LINK = (
    '{"directed": true, "nodes": [{"id": 0}, {"id": 1}], "links": [{"source": 0, "target": 1, "weight": 2}]}'
)
NODES = GRAPHML[GRAPHML.index("<node") : GRAPHML.index("</graph>")]
DAMAGE: dict[str, tuple[str, str, str, str]] = {
    "xml cut": ("g.graphml", "</graph></graphml>", "", r"g.graphml:9: is not XML: no element found"),
    "unknown key": ("g.graphml", 'key="w"', 'key="v"', r"g.graphml: is not a GraphML file: .*v"),
    "node twice": ("g.graphml", '<node id="b"/>', '<node id="a"/>', r"g.graphml:6: the node 'a' stands twice"),
    "no such node": ("g.graphml", 'target="b"', 'target="c"', r"g.graphml:7: the edge 'a' - 'c': no node has"),
    "hyperedge": ("g.graphml", '<node id="b"/>', '<node id="b"/><hyperedge/>', r"g.graphml:6: <hyperedge>: edges"),
    "port": ("g.graphml", '<node id="b"/>', '<node id="b"><port name="p"/></node>', r"g.graphml:6: <port>: ports"),
    "mixed": ("g.graphml", '<edge source', '<edge directed="false" source', r"not a GraphML file: directed=false"),
    "two graphs": ("g.graphml", "</graph>", '</graph><graph edgedefault="directed"/>', r"g.graphml:8: a second graph"),
    "entities": ("g.graphml", "<graphml ", "<!DOCTYPE g [<!ENTITY e 'x'>]>\n<graphml ", r"has a DOCTYPE or ENTITY"),
    "weight text": ("g.graphml", ">1.0<", ">heavy<", r"g.graphml: is not a GraphML file: could not convert"),
    "weight nan": ("g.graphml", ">1.0<", ">nan<", r"g.graphml: .*the weight of .* is nan; weights are finite"),
    "no nodes": ("g.graphml", NODES, "", r"the graph has no nodes"),
    "json cut": ("g.json", '"weight": 2}]}', '"weight": 2', r"g.json:1: is not JSON: "),
    "json list": ("g.json", NODE_LINK, "[1]", r"g.json: holds no object"),
    "no links": ("g.json", '"links"', '"adjacency"', r"g.json: is not node-link JSON: .* its keys are directed"),
    "id twice": ("g.json", '{"id": 1}', '{"id": 0}', r"g.json: nodes\[1\]: the id 0 stands twice"),
    "json no such node": ("g.json", '"target": 1', '"target": 7', r"g.json: links\[0\]: no node has the id 7"),
    "hypergraph": ("g.json", '"target": 1', '"target": [0, 1]', r"g.json: links\[0\]: the id \[0, 1\] is no text"),
    "nested attribute": ("g.json", '"weight": 2', '"weight": [2]', r"g.json: links\[0\]: 'weight' is \[2\]"),
    "json nan": ("g.json", '"weight": 2', '"weight": NaN', r"g.json: links\[0\]: the weight is nan"),
    "key twice": ("g.json", '"directed"', '"nodes": [], "directed"', r"g.json: the key 'nodes' stands twice"),
    "some populations": ("g.json", '{"id": 0}', '{"id": 0, "population": "x"}', r"node 1 has no 'population'"),
    "onto an input": ("g.json", '{"id": 1}', '{"id": 1, "type": "input"}', r"ends in the input 'neurons'"),
    "weights on some": (
        "g.json", '"weight": 2}', '"weight": 2}, {"source": 1, "target": 1}', r"1 of 2 edges have 'weight', others not"
    ),
    "csv row": ("g.csv", "0,1,2.0", "0,1", r"g.csv:2: 2 columns, but the header has 3"),
    "csv weight": ("g.csv", "2.0", "inf", r"g.csv:2: weight is inf; it must be a finite number"),
    "csv columns": ("g.csv", "source", "from", r"one table of edges \(columns source,target or pre,post\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, old, new, message = DAMAGE[name]
    text = {"g.graphml": GRAPHML, "g.json": NODE_LINK, "g.csv": "source,target,weight\n0,1,2.0\n"}[file]
    assert text.count(old) == 1
    (tmp_path / file).write_text(text)
    assert len(circuitlab.load(tmp_path / file).projections) == 1
    (tmp_path / file).write_text(text.replace(old, new))
    assert main(["import", str(tmp_path / file), "-o", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert re.search(message, error), error
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_npz_that_is_no_graph_is_told(tmp_path: Path) -> None:
    for arrays, message in (
        ({"a": np.zeros(3)}, "needs the arrays source and target"),
        ({"source": np.zeros(3), "target": np.zeros(3, int)}, "source and target are whole numbers"),
        ({"source": np.zeros(3, int), "target": np.zeros(2, int)}, "source and target are whole numbers"),
        ({"source": np.array([-1]), "target": np.array([0])}, "source and target count from 0"),
        (
            {"source": np.array([0]), "target": np.array([0]), "weight": np.array([np.inf])},
            "weight' is inf at entry 0",
        ),
        ({"source": np.array([0]), "target": np.array([0]), "p": np.zeros(2)}, "'p' has shape"),
    ):
        np.savez(tmp_path / "g.npz", **arrays)  # type: ignore[arg-type]
        with pytest.raises(CircuitlabError, match=message):
            circuitlab.load(tmp_path / "g.npz")


def test_exports_that_do_not_fit_into_memory_are_refused(
    rich: Circuit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIRCUITLAB_MEMORY_LIMIT", "1 kB")
    for kind in WRITERS:
        with pytest.raises(CircuitlabError, match=f"edges take about .* on their way to {kind}"):
            circuitlab.export(rich, kind, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_sizes_are_checked_before_memory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "g.graphml").write_text(GRAPHML)
    (tmp_path / "g.json").write_text(NODE_LINK)
    (tmp_path / "g.csv").write_text("source,target,weight\n0,1,2.0\n")
    np.savez(tmp_path / "g.npz", source=np.array([0]), target=np.array([10**8]))
    monkeypatch.setenv("CIRCUITLAB_MEMORY_LIMIT", "500 B")
    for name in ("g.graphml", "g.json", "g.csv", "g.npz"):
        with pytest.raises(CircuitlabError, match="available"):
            circuitlab.load(tmp_path / name)
