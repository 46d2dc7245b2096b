"""Circuits and runs to draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit
from circuitlab.record.run_file import RunWriter
from circuitlab.spec.circuit import load_circuit

RECURRENT = """\
circuit: recurrent
populations:
  pixels: {type: input, size: 6}
  cells: {type: unit, size: 8}
  digits: {type: output, size: 3}
projections:
  pixels_cells: {source: pixels, target: cells}
  cells_cells: {source: cells, target: cells}
  cells_digits: {source: cells, target: digits}
"""


def circuit_of(text: str) -> Circuit:
    """A circuit from its YAML."""
    return build(load_circuit("circuit.yaml", text=text))


def areas(count: int) -> str:
    """`count` cortical areas of eight populations each, in a row, with feedback; two inputs, two outputs."""
    populations = ["  retina: {type: input, size: 9}", "  sound: {type: input, size: 4}"]
    projections = []

    def project(source: str, target: str, more: str = "") -> None:
        projections.append(f"  {source}__{target}: {{source: {source}, target: {target}{more}}}")

    project("retina", "area1_layer4")
    project("sound", f"area{count}_layer4")
    for area in range(1, count + 1):
        for layer in ("layer4", "layer23", "layer56"):
            cells = f"area{area}_{layer}"
            populations.append(f"  {cells}: {{type: pyramidal, size: 4, sign: excitatory}}")
            populations.append(f"  {cells}_pv: {{type: interneuron, size: 2, sign: inhibitory}}")
            project(cells, cells)
            project(cells, f"{cells}_pv")
            project(f"{cells}_pv", cells, ", site: soma")
        populations.append(f"  area{area}_sst: {{type: interneuron, size: 2, sign: inhibitory}}")
        project(f"area{area}_layer23", f"area{area}_sst")
        project(f"area{area}_sst", f"area{area}_layer23", ", site: apical")
        populations.append(f"  area{area}_relay: {{type: unit, size: 2}}")
        project(f"area{area}_layer4", f"area{area}_layer23")
        project(f"area{area}_layer23", f"area{area}_layer56")
        project(f"area{area}_layer56", f"area{area}_relay")
        if area > 1:
            project(f"area{area - 1}_relay", f"area{area}_layer4")
            project(f"area{area}_layer56", f"area{area - 1}_layer23", ", site: apical, carries: burst")
    populations += ["  choice: {type: output, size: 2}", "  value: {type: output, size: 1}"]
    project(f"area{count}_relay", "choice")
    project("area1_layer56", "value")
    return "\n".join(["circuit: areas", "populations:", *populations, "projections:", *projections, ""])


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run file of three epochs: make_run(name, rule=..., metrics=..., probes=...)."""

    def make(
        name: str = "run.h5",
        rule: str = "least_control",
        metrics: bool = True,
        probes: tuple[str, ...] = ("rate", "soma", "basal", "control"),
    ) -> Path:
        random = np.random.default_rng(0)
        path = tmp_path / name
        experiment = f"experiment: digits_test\ncircuit: recurrent.yaml\nlearn: {{rule: {rule}}}\n"
        with RunWriter.create(
            path, circuit=circuit_of(RECURRENT), circuit_yaml=RECURRENT, experiment_yaml=experiment
        ) as writer:
            for probe in probes:
                group = f"activity/cells_{probe}"
                writer.attributes(group, every="1 epoch")
                writer.put(f"{group}/labels", np.arange(6) % 3, units="class", description="[sample] class")
                writer.put(
                    f"{group}/unit_ids", np.arange(8), units="dimensionless", description="[unit] neuron"
                )
            for epoch in (1, 2, 3):
                values = {
                    "epoch": epoch,
                    "test_accuracy": 0.3 * epoch,
                    "test_loss": 1 / epoch,
                    "unconverged": 0.0,
                }
                values["control_cost"] = 0.1 / epoch if rule == "least_control" else np.nan
                for metric, value in values.items() if metrics else ():
                    index = {} if metric == "epoch" else {"index": "training/epoch"}
                    described = {"units": "dimensionless", "description": f"[epoch] {metric}"}
                    writer.append(f"training/{metric}", value, **described, **index)
                for probe in probes:
                    writer.append(
                        f"activity/cells_{probe}/data",
                        random.standard_normal((6, 8)),
                        units="dimensionless",
                        description="[frame, sample, unit] activity",
                        variable=probe,
                        population="cells",
                        phase="controlled",
                    )
                    writer.append(
                        f"activity/cells_{probe}/step",
                        10 * epoch,
                        units="updates",
                        description="[frame] update",
                    )
        return path

    return make
