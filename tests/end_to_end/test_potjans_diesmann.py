"""The scaled microcircuit learns digits by least control, and keeps Dale's law and its synapses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from circuitlab.cli.main import main
from circuitlab.record.reader import open_run
from circuitlab.spec.circuit import load_circuit

EXPERIMENT = Path(__file__).resolve().parents[2] / "experiments" / "potjans_diesmann_digits.yaml"


def test_it_improves_on_its_task(tmp_path: Path) -> None:
    """One epoch, a fifteenth of the experiment: far above chance (a tenth), every sample converged."""
    out = tmp_path / "run.h5"
    options = ["--set", "circuit.scale=0.01", "--set", "learn.epochs=1", "--set", "threads=1"]
    assert main(["run", str(EXPERIMENT), "-o", str(out), *options]) == 0
    with open_run(out) as run:
        _, accuracy = run.metric("test_accuracy")
        _, unconverged = run.metric("unconverged")
        assert accuracy[0] < 0.25
        assert accuracy[-1] > 0.4
        assert unconverged.max() < 0.01
        spec = load_circuit("again.yaml", text=run.circuit_yaml)
        assert spec.populations["L23E"].size == 207
        for name, p in spec.projections.items():
            sign = {"excitatory": 1, "inhibitory": -1}.get(spec.populations[p.source].sign or "", 0)
            weights = run.read(f"weights/{name}")
            assert (sign * weights >= 0).all()
            assert weights.shape[1] == len(run.read(f"edges/{name}/source_node_id"))
            assert np.abs(weights[-1] - weights[0]).max() > 0
