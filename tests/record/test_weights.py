"""Snapshots of weights: the same whether stored whole or by what changed, and across kills."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from circuitlab.errors import RunFileError
from circuitlab.record.compare import compare
from circuitlab.record.reader import open_run
from circuitlab.record.run_file import RunWriter
from circuitlab.record.weights import Snapshots, snapshot_count, weights_at

EDGES = 40_000


def histories() -> dict[str, list[np.ndarray]]:
    """Weights that change everywhere, nowhere, here and there, and first everywhere and then hardly."""
    random = np.random.default_rng(0)
    start = random.standard_normal(EDGES).astype(np.float32)
    found: dict[str, list[np.ndarray]] = {"all": [], "none": [], "some": [], "late": [], "small": []}
    sparse = start.copy()
    for snapshot in range(12):
        sparse = sparse.copy()
        sparse[random.integers(0, EDGES, 500)] += 1
        found["all"].append(random.standard_normal(EDGES).astype(np.float32))
        found["none"].append(start)
        found["some"].append(sparse if snapshot != 6 else random.standard_normal(EDGES).astype(np.float32))
        sparse = found["some"][-1]
        found["late"].append(found["all"][-1] if snapshot < 5 else found["late"][4])
        found["small"].append(start[:100])
    return found


def write(writer: RunWriter, kept: dict[str, list[np.ndarray]], snapshots: Sequence[int]) -> None:
    writing = Snapshots(writer)
    for snapshot in snapshots:
        for name, values in kept.items():
            writing.add(name, values[snapshot], "edge", f"weights of projection {name}")
        if snapshot % 3 == 2:
            writer.checkpoint({"snapshot": snapshot + 1})
            writer.publish()


def test_every_snapshot_comes_back(create: Callable[..., RunWriter], tmp_path: Path) -> None:
    path, kept = tmp_path / "run.h5", histories()
    with create(path) as writer:
        write(writer, kept, range(12))
    with open_run(path) as run:
        for name, values in kept.items():
            assert snapshot_count(run, name) == 12
            for snapshot in range(12):
                np.testing.assert_array_equal(weights_at(run, name, snapshot), values[snapshot])
            np.testing.assert_array_equal(weights_at(run, name), values[-1])
        with pytest.raises(RunFileError, match="weights of 'all' have no snapshot 12; allowed: 0 to 11"):
            weights_at(run, "all", 12)
        with pytest.raises(
            RunFileError, match="no weights of 'some_more'; there are all, late, none, small, some"
        ):
            weights_at(run, "some_more")
    with h5py.File(path) as file:
        weights: Any = file["weights"]
        # by numpy alone: the shape stays [snapshot, edge] where all changes, or where there is nothing to save
        np.testing.assert_array_equal(weights["all"], kept["all"])
        np.testing.assert_array_equal(weights["small"], kept["small"])
        assert {name: weights[f"{name}/whole"].shape[0] for name in ("none", "some", "late")} == {
            "none": 1,
            "some": 2,  # the first, and the one to which all changed
            "late": 5,
        }
        assert len(weights["none/edge"]) == 0


@pytest.mark.parametrize("killed", [1, 2, 4, 8, 11])
def test_a_run_taken_up_again_holds_the_same(
    create: Callable[..., RunWriter], tmp_path: Path, killed: int
) -> None:
    path, whole, kept = tmp_path / "run.h5", tmp_path / "whole.h5", histories()
    with create(whole) as writer:
        write(writer, kept, range(12))
    writer = create(path)
    write(writer, kept, range(killed))
    writer.publish()  # beyond the last checkpoint
    writer.close()
    with open_run(path) as run:
        begin = run.checkpoint().get("snapshot", 0)
    with RunWriter.resume(path) as writer:
        write(writer, kept, range(begin, 12))
    assert compare(path, whole) == []
