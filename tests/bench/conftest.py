"""Small experiments that the benchmarks are tried on, and torch's threads as they were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

CIRCUIT = """\
circuit: small
populations:
  pixels: {type: input, size: 5}
  cells:  {type: unit, size: 8}
  digit:  {type: output, size: 3}
projections:
  pixels_cells: {source: pixels, target: cells}
  cells_cells:  {source: cells, target: cells, weights: {init: normal, std: 0.2}}
  cells_digit:  {source: cells, target: digit}
"""
FEEDFORWARD = CIRCUIT.replace(
    "  cells_cells:  {source: cells, target: cells, weights: {init: normal, std: 0.2}}\n", ""
)
EXPERIMENT = """\
experiment: small
circuit: {circuit}
data: {{name: file, train: train.npz, test: test.npz, validation: 0}}
learn: {{rule: least_control, epochs: 3, batch_size: 4, optimizer: {{name: adam, lr: 0.01}}}}
"""


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A recurrent experiment of 8 neurons on 24 samples; `feedforward.yaml` beside it has no recurrence."""
    generator = np.random.default_rng(0)
    for name, count in (("train", 24), ("test", 12)):
        label = generator.integers(3, size=count)
        image = generator.standard_normal((count, 5)) * 0.3 + np.eye(3, 5)[label]
        np.savez(tmp_path / f"{name}.npz", image=image, label=label)
    for name, text in (("small", CIRCUIT), ("feedforward", FEEDFORWARD)):
        (tmp_path / f"{name}_circuit.yaml").write_text(text, encoding="utf-8")
        (tmp_path / f"{name}.yaml").write_text(
            EXPERIMENT.format(circuit=f"{name}_circuit.yaml"), encoding="utf-8"
        )
    return tmp_path / "small.yaml"
