"""The tutorial notebook runs from its first cell to its last, in a minute, and is kept without its outputs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import h5py
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

TOP = Path(__file__).resolve().parents[1]
NOTEBOOK = TOP / "docs" / "notebooks" / "tutorial.ipynb"
LONGEST_SECONDS = 300


def test_it_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert NOTEBOOK.stat().st_size < 50_000


def test_every_cell_runs_and_shows_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / ".bin" / "circuitlab"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "from circuitlab.cli.main import entry; entry()" "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(program.parent), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TOP), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / ".ipython"))
    monkeypatch.setenv("JUPYTER_ALLOW_INSECURE_WRITES", "1")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=LONGEST_SECONDS, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    warned = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert warned == []
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 7  # the circuit, the run, and five of matplotlib
    assert "never settled: none" in said
    files = tmp_path / "tutorial_files"
    for name in ("cortex.png", "digits.png", "report.html", "sonata", "nwb", "csv"):
        assert (files / name).exists(), name
    with h5py.File(files / "digits.h5") as run:
        assert run.attrs["status"] == "complete"
        soma, basal, apical = (run[f"activity/l23_{name}/data"][:] for name in ("soma", "basal", "apical"))
        assert np.allclose(soma, basal + apical, atol=1e-4)
        assert run["training/test_accuracy"][-1] > 0.8
    with h5py.File(files / "hurried.h5") as run:
        unsettled = (~run["activity/test_converged/data"][:].any(0)).sum()
        assert unsettled > 0
        assert run["training/step_unconverged"][:].sum() > 0
