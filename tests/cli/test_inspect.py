"""`circuitlab inspect`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from circuitlab.cli.main import main
from tests.report.conftest import make_run

__all__ = ["make_run"]

MakeRun = Callable[..., Path]


def test_json_holds_what_the_run_does(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run()
    assert main(["inspect", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["status"], shown["experiment"], shown["circuit"]) == (
        "complete",
        "digits_test",
        "recurrent",
    )
    assert shown["populations"] == {"cells": 8, "digits": 3, "pixels": 6}
    assert shown["projections"] == {"cells_cells": 64, "cells_digits": 24, "pixels_cells": 48}
    accuracy = shown["metrics"]["test_accuracy"]
    assert (accuracy["rows"], accuracy["first"]) == (3, pytest.approx(0.3))
    assert (accuracy["last"], accuracy["highest"]) == (pytest.approx(0.9), pytest.approx(0.9))
    assert shown["probes"]["cells_rate"]["frames"] == 3


def test_the_tables_end_with_what_a_reader_asks_first(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(make_run())]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == [
        "test accuracy at the end: least control 0.9000",
        "control cost per sample, before and after learning: least control 0.1 to 0.0333",
        "unconverged samples, at most: least control 0.00%",
    ]


def test_two_runs_stand_beside_each_other_with_a_picture(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = make_run(), make_run("other.h5", rule="recurrent_backprop")
    picture = tmp_path / "both.png"
    assert main(["inspect", str(one), "--compare", str(other), "--plot", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "test accuracy at the end: least control 0.9000, recurrent backprop 0.9000\n" in shown
    assert shown.endswith(f"picture: {picture}\n")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_two_runs_of_one_rule_go_by_their_files_names(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(make_run("first.h5")), "--compare", str(make_run("second.h5"))]) == 0
    assert "test accuracy at the end: first 0.9000, second 0.9000" in capsys.readouterr().out


def test_a_group_lists_its_datasets(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run()
    assert main(["inspect", str(path), "edges/cells_cells"]) == 0
    shown = capsys.readouterr().out
    assert "site: soma" in shown
    assert "edges/cells_cells/0/syn_weight" in shown
    assert main(["inspect", str(path), "/edges/cells_cells/", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    weights = next(part for part in listed["datasets"] if part["path"].endswith("syn_weight"))
    assert (weights["shape"], weights["units"]) == ([64], "dimensionless")


def test_a_dataset_shows_its_axes_and_values(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, picture = make_run(), tmp_path / "loss.png"
    assert main(["inspect", str(path), "training/test_loss", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["shape"] == [3]
    np.testing.assert_allclose(shown["first_values"], [1, 1 / 2, 1 / 3])
    assert shown["mean"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert main(["inspect", str(path), "training/test_loss", "--plot", str(picture)]) == 0
    assert picture.exists()


def test_a_text_is_shown_as_it_is(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(make_run()), "spec/experiment"]) == 0
    assert "experiment: digits_test\n" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["training/test_los", "nothing", "checkpoint"])
def test_a_wrong_path_is_refused_in_one_line(
    path: str, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(make_run()), path]) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)


def test_another_kind_of_file_is_refused(cortex: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (cortex, cortex.parent, cortex.parent / "missing.h5"):
        assert main(["inspect", str(wrong)]) == 1
        assert capsys.readouterr().err.count("\n") == 1
