"""A small circuit, and run files of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit
from circuitlab.record.run_file import RunWriter
from circuitlab.spec.circuit import load_circuit

YAML = """circuit: small
populations:
  eye: {type: input, size: 4}
  cells:
    type: pyramidal
    size: 3
    tau: 20 ms
    sign: excitatory
    names: [left, middle, right]
    positions: [[0, 1], [2, 3], [4, 5]]
    bias: {init: normal}
  answer: {type: output, size: 2}
projections:
  eye_cells: {source: eye, target: cells}
  cells_cells: {source: cells, target: cells, site: apical, connect: {rule: fixed_indegree, indegree: 2}}
  cells_answer: {source: cells, target: answer, plastic: false}
"""


@pytest.fixture(scope="session")
def circuit() -> Circuit:
    return build(load_circuit("small.yaml", text=YAML), seed=1)


@pytest.fixture
def create(circuit: Circuit) -> Callable[..., RunWriter]:
    """Starts a run file of the small circuit."""

    def start(path: Path, **options: Any) -> RunWriter:
        attributes = {"seed": 1, "command": "circuitlab run small", "device": "cpu"}
        return RunWriter.create(
            path,
            circuit=circuit,
            circuit_yaml=YAML,
            experiment_yaml="seed: 1\n",
            attributes=attributes,
            **options,
        )

    return start


@pytest.fixture
def finished(create: Callable[..., RunWriter], tmp_path: Path) -> Path:
    """A complete run file with two metrics and a checkpoint."""
    path = tmp_path / "finished.h5"
    with create(path) as writer:
        for step in range(5):
            writer.append("training/step", step, units="updates", description="[step] number of the update")
            writer.append(
                "training/loss",
                1 / (step + 1),
                units="nats",
                description="[step] loss",
                index="training/step",
            )
        writer.checkpoint({"step": 5})
    return path
