"""Run files written by hand with every form of recorded data, whose numbers a test knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from circuitlab.graph.build import build
from circuitlab.record.run_file import RunWriter
from circuitlab.spec.circuit import load_circuit
from tests.report.conftest import circuit_of

CIRCUIT = """\
circuit: recurrent
populations:
  pixels: {type: input, size: 16}
  cells: {type: pyramidal, size: 8}
  digits: {type: output, size: 3}
projections:
  pixels_cells: {source: pixels, target: cells}
  cells_cells: {source: cells, target: cells}
  cells_digits: {source: cells, target: digits}
"""
EPOCHS, SAMPLES, UNITS, POINTS = 3, 6, 8, 20
LABELS = np.arange(SAMPLES) % 3


def values(name: str, frame: int) -> np.ndarray:
    """What the file of `write` holds of a probe at a frame, [sample, unit] or [point, sample, unit]."""
    random = np.random.default_rng([sum(map(ord, name)), frame])
    if name.startswith("way"):
        start = random.standard_normal((SAMPLES, UNITS))
        return start * np.exp(-np.arange(POINTS)[:, None, None] / 3.0)
    return random.standard_normal((SAMPLES, UNITS))


def compartments(frame: int) -> dict[str, np.ndarray]:
    """Soma, basal, apical and control, [sample, unit] each: soma = basal + apical, apical = control."""
    basal, apical = values("basal", frame), 0.3 * values("apical", frame) / (1 + frame)
    return {"soma": basal + apical, "basal": basal, "apical": apical, "rate": np.tanh(basal + apical)}


def converged(frame: int) -> np.ndarray:
    """[sample]: sample 4 never settles, sample 1 only at the last frame."""
    return np.array([s != 4 and (s != 1 or frame == EPOCHS) for s in range(SAMPLES)])


def accuracy(seed: int, epoch: int) -> float:
    """Of the test samples."""
    return 0.3 + 0.2 * epoch + 0.01 * seed * epoch


def write(
    path: Path,
    *,
    rule: str = "least_control",
    seed: int = 0,
    more: str = "",
    settling: bool = True,
    per_sample: bool = True,
    edges: bool = True,
) -> Path:
    """A training run of three epochs with compartments, settling trajectories, residuals and weights recorded."""
    circuit = circuit_of(CIRCUIT)
    experiment = (
        f"experiment: digits_test\ncircuit: recurrent.yaml\nlearn: {{rule: {rule}}}\nseed: {seed}\n{more}"
    )
    with RunWriter.create(
        path, circuit=circuit, circuit_yaml=CIRCUIT, experiment_yaml=experiment, attributes={"seed": seed}
    ) as writer:
        names = [*compartments(0), *(["way"] if settling else []), *(converged.__name__,) * per_sample]
        for name in names:
            _start(writer, name)
        for frame in range(EPOCHS + 1):
            for name, found in compartments(frame).items():
                said = {"variable": name, "population": "cells", "phase": "controlled"}
                _frame(writer, name, frame, found, "[frame, sample, unit] activity", **said)
            if settling:
                said = {"variable": "soma", "population": "cells", "phase": "controlled"}
                _frame(
                    writer,
                    "way",
                    frame,
                    values("way", frame),
                    "[frame, point, sample, unit] on the way",
                    **said,
                )
            if per_sample:
                said = {"variable": "converged", "population": "", "phase": "controlled"}
                _frame(writer, "converged", frame, converged(frame), "[frame, sample] settled", **said)
            if edges:
                said = {"variable": "weights", "projection": "cells_digits"}
                _frame(
                    writer, "moving", frame, np.arange(24) * (1.0 + frame), "[frame, edge] weights", **said
                )
            _epoch(writer, seed, frame)
            for name, p in circuit.projections.items():
                _append(
                    writer, f"weights/{name}", p.edges.weight * (1 + 0.1 * frame), f"[snapshot, edge] {name}"
                )
            _append(writer, "weights/step", 10 * frame, "[snapshot] updates")
    return path


def _append(writer: RunWriter, path: str, value: Any, description: str, **said: Any) -> None:
    writer.append(path, value, units="dimensionless", description=description, **said)


def _start(writer: RunWriter, name: str) -> None:
    group = f"activity/{name}"
    writer.attributes(group, every="1 epoch", of="test")
    numbers = {"units": "dimensionless"}
    if name != "converged":
        writer.put(f"{group}/unit_ids", 2 * np.arange(UNITS) % UNITS + np.arange(UNITS) // 4, **numbers,
                   description="[unit] neuron")  # fmt: skip
    writer.put(f"{group}/sample_ids", 10 + np.arange(SAMPLES), **numbers, description="[sample] number")
    writer.put(f"{group}/labels", LABELS, units="class", description="[sample] class")
    if name == "way":
        writer.put(f"{group}/iteration", np.arange(POINTS), **numbers, description="[point] iteration")


def _frame(
    writer: RunWriter, name: str, frame: int, value: np.ndarray, description: str, **said: Any
) -> None:
    _append(writer, f"activity/{name}/data", value, description, **said)
    _append(writer, f"activity/{name}/step", 10 * frame, "[frame] update")


def _epoch(writer: RunWriter, seed: int, frame: int) -> None:
    _append(writer, "training/evaluation", frame, "[evaluation] epochs finished")
    found = {"test_accuracy": accuracy(seed, frame), "test_loss": 1 / (1 + frame + 0.1 * seed)}
    for name, value in {**found, "control_cost": 0.1 / (1 + frame)}.items():
        _append(writer, f"training/{name}", value, f"[evaluation] {name}", index="training/evaluation")
    if frame:
        _append(writer, "training/epoch", frame, "[epoch] number")
        for name, value in {"unconverged": 0.1 / frame, "iterations": 5.0 + frame, "residual": 1e-6}.items():
            _append(writer, f"training/{name}", value, f"[epoch] {name}", index="training/epoch")


def of_topology(file: Path, path: Path) -> Path:
    """A run of a shipped circuit, a fiftieth of a large one, with made-up activity of two populations."""
    spec = load_circuit(file)
    if sum(p.size for p in spec.populations.values()) > 5000:
        spec = load_circuit(file, scale=0.02)
    circuit = build(spec)
    text = file.read_text(encoding="utf-8")
    random = np.random.default_rng(0)
    with RunWriter.create(
        path, circuit=circuit, circuit_yaml=text, experiment_yaml=f"experiment: {file.stem}\n"
    ) as writer:
        for population in list(circuit.units)[:2]:
            size = circuit.populations[population].size
            for variable in ("soma", "basal", "control", "rate"):
                group = f"activity/{population}_{variable}"
                writer.attributes(group, every="1 epoch", of="test")
                writer.put(f"{group}/labels", LABELS, units="class", description="[sample] class")
                said = {"variable": variable, "population": population, "phase": "controlled"}
                for frame in range(2):
                    data = random.standard_normal((SAMPLES, size))
                    _frame(
                        writer,
                        f"{population}_{variable}",
                        frame,
                        data,
                        "[frame, sample, unit] activity",
                        **said,
                    )
            said = {"variable": "soma", "population": population, "phase": "controlled"}
            way = random.standard_normal((POINTS, SAMPLES, size))
            writer.put(
                f"activity/{population}_way/iteration",
                np.arange(POINTS),
                units="none",
                description="[point] n",
            )
            _frame(writer, f"{population}_way", 0, way, "[frame, point, sample, unit] on the way", **said)
        for frame in range(2):
            _epoch(writer, 0, frame)
            for name, p in circuit.projections.items():
                shared = p.edges.parameters
                weights = p.edges.weight if shared is None else shared
                _append(writer, f"weights/{name}", weights * (1.0 - 0.1 * frame), f"[snapshot, edge] {name}")
            _append(writer, "weights/step", 10 * frame, "[snapshot] updates")
    return path
