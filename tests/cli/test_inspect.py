"""`circuitlab inspect`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from circuitlab.cli import common
from circuitlab.cli.main import main
from tests.report import figure_runs
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


@pytest.fixture(scope="module")
def figure_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return figure_runs.write(tmp_path_factory.mktemp("inspect") / "run.h5")


def test_a_neuron_s_values_are_those_of_the_file(
    figure_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["inspect", str(figure_run), "--population", "cells", "--neuron", "5", "--sample", "13", "--json"]
    assert main(words) == 0
    shown = json.loads(capsys.readouterr().out)
    with h5py.File(figure_run) as file:
        column = int(np.flatnonzero(np.asarray(file["activity/soma/unit_ids"]) == 5)[0])
        soma, basal = (np.asarray(file[f"activity/{name}/data"])[:, 3, column] for name in ("soma", "basal"))
    assert (shown["neuron"], shown["samples"], shown["classes"]) == (5, [13], [0])
    assert (shown["along"], shown["at"]) == ("epoch", [0, 1, 2, 3])
    np.testing.assert_allclose(np.ravel(shown["values"]["soma"]), soma)
    np.testing.assert_allclose(np.ravel(shown["values"]["soma - basal"]), soma - basal)
    assert main(words[:-1]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{figure_run}: neuron 5 of cells, controlled\n")
    assert f"{soma[-1]:.4g}" in shown


def test_a_projection_s_weights_before_and_after(
    figure_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(figure_run), "--projection", "pixels_cells", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    with h5py.File(figure_run) as file:
        weights = np.asarray(file["weights/pixels_cells"])
    assert shown["mean_after"] == pytest.approx(weights[-1].mean())
    assert shown["moved"] == pytest.approx(np.abs(weights[-1] - weights[0]).mean())
    most = np.abs(weights[-1] - weights[0]).argmax()
    assert shown["moved_most"][0]["row"] == most
    assert shown["quantiles"]["after"]["0.5"] == pytest.approx(np.median(weights[-1]))


def test_the_summary_names_samples_that_never_settled(
    figure_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(figure_run), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    (found,) = shown["unsettled"]
    assert (found["never_samples"], found["never_classes"], found["sometimes"]) == ([14], ["1"], 1)
    assert shown["weights"]["cells_cells"]["weights"] == 64
    assert shown["probes"]["way"] == {
        "population": "cells", "variable": "soma", "phase": "controlled",
        "frames": 4, "points": 20, "samples": 6, "neurons": 8,
    }  # fmt: skip


def test_tables_fit_a_terminal_of_80_columns(
    figure_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "console", lambda: Console(highlight=False, width=80))
    for more in ([], ["--neuron", "5", "--population", "cells"], ["--projection", "cells_cells"]):
        assert main(["inspect", str(figure_run), *more]) == 0
        shown = capsys.readouterr().out.replace(str(figure_run), "run.h5")
        assert max(len(line.rstrip()) for line in shown.splitlines()) <= 85
        if not more:
            assert "14 (class 1)" in shown


def test_several_runs_stand_beside_each_other(
    figure_run: Path, make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [make_run("one.h5"), make_run("two.h5", rule="backprop")]
    compare = [word for path in others for word in ("--compare", str(path))]
    picture = tmp_path / "curves.pdf"
    assert main(["inspect", str(figure_run), *compare, "--plot", str(picture), "--figure", "curves"]) == 0
    shown = capsys.readouterr().out
    assert "training, at the end" in shown
    assert picture.read_bytes().startswith(b"%PDF")
    assert main(["inspect", str(figure_run), *compare, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3


REFUSED = {
    "--figure: says what --plot draws; add --plot FILE": ["--figure", "neuron"],
    "--population: the tables show a neuron of it; add --neuron, or --plot and --figure": ["--population", "cells"],
    "--sample: the tables show a neuron in it; add --neuron, or --plot and --figure": ["--sample", "1"],
    "--neuron: no neuron 99; 'cells' has 8 neurons, counted from 0": ["--neuron", "99", "--population", "cells"],
    "--figure: no figure 'pie'; allowed: overview, activity,": ["--figure", "pie", "--plot", "pie.png"],
    "--figure curves: PATH chooses nothing in it;": ["activity/soma", "--figure", "curves", "--plot", "a.png"],
    "--neuron: chooses nothing in the picture of one dataset;": [
        "training/test_loss", "--neuron", "1", "--plot", "a.png",
    ],
    "pie.txt: a picture is a file ending in .png, .svg, .pdf": ["--plot", "pie.txt"],
}  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_shown_is_refused_before_anything_is_printed(
    line: str,
    figure_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", str(figure_run), *REFUSED[line]]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(line)
    assert shown.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_path_to_a_probe_chooses_it(figure_run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "soma.svg"
    words = ["inspect", str(figure_run), "activity/soma", "--figure", "activity", "--plot", str(picture)]
    assert main(words) == 0
    assert "somatic potential" in picture.read_text()
