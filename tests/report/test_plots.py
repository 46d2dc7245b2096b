"""The picture of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from circuitlab.errors import RunFileError
from circuitlab.record.reader import open_run
from circuitlab.report.dataset import plot_dataset
from circuitlab.report.plots import picture, plot_run
from circuitlab.report.readings import Reading, reading

MakeRun = Callable[..., Path]


def _read(path: Path) -> Reading:
    with open_run(path) as run:
        found = reading(run)
        for probe in found.probes.values():
            assert probe.data.shape == probe.shape
        return found


def _titles(figure: Figure | None) -> list[str]:
    assert figure is not None
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    words = [text.get_text() for sub in figure.subfigs for inner in sub.subfigs for text in inner.texts]
    return [title for title in [*titles, *words] if title]


def test_a_reading_holds_what_the_run_file_does(make_run: MakeRun) -> None:
    found = _read(make_run())
    assert (found.title, found.label) == ("digits_test", "least control")
    epochs, values = found.metrics["test_accuracy"]
    np.testing.assert_array_equal(epochs, [1, 2, 3])
    np.testing.assert_allclose(values, [0.3, 0.6, 0.9])
    probe = found.probes["cells_rate"]
    assert (probe.population, probe.variable, probe.shape, probe.fixed) == ("cells", "rate", (3, 6, 8), True)
    assert probe.time_name == "epoch"
    np.testing.assert_array_equal(probe.time, [1, 2, 3])
    assert probe.labels is not None
    np.testing.assert_array_equal(probe.labels, [0, 1, 2, 0, 1, 2])


def test_what_was_never_measured_is_no_curve(make_run: MakeRun) -> None:
    found = _read(make_run(rule="recurrent_backprop"))
    assert found.curve("control_cost") is None
    assert found.curve("validation_accuracy") is None


def test_the_whole_picture_has_1600_by_1000_points(make_run: MakeRun, tmp_path: Path) -> None:
    one, other = _read(make_run()), _read(make_run("other.h5", rule="recurrent_backprop"))
    plot_run(one, tmp_path / "run.png", other)
    assert imread(tmp_path / "run.png").shape[:2] == (1000, 1600)
    titles = _titles(picture(one, other))
    assert titles[:3] == ["Accuracy", "Loss", "Control the circuit still needs"]
    assert any(title.startswith("Rates of cells") for title in titles)
    assert any(title.startswith("Neuron ") for title in titles)


def test_panels_without_data_are_left_out(make_run: MakeRun) -> None:
    assert _titles(picture(_read(make_run("a.h5", rule="recurrent_backprop", probes=()))))[:2] == [
        "Accuracy",
        "Loss",
    ]
    only_neurons = _titles(picture(_read(make_run("b.h5", metrics=False))))
    assert not {"Accuracy", "Loss"} & set(only_neurons)
    only_rates = _titles(picture(_read(make_run("c.h5", metrics=False, probes=("rate",)))))
    assert not any(title.startswith("Neuron ") for title in only_rates)


def test_nothing_to_draw_is_an_error_and_no_file(make_run: MakeRun, tmp_path: Path) -> None:
    empty = _read(make_run(metrics=False, probes=()))
    with pytest.raises(RunFileError, match="nothing to draw"):
        plot_run(empty, tmp_path / "empty.png")
    assert not (tmp_path / "empty.png").exists()


@pytest.mark.parametrize("name", ["run.txt", "no_folder/run.png"])
def test_a_picture_that_cannot_be_written_is_refused(name: str, make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(RunFileError):
        plot_run(_read(make_run()), tmp_path / name)


def test_soma_and_basal_are_shown_for_the_neuron_with_most_control(make_run: MakeRun) -> None:
    path = make_run()
    with open_run(path) as run:
        found = reading(run)
        control = found.probes["cells_control"].data
        neuron = int(np.abs(control[0, :3]).mean(0).argmax())
        assert f"Neuron {neuron} of cells" in _titles(picture(found))


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
