"""What every test shares: no windows, one thread, and the repository's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from circuitlab import native

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's top folder, where topologies/, experiments/ and docs/ lie."""
    return Path(__file__).resolve().parents[1]


def pytest_report_header() -> str:
    """Whether the compiled loops are tested here."""
    return (
        f"compiled loops: {native.about() if native.available() else 'not tested here: ' + native.reason()}"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of the compiled loops where there is no C++ compiler; the header says why. Torch does the
    work there, and is tested by all the others."""
    if native.available():
        return
    left_out = [item for item in items if item.get_closest_marker("compiled")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
