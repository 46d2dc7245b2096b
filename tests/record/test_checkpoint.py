"""The training state comes back exactly as it was kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuitlab.errors import RunFileError
from circuitlab.record.reader import open_run
from circuitlab.record.run_file import RunWriter

TREE: dict[str, Any] = {
    "epoch": 3,
    "huge": 2**127 + 1,
    "negative": -(2**63),
    "loss": 0.1 + 0.2,
    "nan": float("nan"),
    "infinite": -float("inf"),
    "zero": -0.0,
    "text": "Größe \u2713 \n/%\udc80",
    "none": None,
    "yes": True,
    "empty": {},
    "list": [1, [2.5, [None, "a", False]], (), (1, np.arange(3))],
    "weights": {
        "l4_l23": np.random.default_rng(0).standard_normal((3, 4)),
        "half": np.array([1.5, np.nan, np.inf, -0.0], dtype=np.float16),
        "single": np.float32(0.1),
        "int64": np.array([2**62, -1]),
        "uint8": np.arange(256, dtype=np.uint8),
        "bool": np.array([[True], [False]]),
        "empty": np.zeros((0, 3), dtype=np.float32),
        "scalar": np.array(2.5),
        "big_endian": np.arange(3, dtype=">i4"),
        "complex": np.array([1 + 2j]),
    },
    "optimizer": {
        "state": {0: {"step": np.array(1.0), "exp_avg": np.ones(2)}, 1: {}},
        "0": 1,
        0: 2,
        "betas": (0.9, 0.999),
    },
    "a/b": np.ones(1),
    "a": {"b": np.zeros(1)},
    ".": {"..": np.ones(2)},
    "": {"%": np.zeros(2)},
    "generator": np.random.default_rng(5).bit_generator.state,
}


def same(left: Any, right: Any) -> bool:
    """Equality of type and bytes, NaN included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray | np.generic):
        return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
    return repr(left) == repr(right)


def test_round_trip_is_exact(create: Callable[..., RunWriter], tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with create(path) as writer:
        writer.checkpoint(TREE)
    with open_run(path) as run:
        assert same(run.checkpoint(), TREE)


def test_a_new_state_replaces_the_old_one_whatever_its_form(
    create: Callable[..., RunWriter], tmp_path: Path
) -> None:
    path = tmp_path / "run.h5"
    states = [
        {"a": np.ones(3)},
        {"a": {"b": np.ones(3)}},
        TREE,
        {"a": np.zeros(3)},
        {"a": np.zeros(4)},
        {},
        {"text": "x" * 9000},
    ]
    writer = create(path)
    for state in states:
        writer.checkpoint(state)
        writer.publish()
        with open_run(path) as run:
            assert same(run.checkpoint(), state)
    writer.finish()


def test_state_is_copied_when_kept(create: Callable[..., RunWriter], tmp_path: Path) -> None:
    weights = np.zeros(3)
    with create(tmp_path / "run.h5") as writer:
        writer.checkpoint({"weights": weights})
        weights += 1
    with open_run(tmp_path / "run.h5") as run:
        assert run.checkpoint()["weights"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [{1, 2}, object(), np.array(["a"]), {1.5: 1}, b"bytes"])
def test_what_cannot_be_kept_is_refused_with_its_place(
    create: Callable[..., RunWriter], tmp_path: Path, value: object
) -> None:
    with (
        create(tmp_path / "run.h5") as writer,
        pytest.raises(RunFileError, match=r"^checkpoint: a/1: .* cannot be kept$"),
    ):
        writer.checkpoint({"a": [0, value]})
