"""`circuitlab simulate`, and `circuitlab.simulate` from Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import circuitlab
from circuitlab.cli.main import main
from circuitlab.record.reader import open_run
from circuitlab.record.run_file import RunWriter

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((3, 6)))
    np.save(tmp_path / "moving.npy", rng.standard_normal((5, 3, 6)))
    np.save(tmp_path / "y.npy", np.array([0, 1, 1]))
    np.save(tmp_path / "real.npy", rng.standard_normal((3, 2)))
    return tmp_path


def run(cortex: Path, folder: Path, *options: str, x: str = "x.npy", code: int = 0) -> Path:
    out = folder / "sim.h5"
    given = ["simulate", str(cortex), "--input", str(folder / x), "-o", str(out), "--overwrite", *options]
    assert main(given) == code
    return out


def test_the_file_holds_every_frame_and_says_what_it_is(cortex: Path, arrays: Path) -> None:
    path = run(
        cortex, arrays, "--duration", "20 ms", "--dt", "0.5 ms", "--every", "4 steps",
        "--record", "l23:apical:0,2:4", "--record", "retina", "--record", ":rate",
        code=1,
    )  # fmt: skip
    assert not path.exists()  # retina's rate was asked for twice
    path = run(
        cortex, arrays, "--duration", "20 ms", "--dt", "0.5 ms", "--every", "4 steps",
        "--record", "l23:apical:0,2:4", "--record", ":rate", "--record", "l23:basal", "--record", "l23",
    )  # fmt: skip
    with h5py.File(path) as file:
        assert file.attrs["status"] == "complete"
        assert file["simulation"].attrs["dt_ms"] == 0.5
        assert file["simulation"].attrs["method"] == "rk4"
        group = file["activity/l23_apical"]
        assert group["data"].shape == (11, 3, 3)
        assert group["data"].dtype == np.float64
        assert dict(group["data"].attrs)["variable"] == "apical"
        assert dict(group["data"].attrs)["population"] == "l23"
        assert group["unit_ids"][:].tolist() == [0, 2, 3]
        assert group["sample_ids"][:].tolist() == [0, 1, 2]
        assert np.allclose(group["time"][:], np.arange(11) * 2.0)
        assert group["step"][:].tolist() == list(range(0, 41, 4))
        assert group["time"].attrs["units"] == "ms"
        rates = {name for name in file["activity"] if name.endswith("_rate")}
        assert rates == {f"{name}_rate" for name in ("retina", "l4", "l23", "pv", "sst", "readout")}
        x = np.load(arrays / "x.npy")
        assert np.array_equal(file["activity/retina_rate/data"][5], x)
        assert np.array_equal(file["samples/input/retina"][:], x)
        assert len(file["edges"]) == 8
        soma = file["activity/l23_soma/data"][:]
        assert (soma[0] == 0).all()
        assert np.allclose(np.tanh(soma), file["activity/l23_rate/data"][:], atol=1e-15)


@pytest.mark.parametrize(
    "control",
    [
        (),
        ("--set", "control.feedback=random"),
        ("--control", "linear_feedback", "--set", "control.feedback=jacobian"),
        ("--control", "deep_feedback_control"),
    ],
    ids=lambda part: " ".join(part) or "tied",
)
def test_at_rest_it_is_the_equilibrium_of_the_other_command(
    cortex: Path, arrays: Path, control: tuple[str, ...]
) -> None:
    """The same circuit, inputs and targets through `equilibrium`, free and controlled, to 1e-8."""
    cortex.write_text(cortex.read_text().replace("relu", "softplus"))
    base = [str(cortex), "--input", str(arrays / "x.npy"), "--target", str(arrays / "y.npy")]
    equilibrium = arrays / "eq.h5"
    alpha = ("--set", "control.controller.alpha=0.5")
    assert (
        main(["equilibrium", *base, *control, *alpha, "--set", "dtype=float64", "-o", str(equilibrium)]) == 0
    )
    options = ("--duration", "4000 ms", "--dt", "4 ms", "--every", "1000 steps")
    for phase, target, traces in (
        ("free", (), ("soma", "basal")),
        (
            "controlled",
            ("--target", str(arrays / "y.npy"), *control, *alpha),
            ("soma", "control", "apical", "basal"),
        ),
    ):
        records = [part for variable in traces for part in ("--record", f"l23:{variable}")]
        path = run(cortex, arrays, *options, *target, *records)
        with h5py.File(path) as file, h5py.File(equilibrium) as other:
            for variable in traces:
                rested = file[f"activity/l23_{variable}/data"][-1]
                assert np.abs(rested - other[f"equilibria/{phase}/l23/{variable}"][:]).max() < 1e-8


def test_an_input_over_time_and_its_delay(cortex: Path, arrays: Path) -> None:
    """Five inputs of 4 ms each; what l4 gets through a delay of 3 ms is the input of 3 ms ago, silence before."""
    cortex.write_text(cortex.read_text().replace("target: l4}", "target: l4, delay: 3 ms}", 1))
    path = run(
        cortex, arrays, "--input-dt", "4 ms", "--dt", "1 ms",
        "--record", "l4:basal", "--record", "retina", x="moving.npy",
    )  # fmt: skip
    x = np.load(arrays / "moving.npy")
    with h5py.File(path) as file:
        edges = file["edges/retina_l4"]
        w = np.zeros((4, 6))
        w[edges["target_node_id"][:], edges["source_node_id"][:]] = edges["0/syn_weight"][:]
        basal, bias = file["activity/l4_basal/data"][:], file["nodes/l4/0/bias"][:]
        shown = np.concatenate([np.zeros((3, 3, 6)), np.repeat(x, 4, axis=0)])[:20]
        assert np.abs(basal[:20] - (shown @ w.T + bias)).max() < 1e-14
        assert np.array_equal(file["activity/retina_rate/data"][:20], np.repeat(x, 4, axis=0))
        assert file["samples/input/retina"].shape == (5, 3, 6)
        assert file["simulation"].attrs["input_dt_ms"] == 4.0


def test_python_gives_the_numbers_of_the_command(cortex: Path, arrays: Path) -> None:
    path = run(
        cortex, arrays, "--duration", "10 ms", "--dt", "0.25 ms", "--target", str(arrays / "real.npy"),
        "--control", "linear_feedback", "--record", "l23:control", "--record", "readout:controller",
    )  # fmt: skip
    found = circuitlab.simulate(
        cortex,
        np.load(arrays / "x.npy"),
        targets=np.load(arrays / "real.npy"),
        duration="10 ms",
        dt="0.25 ms",
        control="linear_feedback",
        record=["l23:control", "readout:controller"],
    )
    with h5py.File(path) as file:
        assert np.array_equal(found["l23_control"], file["activity/l23_control/data"][:])
        assert np.array_equal(found["readout_controller"], file["activity/readout_controller/data"][:])
        assert np.array_equal(found.time_ms, file["activity/l23_control/time"][:])
        assert np.abs(found["l23_control"][-1]).max() > 0.01
    written = circuitlab.simulate(
        cortex, {"retina": np.load(arrays / "x.npy")}, duration="1 ms", output=arrays / "own.h5"
    )
    assert not written.activity
    with open_run(arrays / "own.h5") as one:
        assert one.status == "complete"


def test_neurons_by_name(cortex: Path, arrays: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A neuron's name chooses it, and stands in the file beside its trace."""
    cortex.write_text(cortex.read_text().replace("size: 5}", "size: 5, names: [AVAL, AVAR, RIM, PVC, SMD]}"))
    path = run(cortex, arrays, "--duration", "2 ms", "--record", "l23:soma:PVC,AVAR", "--record", "l23:rate")
    with h5py.File(path) as file:
        group = file["activity/l23_soma"]
        assert group["unit_ids"][:].tolist() == [3, 1]
        assert group["unit_names"].asstr()[:].tolist() == ["PVC", "AVAR"]
        rates = file["activity/l23_rate"]
        assert rates["unit_names"].asstr()[:].tolist() == ["AVAL", "AVAR", "RIM", "PVC", "SMD"]
        assert np.allclose(np.tanh(group["data"][:]), rates["data"][:][:, :, [3, 1]], atol=1e-15)
        assert file["nodes/l23/0/name"].asstr()[:].tolist() == ["AVAL", "AVAR", "RIM", "PVC", "SMD"]
    path = run(cortex, arrays, "--duration", "2 ms", "--record", "l23:soma:AVA*,RIM", "--overwrite")
    with h5py.File(path) as file:
        assert file["activity/l23_soma/unit_names"].asstr()[:].tolist() == ["AVAL", "AVAR", "RIM"]
    condition = 'where name in ["PVC"] or index < 1'
    options = (
        "--record",
        f"l23:soma:{condition}",
        "--record",
        "l*:rate",
        "--record",
        ":basal:where index == 2",
    )
    path = run(cortex, arrays, "--duration", "2 ms", *options, "--overwrite")
    with h5py.File(path) as file:
        assert file["activity/l23_soma/unit_ids"][:].tolist() == [0, 3]
        basal = {name for name in file["activity"] if name.endswith("_basal")}
        assert {"l4_basal", "l23_basal"} <= basal and "retina_basal" not in basal
        assert all(file[f"activity/{name}/unit_ids"][:].tolist() == [2] for name in basal)
        assert {name for name in file["activity"] if name.endswith("_rate")} == {"l4_rate", "l23_rate"}
    run(cortex, arrays, "--record", "l23:soma:AVAM", code=1)
    assert "no neuron 'AVAM' in 'l23'. Did you mean" in capsys.readouterr().err


def test_single_precision(cortex: Path, arrays: Path) -> None:
    options = ("--duration", "20 ms", "--record", "l23")
    with h5py.File(run(cortex, arrays, *options)) as file:
        exact = file["activity/l23_soma/data"][:]
    with h5py.File(run(cortex, arrays, *options, "--set", "dtype=float32")) as file:
        single = file["activity/l23_soma/data"][:]
    assert (exact.dtype, single.dtype) == (np.float64, np.float32)
    assert 0 < np.abs(single - exact).max() < 1e-5


def test_states_to_begin_with(cortex: Path, arrays: Path) -> None:
    """From the free equilibrium nothing moves; given potentials are the first frame."""
    x = np.load(arrays / "x.npy")
    still = circuitlab.simulate(cortex, x, duration="20 ms", dt="1 ms", initial="free")
    assert np.abs(still["l23_soma"][-1] - still["l23_soma"][0]).max() < 1e-10
    sizes = {"l4": 4, "l23": 5, "pv": 2, "sst": 3, "readout": 2}
    given = {name: np.random.default_rng(1).standard_normal((3, size)) for name, size in sizes.items()}
    np.savez(arrays / "first.npz", **given)
    path = run(cortex, arrays, "--duration", "1 ms", "--initial", str(arrays / "first.npz"))
    with h5py.File(path) as file:
        for name, values in given.items():
            assert np.array_equal(file[f"activity/{name}_soma/data"][0], values)


def test_the_weights_of_a_run(tmp_path: Path, repository: Path) -> None:
    """They are what is simulated and what the file's edges hold."""
    learned, circuit = tmp_path / "run.h5", repository / "topologies" / "recurrent.yaml"
    experiment = repository / "experiments" / "recurrent_digits.yaml"
    assert main(["run", str(experiment), "-o", str(learned), "-q", "--set", "learn.epochs=1"]) == 0
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((2, 64)))
    path = run(
        circuit, tmp_path, "--weights", str(learned), "--duration", "2 s", "--dt", "4 ms", "--every", "500 steps",
        "--record", "recurrent", "--record", "recurrent:basal",
    )  # fmt: skip
    with h5py.File(path) as file, h5py.File(learned) as run_:
        w = file["edges/recurrent_recurrent/0/syn_weight"][:]
        assert np.abs(w - run_["weights/recurrent_recurrent"][-1]).max() < 1e-7
        assert np.abs(w - run_["weights/recurrent_recurrent"][0]).max() > 1e-3
        gap = file["activity/recurrent_soma/data"][-1] - file["activity/recurrent_basal/data"][-1]
        assert np.abs(gap).max() < 1e-8
        assert "after" in file["simulation"].attrs["weights"]


def test_inspect_lists_and_draws_it(cortex: Path, arrays: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run(cortex, arrays, "--duration", "10 ms", "--record", "l23", "--record", "l23:apical")
    capsys.readouterr()
    picture = arrays / "sim.svg"
    assert main(["inspect", str(path), "--json", "--plot", str(picture)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["experiment"] == "cortex_simulation"
    assert shown["probes"]["l23_apical"] == {
        "population": "l23", "variable": "apical", "phase": "real time", "frames": 101, "samples": 3, "neurons": 5,
    }  # fmt: skip
    text = picture.read_text()
    assert "time (ms)" in text
    assert "l23, apical" in text
    assert main(["inspect", str(path), "simulation"]) == 0
    assert "dt_ms: 0.1" in capsys.readouterr().out


REFUSALS = {
    "projections.l4_l23.delay: 0.25 ms is no multiple": ("--dt", "0.1 ms", "delay"),
    "duration: 10 ms is no multiple": ("--duration", "10 ms", "--dt", "0.3 ms"),
    "dt: 20 ms is longer than the time constant of 'l4', 10 ms": ("--dt", "20 ms"),
    "method: no method 'heun'; allowed: rk4, euler, exponential_euler": ("--method", "heun"),
    "duration: '10' has no unit": ("--duration", "10"),
    "every: not a count of steps": ("--every", "often"),
    "record: l5: no population 'l5'": ("--record", "l5"),
    "record: l23:spikes: no variable 'spikes'": ("--record", "l23:spikes"),
    "record: l23:weights: a simulation has no weights; allowed: soma, rate": ("--record", "l23:weights"),
    "record: l9*: no population 'l9*'; there are": ("--record", "l9*"),
    "record: l23:soma:where x < 1: no neuron of 'l23' has 'x'; there are index": ("--record", "l23:soma:where x < 1"),
    "record: :soma:where index > 99: nothing is selected; for one, no neuron of 'l4' is such that index > 99": (
        "--record", ":soma:where index > 99",
    ),
    "record: l23:soma:where index is 1: 'index is 1' is no comparison": ("--record", "l23:soma:where index is 1"),
    "record: pv:apical: 'pv' is of type interneuron": ("--record", "pv:apical"),
    "record: l23:soma:7: no neuron 7": ("--record", "l23:soma:7"),
    "record: l23:soma:AVAL: the neurons of 'l23' have no names": ("--record", "l23:soma:AVAL"),
    "record: :control: there is no control in a free simulation": ("--record", ":control"),
    "--control: a circuit is controlled towards a target": ("--control", "dynamic_inversion"),
    "control.controller.alpha: the circuit is free without a target": ("--set", "control.controller.alpha=1"),
    "solve.memory: no equilibrium is looked for": ("--set", "solve.memory=5"),
    "learn.epochs: a simulation has no use for it": ("--set", "learn.epochs=3"),
    "control.pathway: energy_based has no equations in time": ("--control", "energy_based", "target"),
    "control.pathway: lateral_inhibition has no equations in time": (
        "--control", "lateral_inhibition", "target",
    ),
    "[time, sample, unit]": ("--input-dt", "1 ms"),
    "first.npz: there is no such file": ("--initial", "first.npz"),
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSALS)
def test_what_does_not_fit_is_refused_in_one_line(
    words: str, cortex: Path, arrays: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [part for part in REFUSALS[words] if part not in ("delay", "target")]
    if "delay" in REFUSALS[words]:
        cortex.write_text(
            cortex.read_text().replace(
                "{source: l4, target: l23,", "{source: l4, target: l23, delay: 0.25 ms,"
            )
        )
    if "target" in REFUSALS[words]:
        options += ["--target", str(arrays / "y.npy")]
    out = run(cortex, arrays, *options, code=1)
    said = capsys.readouterr().err.strip()
    assert words in said
    assert "\n" not in said
    assert not out.exists()


def test_more_refusals_of_inputs(cortex: Path, arrays: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(cortex, arrays, x="moving.npy", code=1)
    assert "needs the time that each of its steps lasts" in capsys.readouterr().err
    run(cortex, arrays, "--input-dt", "1 ms", "--duration", "100 ms", x="moving.npy", code=1)
    assert "the input has 5 times of 1 ms, 5 ms in all" in capsys.readouterr().err
    run(cortex, arrays, "--input-dt", "0.25 ms", "--duration", "1 ms", x="moving.npy", code=1)
    assert "input_dt: 0.25 ms is no multiple" in capsys.readouterr().err
    moving = ["--input-dt", "1 ms", "--duration", "5 ms", "--target", str(arrays / "y.npy")]
    run(cortex, arrays, *moving, "--control", "deep_feedback_control", x="moving.npy", code=1)
    assert "nudges the free output of a constant input" in capsys.readouterr().err


def test_a_state_without_bound_stops_the_run(
    cortex: Path, arrays: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cortex.write_text(
        cortex.read_text()
        .replace("l23:     {type: pyramidal, size: 5}", "l23: {type: pyramidal, size: 5, activation: linear}")
        .replace(
            "l23_readout:",
            "own: {source: l23, target: l23, weights: {init: constant, value: 20}}\n  l23_readout:",
        )
    )
    out = run(cortex, arrays, "--duration", "2 s", "--dt", "1 ms", code=3)
    assert "infinite or not a number" in capsys.readouterr().err
    with open_run(out) as one:
        assert one.status == "failed"


def test_few_frames_wait_in_memory(cortex: Path, arrays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the simulation: frames go to the disk as soon as so many bytes wait."""
    waiting, own = [], RunWriter.publish_if_due

    def watched(writer: RunWriter) -> bool:
        done = own(writer)
        waiting.append(writer._pending)
        return done

    monkeypatch.setattr(RunWriter, "memory", 20_000)
    monkeypatch.setattr(RunWriter, "publish_if_due", watched)
    path = run(cortex, arrays, "--duration", "200 ms", "--dt", "0.5 ms")
    assert len(waiting) == 401
    assert max(waiting) <= 20_000
    with h5py.File(path) as file:
        assert np.isfinite(file["activity/l23_soma/data"][:]).all()
        assert len(file["activity/l23_soma/data"]) == 401


def test_ctrl_c_leaves_every_frame_so_far(cortex: Path, arrays: Path) -> None:
    out = arrays / "long.h5"
    code = "from circuitlab.cli.main import entry; entry()"
    options = ["--input", str(arrays / "x.npy"), "-o", str(out), "--duration", "600 s", "--every", "10 steps"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, "simulate", str(cortex), *options, "--record", "l23", "-q"],
        cwd=TOP,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 60
        while not out.exists() and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "stopped at" in said
    with h5py.File(out) as file:
        assert file.attrs["status"] == "interrupted"
        group = file["activity/l23_soma"]
        count = len(group["data"])
        assert count > 3
        assert len(group["time"]) == len(group["step"]) == count
        assert np.allclose(group["time"][:], np.arange(count))
