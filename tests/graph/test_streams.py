"""Random streams: the same everywhere, and independent of each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from circuitlab.graph.streams import stream


def test_a_stream_is_the_same_in_another_process_with_another_hash_seed(repository: Path) -> None:
    program = (
        "from circuitlab.graph.streams import stream\n"
        "print(stream(3, 'edges', 'l4').integers(2**62, size=4).tolist())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == str(stream(3, "edges", "l4").integers(2**62, size=4).tolist())


@pytest.mark.parametrize(
    "other",
    [
        (1, "edges", "a"),
        (0, "weights", "a"),
        (0, "edges", "b"),
        (0, "edge", "sa"),
        (0, "edges"),
        (2**70, "edges", "a"),
    ],
)
def test_other_seeds_and_names_give_independent_streams(other: tuple) -> None:
    here, there = stream(0, "edges", "a").normal(size=4000), stream(*other).normal(size=4000)
    assert abs(np.corrcoef(here, there)[0, 1]) < 4 / np.sqrt(here.size)
    assert not np.intersect1d(here, there).size


def test_names_are_not_run_together() -> None:
    assert stream(0, "ab", "c").random() != stream(0, "a", "bc").random()
    assert stream(1, "1").random() != stream(11).random()
