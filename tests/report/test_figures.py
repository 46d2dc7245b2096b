"""Figures show the numbers of the file: read here by h5py, and compared with what matplotlib holds."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from circuitlab.errors import RunFileError
from circuitlab.record.circuits import circuit_of_run
from circuitlab.record.reader import open_run
from circuitlab.record.run_file import RunWriter
from circuitlab.report import figures
from circuitlab.report.figures import KINDS, Choice, spectrum, synapses
from circuitlab.report.figures.conditions import conditions
from circuitlab.report.readings import Reading, reading
from tests.report import figure_runs
from tests.report.conftest import circuit_of
from tests.report.figure_runs import EPOCHS, LABELS, POINTS, SAMPLES, UNITS, compartments, values


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file with every form of recorded data, for tests that only read."""
    return figure_runs.write(tmp_path_factory.mktemp("figures") / "run.h5")


def draw(kind: str, path: Path | Sequence[Path], choice: Choice | None = None) -> Figure:
    with ExitStack() as stack:
        paths = [path] if isinstance(path, Path) else path
        runs = [stack.enter_context(open_run(p)) for p in paths]
        return figures.draw(kind, runs, [reading(r) for r in runs], choice or Choice())


def titled(figure: Figure, title: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_title(loc="left") == title)


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


def curve(axes: Axes, number: int) -> np.ndarray:
    return np.asarray(axes.lines[number].get_ydata(), dtype=float)


def unit_ids(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return file["activity/soma/unit_ids"][:]  # type: ignore[index]


def test_activity_shows_samples_by_class_and_neurons_by_the_class_they_prefer(run_file: Path) -> None:
    figure = draw("activity", run_file)
    before, after = (np.asarray(ax.images[0].get_array()) for ax in figure.axes[:2])
    with h5py.File(run_file) as file:
        data = np.asarray(file["activity/rate/data"])
    order = np.argsort(LABELS, kind="stable")
    first, last = data[0][order].T, data[-1][order].T
    means = last.reshape(UNITS, 3, SAMPLES // 3).mean(2)
    means -= means.mean(1, keepdims=True)
    preferred = means.argmax(1)
    rows = [int(np.flatnonzero((last == row).all(1))[0]) for row in after]
    assert sorted(rows) == list(range(UNITS))
    np.testing.assert_array_equal(before, first[rows])
    assert (np.diff(preferred[rows]) >= 0).all()
    for c in range(3):
        strength = means[rows, c][preferred[rows] == c]
        assert (np.diff(strength) <= 0).all()
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["0", "1", "2"]


def test_a_neuron_shows_soma_basal_and_their_gap(run_file: Path) -> None:
    figure = draw("neuron", run_file, Choice(population="cells", neurons=("5",), samples=(12,)))
    column = int(np.flatnonzero(unit_ids(run_file) == 5)[0])
    found = [compartments(frame) for frame in range(EPOCHS + 1)]
    left, right = figure.axes[:2]
    assert "Neuron 5 of cells: run" in words(figure)
    for number, name in enumerate(("soma", "basal")):
        np.testing.assert_allclose(curve(left, number), [f[name][2, column] for f in found])
    np.testing.assert_allclose(curve(right, 0), [f["soma"][2, column] - f["basal"][2, column] for f in found])
    np.testing.assert_allclose(curve(right, 1), [f["apical"][2, column] for f in found])
    np.testing.assert_array_equal(left.lines[0].get_xdata(), range(EPOCHS + 1))
    assert right.texts[-1].get_text() == "sample 12\nclass 2"
    assert "The gap between soma and basal potential is the apical potential" in words(figure).replace(
        "\n", " "
    )


def test_the_neuron_that_is_driven_most_is_shown_unless_told_otherwise(run_file: Path) -> None:
    early = np.abs(compartments(0)["apical"]).mean(0)
    number = unit_ids(run_file)[early.argmax()]
    assert f"Neuron {number} of cells: run" in words(draw("neuron", run_file))


def test_settling_shows_trajectories_and_how_fast_they_move(run_file: Path) -> None:
    choice = Choice(samples=(13,), neurons=("3", "4"), population="cells")
    figure = draw("settling", run_file, choice)
    columns = [int(np.flatnonzero(unit_ids(run_file) == n)[0]) for n in (3, 4)]
    last = values("way", EPOCHS)[:, 3]
    np.testing.assert_allclose(curve(figure.axes[1], 0), last[:, columns[0]])
    np.testing.assert_allclose(curve(figure.axes[1], 1), last[:, columns[1]])
    speed = np.sqrt(np.mean(np.diff(last, axis=0) ** 2, axis=1))
    np.testing.assert_allclose(curve(figure.axes[3], 0)[1:], speed)
    assert figure.axes[3].get_yscale() == "log"
    assert [ax.get_title(loc="left") for ax in figure.axes[:2]] == ["Before learning", "After 3 epochs"]
    assert len(figure.axes[1].lines[0].get_xdata()) == POINTS


def test_weights_are_counted_before_and_after(run_file: Path) -> None:
    axes = titled(draw("weights", run_file), "cells_cells")
    with h5py.File(run_file) as file:
        weights = np.asarray(file["weights/cells_cells"])
    stairs = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    for patch, row in zip(stairs, (weights[0], weights[-1]), strict=True):
        counts, edges, _ = patch.get_data()
        np.testing.assert_array_equal(counts, np.histogram(row, edges)[0])
        assert counts.sum() == row.size


def test_one_projection_shows_how_each_synapse_moved(run_file: Path) -> None:
    figure = draw("weights", run_file, Choice(projection="pixels_cells"))
    with h5py.File(run_file) as file:
        weights = np.asarray(file["weights/pixels_cells"])
    cloud = titled(figure, "Each synapse").lines[0]
    np.testing.assert_array_equal(cloud.get_xdata(), weights[0])
    np.testing.assert_array_equal(cloud.get_ydata(), weights[-1])
    most = np.abs(weights[-1] - weights[0]).argmax()
    named = titled(figure, "Over training").get_legend_handles_labels()
    np.testing.assert_array_equal(np.asarray(named[0][0].get_ydata()), weights[:, most])  # type: ignore[attr-defined]
    assert f"Mean change {np.abs(weights[-1] - weights[0]).mean():.3g}" in words(figure)


def test_a_finer_probe_of_weights_shows_the_paths(tmp_path: Path) -> None:
    path = figure_runs.write(tmp_path / "fine.h5")
    with h5py.File(path, "r+") as file:
        item = file["weights/cells_digits"]
        assert isinstance(item, h5py.Dataset)
        item.resize(2, axis=0)
    axes = titled(draw("weights", path, Choice(projection="cells_digits")), "Over training")
    handles, labels = axes.get_legend_handles_labels()
    np.testing.assert_array_equal(handles[0].get_ydata(), 23 * np.arange(1.0, EPOCHS + 2))  # type: ignore[attr-defined]
    assert labels[0] == "7 to 2"


def test_receptive_fields_are_the_incoming_weights(run_file: Path) -> None:
    figure = draw("receptive_fields", run_file, Choice(population="cells", neurons=("2", "6")))
    with h5py.File(run_file) as file:
        edges, weights = file["edges/pixels_cells"], np.asarray(file["weights/pixels_cells"])
        target, source = (np.asarray(edges[f"{end}_node_id"]) for end in ("target", "source"))  # type: ignore[index]
    for column, neuron in enumerate((2, 6)):
        for row, snapshot in enumerate((0, -1)):
            image = np.full(16, np.nan)
            image[source[target == neuron]] = weights[snapshot][target == neuron]
            shown = np.asarray(figure.axes[2 * row + column].images[0].get_array())
            np.testing.assert_array_equal(shown, image.reshape(4, 4))


def test_without_a_shape_the_strongest_sources_are_named(run_file: Path) -> None:
    figure = draw("receptive_fields", run_file, Choice(projection="cells_digits", neurons=("1",)))
    with h5py.File(run_file) as file:
        edges, weights = file["edges/cells_digits"], np.asarray(file["weights/cells_digits"])[-1]
        mine = np.asarray(edges["target_node_id"]) == 1  # type: ignore[index]
        source = np.asarray(edges["source_node_id"])[mine]  # type: ignore[index]
    order = np.argsort(-np.abs(weights[mine]), kind="stable")
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()][::-1] == [str(s) for s in source[order]]


def test_seeds_give_mean_and_spread(tmp_path: Path) -> None:
    paths = [figure_runs.write(tmp_path / f"{seed}.h5", seed=seed) for seed in range(3)]
    axes = titled(draw("curves", paths), "Accuracy")
    every = np.array([[figure_runs.accuracy(s, e) for e in range(EPOCHS + 1)] for s in range(3)])
    for seed in range(3):
        np.testing.assert_allclose(curve(axes, seed), every[seed])
    np.testing.assert_allclose(curve(axes, 3), every.mean(0))
    band = axes.collections[0].get_paths()[0].vertices
    for epoch in range(EPOCHS + 1):
        here = band[np.isclose(band[:, 0], epoch), 1]
        mean, deviation = every[:, epoch].mean(), every[:, epoch].std(ddof=1)
        np.testing.assert_allclose([here.min(), here.max()], [mean - deviation, mean + deviation])


def test_what_differs_names_the_conditions(tmp_path: Path) -> None:
    one = [figure_runs.write(tmp_path / f"a{s}.h5", seed=s) for s in range(2)]
    other = [figure_runs.write(tmp_path / f"b{s}.h5", seed=s, more="dtype: float64\n") for s in range(2)]
    figure = draw("curves", [*one, *other])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["dtype none", "dtype float64"]
    assert "every seed (2)" in words(figure)
    same = draw("curves", [one[0], figure_runs.write(tmp_path / "again.h5")])
    assert [text.get_text() for text in same.legends[0].get_texts()] == ["a0", "again"]


def test_more_conditions_than_colours_are_refused() -> None:
    runs = [Reading("same", "rule", settings={"learn.lr": str(n)}, seed="0", stem=f"{n}") for n in range(9)]
    assert len(conditions(runs[:8])) == 8
    assert [c.label for c in conditions(runs[:2])] == ["lr 0", "lr 1"]
    with pytest.raises(
        RunFileError, match=r"^--compare: 9 conditions; up to 8 are told apart by their colours$"
    ):
        conditions(runs)


def test_convergence_says_which_samples_never_settled(run_file: Path) -> None:
    figure = draw("convergence", run_file)
    said = words(figure).replace("\n", " ")
    assert "1 of 6 samples never settled: 14 (class 1)." in said
    bars = [bar.get_height() for bar in titled(figure, "Which did not settle").patches]
    # Of class 1: sample 4 at none of 4 times, sample 1 at one of 4.
    np.testing.assert_allclose(bars, [0, 7 / 8, 0])
    np.testing.assert_allclose(curve(titled(figure, "Did not settle"), 0), 0.1 / np.arange(1, EPOCHS + 1))


@pytest.mark.parametrize("dense", [1500, 5])
def test_the_spectrum_is_that_of_the_recurrent_weights(
    dense: int, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectrum, "DENSE", dense)
    monkeypatch.setattr(spectrum, "LEADING", 4)
    figure = draw("spectrum", run_file)
    for axes, snapshot in zip(figure.axes, (0, -1), strict=True):
        with h5py.File(run_file) as file:
            w = np.zeros((11, 11))
            for name, row in (("cells_cells", 0), ("cells_digits", 8)):
                edges = file[f"edges/{name}"]
                target, source = (np.asarray(edges[f"{end}_node_id"]) for end in ("target", "source"))  # type: ignore[index]
                w[target + row, source] = np.asarray(file[f"weights/{name}"])[snapshot]  # type: ignore[index]
        expected = np.linalg.eigvals(w)
        line = next(line for line in axes.lines if line.get_marker() == "o")
        shown = np.asarray(line.get_xdata()) + 1j * np.asarray(line.get_ydata())
        if dense == 5:
            expected = expected[np.argsort(-np.abs(expected))][: len(shown)]
            assert len(shown) >= 4
        np.testing.assert_allclose(np.sort(np.abs(shown)), np.sort(np.abs(expected)), atol=1e-6)
        np.testing.assert_allclose(np.sort(shown.real), np.sort(expected.real), atol=1e-6)
        assert f"spectral radius {np.abs(expected).max():.3g}" in axes.get_title(loc="right")


REFUSALS = {
    "settling": "has no probe along the settling; add one such as record: {cells_soma: {population: cells, "
    "variable: soma, along: {iterations: 5}, samples: [0, 1, 2], of: test}}",
    "activity": "has no recorded activity in several samples or at several times; add a probe such as record: "
    "{cells_rate: {population: cells, variable: rate, samples: [0, 1, 2, 3], of: test}}",
    "neuron": "has no recorded potentials of single neurons; add probes of soma, basal and apical such as record: "
    "{cells_soma: {population: cells, variable: soma, samples: [0, 1, 2], of: test}}",
    "curves": "holds no learning curves; they are in the file of every training (circuitlab run)",
    "convergence": "says nothing of how its samples settled; files of run and equilibrium do, and probes such as "
    "record: {settled: {variable: converged, samples: [0, 1, 2, 3], of: test}}",
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_what_a_file_lacks_is_said_with_what_to_record(kind: str, make_run) -> None:
    path = make_run(metrics=False, probes=())
    with pytest.raises(RunFileError) as error:
        draw(kind, path)
    assert str(error.value) == f"--figure {kind}: {path} {REFUSALS[kind]}"


WRONG = {
    "--figure: no figure 'pie'; allowed: " + ", ".join(KINDS): ("pie", Choice()),
    "--figure curves: --neuron chooses nothing in it; it takes no option of this kind": (
        "curves",
        Choice(neurons=("1",)),
    ),
    "--figure weights: --population chooses nothing in it; it takes --projection": (
        "weights",
        Choice(population="cells"),
    ),
    "--population: no population 'cell' in RUN; there are cells, digits, pixels. Did you mean 'cells'?": (
        "neuron",
        Choice(population="cell"),
    ),
    "--neuron: no neuron 9; 'cells' has 8 neurons, counted from 0": (
        "neuron",
        Choice(population="cells", neurons=("9",)),
    ),
    "--neuron: no neuron AVAL; 'cells' has 8 neurons without names; give a number from 0": (
        "neuron",
        Choice(population="cells", neurons=("AVAL",)),
    ),
    "--neuron: one neuron is shown at a time; give it once": (
        "neuron",
        Choice(population="cells", neurons=("1", "2")),
    ),
    "--sample: sample 3 is not among the 6 that 'soma' recorded: 10 to 15": ("neuron", Choice(samples=(3,))),
    "--projection: no projection 'cells' in RUN; there are cells_cells, cells_digits, pixels_cells.": (
        "weights",
        Choice(projection="cells"),
    ),
    "--projection: 'pixels_cells' leads to 'cells', not to 'digits'; name one of the two": (
        "receptive_fields",
        Choice(population="digits", projection="pixels_cells"),
    ),
    "--figure receptive_fields: RUN has no incoming synapses of 'pixels'; choose another --population": (
        "receptive_fields",
        Choice(population="pixels"),
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_choice_is_refused_in_one_line(message: str, run_file: Path) -> None:
    kind, choice = WRONG[message]
    with pytest.raises(RunFileError) as error:
        draw(kind, run_file, choice)
    assert str(error.value).startswith(message.replace("RUN", str(run_file)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [kind for kind, one in KINDS.items() if not one.several])
def test_kinds_of_one_run_refuse_several(kind: str, run_file: Path) -> None:
    line = f"--figure {kind}: shows one run; with --compare there are overview, curves"
    with pytest.raises(RunFileError, match=f"^{re.escape(line)}$"):
        draw(kind, [run_file, run_file])


def test_damaged_data_are_one_line(tmp_path: Path) -> None:
    path = figure_runs.write(tmp_path / "run.h5")
    with h5py.File(path, "r+") as file:
        kept = np.asarray(file["activity/rate/data"])
        said = dict(file["activity/rate/data"].attrs)
        del file["activity/rate/data"]
        item = file.create_dataset("activity/rate/data", data=kept, chunks=kept.shape, compression="gzip")
        item.attrs.update(said)
        where = item.id.get_chunk_info(0).byte_offset
    with path.open("r+b") as raw:
        raw.seek(where)
        raw.write(b"\xff" * 64)
    with pytest.raises(RunFileError, match=r"activity/rate/data: is damaged and cannot be read$"):
        draw("activity", path)


def test_figures_of_a_large_file_read_slices(tmp_path: Path) -> None:
    path = figure_runs.write(tmp_path / "run.h5", settling=False, per_sample=False, edges=False)
    random = np.random.default_rng(0)
    shape = (2000, 300, 1000)
    with h5py.File(path, "r+") as file:
        for name in ("soma", "basal", "apical", "rate"):
            group = file[f"activity/{name}"]
            assert isinstance(group, h5py.Group)
            said = dict(group["data"].attrs)
            for old in ("data", "step", "unit_ids", "sample_ids", "labels"):
                del group[old]
            item = group.create_dataset("data", shape, np.float32, chunks=(1, 300, 1000), compression="gzip")
            item.attrs.update(said)
            group.create_dataset("step", data=np.arange(2000))
            for frame in (0, 1000, 1999):
                item[frame] = random.standard_normal(shape[1:])
        assert item.nbytes > 2e9
    tracemalloc.start()
    try:
        for kind in ("activity", "neuron", "overview"):
            figure = draw(kind, path)
            assert tracemalloc.get_traced_memory()[1] < 150e6, kind
        figure = draw("neuron", path)
    finally:
        tracemalloc.stop()
    assert "Drawn: 1,001 of 2,000 frames." in words(figure)


def test_of_very_many_synapses_blocks_are_read(run_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synapses, "EDGES", 20)
    monkeypatch.setattr(synapses, "BLOCKS", 4)
    figure = draw("weights", run_file, Choice(projection="pixels_cells"))
    with h5py.File(run_file) as file:
        weights = np.asarray(file["weights/pixels_cells"])
    rows = np.concatenate([np.arange(start, start + 5) for start in (0, 41, 82, 123)])
    cloud = titled(figure, "Each synapse").lines[0]
    np.testing.assert_array_equal(cloud.get_ydata(), weights[-1][rows])
    assert "Drawn: 20 of 128 synapses, in blocks at equal distances." in words(figure).replace("\n", " ")


def test_odd_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    text = figure_runs.CIRCUIT.replace("cells", "_cells-1")
    path = tmp_path / "odd.h5"
    with RunWriter.create(
        path, circuit=circuit_of(text), circuit_yaml=text, experiment_yaml="experiment: $a$ \u7d30\u80de\n"
    ) as writer:
        writer.append("training/test_loss", 1.0, units="nats", description="[epoch] loss")
    with open_run(path) as run:
        figures.plot("weights", [run], [reading(run)], Choice(), tmp_path / "odd.png")
        figures.plot("overview", [run], [reading(run)], Choice(), tmp_path / "title.png")
    assert (tmp_path / "odd.png").stat().st_size > 1000


def _topologies() -> list[str]:
    return sorted(path.stem for path in (Path(__file__).parents[2] / "topologies").glob("*.yaml"))


QUICK = ("feedforward", "celegans")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in _topologies()]
)
def test_every_kind_is_drawn_of_every_topology(name: str, repository: Path, tmp_path: Path) -> None:
    """Without a warning, which is an error here, and with a picture that is not empty."""
    path = figure_runs.of_topology(repository / "topologies" / f"{name}.yaml", tmp_path / f"{name}.h5")
    with open_run(path) as run:
        loops = circuit_of_run(path).strongly_connected()
        for kind in KINDS:
            picture = tmp_path / f"{kind}.svg"
            if kind == "spectrum" and not loops:
                with pytest.raises(RunFileError, match="without recurrent synapses"):
                    figures.plot(kind, [run], [reading(run)], Choice(), picture)
                continue
            figures.plot(kind, [run], [reading(run)], Choice(), picture)
            assert picture.stat().st_size > 5000
