"""`scale`: sizes, numbers of synapses and densities; where it may be given; what cannot be scaled."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from circuitlab.cli.main import main
from circuitlab.errors import SpecError
from circuitlab.graph.build import build
from circuitlab.record.reader import open_run
from circuitlab.spec.circuit import load_circuit
from circuitlab.spec.experiment import load_experiment

CIRCUIT = """\
circuit: scaled
populations:
  x: {type: input, size: 64}
  a: {type: pyramidal, size: 1000}
  b: {type: interneuron, size: 210}
  c: {type: unit, size: 3}
  y: {type: output, size: 10}
projections:
  x_a: {source: x, target: a, connect: {rule: fixed_indegree, indegree: 32}}
  a_a: {source: a, target: a, connect: {rule: fixed_indegree, indegree: 100}, weights: {init: normal, std: 0.5}}
  a_b: {source: a, target: b, connect: {rule: fixed_outdegree, outdegree: 20}}
  b_a: {source: b, target: a, connect: {rule: fixed_total_number, N: 42000}}
  b_b: {source: b, target: b, connect: {rule: pairwise_bernoulli, p: 0.25}}
  c_b: {source: c, target: b}
  a_y: {source: a, target: y}
"""
EXPERIMENT = """\
experiment: small
circuit: CHOICE
data: digits
learn: {epochs: 1}
"""


def scaled(scale: float, text: str = CIRCUIT):
    return load_circuit("c.yaml", text=text, scale=scale)


@pytest.mark.parametrize("scale", [0.1, 0.5, 2.0])
def test_sizes_and_densities(scale: float) -> None:
    """Sizes are the nearest whole numbers, at least 1; the mean number of synapses per pair stays."""
    before, after = build(load_circuit("c.yaml", text=CIRCUIT)), build(scaled(scale))
    sizes = {name: p.size for name, p in after.populations.items()}
    nearest = {"a": round(1000 * scale), "b": round(210 * scale), "c": {0.1: 1, 0.5: 2, 2.0: 6}[scale]}
    assert sizes == {"x": 64, **nearest, "y": 10}

    def per_pair(circuit, name: str) -> float:
        p = circuit.projections[name]
        pairs = circuit.populations[p.source].size * circuit.populations[p.target].size
        return p.edges.multiplicity.sum() / pairs

    for name in ("x_a", "a_a", "a_b", "b_a"):
        assert per_pair(after, name) == pytest.approx(per_pair(before, name), rel=0.03), name
    assert per_pair(after, "b_b") == pytest.approx(0.25, abs=5 * (0.25 * 0.75) ** 0.5 / (210 * scale))
    assert np.all(np.bincount(after.projections["x_a"].edges.target) > 0)
    # given deviations stay; those that follow from the fan-in grow as it falls
    assert after.projections["a_a"].edges.weight.std() == pytest.approx(
        0.5 * np.sqrt(after.projections["a_a"].edges.multiplicity.mean()), rel=0.1
    )


def test_one_is_the_file_itself() -> None:
    assert build(scaled(1.0)).equals(build(load_circuit("c.yaml", text=CIRCUIT)))


def test_the_resolved_file_is_the_scaled_circuit() -> None:
    spec = scaled(0.3)
    stream = io.StringIO()
    YAML().dump(spec.resolved(), stream)
    written = stream.getvalue()
    assert "\nscale:" not in written
    again = load_circuit("again.yaml", text=written)
    assert build(again).equals(build(spec))


def test_the_key_of_the_file_and_what_replaces_it(tmp_path: Path) -> None:
    text = CIRCUIT.replace("populations:", "scale: 0.5\npopulations:", 1)
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    assert load_circuit(tmp_path / "c.yaml").populations["a"].size == 500
    assert load_circuit(tmp_path / "c.yaml", scale=0.1).populations["a"].size == 100

    def size(choice: str, *overrides: str) -> int:
        (tmp_path / "e.yaml").write_text(EXPERIMENT.replace("CHOICE", choice), encoding="utf-8")
        spec = load_experiment(tmp_path / "e.yaml", overrides)
        resolved = spec.resolved()["circuit"]
        given = {"file": "c.yaml", "scale": spec.circuit_file.scale}
        assert resolved == ("c.yaml" if given["scale"] is None else given)
        return spec.circuit.populations["a"].size

    assert size("c.yaml") == 500
    assert size("{file: c.yaml}") == 500
    assert size("{file: c.yaml, scale: 0.2}") == 200
    assert size("c.yaml", "circuit.scale=0.3") == 300
    assert size("{file: c.yaml, scale: 0.2}", "circuit.scale=0.4") == 400


def test_shared_parts_of_a_file_are_scaled_once() -> None:
    text = CIRCUIT.replace("a: {type: pyramidal, size: 1000}", "a: &a {type: pyramidal, size: 1000}").replace(
        "c: {type: unit, size: 3}", "c: *a"
    )
    spec = scaled(0.1, text)
    assert (spec.populations["a"].size, spec.populations["c"].size) == (100, 100)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(CIRCUIT, encoding="utf-8")
    assert main(["show", str(path), "--scale", "0.1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["neurons"] == 64 + 100 + 21 + 1 + 10
    (tmp_path / "e.yaml").write_text(EXPERIMENT.replace("CHOICE", "c.yaml"), encoding="utf-8")
    assert main(["validate", str(path), str(tmp_path / "e.yaml"), "--scale", "0.1"]) == 0
    capsys.readouterr()
    np.save(tmp_path / "x.npy", np.ones((2, 64)))
    out = tmp_path / "eq.h5"
    done = main(
        ["equilibrium", str(path), "--input", str(tmp_path / "x.npy"), "-o", str(out), "--scale", "0.1"]
    )
    assert done == 0
    with open_run(out) as run:
        again = load_circuit("c.yaml", text=run.circuit_yaml)
        assert len(run.read("nodes/a/0/bias")) == 100
    assert again.populations["a"].size == 100
    capsys.readouterr()
    assert main(["show", str(path), "--scale", "0"]) == 1
    assert capsys.readouterr().err.splitlines() == ["--scale: 0.0 is out of range; it must be greater than 0"]


def test_what_cannot_be_scaled_is_refused_in_one_go(tmp_path: Path) -> None:
    for name in ("names.csv", "edges.csv", "w.csv", "b.csv", "p.csv", "t.csv"):
        (tmp_path / name).write_text("name\n", encoding="utf-8")
    text = """\
circuit: single
scale: 0.5
populations:
  x: {type: input, shape: [1, 8, 8], names: names.csv}
  a: {type: unit, shape: [2, 4, 4]}
  b: {type: unit, size: 4, names: [p, q, r, s], positions: {random: {extent: [1]}}}
  c: {type: unit, size: 4, positions: {grid: [4]}, bias: {file: b.csv}}
  d: {type: unit, size: 2000000000, attributes: t.csv}
  y: {type: output, size: 2}
projections:
  x_y: {source: x, target: y, connect: {rule: explicit, file: edges.csv}}
  x_a: {source: x, target: a, connect: {rule: explicit, file: edges.csv}}
  b_y: {source: b, target: y, weights: {file: w.csv}}
"""
    path = tmp_path / "single.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as refusal:
        load_circuit(path)
    found = str(refusal.value).splitlines()
    single = "single neurons, and the circuit's scale is not 1; leave out one of them"
    lines = text.splitlines()

    def at(line: int, key: str) -> str:
        return f"{line}:{lines[line - 1].index(key + ': ') + len(key) + 3}"

    file = "the file is of the single neurons of"
    rest = "and the circuit's scale is not 1; leave out one of them"
    assert [line.removeprefix(f"{path}:") for line in found] == [
        f"{at(5, 'shape')}: populations.a.shape: 'shape' is of the {single}",
        f"{at(6, 'names')}: populations.b.names: 'names' is of 4 {single}",
        f"{at(7, 'positions')}: populations.c.positions: 'positions' is of 4 {single}; "
        "allowed: positions: {random: ..}",
        f"{at(7, 'bias')}: populations.c.bias: 'bias' is of 4 {single}",
        f"{at(8, 'attributes')}: populations.d.attributes: 'attributes' is of 2,000,000,000 {single}",
        f"{at(12, 'connect')}: projections.x_a.connect: {file} 'a', {rest}",
        f"{at(13, 'weights')}: projections.b_y.weights: {file} 'b', {rest}",
    ]
    with pytest.raises(
        SpecError, match=r"--scale: populations\.a: 1,000 neurons become 3,000,000,000; at most"
    ):
        scaled(3e6)


@pytest.mark.parametrize("value", ["0", "-1", "yes", "[1]", ".inf"])
def test_a_scale_is_a_number_above_zero(value: str) -> None:
    with pytest.raises(SpecError, match=r"c\.yaml:2:8: scale: "):
        load_circuit("c.yaml", text=CIRCUIT.replace("populations:", f"scale: {value}\npopulations:", 1))
