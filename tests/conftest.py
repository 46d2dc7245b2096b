"""What every test shares: no windows, one thread, and the repository's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from circuitlab import native
from tests.oracles.brian2_where import brian2_python

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's top folder, where topologies/, experiments/ and docs/ lie."""
    return Path(__file__).resolve().parents[1]


def pytest_report_header() -> list[str]:
    """Whether the compiled loops are tested here, and which Python runs Brian2."""
    return [
        f"compiled loops: {native.about() if native.available() else 'not tested here: ' + native.reason()}",
        f"Brian2: {brian2_python() or 'not tested here: no Python has it (make oracles)'}",
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of the compiled loops where there is no C++ compiler (torch does the work there, and is
    tested by all the others), and those beside Brian2 where it is not installed (scipy's integrator is beside the same
    simulations); the header says why."""
    absent = [] if native.available() else ["compiled"]
    if any(item.get_closest_marker("brian2") for item in items) and brian2_python() is None:
        absent.append("brian2")
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in absent)]
    if not left_out:
        return
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
