"""SONATA in and out, beside libsonata and plain h5py."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import libsonata
import numpy as np
import pytest

from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit
from circuitlab.graph.foreign.folder import write_folder
from circuitlab.graph.foreign.formats import read_foreign, write_format
from circuitlab.graph.foreign.options import Options
from circuitlab.spec.circuit import load_circuit
from tests.oracles.sonata import EXAMPLES, Found, example, names, write_edges, write_nodes

TWO_GROUPS = ("odd", "layer4_sample")
"""Networks whose edges have two groups of attributes, which libsonata does not read."""
Network = Callable[[str], tuple[Path, Path]]


def through_a_folder(circuit: Circuit, folder: Path) -> Circuit:
    """A circuit written as a circuit file, and built again from it."""
    folder.mkdir()
    write_folder(circuit, folder)
    return build(load_circuit(folder / "circuit.yaml"))


def populations(folder: Path, kind: str) -> dict[str, libsonata.NodePopulation]:
    """Every population that libsonata opens in a folder, `nodes` or `edges`."""
    storage = libsonata.NodeStorage if kind == "nodes" else libsonata.EdgeStorage
    found = {}
    for path in sorted(folder.rglob("*.h5")):
        with h5py.File(path, "r") as file:
            if kind not in file:
                continue
        opened = storage(str(path))
        found |= {name: opened.open_population(name) for name in opened.population_names}
    return found


@pytest.mark.parametrize("name", names())
def test_every_row_comes_back_as_it_was(name: str, network: Network, tmp_path: Path) -> None:
    given, files = network(name)
    imported = read_foreign([given])
    circuit = through_a_folder(imported.circuit, tmp_path / "circuit")
    write_format(circuit, "sonata", tmp_path / "out")
    before, after = Found(files), Found(tmp_path / "out")
    assert before.nodes == after.nodes
    assert before.edges == after.edges
    unused = {note.split(":")[0] for note in imported.notes if "not used" in note}
    assert {name: table for name, table in before.types.items() if name not in unused} == after.types


@pytest.mark.parametrize("name", [name for name in names() if name not in TWO_GROUPS])
def test_libsonata_finds_the_same_populations_nodes_edges_and_attributes(
    name: str, network: Network, tmp_path: Path
) -> None:
    given, files = network(name)
    circuit = through_a_folder(read_foreign([given]).circuit, tmp_path / "circuit")
    write_format(circuit, "sonata", tmp_path / "out")
    for kind in ("nodes", "edges"):
        before, after = populations(files, kind), populations(tmp_path / "out", kind)
        assert before.keys() == after.keys()
        for population, theirs in before.items():
            ours = after[population]
            assert ours.size == theirs.size
            assert ours.attribute_names == theirs.attribute_names
            everything = theirs.select_all()
            for attribute in theirs.attribute_names:
                assert np.array_equal(
                    ours.get_attribute(attribute, everything), theirs.get_attribute(attribute, everything)
                )
            if kind == "edges":
                assert (ours.source, ours.target) == (theirs.source, theirs.target)
                assert np.array_equal(ours.source_nodes(everything), theirs.source_nodes(everything))
                assert np.array_equal(ours.target_nodes(everything), theirs.target_nodes(everything))
    # libsonata's circuit config and indices: what reaches a node is what the rows say.
    config = libsonata.CircuitConfig.from_file(str(tmp_path / "out" / "circuit_config.json"))
    assert config.node_populations == set(populations(files, "nodes"))
    assert config.edge_populations == set(populations(files, "edges"))
    for population, ours in populations(tmp_path / "out", "edges").items():
        pre, post = (nodes(ours.select_all()) for nodes in (ours.source_nodes, ours.target_nodes))
        for node in range(0, config.node_population(ours.target).size, 7):
            assert ours.afferent_edges([node]).flatten().tolist() == np.flatnonzero(post == node).tolist(), (
                population
            )
        for node in range(0, config.node_population(ours.source).size, 7):
            assert ours.efferent_edges([node]).flatten().tolist() == np.flatnonzero(pre == node).tolist(), (
                population
            )


def test_published_networks_have_the_counts_of_their_files() -> None:
    for name, (file, (nodes, edges)) in EXAMPLES.items():
        folder = example(name)
        if folder is None:
            continue
        circuit = read_foreign([folder / file]).circuit
        assert sum(p.size for p in circuit.populations.values()) == nodes
        rows = [p.edges if p.edges.rows is None else p.edges.rows for p in circuit.projections.values()]
        assert sum(map(len, rows)) == edges


def test_edges_point_from_source_to_target(tmp_path: Path) -> None:
    """One edge, from neuron 0 to neuron 2: only neuron 2 hears, and libsonata says the same of what is exported."""
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "a_node_types.csv").write_text("node_type_id ei\n1 e\n")
    (folder / "a_edge_types.csv").write_text("edge_type_id\n1\n")
    write_nodes(folder / "a_nodes.h5", "a", [1, 1, 1], {})
    write_edges(folder / "a_edges.h5", "aa", (("a", [0]), ("a", [2])), 1, {"0": {"syn_weight": [0.5]}})
    circuit = read_foreign([folder]).circuit
    (projection,) = circuit.projections.values()
    matrix = np.zeros((3, 3))
    matrix[projection.edges.target, projection.edges.source] = projection.edges.weight
    assert (matrix @ np.array([1.0, 10.0, 100.0])).tolist() == [0, 0, 0.5]
    write_format(circuit, "sonata", tmp_path / "out")
    theirs = populations(tmp_path / "out", "edges")["aa"]
    assert theirs.source_nodes(theirs.select_all()).tolist() == [0]
    assert theirs.target_nodes(theirs.select_all()).tolist() == [2]
    assert theirs.afferent_edges([2]).flatten().tolist() == [0]
    assert theirs.afferent_edges([0]).flatten().tolist() == []


def test_weights_are_sign_times_weight_times_number(plain: Path) -> None:
    """By hand: the type's weight times nsyns, negative where `ei` of the source is i, for all of its are positive."""
    circuit = read_foreign([plain]).circuit
    edges = circuit.projections["cells_to_cells"].edges
    found = {
        (a, b): w
        for a, b, w in zip(edges.source.tolist(), edges.target.tolist(), edges.weight.tolist(), strict=True)
    }
    assert found == {
        (0, 1): 0.3 * 10,
        (0, 2): 0.3 * 3,
        (2, 0): -0.15 * 7,
        (4, 3): -0.15 * 1,
        (1, 4): 0.3 * 2,
        (3, 0): 0.3 * 9,
    }
    assert sorted(edges.multiplicity.tolist()) == [1, 2, 3, 7, 9, 10]
    assert circuit.projections["cells_to_cells"].delay_ms == 2.0
    assert circuit.populations["cells"].sign is None
    lgn = circuit.populations["lgn"]
    assert (lgn.type, lgn.sign) == ("input", None)


def test_a_split_population_has_dale_s_law_by_part_and_is_merged_again(plain: Path, tmp_path: Path) -> None:
    circuit = read_foreign([plain], Options(split={"cells": "ei"}, types={"cells_e": "pyramidal"})).circuit
    e, i = circuit.populations["cells_e"], circuit.populations["cells_i"]
    assert (e.type, e.sign, e.size, i.type, i.sign, i.size) == (
        "pyramidal",
        "excitatory",
        3,
        "unit",
        "inhibitory",
        2,
    )
    assert e.attributes["model_name"].tolist() == ["exc"] * 3
    assert e.attributes["node_id"].tolist() == [0, 1, 3]
    assert set(circuit.projections) == {
        *("cells_to_cells_e_e", "cells_to_cells_e_i", "cells_to_cells_i_e"),
        *("lgn_to_cells_e", "lgn_to_cells_i"),
    }
    assert circuit.projections["cells_to_cells_e_e"].site == "basal"
    back = through_a_folder(circuit, tmp_path / "circuit")
    write_format(back, "sonata", tmp_path / "out")
    before, after = Found(plain), Found(tmp_path / "out")
    assert (before.nodes, before.edges) == (after.nodes, after.edges)
    assert read_foreign([tmp_path / "out"]).circuit.equals(circuit)


def test_a_group_s_value_wins_over_its_type_s(odd: Path) -> None:
    """Nodes in file order: ids 15, 10, 12, 30, 11, 20; group 0 has its own `size`, the types of group 1 say theirs."""
    cortex = read_foreign([odd]).circuit.populations["cortex"]
    assert cortex.attributes["node_id"].tolist() == [15, 10, 12, 30, 11, 20]
    np.testing.assert_array_equal(cortex.attributes["size"], [2.5, 8, 9, 2.5, 3, 7])
    assert cortex.attributes["label"].tolist()[:2] == ['a "b" c', "plain"]
    assert cortex.attributes["tag"].tolist() == ["", "", "", "p", "q r", ""]
    assert cortex.positions is not None
    assert cortex.positions.tolist()[:2] == [[-3, 0, 0.5], [2, 5, 8]]
    thalamus = read_foreign([odd]).circuit.populations["thalamus"]
    assert (thalamus.type, thalamus.names) == ("input", ("left", "right"))
    assert thalamus.attributes["rank"].tolist() == ["low", "high"]


def test_parallel_rows_share_what_learning_changed_in_proportion(odd: Path, tmp_path: Path) -> None:
    circuit = read_foreign([odd]).circuit
    p = circuit.projections["recurrent"]
    rows = p.edges.rows
    assert rows is not None
    counts = np.bincount(rows.edge)
    edge = int(np.argmax(counts))
    assert counts[edge] >= 5
    learned = p.edges.weight.copy()
    learned[edge] *= 3
    trained = replace(p, edges=replace(p.edges, weight=learned))
    circuit = replace(circuit, projections={**circuit.projections, "recurrent": trained})
    write_format(circuit, "sonata", tmp_path / "out")
    again = read_foreign([tmp_path / "out"]).circuit.projections["recurrent"].edges
    assert again.rows is not None
    parallel = rows.edge == edge
    np.testing.assert_allclose(again.rows.weight[parallel], 3 * rows.weight[parallel], rtol=1e-14)
    np.testing.assert_array_equal(again.rows.weight[~parallel], rows.weight[~parallel])
    np.testing.assert_allclose(again.weight, learned, rtol=1e-14)


def test_learned_weights_go_into_the_group_and_leave_the_type_table(plain: Path, tmp_path: Path) -> None:
    circuit = read_foreign([plain], Options(weight_scale=0.1)).circuit
    p = circuit.projections["cells_to_cells"]
    learned = replace(p, edges=replace(p.edges, weight=p.edges.weight * np.linspace(1, 2, 6)))
    projections = {**circuit.projections, "cells_to_cells": learned}
    write_format(replace(circuit, projections=projections), "sonata", tmp_path / "out")
    edges = Found(tmp_path / "out").edges["cells_to_cells"]
    # What a simulator computes from the files, syn_weight * nsyns with its own sign of inhibition, is the new weight.
    synapse, number = (
        [float(eval(v, {"np": np})) for v in edges[key]] for key in ("0/syn_weight", "0/nsyns")
    )
    order = np.lexsort((edges["source_node_id"], edges["target_node_id"]))
    sign = np.where(np.isin(learned.edges.source, [2, 4]), -1, 1)
    np.testing.assert_allclose(
        (np.array(synapse) * number)[order] * sign * 0.1, learned.edges.weight, rtol=1e-14
    )
    assert Found(plain).types == Found(tmp_path / "out").types
    back = (
        read_foreign([tmp_path / "out"], Options(weight_scale=0.1))
        .circuit.projections["cells_to_cells"]
        .edges
    )
    np.testing.assert_allclose(back.weight, learned.edges.weight, rtol=1e-14)


def test_signed_files_keep_their_signs(tmp_path: Path) -> None:
    """Where an edge population writes inhibition as negative numbers, as NEST wants it, nothing is turned."""
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "a_node_types.csv").write_text("node_type_id ei\n1 e\n2 i\n")
    (folder / "a_edge_types.csv").write_text("edge_type_id\n1\n")
    write_nodes(folder / "a_nodes.h5", "a", [1, 2, 2], {})
    ends = (("a", [0, 1, 2]), ("a", [1, 0, 0]))
    write_edges(folder / "a_edges.h5", "aa", ends, 1, {"0": {"syn_weight": [0.5, -0.25, 0.125]}})
    found = read_foreign([folder], Options(split={"a": "ei"}))
    weights = [w for p in found.circuit.projections.values() for w in p.edges.weight.tolist()]
    assert sorted(weights) == [-0.25, 0.125, 0.5]
    assert found.circuit.populations["a_i"].sign is None
    assert any("a_i" in note and "other sign" in note for note in found.notes)
    write_format(found.circuit, "sonata", tmp_path / "out")
    assert Found(tmp_path / "out").edges == Found(folder).edges


def test_an_own_circuit_stands_beside_what_was_imported(plain: Path, tmp_path: Path) -> None:
    """A readout added at import, and learned biases: populations and attributes of their own, and all come back."""
    imported = read_foreign([plain], Options(split={"cells": "ei"})).circuit
    (tmp_path / "circuit").mkdir()
    write_folder(imported, tmp_path / "circuit", readout=4)
    circuit = build(load_circuit(tmp_path / "circuit" / "circuit.yaml"))
    biases = {"cells_e": np.array([0.5, 0.25, -1.0]), "readout": np.arange(4.0)}
    circuit = replace(
        circuit,
        populations={
            name: replace(p, bias=biases[name]) if name in biases else p
            for name, p in circuit.populations.items()
        },
    )
    write_format(circuit, "sonata", tmp_path / "out")
    theirs = populations(tmp_path / "out", "nodes")
    assert {name: p.size for name, p in theirs.items()} == {"cells": 5, "lgn": 3, "readout": 4}
    assert theirs["cells"].get_attribute("bias", theirs["cells"].select_all()).tolist() == [
        0.5,
        0.25,
        0,
        -1.0,
        0,
    ]
    edges = populations(tmp_path / "out", "edges")["cells_e_readout"]
    assert (edges.source, edges.target, edges.size) == ("cells", "readout", 12)
    assert set(edges.source_nodes(edges.select_all()).tolist()) == {0, 1, 3}
    back = read_foreign([tmp_path / "out"]).circuit
    assert back.equals(circuit)
    assert back.projections["cells_e_readout"].edges.equals(circuit.projections["cells_e_readout"].edges)


OWN = """
circuit: own
populations:
  lgn: {type: input, size: 3}
  e: {type: pyramidal, size: 4, sign: excitatory, names: [a, b, c, d], positions: {random: {extent: [1, 2]}}}
  i: {type: interneuron, size: 2, sign: inhibitory}
  out: {type: output, size: 2}
projections:
  lgn_e: {source: lgn, target: e, connect: {rule: fixed_indegree, indegree: 2}}
  e_i: {source: e, target: i}
  i_e: {source: i, target: e, site: soma, connect: {rule: pairwise_bernoulli, p: 0.5}}
  e_out: {source: e, target: out}
"""


def test_libsonata_reads_a_circuit_of_our_own(tmp_path: Path) -> None:
    circuit = build(load_circuit("own.yaml", text=OWN))
    write_format(circuit, "sonata", tmp_path / "out")
    config = libsonata.CircuitConfig.from_file(str(tmp_path / "out" / "circuit_config.json"))
    assert config.node_populations == set(circuit.populations)
    assert config.edge_populations == set(circuit.projections)
    cells = config.node_population("e")
    assert list(cells.get_attribute("name", cells.select_all())) == ["a", "b", "c", "d"]
    assert circuit.populations["e"].positions is not None
    np.testing.assert_array_equal(
        cells.get_attribute("y", cells.select_all()), circuit.populations["e"].positions[:, 1]
    )
    for name, p in circuit.projections.items():
        theirs = config.edge_population(name)
        rows = theirs.select_all()
        assert (theirs.source, theirs.target) == (p.source, p.target)
        np.testing.assert_array_equal(theirs.source_nodes(rows), p.edges.source)
        np.testing.assert_array_equal(theirs.target_nodes(rows), p.edges.target)
        np.testing.assert_array_equal(theirs.get_attribute("syn_weight", rows), p.edges.weight)


def test_files_of_one_name_in_two_folders_stay_apart(tmp_path: Path) -> None:
    """Two folders with files of the same names but other tables: each population keeps its own types."""
    for name, kind in (("a", "first"), ("b", "second")):
        folder = tmp_path / "net" / name
        folder.mkdir(parents=True)
        (folder / "node_types.csv").write_text(f"node_type_id label\n1 {kind}\n")
        write_nodes(folder / "nodes.h5", name, [1, 1], {"0": {}})
    entries = [{"nodes_file": f"{n}/nodes.h5", "node_types_file": f"{n}/node_types.csv"} for n in "ab"]
    (tmp_path / "net" / "circuit_config.json").write_text(json.dumps({"networks": {"nodes": entries}}))
    circuit = read_foreign([tmp_path / "net"]).circuit
    write_format(circuit, "sonata", tmp_path / "out")
    back = read_foreign([tmp_path / "out"]).circuit
    assert [back.populations[n].attributes["label"].tolist() for n in "ab"] == [["first"] * 2, ["second"] * 2]
    assert back.equals(circuit)


def test_two_delays_in_a_projection_are_kept_as_an_attribute(odd: Path, tmp_path: Path) -> None:
    found = read_foreign([odd])
    feed = found.circuit.projections["feed"]
    assert feed.delay_ms == 0
    assert feed.edges.rows is not None
    assert sorted(feed.edges.rows.attributes["delay"].tolist()) == [1, 1, 1, 3]
    assert any(note.startswith("feed: its delays differ, 1 to 3 ms") for note in found.notes)
    projections = {**found.circuit.projections, "feed": replace(feed, delay_ms=4.0)}
    write_format(replace(found.circuit, projections=projections), "sonata", tmp_path / "out")
    assert read_foreign([tmp_path / "out"]).circuit.projections["feed"].delay_ms == 4.0
