"""SONATA reports, read by libsonata beside h5py on the run file."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import libsonata
import numpy as np
import pytest

import circuitlab
from circuitlab.graph.foreign.formats import read_foreign
from circuitlab.graph.foreign.options import Options
from tests.oracles.sonata import plain_network


def read(folder: Path, name: str, population: str = "cells") -> libsonata.ElementReportPopulation:
    """A report's only population."""
    reader = libsonata.ElementReportReader(str(folder / "reports" / f"{name}.h5"))
    assert reader.get_population_names() == [population]
    return reader[population]


def data(path: Path, name: str) -> np.ndarray:
    """A probe's values as the run file has them."""
    with h5py.File(path) as file:
        return file[f"activity/{name}/data"][()]


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    """What the rows of a report are."""
    with (folder / "reports" / f"{name}_rows.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_reports_of_frames_have_a_row_for_every_sample(everything: Path, tmp_path: Path) -> None:
    circuitlab.export(everything, "sonata", tmp_path / "out")
    for variable in ("soma", "basal", "apical"):
        report = read(tmp_path / "out", f"cells_{variable}")
        assert (report.times, report.time_units, report.data_units) == ((0, 6, 1), "row", "dimensionless")
        assert report.get_node_ids() == [0, 1, 2] and report.sorted
        frame = report.get()
        assert frame.ids.tolist() == [[0, 0], [1, 0], [2, 0]]
        assert frame.times.tolist() == [0, 1, 2, 3, 4, 5]
        expected = data(everything, f"cells_{variable}")
        np.testing.assert_array_equal(frame.data.reshape(3, 2, 3), expected)
        # The same by neuron and time: sample 1 of the second frame, of the middle neuron.
        one = report.get(node_ids=libsonata.Selection([1]), tstart=3, tstop=3)
        assert one.data.tolist() == [[expected[1, 1, 1]]]
        soma = libsonata.SomaReportReader(str(tmp_path / "out" / "reports" / f"cells_{variable}.h5"))["cells"]
        np.testing.assert_array_equal(soma.get().data, frame.data)
    table = rows(tmp_path / "out", "cells_soma")
    assert [row["frame"] for row in table] == ["0", "0", "1", "1", "2", "2"]
    assert [row["step"] for row in table] == ["1", "1", "6", "6", "11", "11"]
    assert [row["sample"] for row in table] == ["4", "7"] * 3
    assert [row["label"] for row in table] == ["0", "1"] * 3


def test_compartments_recorded_together_are_elements_of_their_neuron(
    everything: Path, tmp_path: Path
) -> None:
    circuitlab.export(everything, "sonata", tmp_path / "out")
    frame = read(tmp_path / "out", "cells_compartments").get()
    assert frame.ids.tolist() == [[node, element] for node in range(3) for element in range(3)]
    for element, variable in enumerate(("soma", "basal", "apical")):
        expected = data(everything, f"cells_{variable}").reshape(6, 3)
        np.testing.assert_array_equal(frame.data[:, element::3], expected)


def test_columns_are_in_the_order_of_node_ids_and_missing_samples_are_nan(
    everything: Path, tmp_path: Path
) -> None:
    circuitlab.export(everything, "sonata", tmp_path / "out")
    report = read(tmp_path / "out", "batch")
    assert report.get_node_ids() == [0, 2]
    np.testing.assert_array_equal(report.get().data, data(everything, "batch").reshape(9, 2)[:, ::-1])
    assert [row["sample"] for row in rows(tmp_path / "out", "batch")] == [*"53901286", "-1"]


def test_trajectories_stand_one_after_the_other(everything: Path, tmp_path: Path) -> None:
    circuitlab.export(everything, "sonata", tmp_path / "out")
    for name, times, units in (("settling", (0, 12, 0.5), "ms"), ("iterations", (0, 24, 1), "row")):
        report = read(tmp_path / "out", name)
        assert (report.times, report.time_units) == (times, units)
        expected = data(everything, name).transpose(0, 2, 1, 3)  # frame, sample, point, unit
        np.testing.assert_array_equal(report.get().data.reshape(3, 2, 4, 2), expected)
        table = rows(tmp_path / "out", name)
        column = "settling_time_ms" if name == "settling" else "iteration"
        with h5py.File(everything) as file:
            at = file[f"activity/{name}/{'time' if name == 'settling' else 'iteration'}"][()]
        assert [float(row[column]) for row in table] == at.tolist() * 6
        assert [row["sample"] for row in table[:8]] == ["4"] * 4 + ["7"] * 4


def test_synapses_biases_and_feedback_weights_are_elements(everything: Path, tmp_path: Path) -> None:
    done = circuitlab.export(everything, "sonata", tmp_path / "out")
    with h5py.File(everything) as file:
        target = file["edges/eye_cells/target_node_id"][()]
    frame = read(tmp_path / "out", "synapses").get()
    assert frame.ids.tolist() == sorted([[int(target[edge]), edge] for edge in (7, 1, 5)])
    values = dict(zip((7, 1, 5), data(everything, "synapses").T, strict=True))
    for (_, edge), column in zip(frame.ids.tolist(), frame.data.T, strict=True):
        np.testing.assert_array_equal(column, values[edge])
    # The edge ids are those of the exported edge population.
    edges = libsonata.EdgeStorage(str(tmp_path / "out" / "network" / "eye_cells_edges.h5"))
    population = edges.open_population("eye_cells")
    for node, edge in frame.ids.tolist():
        assert population.target_nodes(libsonata.Selection([edge])).tolist() == [node]
    np.testing.assert_array_equal(read(tmp_path / "out", "bias").get().data, data(everything, "bias"))
    feedback = read(tmp_path / "out", "Q").get()
    assert feedback.ids.tolist() == [[node, output] for node in range(3) for output in range(2)]
    np.testing.assert_array_equal(feedback.data.reshape(3, 3, 2), data(everything, "Q"))
    (line,) = done.left_out
    assert line.startswith("residual: [frame, sample], which are not values of neurons or synapses")


def test_doubles_are_the_nearest_floats(everything: Path, tmp_path: Path) -> None:
    circuitlab.export(everything, "sonata", tmp_path / "out", probes=["double"])
    expected = data(everything, "double").reshape(6, 1).astype(np.float32)
    np.testing.assert_array_equal(read(tmp_path / "out", "double").get().data, expected)
    assert [path.name for path in sorted((tmp_path / "out" / "reports").iterdir())] == [
        "double.h5",
        "double_rows.csv",
    ]


def test_real_time_is_in_ms_with_a_report_for_each_sample(simulated: Path, tmp_path: Path) -> None:
    circuitlab.export(simulated, "sonata", tmp_path / "out")
    for variable in ("soma", "apical"):
        expected = data(simulated, f"cells_{variable}")
        for sample in range(2):
            report = read(tmp_path / "out", f"cells_{variable}_sample{sample}")
            start, stop, step = report.times
            assert (start, step, report.time_units) == (0, 0.2, "ms") and stop == pytest.approx(5)
            frame = report.get()
            np.testing.assert_array_equal(frame.data, expected[:, sample])
            np.testing.assert_allclose(frame.times, np.arange(25) * 0.2, atol=1e-9)
    both = read(tmp_path / "out", "cells_compartments_sample1").get()
    assert both.ids.tolist() == [[node, element] for node in range(3) for element in (0, 2)]
    np.testing.assert_array_equal(both.data[:, 1::2], data(simulated, "cells_apical")[:, 1])
    assert not list((tmp_path / "out" / "reports").glob("*.csv"))


def test_configs_name_every_report_its_neurons_and_the_network(everything: Path, tmp_path: Path) -> None:
    circuitlab.export(everything, "sonata", tmp_path / "out")
    config = libsonata.SimulationConfig.from_file(str(tmp_path / "out" / "simulation_config.json"))
    files = {path.stem for path in (tmp_path / "out" / "reports").glob("*.h5")}
    assert config.list_report_names == files
    network = libsonata.CircuitConfig.from_file(config.network)
    sets = libsonata.NodeSets.from_file(config.node_sets_file)
    for name in files:
        report = config.report(name)
        assert Path(report.file_name) == tmp_path / "out" / "reports" / f"{name}.h5"
        nodes = network.node_population("cells")
        recorded = read(tmp_path / "out", name)
        chosen = sets.materialize(report.cells, nodes).flatten().tolist()
        assert set(recorded.get_node_ids()) == set(chosen)
        assert (report.start_time, report.end_time, report.dt) == recorded.times
        assert config.run.tstop >= report.end_time
    assert config.report("cells_soma").cells == "cells"
    assert config.report("synapses").type == libsonata.SimulationConfig.Report.Type.synapse


def test_reports_are_uncompressed_and_have_what_bmtk_reads(everything: Path, tmp_path: Path) -> None:
    """BMTK's reader takes index_pointer and element_pos, and rounds the number of rows down."""
    circuitlab.export(everything, "sonata", tmp_path / "out")
    for path in (tmp_path / "out" / "reports").glob("*.h5"):
        with h5py.File(path) as file:
            (group,) = file["report"].values()
            assert group["data"].chunks is None and group["data"].dtype == np.float32
            mapping = group["mapping"]
            assert mapping["index_pointer"] == mapping["index_pointers"]
            assert len(mapping["element_pos"]) == len(mapping["element_ids"]) == group["data"].shape[1]
            start, stop, step = mapping["time"]
            assert int((stop - start) / step) == len(group["data"])


@pytest.mark.parametrize(("step", "rows"), [(0.1, 3), (0.1, 100_000), (0.025, 400_001), (1 / 3, 1000)])
def test_readers_find_every_row_of_a_long_report(step: float, rows: int, tmp_path: Path) -> None:
    """libsonata adds steps up, whose rounding errors add up as well; BMTK divides."""
    from circuitlab.record.exports.sonata_reports import _stop

    stop = _stop(0.0, step, rows)
    assert int(stop / step) == rows
    assert stop == pytest.approx(rows * step)
    with h5py.File(tmp_path / "report.h5", "w") as file:
        group = file.create_group("report/cells")
        group["data"] = np.zeros((rows, 1), dtype=np.float32)
        group["data"].attrs["units"] = "mV"
        group["mapping/node_ids"] = np.zeros(1, dtype=np.uint64)
        group["mapping/index_pointers"] = np.array([0, 1], dtype=np.uint64)
        group["mapping/element_ids"] = np.zeros(1, dtype=np.uint32)
        group["mapping/time"] = np.array([0.0, stop, step])
        group["mapping/time"].attrs["units"] = "ms"
    assert len(libsonata.ElementReportReader(str(tmp_path / "report.h5"))["cells"].get().times) == rows


def test_reports_of_an_imported_network_have_its_own_populations_and_ids(tmp_path: Path) -> None:
    """Cells that an import split by type lie in one SONATA population; a simulation's reports are of its nodes."""
    from circuitlab.cli.main import main

    network = plain_network(tmp_path / "plain")
    options = ["--readout", "2", "--split", "cells=ei", "--weight-scale", "0.1", "--name", "small"]
    assert main(["import", str(network), "-o", str(tmp_path / "circuit"), *options]) == 0
    x = np.random.default_rng(0).random((1, 3))
    run, circuit = tmp_path / "run.h5", tmp_path / "circuit" / "circuit.yaml"
    circuitlab.simulate(circuit, x, duration="2 ms", output=run)
    circuitlab.export(run, "sonata", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "circuitlab.json").read_text())["parts"]["cells"]
    with h5py.File(run) as file:
        for name in ("cells_e", "cells_i"):
            ids = file[f"nodes/{name}/0/node_id"][()]
            assert name in config["populations"]
            frame = read(tmp_path / "out", f"{name}_soma").get()
            assert frame.ids[:, 0].tolist() == sorted(ids)
            expected = file[f"activity/{name}_soma/data"][:, 0][:, np.argsort(ids)]
            np.testing.assert_array_equal(frame.data, expected.astype(np.float32))
    sets = libsonata.NodeSets.from_file(str(tmp_path / "out" / "node_sets.json"))
    nodes = libsonata.CircuitConfig.from_file(str(tmp_path / "out" / "circuit_config.json"))
    chosen = sets.materialize("cells_i", nodes.node_population("cells")).flatten().tolist()
    with h5py.File(run) as file:
        assert chosen == sorted(file["nodes/cells_i/0/node_id"][()])
    # The folder still is the network that was imported.
    back = read_foreign([tmp_path / "out"], Options(weight_scale=0.1)).circuit
    assert back.equals(circuitlab.load(run, weights="initial"))
