"""Runs with everything that a page of runs can show, written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from circuitlab.graph.build import build
from circuitlab.record.run_file import RunWriter
from circuitlab.spec.circuit import load_circuit

CIRCUIT = """\
circuit: eyes
description: A few cells that look at sixteen pixels
populations:
  pixels: {type: input, size: 16}
  cells: {type: pyramidal, size: 12}
  digits: {type: output, size: 3}
projections:
  pixels_cells: {source: pixels, target: cells}
  cells_cells: {source: cells, target: cells, connect: {rule: fixed_indegree, indegree: 5, allow_multapses: false}}
  cells_digits: {source: cells, target: digits}
"""
HOSTILE = "</script><img src=x onerror=alert(1)>\"'`&amp;"
"""What a user may call a neuron, and what must never be read as markup."""
FRAMES, SAMPLES, CELLS, POINTS = 4, 9, 12, 6
VARIABLES = ("soma", "basal", "apical", "control", "rate")


def write_run(
    path: Path,
    *,
    seed: int = 0,
    rule: str = "least_control",
    probes: bool = True,
    hostile: bool = False,
    **status: Any,
) -> Path:
    """A training run: metrics, weights, and probes of every form."""
    random = np.random.default_rng(seed)
    circuit = build(load_circuit("circuit.yaml", text=CIRCUIT), seed=seed)
    names = (*(f"N{at}" for at in range(CELLS - 1)), HOSTILE if hostile else "AVAL")
    cells = replace(circuit.populations["cells"], names=names)
    circuit = replace(circuit, populations=circuit.populations | {"cells": cells})
    description = HOSTILE if hostile else "Cells learn what they see"
    experiment = (
        f"experiment: eyes_learn\ndescription: {description!r}\ncircuit: eyes.yaml\ndata: {{name: digits}}\n"
        "control: {pathway: dynamic_inversion, feedback: tied, controller: {type: leaky_integral, alpha: 1.0}}\n"
        f"learn: {{rule: {rule}, epochs: 3}}\nseed: {seed}\n"
    ).replace("\\'", "''")
    texts = {"circuit_yaml": CIRCUIT, "experiment_yaml": experiment}
    root = {"command": "circuitlab run eyes.yaml", "seed": seed}
    with RunWriter.create(path, circuit=circuit, attributes=root, **texts) as writer:
        for epoch in range(FRAMES):
            _metrics(writer, epoch, random)
            if probes:
                _frame(writer, epoch, random)
            writer.append(
                "weights/step", 10 * epoch, units="updates", description="[snapshot] updates before it"
            )
            for name, projection in circuit.projections.items():
                values = (
                    projection.edges.weight + 0.1 * epoch * random.standard_normal(len(projection.edges))
                ).astype("f4")
                writer.append(
                    f"weights/{name}", values, units="dimensionless", description="[snapshot, edge] weights"
                )
            bias = 0.1 * epoch * np.arange(CELLS, dtype="f4")
            writer.append(
                "weights/cells_bias", bias, units="dimensionless", description="[snapshot, unit] bias"
            )
        if probes:
            _beside(writer, len(circuit.projections["cells_cells"].edges))
        if status:
            writer.finish(**status)
    return path


def _metrics(writer: RunWriter, epoch: int, random: np.random.Generator) -> None:
    between = {
        "test_accuracy": 0.3 + 0.2 * epoch,
        "train_accuracy": 0.3 + 0.21 * epoch,
        "test_loss": 2 / (1 + epoch),
    }
    between |= {"train_loss": 1.9 / (1 + epoch), "control_cost": 0.4 * 10.0**-epoch, "evaluation": epoch}
    for name, value in between.items():
        index = {} if name == "evaluation" else {"index": "training/evaluation"}
        value = value + (
            0.01 * random.standard_normal() if isinstance(value, float) and name != "control_cost" else 0
        )
        writer.append(f"training/{name}", value, units="share", description=f"[evaluation] {name}", **index)
    for name, value in {"epoch": epoch + 1, "unconverged": 0.02 * epoch, "iterations": 9.0 - epoch}.items():
        index = {} if name == "epoch" else {"index": "training/epoch"}
        writer.append(f"training/{name}", value, units="iterations", description=f"[epoch] {name}", **index)


def _frame(writer: RunWriter, epoch: int, random: np.random.Generator) -> None:
    def put(name: str, data: np.ndarray, axes: str, **said: str) -> None:
        group = f"activity/{name}"
        writer.append(
            f"{group}/data", data, units="dimensionless", description=f"[frame, {axes}] {name}", **said
        )
        writer.append(f"{group}/step", 10 * epoch, units="updates", description="[frame] update")

    cells = {"population": "cells", "phase": "controlled"}
    for variable in VARIABLES:
        values = random.standard_normal((SAMPLES, CELLS)).astype("f4")
        put(f"cells_{variable}", values, "sample, unit", variable=variable, **cells)
    for variable in ("soma", "control"):
        values = random.standard_normal((POINTS, SAMPLES, CELLS)).astype("f4")
        put(f"settling_{variable}", values, "point, sample, unit", variable=variable, **cells)
    put(
        "synapses",
        random.standard_normal(6).astype("f4"),
        "edge",
        variable="weights",
        projection="cells_cells",
    )
    put("biases", random.standard_normal(CELLS).astype("f4"), "unit", variable="bias", population="cells")
    feedback = random.standard_normal((CELLS, 3)).astype("f4")
    put("feedback", feedback, "unit, output unit", variable="feedback_weights", population="cells")
    settled = np.arange(SAMPLES) % 4 != epoch % 4
    put(
        "residual",
        np.where(settled, 1e-7, 1e-2).astype("f4"),
        "sample",
        variable="residual",
        phase="controlled",
    )
    put("converged", settled, "sample", variable="converged", phase="controlled")


def _beside(writer: RunWriter, edges: int) -> None:
    about = {"units": "dimensionless", "description": "[unit] index"}
    names = [f"cells_{variable}" for variable in VARIABLES] + ["settling_soma", "settling_control"]
    for name in [*names, "residual", "converged"]:
        samples = 100 + np.arange(SAMPLES)
        writer.put(
            f"activity/{name}/sample_ids", samples, units="dimensionless", description="[sample] number"
        )
        writer.attributes(f"activity/{name}", every="1 epoch", of="test")
    for name in names:
        writer.put(f"activity/{name}/unit_ids", np.arange(CELLS), **about)
        writer.put(
            f"activity/{name}/labels", np.arange(SAMPLES) % 3, units="class", description="[sample] class"
        )
    for name in ("settling_soma", "settling_control"):
        writer.put(f"activity/{name}/time", 2.5 * np.arange(POINTS), units="ms", description="[point] time")
    chosen = np.arange(0, edges, edges // 6)[:6]
    writer.put(
        "activity/synapses/edge_ids", chosen, units="dimensionless", description="[edge] row in /edges"
    )
