"""Layers and origins: where neurons are put, what is refused, and that the layer reaches every file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import stats

from circuitlab.cli.main import main
from circuitlab.errors import CircuitError, SpecError
from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit
from circuitlab.spec.circuit import load_circuit

LAYERED = """
circuit: layered
layers:
  upper: {from: -100, to: -400}
  lower: {from: 400, to: 650, axis: x}
populations:
  x: {type: input, size: 4, layer: upper}
  a: {type: unit, size: 500, layer: upper, positions: {random: {extent: [50, 20]}, origin: [1000, -10]}}
  b: {type: unit, size: 400, layer: lower, positions: {random: {extent: [30]}}}
  c: {type: unit, size: 6, layer: lower, positions: {grid: [3, 2], spacing: 50, origin: [420, 7]}}
  d: {type: unit, size: 3, positions: {values: [[1], [2], [4]], origin: [0.5]}}
  y: {type: output, size: 2}
projections:
  x_a: {source: x, target: a}
  a_y: {source: a, target: y}
"""


def layered(text: str = LAYERED) -> Circuit:
    return build(load_circuit("c.yaml", text=text))


def uniform(values: np.ndarray, low: float, high: float) -> None:
    assert ((values >= low) & (values <= high)).all()
    assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-3


def test_random_positions_fill_their_layer() -> None:
    circuit = layered()
    a, b = (circuit.populations[name].positions for name in "ab")
    assert a is not None
    assert b is not None
    assert a.shape == (500, 3)
    for column, bounds in zip(a.T, [(1000, 1050), (-10, 10), (-400, -100)], strict=True):
        uniform(column, *bounds)
    for column, bounds in zip(b.T, [(400, 650), (0, 30)], strict=True):
        uniform(column, *bounds)
    assert abs(np.corrcoef(a.T)[np.triu_indices(3, 1)]).max() < 4 / np.sqrt(500)


def test_a_scaled_circuit_keeps_its_layers_and_the_density_of_near_synapses() -> None:
    near = "connect: {rule: distance_dependent, length: 100, indegree: 40}"
    text = LAYERED.replace("  a_y:", f"  a_a: {{source: a, target: a, {near}}}\n  a_y:")
    text = (
        text.replace("positions: {grid: [3, 2], spacing: 50", "positions: {random: {extent: [5, 5]}")
        .replace("origin: [420, 7]", "origin: [1, 7]")
        .replace("positions: {values: [[1], [2], [4]], origin: [0.5]}", "positions: {random: {extent: [4]}}")
    )
    circuit = layered(text.replace("layers:", "scale: 0.5\nlayers:"))
    a = circuit.populations["a"]
    assert a.positions is not None
    assert a.positions.shape == (250, 3)
    uniform(a.positions[:, 2], -400, -100)
    assert (np.bincount(circuit.projections["a_a"].edges.target) == 20).all()


def test_the_layer_moves_depth_and_nothing_else() -> None:
    plain = layered(LAYERED.replace("layer: upper, positions", "positions")).populations["a"].positions
    placed = layered().populations["a"].positions
    assert plain is not None
    assert placed is not None
    assert np.array_equal(placed[:, :2], plain)


def test_origins_are_added() -> None:
    c, d = (layered().populations[name].positions for name in "cd")
    assert c is not None
    assert d is not None
    assert c.tolist() == [[420 + 50 * i, 7 + 50 * j] for i in range(3) for j in range(2)]
    assert d.tolist() == [[1.5], [2.5], [4.5]]


def test_the_layer_is_kept(tmp_path: Path) -> None:
    circuit = layered()
    layers = {"x": "upper", "a": "upper", "b": "lower", "c": "lower", "d": None, "y": None}
    assert {name: p.layer for name, p in circuit.populations.items()} == layers
    assert Circuit.from_networkx(circuit.to_networkx()).equals(circuit)
    resolved = load_circuit("c.yaml", text=LAYERED).resolved()
    assert resolved["layers"] == {
        "upper": {"from": -100.0, "to": -400.0},
        "lower": {"from": 400.0, "to": 650.0, "axis": "x"},
    }
    (tmp_path / "c.yaml").write_text(LAYERED)
    np.save(tmp_path / "x.npy", np.zeros((1, 4)))
    out = tmp_path / "eq.h5"
    assert (
        main(["equilibrium", str(tmp_path / "c.yaml"), "--input", str(tmp_path / "x.npy"), "-o", str(out)])
        == 0
    )
    with h5py.File(out) as file:
        assert file["nodes/a"].attrs["layer"] == "upper"
        assert "layer" not in file["nodes/d"].attrs
        text = file["spec/circuit"][()].decode()
    assert layered(text).equals(circuit)


MISTAKES = {
    "layer: lower, positions: {grid: [3, 2]": (
        "layer: lowr, positions: {grid: [3, 2]",
        "c.yaml:10:35: populations.c.layer: no layer 'lowr'; there are upper, lower. Did you mean 'lower'?",
    ),
    "to: -400": (
        "to: -100",
        "c.yaml:4:27: layers.upper.to: the layer has no depth: it begins and ends at -100",
    ),
    "{from: -100, to: -400}": (
        "{from: -100, depth: 4}",
        "c.yaml:4:3: layers.upper: the key 'to' is missing\n"
        "c.yaml:4:23: layers.upper.depth: unknown key; allowed: from, to, axis",
    ),
    "axis: x": ("axis: w", "c.yaml:5:37: layers.lower.axis: 'w' is not allowed; allowed: x, y, z"),
    "extent: [50, 20]": (
        "extent: [50, 20, 9]",
        "c.yaml:8:64: populations.a.positions.random: the layer gives the depth, and the extent the other axes; "
        "one or two numbers are wanted\n"
        "c.yaml:8:95: populations.a.positions.origin: 2 numbers for positions in 3 dimensions; one per dimension is "
        "wanted",
    ),
    "axis: x}": (
        "axis: z}",
        "c.yaml:9:37: populations.b.layer: the depth of the layer is along z, but positions have 2 dimensions",
    ),
}


@pytest.mark.parametrize("old", MISTAKES)
def test_mistakes_of_layers(old: str) -> None:
    new, expected = MISTAKES[old]
    assert LAYERED.count(old) == 1
    with pytest.raises(SpecError) as refusal:
        load_circuit("c.yaml", text=LAYERED.replace(old, new))
    assert str(refusal.value).splitlines()[: expected.count("\n") + 1] == expected.splitlines()


def test_positions_outside_of_their_layer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CircuitError) as refusal:
        layered(LAYERED.replace("origin: [420, 7]", "origin: [351, 7]"))
    assert str(refusal.value) == (
        "c.yaml:10:6: populations.c: positions: neuron 0 lies at the depth 351, outside of layer 'lower', 400 to 650"
    )
    listed = "positions: {values: [[1], [2], [4]], origin: [0.5]}}"
    with pytest.raises(
        SpecError, match=r"the depth 4\.5 lies outside of layer 'thin', 1 to 4$"
    ) as listed_refusal:
        text = LAYERED.replace(listed, "layer: thin, " + listed).replace(
            "layers:", "layers:\n  thin: {from: 1, to: 4}"
        )
        load_circuit("c.yaml", text=text)
    assert "populations.d.positions" in str(listed_refusal.value)
    (tmp_path / "p.csv").write_text("name,x\np,401\nq,500\nr,700\n")
    text = LAYERED.replace(listed, "layer: lower, names: [r, q, p], positions: p.csv}")
    with pytest.raises(
        CircuitError, match="positions: neuron 'r' lies at the depth 700, outside of layer 'lower'"
    ):
        build(load_circuit("c.yaml", text=text, folder=tmp_path))
