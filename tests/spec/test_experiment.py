"""The experiment file: defaults, overrides, its circuit, and that nothing is lost on the way out and in."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from circuitlab.errors import SpecError
from circuitlab.spec.advice import warnings
from circuitlab.spec.circuit import load_circuit
from circuitlab.spec.experiment import ExperimentSpec, experiment_from, load_experiment
from circuitlab.spec.probes import ProbeSpec
from circuitlab.spec.settings import LossSpec
from circuitlab.spec.settled import AlphaSpec

CIRCUIT = """\
circuit: small
populations:
  x: {type: input, size: 4}
  h: {type: pyramidal, size: 30}
  y: {type: output, size: 3, names: [a, b, c]}
  z: {type: output, size: 2}
projections:
  x_h: {source: x, target: h}
  h_y: {source: h, target: y}
  h_z: {source: h, target: z}
  y_h: {source: y, target: h, site: apical, carries: burst, connect: {rule: transpose, of: h_y}}
"""

MINIMAL = "experiment: minimal\ncircuit: circuit.yaml\ndata: digits\n"

FULL = """\
experiment: full
description: every section says something
circuit: circuit.yaml
data: {name: file, train: train.npz, test: test.npz, validation: 0.2, limit: 100, inputs: {x: pixels},
          targets: {y: label, z: side}}
loss: {y: {name: cross_entropy, soft_targets: 0.1}, z: squared_error}
control: {feedback: random, scale: 0.5, controller: {type: proportional, beta: 3}}
solve: {method: euler, tolerance: 1e-4, max_iterations: 80, memory: 3, damping: 0.5, dt: 500 us,
          max_time: 2 s, start: zero, free_tolerance: 0.02, preconditioner: none,
        on_unconverged: keep}
learn: {rule: recurrent_backprop, optimizer: {name: sgd, lr: 0.1, momentum: 0.9},
          scheduler: {name: cosine, per: epoch, minimum: 0.1},
        epochs: 3, batch_size: 8, clip: 10, constrain: {largest_singular_value: 1, frozen: leave},
          early_stopping: {metric: accuracy, patience: 2},
        snapshots_every: 2 epochs}
record:
  hidden: {population: h, variable: basal, units: [0, 5, "10:20"], phase: free, samples: [3, 1],
          of: test, every: 50 steps}
  outputs: {population: y, variable: controller, names: [a, c], every: 2 epochs}
seed: 4
dtype: float64
device: cuda:1
threads: 2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "circuit.yaml").write_text(CIRCUIT)
    (tmp_path / "train.npz").write_bytes(b"")
    (tmp_path / "test.npz").write_bytes(b"")
    (tmp_path / "minimal.yaml").write_text(MINIMAL)
    (tmp_path / "full.yaml").write_text(FULL)
    return tmp_path


def test_defaults(folder: Path) -> None:
    spec = load_experiment(folder / "minimal.yaml")
    assert spec.data is not None
    assert (spec.data.name, spec.data.validation, spec.data.limit) == ("digits", 0.1, None)
    assert spec.losses == {"y": LossSpec(), "z": LossSpec()}
    control, solve, learn = spec.control, spec.solve, spec.learn
    assert (control.pathway, control.feedback, control.scale, control.file) == (
        "dynamic_inversion",
        "tied",
        1.0,
        None,
    )
    assert (control.controller.type, control.controller.alpha, control.controller.tau_ms) == (
        "leaky_integral",
        1.0,
        100.0,
    )
    assert (solve.method, solve.tolerance, solve.max_iterations, solve.memory, solve.damping) == (
        "auto",
        None,
        500,
        5,
        1.0,
    )
    assert (solve.dt_ms, solve.max_time_ms, solve.start, solve.on_unconverged) == (
        1.0,
        20_000.0,
        "free",
        "skip",
    )
    assert (learn.rule, learn.optimizer.name, learn.optimizer.lr, learn.scheduler.name) == (
        "least_control",
        "adam",
        1e-3,
        "constant",
    )
    assert (learn.epochs, learn.batch_size, learn.clip, learn.early_stopping, learn.snapshots_every) == (
        20,
        64,
        None,
        None,
        1,
    )
    assert (learn.presynaptic, learn.weighting, learn.penalty.jacobian) == ("controlled", "equal", None)
    assert learn.constrain.largest_singular_value == "none", "the circuit is feedforward"
    assert learn.constrain.bounds == {}
    assert solve.check_energy is None
    assert (solve.free_tolerance, solve.preconditioner) == (0.1, "auto")
    assert (spec.seed, spec.dtype, spec.device, spec.threads, spec.record) == (0, "float32", "cpu", None, {})
    assert spec.circuit.circuit == "small"


def test_every_key_reaches_its_attribute(folder: Path) -> None:
    spec = load_experiment(folder / "full.yaml")
    assert spec.data is not None
    assert spec.data.targets == {"y": "label", "z": "side"}
    assert spec.losses == {"y": LossSpec(soft_targets=0.1), "z": LossSpec(name="squared_error")}
    assert (spec.control.controller.type, spec.control.controller.beta, spec.control.controller.alpha) == (
        "proportional",
        3,
        None,
    )
    assert spec.control.controller.tau_ms == 0.0
    assert (spec.solve.dt_ms, spec.solve.max_time_ms) == (0.5, 2000.0)
    assert (spec.solve.free_tolerance, spec.solve.preconditioner) == (0.02, "none")
    assert (spec.learn.optimizer.name, spec.learn.optimizer.options) == ("sgd", {"momentum": 0.9})
    assert (spec.learn.scheduler.per, spec.learn.scheduler.options) == ("epoch", {"minimum": 0.1})
    assert spec.learn.snapshots_every == 2
    hidden = spec.record["hidden"]
    assert hidden.unit_indices(30) == [0, 5, *range(10, 20)]
    assert (hidden.samples, hidden.of, hidden.every.steps, hidden.every.epochs) == ((3, 1), "test", 50, None)
    assert spec.record["outputs"].names == ("a", "c")
    assert (spec.dtype, spec.device, spec.threads) == ("float64", "cuda:1", 2)


@pytest.mark.parametrize("name", ["minimal", "full"])
def test_what_is_resolved_reads_back_as_the_same_experiment(folder: Path, name: str) -> None:
    spec = load_experiment(folder / f"{name}.yaml")
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(spec.resolved(), stream)
    again = load_experiment("run.h5", text=stream.getvalue(), folder=folder, circuit=spec.circuit)
    assert again.resolved() == spec.resolved()
    for section in ("data", "loss", "control", "solve", "learn", "record"):
        assert getattr(again, section) == getattr(spec, section)


def problems(folder: Path, *overrides: str, name: str = "minimal") -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_experiment(folder / f"{name}.yaml", overrides)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_overrides_reach_every_depth_through_shorthands_too(folder: Path) -> None:
    spec = load_experiment(
        folder / "minimal.yaml",
        [
            "learn.epochs=3",
            "learn.optimizer.lr = 1e-2",
            "data.limit=7",
            "loss.soft_targets=0.2",
            "learn.clip=5",
            "control.controller={type: integral}",
            "solve.dt=2 ms",
            "record.r={population: h, variable: soma}",
            "seed=9",
        ],
    )
    assert spec.data is not None
    assert (spec.learn.epochs, spec.learn.optimizer.lr, spec.learn.clip, spec.data.limit, spec.seed) == (
        3,
        0.01,
        5,
        7,
        9,
    )
    assert (spec.control.controller.type, spec.control.controller.alpha) == ("integral", 0.0)
    assert spec.solve.dt_ms == 2.0
    assert spec.record["r"].unit_indices(3) == [0, 1, 2]
    full = load_experiment(
        folder / "full.yaml", ["learn.scheduler.name=constant", "learn.early_stopping=null", "learn.clip="]
    )
    assert full.learn.scheduler.options == {"minimum": 0.1}
    assert full.learn.early_stopping is None and full.learn.clip is None


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("learn.epochs=0", "--set learn.epochs: 0 is out of range; it must be at least 1"),
        ("learn.epochs=three", "--set learn.epochs: a whole number is wanted, not text 'three'"),
        ("learn.epochs", "--set learn.epochs: KEY=VALUE is wanted, such as learn.epochs=3"),
        ("=3", "--set =3: KEY=VALUE is wanted, such as learn.epochs=3"),
        ("learn..epochs=3", "--set learn..epochs=3: KEY=VALUE is wanted, such as learn.epochs=3"),
        ("seed.x=3", None),
        (
            "dtype=flaot32",
            "--set dtype: 'flaot32' is not allowed; allowed: float32, float64. Did you mean 'float32'?",
        ),
        (
            "solve.tolerance=1e-8",
            "--set solve.tolerance: 1e-08 is beyond the precision of float32; at least 2e-07, or"
            " 'dtype: float64'",
        ),
        (
            "learn.epoch=3",
            "--set learn.epoch: unknown key; allowed: rule, presynaptic, weighting, optimizer, scheduler,"
            " epochs, batch_size, clip, constrain, penalty, early_stopping,"
            " snapshots_every. Did you mean 'epochs'?",
        ),
        (
            "learn.rule=anti_hebbian",
            "--set learn.rule: 'anti_hebbian' is not built yet; allowed: least_control,"
            " least_control_gated, recurrent_backprop, backprop",
        ),
        (
            "solve.dt=1",
            "--set solve.dt: 1 has no unit; write a time with its unit, such as '10 ms' (units: s,"
            " ms, us, min)",
        ),
        ("circuit=nowhere.yaml", "--set circuit: no file 'nowhere.yaml'"),
        (
            "experiment={a: 1",
            "--set experiment: not valid YAML: while parsing a flow mapping, expected ',' or '}', but got"
            " '<stream end>'; check the indentation, colons and brackets here",
        ),
        ("data=file", "--set data: the data set 'file' needs 'train'"),
    ],
)
def test_a_wrong_override_is_told_at_the_override(folder: Path, override: str, line: str | None) -> None:
    if line is None:
        assert problems(folder, "seed=1", override) == [
            "--set seed.x: seed is no mapping; it has no keys to set"
        ]
    else:
        assert problems(folder, override) == [line]


def test_mistakes_of_command_line_experiment_and_circuit_come_together(folder: Path) -> None:
    (folder / "circuit.yaml").write_text(CIRCUIT.replace("size: 30", "size: 0"))
    (folder / "minimal.yaml").write_text(MINIMAL + "sede: 3\n")
    found = problems(folder, "learn.epochs=0")
    assert [line.split(" ")[0] for line in found] == ["--set", "minimal.yaml:4:1:", "circuit.yaml:4:30:"]


def test_the_default_experiment_of_a_circuit(folder: Path) -> None:
    circuit = load_circuit(folder / "circuit.yaml")
    spec = experiment_from(circuit, ["dtype=float64", "solve.tolerance=1e-9", "control.controller.alpha=0.1"])
    assert spec.data is None and spec.circuit is circuit
    assert (spec.dtype, spec.solve.tolerance, spec.control.controller.alpha) == ("float64", 1e-9, 0.1)
    with pytest.raises(SpecError) as caught:
        experiment_from(circuit, ["solve.tolerence=1e-9"])
    assert str(caught.value).startswith("--set solve.tolerence: unknown key; allowed: method, tolerance")
    assert str(caught.value).endswith("Did you mean 'tolerance'?")


def test_feedback_from_a_file_is_below_the_experiment(folder: Path) -> None:
    text = MINIMAL + "control: {pathway: linear_feedback, feedback: {file: train.npz}}\n"
    spec = load_experiment(folder / "a.yaml", text=text)
    assert (spec.control.feedback, spec.control.file) == ("file", "train.npz")
    assert (
        load_experiment("run.h5", text=MINIMAL + "control: linear_feedback\n", folder=folder).control.feedback
        == "random"
    )
    with pytest.raises(SpecError, match=r"a.yaml:4:54: control.feedback.file: no file 'q.npz'"):
        load_experiment(folder / "a.yaml", text=text.replace("train.npz", "q.npz"))


@pytest.mark.parametrize(
    ("units", "size", "chosen"),
    [
        (None, 3, [0, 1, 2]),
        (("::2",), 5, [0, 2, 4]),
        (("-2:",), 5, [3, 4]),
        ((4, "3:5", 4), 5, [4, 3]),
        (("3:1:-1",), 5, [3, 2]),
    ],
)
def test_units_are_chosen_as_python_slices_do(
    units: tuple[int | str, ...] | None, size: int, chosen: list[int]
) -> None:
    assert ProbeSpec(population="h", variable="soma", units=units).unit_indices(size) == chosen


def test_a_selection_beyond_the_population_is_refused() -> None:
    for units in ((5,), ("2:6",), ("2:2",)):
        with pytest.raises(ValueError, match="neuron"):
            ProbeSpec(population="h", variable="soma", units=units).unit_indices(5)


def test_idle_burst_projections_are_warned_of(folder: Path) -> None:
    spec = load_experiment(folder / "minimal.yaml")
    assert isinstance(spec, ExperimentSpec)
    assert warnings(spec) == [
        "projections.y_h: carries bursts, which only 'feedback: apical' uses; it is idle here"
    ]
    assert warnings(load_experiment(folder / "minimal.yaml", ["control.feedback=apical"])) == []


RECURRENT = CIRCUIT + "  h_h: {source: h, target: h}\n"
SETTLED = (
    MINIMAL
    + """\
control: {controller: {alpha: {from: 6.4, to: 0.1, over: 0.5, shape: linear}}}
solve: {check_energy: {every: 20 steps, samples: 3}}
learn: {presynaptic: free, weighting: error, penalty: {jacobian: 0.01},
        constrain: {largest_singular_value: 2, largest_symmetric_eigenvalue: 0.9}}
"""
)


def test_recurrent_circuits_have_a_bound_unless_told_otherwise(folder: Path) -> None:
    (folder / "circuit.yaml").write_text(RECURRENT)
    key = "learn.constrain.largest_singular_value"
    for options, bounds, frozen in (
        ([], {"largest_singular_value": 0.5}, "leave"),
        ([f"{key}=auto"], {"largest_singular_value": 0.5}, "leave"),
        (["learn.rule=recurrent_backprop"], {"largest_singular_value": 0.5}, "leave"),
        ([f"{key}=none"], {}, "refuse"),
        ([f"{key}=0.7"], {"largest_singular_value": 0.7}, "refuse"),
        ([f"{key}=2", "learn.constrain.frozen=leave"], {"largest_singular_value": 2.0}, "leave"),
        (
            ["learn.constrain.largest_symmetric_eigenvalue=0.9"],
            {"largest_symmetric_eigenvalue": 0.9},
            "refuse",
        ),
        (
            ["learn.constrain.largest_symmetric_eigenvalue=0.9", f"{key}=3"],
            {"largest_singular_value": 3.0, "largest_symmetric_eigenvalue": 0.9},
            "refuse",
        ),
    ):
        spec = load_experiment(folder / "minimal.yaml", options)
        assert (spec.learn.constrain.bounds, spec.learn.constrain.frozen) == (bounds, frozen), options
        written = spec.resolved()["learn"]["constrain"]
        assert written["largest_singular_value"] == bounds.get("largest_singular_value", "none")
        again = load_experiment("run.h5", text=_text(spec), folder=folder, circuit=spec.circuit)
        assert again.learn == spec.learn


def test_a_burst_loop_is_no_recurrence(folder: Path) -> None:
    assert load_experiment(folder / "minimal.yaml").learn.constrain.bounds == {}


def test_options_that_keep_learning_settled(folder: Path) -> None:
    (folder / "circuit.yaml").write_text(RECURRENT)
    spec = load_experiment(folder / "minimal.yaml", text=SETTLED)
    alpha, check = spec.control.controller.alpha, spec.solve.check_energy
    assert isinstance(alpha, AlphaSpec) and check is not None
    assert (alpha.start, alpha.end, alpha.over, alpha.shape) == (6.4, 0.1, 0.5, "linear")
    assert spec.control.controller.leak == 0.1
    assert (check.every, check.samples) == (20, 3)
    assert (spec.learn.presynaptic, spec.learn.weighting, spec.learn.penalty.jacobian) == (
        "free",
        "error",
        0.01,
    )
    again = load_experiment("run.h5", text=_text(spec), folder=folder, circuit=spec.circuit)
    assert again.resolved() == spec.resolved()
    assert spec.resolved()["control"]["controller"]["alpha"] == {
        "from": 6.4,
        "to": 0.1,
        "over": 0.5,
        "shape": "linear",
    }
    assert spec.resolved()["solve"]["check_energy"] == {"every": "20 steps", "samples": 3}
    for section in ("control", "solve", "learn"):
        assert getattr(again, section) == getattr(spec, section)
    short = load_experiment(
        folder / "minimal.yaml",
        [
            "control.controller.alpha={from: 1, to: 0.1}",
            "solve.check_energy=30 steps",
            "solve.check_energy.samples=4",
        ],
    )
    alpha, check = short.control.controller.alpha, short.solve.check_energy
    assert isinstance(alpha, AlphaSpec) and check is not None
    assert (alpha.over, alpha.shape, check.every, check.samples) == (0.7, "geometric", 30, 4)


def _text(spec: ExperimentSpec) -> str:
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(spec.resolved(), stream)
    return stream.getvalue()
