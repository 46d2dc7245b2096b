"""Circuits from anatomy settle and learn: a short training of each improves on its task."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest
from ruamel.yaml import YAML

from circuitlab.cli.main import main

ROOT = Path(__file__).parents[2]
SHORT = {
    "cortical_column_digits": (2, 900),
    "celegans": (2, 600),
    "celegans_null": (4, 600),
    "mushroom_body": (4, 300),
    "small_world_digits": (2, 300),
    "ei_balanced_digits": (4, 400),
    "potjans_diesmann_digits": (2, 300),
}


def trained(folder: Path, name: str, *options: str) -> h5py.File:
    sets = [word for option in ("threads=1", *options) for word in ("--set", option)]
    file = ROOT / "experiments" / f"{name}.yaml"
    assert main(["run", str(file), "-o", str(folder / "run.h5"), "--quiet", *sets]) == 0
    return h5py.File(folder / "run.h5")


@pytest.mark.parametrize("name", SHORT)
def test_a_short_training_improves(name: str, tmp_path: Path) -> None:
    epochs, limit = SHORT[name]
    with trained(tmp_path, name, f"learn.epochs={epochs}", f"data.limit={limit}") as run:
        losses = run["training/test_loss"][:]
        assert losses[-1] < 0.97 * losses[0]
        assert run["training/unconverged"][-1] < 0.05
        if "test_accuracy" in run["training"]:
            assert run["training/test_accuracy"][-1] > run["training/test_accuracy"][0] + 0.1


def test_every_topology_has_an_experiment() -> None:
    yaml = YAML(typ="safe")
    used = {
        Path(circuit["file"] if isinstance(circuit, dict) else circuit).name
        for path in (ROOT / "experiments").glob("*.yaml")
        for circuit in [yaml.load(path)["circuit"]]
    }
    assert {path.name for path in (ROOT / "topologies").glob("*.yaml")} <= used


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_column_passes_93_percent_by_its_own_feedback(seed: int, tmp_path: Path) -> None:
    with trained(tmp_path, "cortical_column_digits", f"seed={seed}") as run:
        assert run["training/test_accuracy"][-1] > 0.93
