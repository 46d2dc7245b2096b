"""Run files, and the pages made of them, that the tests of pages share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from circuitlab.report.page import Options, write_report
from tests.oracles.browser import Browser
from tests.oracles.reported import write_run


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the pages share."""
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="package")
def hostile_run(folder: Path) -> Path:
    """A run of everything, with names that look like markup."""
    return write_run(folder / "hostile.h5", hostile=True)


@pytest.fixture(scope="package")
def hostile_page(folder: Path, hostile_run: Path) -> Path:
    """Its page."""
    write_report([hostile_run], folder / "hostile.html")
    return folder / "hostile.html"


@pytest.fixture(scope="package")
def several_runs(folder: Path) -> list[Path]:
    """Two seeds of one condition and one run of another."""
    return [
        write_run(folder / "a0.h5", seed=0),
        write_run(folder / "a1.h5", seed=1),
        write_run(folder / "b0.h5", seed=0, rule="recurrent_backprop"),
    ]


@pytest.fixture(scope="package")
def several_page(folder: Path, several_runs: list[Path]) -> Path:
    """Their page."""
    write_report(several_runs, folder / "several.html", Options(budget=3_000_000))
    return folder / "several.html"


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium, open for all tests of pages."""
    one = Browser()
    yield one
    one.quit()
