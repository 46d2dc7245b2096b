"""Progress of long work: on a terminal, gone afterwards; nothing where it is piped, or by --quiet and --json."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from circuitlab.cli import waiting
from circuitlab.cli.main import main
from circuitlab.cli.waiting import counting, working


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    page = io.StringIO()
    monkeypatch.setattr(waiting, "console", lambda: Console(file=page, force_terminal=True, width=80))
    return page


def plain(page: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", page.getvalue())


def test_work_shows_what_it_is_and_for_how_long_and_leaves_the_terminal_clean(terminal: io.StringIO) -> None:
    with working("reading the network", shown=True):
        time.sleep(0.15)
    assert "reading the network" in plain(terminal)
    assert re.search(r"0:00:0\d", plain(terminal))
    assert terminal.getvalue().rstrip().endswith("\x1b[2K")  # the line is wiped
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h")


def test_counts_move_a_bar(terminal: io.StringIO) -> None:
    with counting("simulating", shown=True) as tell:
        tell(3, 4)
    assert "simulating" in plain(terminal)
    assert "75%" in plain(terminal)


def test_nothing_is_shown_where_nobody_wants_it(
    terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working("a", shown=False), counting("b", shown=False) as tell:
        tell(1, 2)
    assert terminal.getvalue() == ""
    monkeypatch.setattr(waiting, "console", lambda: Console(file=terminal))
    with working("a", shown=True), counting("b", shown=True) as tell:
        tell(1, 2)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("option", ["", "--quiet", "--json"])
def test_commands_show_it_unless_told_otherwise(
    option: str, cortex: Path, terminal: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    x = cortex.parent / "x.npy"
    np.save(x, np.zeros((2, 6)))
    options = [option] if option else []
    out = str(cortex.parent / "out.h5")
    assert main(["equilibrium", str(cortex), "--input", str(x), "-o", out, *options]) == 0
    assert ("finding equilibria" in plain(terminal)) == (not option)
    if option == "--json":
        json.loads(capsys.readouterr().out)
    network = cortex.parent / "network"
    assert main(["export", str(cortex), "graphml", str(network)]) == 0
    capsys.readouterr()
    assert main(["import", str(network), "-o", str(cortex.parent / "imported"), *options]) == 0
    assert ("reading the network" in plain(terminal)) == (not option)
    if option == "--json":
        json.loads(capsys.readouterr().out)
