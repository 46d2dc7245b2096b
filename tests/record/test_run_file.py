"""The run file as design §4 describes it, read by plain h5py."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import libsonata
import numpy as np
import pytest

from circuitlab.errors import RunFileError
from circuitlab.graph.circuit import Circuit
from circuitlab.record.compare import compare
from circuitlab.record.reader import FORMAT_VERSION, open_run
from circuitlab.record.run_file import RunWriter
from circuitlab.record.storage import uninterrupted

Create = Callable[..., RunWriter]


def opened(path: Path) -> Any:
    """The file by plain h5py."""
    return h5py.File(path, "r")


def _append(writer: RunWriter, step: int) -> None:
    writer.append("training/step", step, units="updates", description="[step] number of the update")
    writer.append("training/loss", 0.5 * step, units="nats", description="[step] loss", index="training/step")


def test_root_and_specification(create: Create, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    create(path).finish("complete")
    with opened(path) as file:
        assert file.attrs["format"] == "circuitlab-run"
        assert file.attrs["format_version"] == FORMAT_VERSION
        assert file.attrs["status"] == "complete"
        assert file.attrs["seed"] == 1
        for key in (
            "created",
            "command",
            "circuitlab_version",
            "torch_version",
            "numpy_version",
            "python_version",
            "platform",
            "device",
            "git_commit",
        ):
            assert isinstance(file.attrs[key], str)
        assert file["spec/experiment"].asstr()[()] == "seed: 1\n"
        assert str(file["spec/circuit"].asstr()[()]).startswith("circuit: small")


def test_nodes_and_edges_hold_the_whole_circuit(create: Create, circuit: Circuit, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    create(path).finish()
    with opened(path) as file:
        cells = file["nodes/cells"]
        assert (cells.attrs["type"], cells.attrs["activation"], cells.attrs["sign"]) == (
            "pyramidal",
            "tanh",
            "excitatory",
        )
        assert cells.attrs["tau_ms"] == 20.0
        assert cells.attrs["controlled"]
        assert file["nodes/eye"].attrs["sign"] == ""
        assert list(cells["node_id"]) == [0, 1, 2]
        assert list(cells["0/name"].asstr()) == ["left", "middle", "right"]
        assert list(cells["0/x"]) == [0, 2, 4]
        assert list(cells["0/y"]) == [1, 3, 5]
        np.testing.assert_array_equal(cells["0/bias"], circuit.populations["cells"].bias)
        for name, projection in circuit.projections.items():
            group = file["edges"][name]
            np.testing.assert_array_equal(group["source_node_id"], projection.edges.source)
            np.testing.assert_array_equal(group["target_node_id"], projection.edges.target)
            np.testing.assert_array_equal(group["0/syn_weight"], projection.edges.weight)
            np.testing.assert_array_equal(group["0/multiplicity"], projection.edges.multiplicity)
            assert group["source_node_id"].attrs["node_population"] == projection.source
            assert group["target_node_id"].attrs["node_population"] == projection.target
            assert (group.attrs["site"], group.attrs["carries"]) == (projection.site, projection.carries)
            assert bool(group.attrs["plastic"]) == projection.plastic
            order = np.lexsort((group["source_node_id"][:], group["target_node_id"][:]))
            np.testing.assert_array_equal(order, np.arange(len(order)))


def test_every_dataset_has_units_and_says_what_its_axes_are(finished: Path) -> None:
    with opened(finished) as file:
        items: list[Any] = []
        file.visititems(lambda name, item: items.append(item) if isinstance(item, h5py.Dataset) else None)
        assert len(items) > 20
        for item in items:
            assert item.attrs["units"]
            assert item.attrs["description"]
            if item.ndim and not item.name.startswith("/checkpoint"):
                assert item.attrs["description"].startswith("[")


def test_shared_weights_say_which_edge_uses_which(circuit: Circuit, tmp_path: Path) -> None:
    from circuitlab.graph.build import build
    from circuitlab.spec.circuit import load_circuit

    text = """circuit: shared
populations:
  image: {type: input, shape: [1, 4, 4]}
  maps: {type: unit, shape: [2, 3, 3]}
  out: {type: output, size: 2}
projections:
  conv: {source: image, target: maps, connect: {rule: convolution, kernel: 2}}
  read: {source: maps, target: out}
"""
    shared = build(load_circuit("shared.yaml", text=text), seed=0)
    path = tmp_path / "run.h5"
    RunWriter.create(path, circuit=shared, circuit_yaml=text, experiment_yaml="").finish()
    edges = shared.projections["conv"].edges
    assert edges.parameters is not None
    with opened(path) as file:
        index = file["edges/conv/0/parameter_index"][:]
        np.testing.assert_array_equal(file["edges/conv/0/syn_weight"], edges.parameters[index])
        assert list(file["nodes/maps"].attrs["shape"]) == [2, 3, 3]


def test_sonata_library_reads_the_network(create: Create, circuit: Circuit, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    create(path).finish()
    nodes = libsonata.NodeStorage(str(path))
    assert nodes.population_names == set(circuit.populations)
    cells = nodes.open_population("cells")
    assert list(cells.get_attribute("name", cells.select_all())) == ["left", "middle", "right"]
    edges = libsonata.EdgeStorage(str(path))
    assert edges.population_names == set(circuit.projections)
    for name, projection in circuit.projections.items():
        population = edges.open_population(name)
        everything = population.select_all()
        assert (population.source, population.target) == (projection.source, projection.target)
        np.testing.assert_array_equal(population.source_nodes(everything), projection.edges.source)
        np.testing.assert_array_equal(population.target_nodes(everything), projection.edges.target)
        np.testing.assert_array_equal(
            population.get_attribute("syn_weight", everything), projection.edges.weight
        )


def test_file_grows_for_a_reader_who_reopens_it(create: Create, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    writer = create(path)
    with opened(path) as file:
        assert file.attrs["status"] == "running"
    for step in range(7):
        _append(writer, step)
        if step in (2, 5):
            writer.publish()
            with opened(path) as file:
                assert list(file["training/step"]) == list(range(step + 1))
    with open_run(path) as run:
        assert run.status == "running"
    writer.finish("complete")
    with opened(path) as file:
        np.testing.assert_array_equal(file["training/loss"], 0.5 * np.arange(7))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("swmr", [False, True])
def test_open_readers_read_on(create: Create, tmp_path: Path, swmr: bool) -> None:
    """A reader that opened the file once: plain, it goes on reading rows; with swmr=True it sees those that come."""
    path = tmp_path / "run.h5"
    writer = create(path)
    _append(writer, 0)
    writer.publish()
    with h5py.File(path, "r", swmr=swmr) as file:
        steps: Any = file["training/step"]
        for step in range(1, 3000):  # several chunks
            _append(writer, step)
            if step % 500 == 0:
                writer.publish()
                if swmr:
                    steps.refresh()
                seen = list(steps[:])
                assert seen == list(range(step + 1 if swmr else 1))
        loss: Any = file["training/loss"]
        assert list(loss[:1]) == [0]
        writer.finish()
        assert list(loss[:1]) == [0]
    with opened(path) as file:
        assert list(file["training/step"]) == list(range(3000))


def test_frames_of_any_shape_and_type_come_back(create: Create, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    random = np.random.default_rng(0)
    frames = {
        "activity/a/data": random.standard_normal((300, 4, 5)).astype(np.float32),
        "activity/sparse/data": np.maximum(random.standard_normal((30, 64, 40)) - 3, 0),
        "activity/wide/data": random.standard_normal((3, 3000, 700)).astype(np.float32),
        "training/flag": random.random(300) < 0.5,
        "training/count": random.integers(0, 2**62, 300),
        "training/empty": np.zeros((300, 0)),
    }
    with create(path) as writer:
        for step in range(300):
            for name, values in frames.items():
                if step < len(values):
                    writer.append(name, values[step], units="dimensionless", description="[frame] values")
            if step % 70 == 0:
                writer.publish()
        writer.put(
            "updates/a", frames["activity/a/data"][0], units="dimensionless", description="[edge] update"
        )
        writer.put(
            "updates/a", frames["activity/a/data"][:2], units="dimensionless", description="[edge] update"
        )
    with opened(path) as file:
        for name, values in frames.items():
            assert file[name].dtype == values.dtype
            np.testing.assert_array_equal(file[name], values)
        np.testing.assert_array_equal(file["updates/a"], frames["activity/a/data"][:2])
        assert file["activity/sparse/data"].compression == "gzip"


def test_wrong_frames_are_refused(create: Create, tmp_path: Path) -> None:
    with create(tmp_path / "run.h5") as writer:
        writer.append("training/x", np.zeros(3), units="dimensionless", description="[frame, unit]")
        with pytest.raises(RunFileError, match=r"training/x: a frame of shape \(4,\)"):
            writer.append("training/x", np.zeros(4), units="dimensionless", description="[frame, unit]")
        with pytest.raises(RunFileError, match="cannot be recorded"):
            writer.put("training/y", {1, 2}, units="dimensionless", description="a set")
        with pytest.raises(RunFileError, match="the writer itself keeps"):
            writer.put("nodes/cells/0/bias", 1.0, units="dimensionless", description="no")


def test_waiting_frames_do_not_fill_memory(
    create: Create, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunWriter, "memory", 10_000)
    path = tmp_path / "run.h5"
    with create(path) as writer:
        for step in range(100):
            writer.append(
                "activity/a/data", np.full(100, step), units="dimensionless", description="[frame, unit]"
            )
            writer.publish_if_due()
            assert writer._pending <= 10_000 + 1000
    with opened(path) as file:
        np.testing.assert_array_equal(file["activity/a/data"][:, 7], np.arange(100))


def test_publishing_waits_until_it_is_due(
    create: Create, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def state() -> dict[str, object]:
        asked.append(1)
        return {}

    with create(tmp_path / "run.h5") as writer:
        assert not writer.publish_if_due(state)
        monkeypatch.setattr(RunWriter, "shortest_interval", 0.0)
        monkeypatch.setattr(RunWriter, "share_of_time", 1e6)
        assert writer.publish_if_due(state)
    assert asked == [1]


def test_space_of_replaced_checkpoints_is_used_again(create: Create, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    writer = create(path)
    random = np.random.default_rng(0)
    for step in range(40):
        writer.checkpoint({"weights": random.standard_normal(10_000 + 500 * (step % 3)), "step": step})
        writer.append(
            "activity/a/data",
            random.standard_normal(1000),
            units="dimensionless",
            description="[frame, unit]",
        )
        writer.publish()
    writer.finish()
    chunks, state = (
        3 * 256 * 1024,
        8 * 11_000,
    )  # of frames: 40 x 8 kB in chunks of 256 kB, the first one twice
    assert path.stat().st_size < chunks + 4 * state + 200_000  # written anew 40 times it would be 3.7 MB


def test_two_writers_are_refused(create: Create, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with create(path) as writer:
        _append(writer, 0)
        with pytest.raises(RunFileError, match=rf"run\.h5: is being written by process {os.getpid()}"):
            RunWriter.resume(path)
        with pytest.raises(RunFileError, match="is being written"):
            create(path, overwrite=True)
    with open_run(path) as run:
        assert run.status == "complete"


def test_leftovers_of_a_dead_writer_are_no_obstacle(create: Create, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    (tmp_path / "run.h5.lock").write_text("999999\n")
    (tmp_path / "run.h5.writing").write_bytes(b"half")
    create(path).finish()
    assert list(tmp_path.iterdir()) == [path]


def test_resume_goes_back_to_the_checkpoint(create: Create, tmp_path: Path) -> None:
    path, whole = tmp_path / "run.h5", tmp_path / "whole.h5"
    writer = create(path)
    for step in range(5):
        _append(writer, step)
    writer.checkpoint({"step": 5})
    for step in range(5, 8):
        _append(writer, step)
    writer.append(
        "training/late", 1.0, units="dimensionless", description="[step] begins after the checkpoint"
    )
    writer.publish()
    writer.close()
    with open_run(path) as run:
        assert run.status == "interrupted"
        assert run.checkpoint() == {"step": 5}
    with RunWriter.resume(path) as writer:
        with opened(path) as file:
            assert list(file["training/step"]) == list(range(5))
            assert "late" not in file["training"]
        for step in range(5, 10):
            _append(writer, step)
        writer.checkpoint({"step": 10})
    with create(whole) as writer:
        for step in range(10):
            _append(writer, step)
        writer.checkpoint({"step": 10})
    assert compare(path, whole) == []


def test_resume_without_checkpoint_starts_from_the_beginning(create: Create, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with create(path) as writer:
        _append(writer, 0)
    with RunWriter.resume(path) as writer, open_run(path) as run:
        assert run.checkpoint() == {}
        assert run.metrics() == []
        _append(writer, 0)
    with open_run(path) as run:
        assert run.metric("loss")[0].tolist() == [0]


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "complete"), (KeyboardInterrupt, "interrupted"), (ZeroDivisionError, "failed")],
)
def test_leaving_the_block_says_how_it_ended(
    create: Create, tmp_path: Path, error: type[BaseException] | None, status: str
) -> None:
    path = tmp_path / "run.h5"
    try:
        with create(path) as writer:
            _append(writer, 0)
            if error is not None:
                raise error
    except (KeyboardInterrupt, ZeroDivisionError):
        pass
    with open_run(path) as run:
        assert run.status == status
        assert len(run.metric("loss")[1]) == 1


def test_ctrl_c_waits_for_the_write() -> None:
    done = False
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt), uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done = True
    finally:
        signal.signal(signal.SIGINT, before)
    assert done


def test_places_that_cannot_hold_a_run(create: Create, finished: Path, tmp_path: Path) -> None:
    text = tmp_path / "experiment.yaml"
    text.write_text("experiment: x\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    message = "exists; continue it with --resume, replace it with --overwrite, or give another -o"
    for path, options, expected in (
        (finished, {}, f"{finished}: {message}"),
        (text, {}, f"{text}: {message}"),
        (
            text,
            {"overwrite": True},
            f"{text}: is not a run file and is not overwritten; delete it, or give another -o",
        ),
        (tmp_path, {}, f"{tmp_path}: is a folder; give the name of a run file in it"),
        (text / "a/run.h5", {}, f"{text / 'a/run.h5'}: its folder cannot be made: Not a directory"),
        (tmp_path / ("n" * 252), {}, f"{tmp_path / ('n' * 252)}: cannot be written: File name too long"),
        (
            tmp_path / "new" / ("n" * 252),
            {},
            f"{tmp_path / 'new' / ('n' * 252)}: cannot be written: File name too long",
        ),
    ):
        with pytest.raises(RunFileError) as refused:
            create(path, **options)
        assert str(refused.value) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_folders_are_made_and_files_replaced_when_asked(create: Create, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "run.h5"
    with create(path) as writer:
        _append(writer, 0)
    with create(path, overwrite=True):
        pass
    with open_run(path) as run:
        assert run.metrics() == []


def test_same_contents_compare_equal_and_others_do_not(create: Create, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.h5" for name in "abc"]
    for path in paths:
        with create(path) as writer:
            for step in range(3):
                _append(writer, step + (path == paths[2] and step == 1))
            writer.append("training/nan", np.nan, units="dimensionless", description="[step] not a number")
            if path == paths[2]:
                writer.put("updates/x", 1.0, units="dimensionless", description="one value")
                writer.attributes("/", seed=2)
    assert compare(paths[0], paths[1]) == []
    assert compare(paths[0], paths[2]) == [
        "/: attribute seed",
        f"updates: only in {paths[2]}",
        "training/loss: 1 of 3 values, by at most 0.5",
        "training/step: 1 of 3 values, by at most 1",
        f"updates/x: only in {paths[2]}",
    ]
