"""The overview of a run, plain pictures of datasets, and files of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from circuitlab.errors import RunFileError
from circuitlab.record.reader import open_run
from circuitlab.report import figures
from circuitlab.report.dataset import plot_dataset
from circuitlab.report.figures import Choice
from circuitlab.report.readings import Reading, reading

MakeRun = Callable[..., Path]


def _read(path: Path) -> Reading:
    with open_run(path) as run:
        return reading(run)


@contextmanager
def _overview(*paths: Path) -> Iterator[Figure]:
    runs = [open_run(path) for path in paths]
    try:
        yield figures.draw("overview", runs, [reading(run) for run in runs], Choice())
    finally:
        for run in runs:
            run.close()


def _titles(*paths: Path) -> list[str]:
    with _overview(*paths) as figure:
        return [title for axes in figure.axes if (title := axes.get_title(loc="left"))]


def _plot(path: Path, picture: Path) -> None:
    with open_run(path) as run:
        figures.plot("overview", [run], [reading(run)], Choice(), picture)


def test_a_reading_holds_what_the_run_file_does(make_run: MakeRun) -> None:
    found = _read(make_run())
    assert (found.title, found.label, found.stem) == ("digits_test", "least control", "run")
    assert found.settings["learn.rule"] == "least_control"
    epochs, values = found.metrics["test_accuracy"]
    np.testing.assert_array_equal(epochs, [1, 2, 3])
    np.testing.assert_allclose(values, [0.3, 0.6, 0.9])


def test_what_was_never_measured_is_no_curve(make_run: MakeRun) -> None:
    found = _read(make_run(rule="recurrent_backprop"))
    assert found.curve("control_cost") is None
    assert found.curve("validation_accuracy") is None


def test_the_whole_picture_is_a_slide(make_run: MakeRun, tmp_path: Path) -> None:
    one, other = make_run(), make_run("other.h5", rule="recurrent_backprop")
    _plot(one, tmp_path / "run.png")
    height, width = imread(tmp_path / "run.png").shape[:2]
    assert (width, round(width / height, 1)) == (1599, 1.6)
    titles = _titles(one, other)
    assert titles[:3] == ["Accuracy", "Loss", "Control still needed"]
    assert "After 3 epochs" in titles
    assert any(title.startswith("Neuron ") for title in titles)


def test_panels_without_data_are_left_out(make_run: MakeRun) -> None:
    assert _titles(make_run("a.h5", rule="recurrent_backprop", probes=())) == ["Accuracy", "Loss"]
    only_neurons = _titles(make_run("b.h5", metrics=False))
    assert not {"Accuracy", "Loss"} & set(only_neurons)
    only_rates = _titles(make_run("c.h5", metrics=False, probes=("rate",)))
    assert not any(title.startswith("Neuron ") for title in only_rates)


def test_nothing_to_draw_is_an_error_and_no_file(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="nothing to draw"):
        _plot(make_run(metrics=False, probes=()), tmp_path / "empty.png")
    assert not (tmp_path / "empty.png").exists()


@pytest.mark.parametrize("name", ["run.txt", "no_folder/run.png"])
def test_a_picture_that_cannot_be_written_is_refused(name: str, make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RunFileError):
        _plot(path, tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before


def test_the_same_run_makes_the_same_file(make_run: MakeRun, tmp_path: Path) -> None:
    with open_run(make_run()) as run:
        for name in ("one", "two"):
            figures.plot("curves", [run], [reading(run)], Choice(), tmp_path / f"{name}.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_soma_and_basal_are_shown_for_the_neuron_with_most_control(make_run: MakeRun) -> None:
    path = make_run()
    with open_run(path) as run:
        control = run.read("activity/cells_control/data")
    neuron = int(np.abs(control[:1]).mean((0, 1)).argmax())
    assert f"Neuron {neuron}" in _titles(path)


@pytest.mark.parametrize(
    "path", ["training/test_loss", "activity/cells_rate/data", "edges/cells_cells/0/syn_weight"]
)
def test_any_dataset_of_numbers_can_be_drawn(path: str, make_run: MakeRun, tmp_path: Path) -> None:
    with open_run(make_run()) as run:
        plot_dataset(run, path, tmp_path / "dataset.png")
        with pytest.raises(RunFileError, match="only numbers"):
            plot_dataset(run, "spec/circuit", tmp_path / "text.png")
    assert (tmp_path / "dataset.png").stat().st_size > 1000
    assert not (tmp_path / "text.png").exists()
