"""Run files that hold every form of recording, with values that tell where they belong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuitlab.record.run_file import RunWriter

FRAMES, POINTS = 3, 4
SAMPLES = [4, 7]
STEPS = [1, 6, 11]
CONTROLLED: dict[str, Any] = {"population": "cells", "phase": "controlled"}


def _units(writer: RunWriter, name: str, ids: list[int], names: bool = True) -> None:
    about = {"units": "dimensionless", "description": "[unit] index of the recorded neuron"}
    writer.put(f"activity/{name}/unit_ids", np.array(ids), **about)
    if names:
        named = np.array(["left", "middle", "right"], dtype=object)[ids]
        writer.put(f"activity/{name}/unit_names", named, units="none", description="[unit] name")


def _samples(writer: RunWriter, name: str) -> None:
    writer.put(f"activity/{name}/sample_ids", np.array(SAMPLES), units="none", description="[sample] number")
    writer.put(f"activity/{name}/labels", np.array([0, 1]), units="class", description="[sample] class")


def _frames(writer: RunWriter, name: str, axes: str, values: np.ndarray, **about: Any) -> None:
    for step, frame in zip(STEPS, values, strict=False):
        description = f"[{axes}] {about.get('variable')}"
        writer.append(f"activity/{name}/data", frame, units="dimensionless", description=description, **about)
        writer.append(f"activity/{name}/step", step, units="updates", description="[frame] update")


def record_everything(writer: RunWriter) -> None:
    """Every form of recording of the small circuit of tests/record/conftest.py."""
    rng = np.random.default_rng(0)

    def random(*shape: int, dtype: Any = np.float32) -> np.ndarray:
        return rng.normal(size=shape).astype(dtype)

    for variable in ("soma", "basal", "apical"):
        name = f"cells_{variable}"
        writer.attributes(f"activity/{name}", every="5 steps", of="test")
        _units(writer, name, [0, 1, 2])
        _samples(writer, name)
        _frames(writer, name, "frame, sample, unit", random(FRAMES, 2, 3), variable=variable, **CONTROLLED)
    # A minibatch: other samples in every frame, the last one smaller; neurons in the user's order.
    values, ids = random(FRAMES, 3, 2), np.array([[5, 3, 9], [0, 1, 2], [8, 6, -1]])
    values[2, 2] = np.nan
    _units(writer, "batch", [2, 0])
    _frames(
        writer, "batch", "frame, sample, unit", values, variable="rate", symbol="sigma(phi)", **CONTROLLED
    )
    for row in ids:
        writer.append("activity/batch/sample_ids", row, units="none", description="[frame, sample] number")
    # Exact digits of numbers in double precision.
    _units(writer, "double", [1])
    _samples(writer, "double")
    double = random(FRAMES, 2, 1, dtype=np.float64)
    _frames(writer, "double", "frame, sample, unit", double, variable="control", **CONTROLLED)
    for name, beside, at in (
        ("settling", "time", np.array([0.0, 0.5, 1.0, 1.5])),
        ("iterations", "iteration", np.array([0, 5, 10, 12])),
    ):
        _units(writer, name, [0, 2])
        _samples(writer, name)
        axes = "frame, point, sample, unit"
        _frames(writer, name, axes, random(FRAMES, POINTS, 2, 2), variable="soma", **CONTROLLED)
        units = "ms" if beside == "time" else "iterations"
        writer.put(f"activity/{name}/{beside}", at, units=units, description="[point] along the settling")
    edges = np.array([7, 1, 5])
    writer.put("activity/synapses/edge_ids", edges, units="none", description="[edge] row in /edges")
    _frames(writer, "synapses", "frame, edge", random(FRAMES, 3), variable="weights", projection="eye_cells")
    _units(writer, "bias", [0, 1, 2])
    _frames(writer, "bias", "frame, unit", random(FRAMES, 3), variable="bias", population="cells")
    _units(writer, "Q", [0, 1, 2])
    about = {"variable": "feedback_weights", "population": "cells"}
    _frames(writer, "Q", "frame, unit, output unit", random(FRAMES, 3, 2), **about)
    _samples(writer, "residual")
    _frames(writer, "residual", "frame, sample", random(FRAMES, 2), variable="residual", phase="controlled")
    _samples(writer, "a%2Fb c")
    _units(writer, "a%2Fb c", [1], names=False)
    _frames(writer, "a%2Fb c", "frame, sample, unit", random(FRAMES, 2, 1), variable="soma", **CONTROLLED)


@pytest.fixture
def everything(create: Callable[..., RunWriter], tmp_path: Path) -> Path:
    """A run file with every form of recording, learning curves and weights over training."""
    path = tmp_path / "run.h5"
    with create(path) as writer:
        record_everything(writer)
        rng = np.random.default_rng(1)
        for epoch in range(3):
            about = {"units": "epochs", "description": "[evaluation] epochs finished"}
            writer.append("training/evaluation", epoch, **about)
            about = {"units": "nats", "description": "[evaluation] mean loss", "index": "training/evaluation"}
            writer.append("training/test_loss", 1 / (epoch + 3), **about)
            writer.append("weights/step", 5 * epoch, units="updates", description="[snapshot] updates")
            for name, size, axis in (("eye_cells", 12, "edge"), ("cells_bias", 3, "unit")):
                values = rng.normal(size=size).astype(np.float32)
                description = f"[snapshot, {axis}] weights"
                writer.append(f"weights/{name}", values, units="dimensionless", description=description)
    return path


@pytest.fixture
def simulated(create: Callable[..., RunWriter], tmp_path: Path) -> Path:
    """A run file of a simulation: 25 moments 0.2 ms apart, two samples, soma and apical of the cells."""
    path, rng = tmp_path / "simulated.h5", np.random.default_rng(2)
    with create(path) as writer:
        writer.attributes("simulation", dt_ms=0.1, duration_ms=5.0)
        for variable in ("soma", "apical"):
            name = f"cells_{variable}"
            _units(writer, name, [0, 1, 2])
            writer.put(
                f"activity/{name}/sample_ids", np.arange(2), units="none", description="[sample] number"
            )
            for frame in range(25):
                writer.append(
                    f"activity/{name}/data",
                    rng.normal(size=(2, 3)).astype(np.float32),
                    units="dimensionless",
                    description="[frame, sample, unit] potential as time passes",
                    variable=variable,
                    population="cells",
                    phase="real time",
                )
                writer.append(f"activity/{name}/time", frame * 0.2, units="ms", description="[frame] time")
                writer.append(f"activity/{name}/step", 2 * frame, units="time steps", description="[frame]")
    return path
