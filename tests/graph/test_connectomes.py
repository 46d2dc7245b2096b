"""Circuits from connectomes have the neurons and the synapses of the published tables, counted here by other means."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import h5py
import numpy as np

from circuitlab.cli.main import main
from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit
from circuitlab.spec.circuit import load_circuit

ROOT = Path(__file__).parents[2]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pairs(circuit: Circuit, kind: str) -> Counter:
    """(sender, receiver) names of every edge between neurons with names, over all projections of a kind."""
    found: Counter = Counter()
    for projection in circuit.projections.values():
        source, target = circuit.populations[projection.source], circuit.populations[projection.target]
        if projection.kind == kind and source.names and target.names:
            edges = projection.edges
            found.update(
                (source.names[i], target.names[j]) for i, j in zip(edges.source, edges.target, strict=True)
            )
    return found


def test_the_worm_has_every_synapse_and_junction_of_the_table() -> None:
    circuit = build(load_circuit(ROOT / "topologies" / "celegans.yaml"))
    table = rows(ROOT / "data" / "celegans" / "varshney2011_edges.csv")
    chemical = Counter((row["pre"], row["post"]) for row in table if row["type"] == "chemical")
    electrical = [(row["pre"], row["post"]) for row in table if row["type"] == "electrical"]
    assert (chemical.total(), len(electrical)) == (2309, 1031)
    assert pairs(circuit, "chemical") == chemical
    # the table has each junction in both directions, but for three of a neuron with itself; the circuit once
    both = {frozenset(pair) for pair in electrical}
    assert all((post, pre) in set(electrical) for pre, post in electrical)
    found = pairs(circuit, "electrical")
    assert found.total() == len(both) == (len(electrical) - 3) // 2 + 3
    assert {frozenset(pair) for pair in found} == both
    counts = {(r["type"], r["pre"], r["post"]): float(r["weight"]) for r in table}
    for projection in circuit.projections.values():
        source, target = circuit.populations[projection.source], circuit.populations[projection.target]
        for i, j, weight in zip(
            projection.edges.source, projection.edges.target, projection.edges.weight, strict=True
        ):
            if source.names and target.names:
                count = counts[projection.kind, source.names[i], target.names[j]]
                np.testing.assert_allclose(weight, 0.01 * count, rtol=1e-12)


def test_the_worm_keeps_its_names_up_to_the_run_file(tmp_path: Path) -> None:
    nodes = {row["name"] for row in rows(ROOT / "data" / "celegans" / "varshney2011_nodes.csv")}
    np.save(tmp_path / "x.npy", np.zeros((1, 83)))
    out = tmp_path / "eq.h5"
    args = ["--input", str(tmp_path / "x.npy"), "-o", str(out)]
    assert main(["equilibrium", str(ROOT / "topologies" / "celegans.yaml"), *args]) == 0
    with h5py.File(out) as file:
        found = {
            name: [text.decode() if isinstance(text, bytes) else text for text in group["0/name"][:]]
            for name, group in file["nodes"].items()
            if "name" in group["0"]
        }
    assert set(found) == {"sensory", "interneuron", "motor", "muscle"}
    assert Counter(name for names in found.values() for name in names) == Counter(nodes)
    for name, names in found.items():
        assert names == [row["name"] for row in rows(ROOT / "topologies" / "celegans" / f"{name}.csv")]


def test_the_worms_classes_hold_well_known_neurons() -> None:
    """White et al. 1986: touch receptors and amphids sense, command neurons are between, cord motor neurons move."""
    classes = {
        name: {row["name"] for row in rows(ROOT / "topologies" / "celegans" / f"{name}.csv")}
        for name in ("sensory", "interneuron", "motor", "muscle")
    }
    assert {"ALML", "AVM", "PLMR", "ASHL", "AWCR", "IL1DL", "PHAL"} <= classes["sensory"]
    assert {"AVAL", "AVBR", "AVDL", "AVEL", "PVCL", "AIYL", "RIML"} <= classes["interneuron"]
    assert {"DA1", "VA2", "DB3", "VB4", "DD5", "VD6", "AS7", "RMDL", "HSNL"} <= classes["motor"]
    assert classes["muscle"] == {"BWM"}
    assert sum(map(len, classes.values())) == len(set().union(*classes.values())) == 281


def test_the_mushroom_body_has_every_synapse_of_the_matrix() -> None:
    circuit = build(load_circuit(ROOT / "topologies" / "mushroom_body.yaml"))
    folder = ROOT / "data" / "drosophila_larva"
    counts = np.array(
        [line.split() for line in (folder / "mushroom_body_left_adjacency.csv").read_text().splitlines()],
        float,
    )
    labels = np.array((folder / "mushroom_body_left_cell_labels.csv").read_text().split())
    letters = {"pn": "P", "kc": "K", "mbin": "I", "mbon": "O"}
    total = 0
    for projection in circuit.projections.values():
        if projection.target == "odour":
            continue
        before, after = (labels == letters[name] for name in (projection.source, projection.target))
        part = counts[np.ix_(before, after)]
        edges = projection.edges
        rebuilt = np.zeros_like(part)
        rebuilt[edges.source, edges.target] = edges.weight
        scale = edges.weight.sum() / part.sum()
        np.testing.assert_allclose(rebuilt, scale * part, rtol=1e-9)
        total += len(edges)
    assert total == np.count_nonzero(counts) == 7425


def test_the_tables_come_from_the_script(tmp_path: Path) -> None:
    """Byte for byte; of the tasks, number for number."""
    script = str(ROOT / "benchmarks" / "anatomy_data.py")
    subprocess.run([sys.executable, script, "--out", str(tmp_path)], check=True)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(made) == 18
    for path in made:
        if path.suffix == ".csv":
            assert (tmp_path / path).read_bytes() == (ROOT / path).read_bytes(), path
            continue
        with np.load(tmp_path / path) as new, np.load(ROOT / path) as old:
            assert set(new.files) == set(old.files)
            for name in new.files:
                np.testing.assert_array_equal(new[name], old[name])


def test_the_worms_task_follows_its_recipe() -> None:
    """Each behaviour has one motor pattern; forward excites B and silences A motor neurons, backward the reverse."""
    motor = [row["name"] for row in rows(ROOT / "topologies" / "celegans" / "motor.csv")]
    sensory = [row["name"] for row in rows(ROOT / "topologies" / "celegans" / "sensory.csv")]
    with np.load(ROOT / "experiments" / "data" / "celegans_touch.npz") as task:
        stimulus, wanted, behaviour = task["stimulus"], task["motor"], task["behaviour"]
    patterns = [np.unique(wanted[behaviour == b], axis=0) for b in range(4)]
    assert [len(pattern) for pattern in patterns] == [1, 1, 1, 1]
    letters = np.array([name[:2] for name in motor])
    expected = 0.3 * (np.isin(letters, ["DB", "VB"]) * 1.0 - np.isin(letters, ["DA", "VA"]))
    np.testing.assert_array_equal(patterns[0][0], expected.astype(np.float16))
    np.testing.assert_array_equal(patterns[1][0], -patterns[0][0])
    # posterior touch receptors are more active before forward movement, anterior ones before backward movement
    mean = {b: stimulus[behaviour == b].astype(float).mean(0) for b in (0, 1)}
    for cell, more in (("PLML", 0), ("ALML", 1), ("ASHL", 1), ("AWCL", 0)):
        column = sensory.index(cell)
        assert mean[more][column] > mean[1 - more][column] + 0.05
