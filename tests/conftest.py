"""What every test shares: no windows, one thread, and the repository's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's top folder, where topologies/, experiments/ and docs/ lie."""
    return Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the tests of the compiled loops, and say why, where there is no C++ compiler: torch does the work."""
    from circuitlab import native

    if native.available():
        return
    for item in items:
        if item.get_closest_marker("compiled"):
            item.add_marker(pytest.mark.skip(reason=f"needs the compiled loops: {native.reason()}"))
