"""What every test shares: no windows, one thread, and the repository's folder."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from circuitlab import native

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")
NEST = importlib.util.find_spec("nest") is not None


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's top folder, where topologies/, experiments/ and docs/ lie."""
    return Path(__file__).resolve().parents[1]


def pytest_report_header() -> list[str]:
    """Whether the compiled loops, and rules beside NEST, are tested here."""
    return [
        f"compiled loops: {native.about() if native.available() else 'not tested here: ' + native.reason()}",
        f"NEST: {'installed' if NEST else 'not tested here: it is not installed (extra nest)'}",
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of the compiled loops where there is no C++ compiler (torch does the work there, and is
    tested by all the others), and those beside NEST where it is not installed (theory stands beside the same rules);
    the header says why."""
    absent = [] if native.available() else ["compiled"]
    if not NEST:
        absent.append("nest")
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in absent)]
    if not left_out:
        return
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
