"""Edges, weights and neurons from files, whole and broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import networkx as nx
import numpy as np
import pytest
import scipy.sparse

from circuitlab.errors import FormatError
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import Edges, Synapses, coalesce
from circuitlab.graph.formats import read_edges, read_weights
from circuitlab.graph.neurons import (
    grid_positions,
    read_attributes,
    read_bias,
    read_names,
    read_positions,
)

A = Population("a", "unit", 3, names=("AVAL", "AVAR", "RIA"))
B = Population("b", "unit", 4)


def triples(synapses: Synapses) -> list[tuple[int, int, float]]:
    assert synapses.weight is not None
    return list(
        zip(synapses.source.tolist(), synapses.target.tolist(), synapses.weight.tolist(), strict=True)
    )


def written(folder: Path, text: str, name: str = "edges.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(work: Callable[[], Any], folder: Path) -> str:
    """The message, its folder left out; always a single line."""
    with pytest.raises(FormatError) as found:
        work()
    message = str(found.value)
    assert "\n" not in message
    return message.replace(f"{folder}/", "")


@pytest.mark.parametrize("header", ["source,target,weight", "pre, post ,weight"])
def test_csv_by_name_and_by_index(tmp_path: Path, header: str) -> None:
    path = written(tmp_path, f"{header}\nAVAR,3,0.5\n\nRIA, 0,-2\n0,1,1e-3\n")
    assert triples(read_edges(path, A, B)) == [(1, 3, 0.5), (2, 0, -2.0), (0, 1, 0.001)]


def test_csv_columns_become_attributes_and_choose_rows(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "pre,post,type,delay,count\nAVAL,0,chemical,1.5,3\nAVAL,1,electrical,2,4\nRIA,1,chemical,2,5\n",
    )
    every = read_edges(path, A, B)
    assert every.weight is None
    assert every.attributes["type"].tolist() == ["chemical", "electrical", "chemical"]
    assert every.attributes["delay"].dtype == np.float64
    assert every.attributes["count"].dtype == np.int64
    chemical = read_edges(path, A, B, where={"type": "chemical"})
    assert chemical.target.tolist() == [0, 1]
    assert chemical.attributes["count"].tolist() == [3, 5]
    assert len(read_edges(path, A, B, where={"type": ["chemical", "electrical"], "count": 4})) == 1


def test_unknown_neurons_may_be_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, "source,target,weight\nAVAL,0,1\nPVCL,1,2\nRIA,9,3\nRIA,3,4\n")
    assert triples(read_edges(path, A, B, skip_unknown=True)) == [(0, 0, 1.0), (2, 3, 4.0)]


def test_npz_arrays_and_sparse_matrices(tmp_path: Path) -> None:
    path = tmp_path / "edges.npz"
    np.savez(
        path,
        pre=np.array(["RIA", "AVAL"]),
        post=np.array([3, 0]),
        weight=np.array([1, 2]),
        kind=np.array([7, 8]),
    )
    synapses = read_edges(path, A, B)
    assert triples(synapses) == [(2, 3, 1.0), (0, 0, 2.0)]
    assert synapses.attributes["kind"].tolist() == [7, 8]
    assert triples(read_edges(path, A, B, where={"kind": 8})) == [(0, 0, 2.0)]

    matrix = np.zeros((4, 3))
    matrix[3, 1], matrix[0, 2] = 0.5, -1.0  # [target, source]
    scipy.sparse.save_npz(path, scipy.sparse.csr_matrix(matrix))
    assert sorted(triples(read_edges(path, A, B))) == [(1, 3, 0.5), (2, 0, -1.0)]


@pytest.mark.parametrize("directed", [True, False])
def test_graphml(tmp_path: Path, directed: bool) -> None:
    graph = nx.DiGraph() if directed else nx.Graph()
    graph.add_edge("AVAL", "RIA", weight=2.0, type="chemical")
    graph.add_edge("AVAR", "AVAR", weight=1.0, type="electrical")
    nx.write_graphml(graph, tmp_path / "worm.graphml")
    found = sorted(triples(read_edges(tmp_path / "worm.graphml", A, A)))
    assert found == ([(0, 2, 2.0), (1, 1, 1.0)] if directed else [(0, 2, 2.0), (1, 1, 1.0), (2, 0, 2.0)])
    chosen = read_edges(tmp_path / "worm.graphml", A, A, where={"type": "electrical"})
    assert triples(chosen) == [(1, 1, 1.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "source,target\nAVAL,0\nAVAI,1\n",
            "edges.csv:3: no neuron 'AVAI' in population 'a'. Did you mean 'AVAR'?",
        ),
        ("source,target\nAVAL,4\n", "edges.csv:2: no neuron 4: population 'b' has 4 units, 0 to 3"),
        ("source,target\nAVAL,-1\n", "edges.csv:2: no neuron -1: population 'b' has 4 units, 0 to 3"),
        (
            "source,target\nAVAL,RIA\n",
            "edges.csv:2: no neuron 'RIA': population 'b' has 4 units, 0 to 3, and no names",
        ),
        (
            "source,target\nAVAL,1.0\n",
            "edges.csv:2: no neuron '1.0': population 'b' has 4 units, 0 to 3, and no names",
        ),
        (
            "source,targets\nAVAL,0\n",
            "edges.csv:1: no column 'target' or 'post'; there are source, targets. Did you mean 'targets'?",
        ),
        (
            "source,target,weight\nAVAL,0\n",
            "edges.csv:2: 2 columns, but the header has 3",
        ),
        (
            "source,target,weight\nAVAL,0,1\nAVAL,1,nan\n",
            "edges.csv:3: weight is nan; it must be a finite number",
        ),
        ("source,target,weight\nAVAL,0,heavy\n", "edges.csv:2: weight is 'heavy', not a number"),
        ("source,target,weight\nAVAL,0,\n", "edges.csv:2: weight is '', not a number"),
        ("source,target,target\nAVAL,0,1\n", "edges.csv:1: the column 'target' appears twice"),
        ("", "edges.csv:1: the first line must name every column, such as 'source,target,weight'"),
        (
            "source,,target\n",
            "edges.csv:1: the first line must name every column, such as 'source,target,weight'",
        ),
        ('source,target\n"AVAL,0\n', "edges.csv: is not a CSV file: unexpected end of data"),
    ],
)
def test_broken_csv_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    assert refusal(lambda: read_edges(path, A, B), tmp_path) == message


def test_files_that_are_not_what_they_say(tmp_path: Path) -> None:
    def edges(name: str) -> str:
        return refusal(lambda: read_edges(tmp_path / name, A, B), tmp_path)

    assert edges("none.csv") == "none.csv: cannot be read: No such file or directory"
    assert (
        edges("edges.xlsx")
        == "edges.xlsx: edges are read from .csv, .npz, .graphml, .h5, .hdf5, .sonata files"
    )
    (tmp_path / "latin.csv").write_bytes("source,target\nAVÄL,0\n".encode("latin-1"))
    assert edges("latin.csv") == "latin.csv: is not a text file in utf-8"
    (tmp_path / "text.npz").write_text("source,target")
    assert edges("text.npz").startswith("text.npz: is not a .npz file of plain numeric arrays")
    np.savez(tmp_path / "pickle.npz", source=np.array([{}], dtype=object), target=np.array([0]))
    assert edges("pickle.npz").startswith(
        "pickle.npz: is not a .npz file of plain numeric arrays: Object arrays"
    )
    assert edges("none.npz") == "none.npz: cannot be read: No such file or directory"
    np.savez(tmp_path / "cut.npz", source=np.arange(1000), target=np.arange(1000))
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    assert edges("cut.npz").startswith("cut.npz: is not a .npz file of plain numeric arrays")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"source": [0, 1], "target": [0]},
            "edges.npz: 'target' has shape [1], but 'source' [2]; the arrays hold one entry for each edge",
        ),
        (
            {"source": [0], "target": [0], "weight": [[1.0]]},
            "edges.npz: 'weight' has shape [1, 1], but 'source' [1]; the arrays hold one entry for each edge",
        ),
        ({"source": [0]}, "edges.npz: no array 'target' or 'post'; there are source"),
        (
            {"source": [0.5], "target": [0]},
            "edges.npz: 'source' holds float64; neurons are given by integers or by names",
        ),
        (
            {"source": [0, 1], "target": [0, 1], "weight": [1.0, np.inf]},
            "edges.npz: 'weight' is inf at entry 1; weights are finite numbers",
        ),
        (
            {"source": [0], "target": [0], "weight": ["big"]},
            "edges.npz: 'weight' holds <U3, not real numbers",
        ),
        ({"source": [0], "target": [-1]}, "edges.npz: no neuron -1: population 'b' has 4 units, 0 to 3"),
    ],
)
def test_broken_npz_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = tmp_path / "edges.npz"
    content: dict[str, Any] = {name: np.array(values) for name, values in arrays.items()}
    np.savez(path, **content)
    assert refusal(lambda: read_edges(path, B, B), tmp_path) == message


def test_an_archive_that_unpacks_beyond_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(
        path, source=np.zeros(1_000_000, dtype=np.int64), target=np.zeros(1_000_000, dtype=np.int64)
    )
    monkeypatch.setenv("CIRCUITLAB_MEMORY_LIMIT", "10 MB")
    message = "bomb.npz: unpacks to 0.016 GB; 0.01 GB are available"
    assert refusal(lambda: read_edges(path, A, B), tmp_path) == message


def sonata(path: Path, **populations: dict[str, Any]) -> Path:
    """A SONATA edge file; datasets by their path below the edge population."""
    with h5py.File(path, "w") as file:
        for population, datasets in populations.items():
            for name, values in datasets.items():
                file[f"edges/{population}/{name}"] = values
    return path


def test_sonata(tmp_path: Path) -> None:
    one = {"source_node_id": [2, 0], "target_node_id": [3, 1], "0/syn_weight": [0.5, -1.0], "0/delay": [1, 2]}
    path = sonata(tmp_path / "edges.h5", one=one)
    synapses = read_edges(path, B, B)
    assert triples(synapses) == [(2, 3, 0.5), (0, 1, -1.0)]
    assert synapses.attributes["delay"].tolist() == [1, 2]
    path = sonata(tmp_path / "edges.h5", one=one, two={"source_node_id": [1], "target_node_id": [1]})
    assert read_edges(path, B, B, population="two").weight is None

    def edges(population: str | None = None) -> str:
        return refusal(lambda: read_edges(path, B, B, population=population), tmp_path)

    assert edges() == "edges.h5: holds the edge populations one, two; choose one by 'population'"
    assert edges("twi") == "edges.h5: no edge population 'twi'; there are one, two. Did you mean 'two'?"
    sonata(path, one={"source_node_id": [4], "target_node_id": [1]})
    assert edges() == "edges.h5: no neuron 4: population 'b' has 4 units, 0 to 3"
    sonata(path, one={"source_node_id": [1]})
    assert edges() == "edges.h5: /edges/one has no dataset 'target_node_id'"
    sonata(path, one={**one, "1/syn_weight": [1.0]})
    assert edges() == "edges.h5: /edges/one has no dataset 'edge_group_id'"
    sonata(path)
    assert edges() == "edges.h5: is not a SONATA edge file: it has no group /edges"
    path.write_text("not HDF5")
    assert edges() == "edges.h5: is not an HDF5 file"
    path.unlink()
    assert edges() == "edges.h5: cannot be read: No such file or directory"


def test_sonata_edges_of_several_groups(tmp_path: Path) -> None:
    """Each row's weight is that of its own group and row, times the number of its synapses."""
    rows = {
        "source_node_id": [0, 1, 2],
        "target_node_id": [1, 2, 3],
        "edge_group_id": [1, 0, 1],
        "edge_group_index": [1, 0, 0],
        "0/syn_weight": [0.5],
        "0/nsyns": [3],
        "1/syn_weight": [0.25, -2.0],
        "1/nsyns": [1, 4],
    }
    synapses = read_edges(sonata(tmp_path / "edges.h5", one=rows), B, B)
    assert triples(synapses) == [(0, 1, -8.0), (1, 2, 1.5), (2, 3, 0.25)]
    assert synapses.multiplicity is not None
    assert synapses.multiplicity.tolist() == [4, 3, 1]
    path = sonata(tmp_path / "edges.h5", one={k: v for k, v in rows.items() if k != "0/syn_weight"})
    told = refusal(lambda: read_edges(path, B, B), tmp_path)
    assert told.startswith(
        "edges.h5: /edges/one: 1 of 3 edges have no syn_weight; type tables are not read here"
    )


LAUGHS = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;&lol;">]>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="directed"/></graphml>
"""


def test_broken_graphml_is_refused(tmp_path: Path) -> None:
    def edges(text: str, encoding: str = "utf-8") -> str:
        path = tmp_path / "g.graphml"
        path.write_bytes(text.encode(encoding))
        return refusal(lambda: read_edges(path, A, A), tmp_path)

    doctype = "g.graphml: has a DOCTYPE or ENTITY, which GraphML files do not need and which are not read"
    assert edges(LAUGHS) == doctype
    assert edges(LAUGHS.replace('"1.0"', '"1.0" encoding="utf-16"'), "utf-16") == doctype
    assert edges("<graphml>") == "g.graphml:1: is not XML: no element found"
    assert edges("<a/>").startswith("g.graphml: is not a GraphML file")
    graph = nx.DiGraph()
    graph.add_edge("AVAL", "RIA", weight=1.0)
    graph.add_edge("AVAL", "AVAR")
    assert edges("\n".join(nx.generate_graphml(graph))) == "g.graphml: some edges have no 'weight', others do"
    graph.add_edge("AVAL", "AVAR", weight=float("nan"))
    message = "g.graphml: 'weight' is nan at entry 1; weights are finite numbers"
    assert edges("\n".join(nx.generate_graphml(graph))) == message


EDGES = coalesce(np.array([0, 2, 1]), np.array([0, 0, 3]), np.zeros(3))


def shared() -> Edges:
    index = np.array([1, 0, 1])
    return coalesce(EDGES.source, EDGES.target, np.zeros(3), parameter_index=index, parameters=np.zeros(2))


def test_weights_from_arrays_matrices_and_tables(tmp_path: Path) -> None:
    wanted = [1.5, -2.0, 3.0]
    matrix = np.zeros((4, 3))
    matrix[0, 0], matrix[0, 2], matrix[3, 1] = wanted
    np.save(tmp_path / "vector.npy", wanted)
    np.save(tmp_path / "matrix.npy", matrix)
    np.savez(tmp_path / "named.npz", weight=wanted)
    np.savez(tmp_path / "pairs.npz", source=[1, 0, 2], target=[3, 0, 0], weight=[3.0, 1.5, -2.0])
    scipy.sparse.save_npz(tmp_path / "sparse.npz", scipy.sparse.coo_matrix(matrix))
    written(tmp_path, "source,target,weight\nRIA,0,-2\nAVAL,0,1\nAVAL,0,0.5\nAVAR,3,3\n", "table.csv")
    for path in sorted(tmp_path.iterdir()):
        assert read_weights(path, EDGES, A, B).tolist() == wanted, path.name
    np.save(tmp_path / "vector.npy", [[5.0, 6.0]])
    assert read_weights(tmp_path / "vector.npy", shared(), A, B).tolist() == [5.0, 6.0]


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    def weights(path: Path, edges: Edges = EDGES) -> str:
        return refusal(lambda: read_weights(path, edges, A, B), tmp_path)

    np.save(tmp_path / "w.npy", np.zeros(4))
    assert (
        weights(tmp_path / "w.npy") == "w.npy: the weights have shape [4]; the projection needs [3] or [4, 3]"
    )
    assert (
        weights(tmp_path / "w.npy", shared()) == "w.npy: the weights have shape [4]; the projection needs [2]"
    )
    np.save(tmp_path / "w.npy", np.eye(4, 3))
    assert weights(tmp_path / "w.npy") == (
        "w.npy: has a weight for a/AVAR -> b/1, but the projection has no such synapse"
    )
    np.save(tmp_path / "w.npy", [0.0, np.nan, 0.0])
    assert weights(tmp_path / "w.npy") == "w.npy: 'weight' is nan at entry 1; weights are finite numbers"
    table = written(tmp_path, "source,target,weight\nAVAL,0,1\nRIA,0,1\n", "w.csv")
    assert weights(table) == "w.csv: has no weight for a/AVAR -> b/3"
    written(tmp_path, "source,target\nAVAL,0\n", "w.csv")
    assert weights(table) == "w.csv: no column 'weight'"
    assert weights(tmp_path / "w.txt") == "w.txt: weights are read from .npy, .npz or .csv files"


def test_names(tmp_path: Path) -> None:
    path = written(tmp_path, "id,name\n1,AVAL\n2,AVAR\n", "names.csv")
    assert read_names(path, 2) == ("AVAL", "AVAR")
    assert (
        refusal(lambda: read_names(path, 3), tmp_path) == "names.csv: 2 names, but the population has 3 units"
    )
    written(tmp_path, "name\nAVAL\nRIA\nAVAL\n", "names.csv")
    message = "names.csv:4: the name 'AVAL' appears twice, first in line 2"
    assert refusal(lambda: read_names(path, 3), tmp_path) == message
    written(tmp_path, "names\nAVAL\n", "names.csv")
    message = "names.csv:1: no column 'name'; there are names. Did you mean 'names'?"
    assert refusal(lambda: read_names(path, 1), tmp_path) == message
    written(tmp_path, 'name\n""\n', "names.csv")
    assert refusal(lambda: read_names(path, 1), tmp_path) == "names.csv:2: the name is empty"


def test_positions_attributes_and_biases_follow_names(tmp_path: Path) -> None:
    path = written(
        tmp_path, "name,x,y,bias,kind\nRIA,5,6,0.3,inter\nAVAL,1,2,0.1,inter\nAVAR,3,4,0.2,motor\n", "n.csv"
    )
    assert read_positions(path, 3, A.names).tolist() == [[1, 2], [3, 4], [5, 6]]
    assert read_positions(path, 3).tolist() == [[5, 6], [1, 2], [3, 4]]
    assert read_bias(path, 3, A.names).tolist() == [0.1, 0.2, 0.3]
    assert read_attributes(path, 3, A.names)["kind"].tolist() == ["inter", "motor", "inter"]
    message = "n.csv: no row for the neuron 'PVC'"
    assert refusal(lambda: read_positions(path, 1, ("PVC",)), tmp_path) == message
    assert (
        refusal(lambda: read_positions(path, 4), tmp_path)
        == "n.csv: 3 positions, but the population has 4 units"
    )
    np.save(tmp_path / "p.npy", np.ones((3, 3)))
    assert read_positions(tmp_path / "p.npy", 3).shape == (3, 3)
    np.save(tmp_path / "p.npy", np.ones(3))
    message = "p.npy: positions are numbers of shape [unit, dimension], not [3]"
    assert refusal(lambda: read_positions(tmp_path / "p.npy", 3), tmp_path) == message
    np.save(tmp_path / "b.npy", [0.0, np.nan])
    message = "b.npy: row 1 holds nan; the numbers must be finite"
    assert refusal(lambda: read_bias(tmp_path / "b.npy", 2), tmp_path) == message
    message = "b.npy: the bias is an array of 3 numbers, one for each unit; there is float64 [2]"
    assert refusal(lambda: read_bias(tmp_path / "b.npy", 3), tmp_path) == message


def test_grids_run_fastest_in_the_last_dimension() -> None:
    assert grid_positions((2, 3), 0.5, 6).tolist() == [
        [0, 0],
        [0, 0.5],
        [0, 1],
        [0.5, 0],
        [0.5, 0.5],
        [0.5, 1],
    ]


@pytest.mark.parametrize("table", ["cook2019_hermaphrodite", "varshney2011", "white1986_whole"])
def test_the_worm_s_wiring_is_read(repository: Path, table: str) -> None:
    folder = repository / "data" / "celegans"
    rows = [line.split(",") for line in (folder / f"{table}_edges.csv").read_text().split()[1:]]
    names = tuple((folder / f"{table}_nodes.csv").read_text().split()[1:])
    assert read_names(folder / f"{table}_nodes.csv", len(names)) == names
    worm = Population("worm", "unit", len(names), names=names)
    every = read_edges(folder / f"{table}_edges.csv", worm, worm)
    assert len(every) == len(rows)
    chemical = read_edges(folder / f"{table}_edges.csv", worm, worm, where={"type": "chemical"})
    kept = [(pre, post, float(weight)) for pre, post, kind, weight in rows if kind == "chemical"]
    assert [(names[s], names[t], w) for s, t, w in triples(chemical)] == kept
