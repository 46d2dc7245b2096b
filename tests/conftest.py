"""What every test shares: no windows, one thread, and the repository's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from circuitlab import native
from tests.oracles.browser import chromium
from tests.oracles.disks import can_mount
from tests.oracles.simulators import python_with

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")
SIMULATORS = {"brian2": "Brian2", "nest": "NEST"}


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's top folder, where topologies/, experiments/ and docs/ lie."""
    return Path(__file__).resolve().parents[1]


def pytest_report_header() -> list[str]:
    """Whether the compiled loops are tested here, and which Python runs other simulators."""
    return [
        f"compiled loops: {native.about() if native.available() else 'not tested here: ' + native.reason()}",
        *(
            f"{name}: {python_with(module) or 'not tested here: no Python has it (make oracles)'}"
            for module, name in SIMULATORS.items()
        ),
        f"full disks: {'small ones of their own' if can_mount() else 'failures put in; none can be mounted here'}",
        f"pages in a browser: {' '.join(chromium() or ()) or 'not tested here: no chromium and chromedriver'}",
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of the compiled loops where there is no C++ compiler (torch does the work there, and is
    tested by all the others), and those beside Brian2 and NEST where they are not installed (scipy's integrator and
    theory stand beside the same), those of pages in a browser where there is none, and those of a full disk where none
    can be mounted (failures put into every single write stand for it); the header says why."""
    absent = [] if native.available() else ["compiled"]
    absent += [] if chromium() else ["browser"]
    absent += [] if can_mount() else ["mounts"]
    for module in SIMULATORS:
        if any(item.get_closest_marker(module) for item in items) and python_with(module) is None:
            absent.append(module)
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in absent)]
    if not left_out:
        return
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
