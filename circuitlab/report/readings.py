"""What a picture or a table needs of a run file: its metrics, and the neurons it recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import RunFileError
from circuitlab.record.reader import Run
from circuitlab.spec.source import read

MOST_BYTES = 256e6
"""Of a probe, so many bytes are held at once; of a larger one, frames at equal distances."""


@dataclass(frozen=True, eq=False)
class Probe:
    """Neurons recorded over training.

    Args:
        variable, phase: what was recorded, and at which equilibrium (free, controlled, or not said).
        shape: [frame, sample, unit]. time: ms, epoch, update or number of each frame; time_name says which.
        labels: class of each sample, shape [sample]; None where unknown or where samples change.
        units: index of each neuron in its population, shape [unit].
        fixed: whether every frame holds the same samples. load: reads the data.
    """

    name: str
    population: str
    variable: str
    phase: str
    shape: tuple[int, int, int]
    time: NDArray
    time_name: str
    labels: NDArray | None
    units: NDArray
    fixed: bool
    load: Callable[[], NDArray]

    @cached_property
    def data(self) -> NDArray:
        """The recorded values, [frame, sample, unit]."""
        return self.load()


@dataclass(frozen=True, eq=False)
class Reading:
    """A run as its reader sees it.

    Args:
        title: name of the experiment. label: what tells the run from another: its rule, or its file's name.
        metrics: name -> epochs (or steps) and values, both of one length.
        settings: of experiment and circuit, by dotted key, as text, without seeds, names and what is recorded: equal of
            runs that are repetitions of each other. seed: of the run. stem: its file's name.
    """

    title: str
    label: str
    metrics: dict[str, tuple[NDArray, NDArray]] = field(default_factory=dict)
    probes: dict[str, Probe] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    seed: str = ""
    stem: str = ""

    def curve(self, metric: str) -> tuple[NDArray, NDArray] | None:
        """Epochs (or steps) and values of a metric where it was measured, or None where it never was."""
        if metric not in self.metrics:
            return None
        at, values = self.metrics[metric]
        known = np.isfinite(values)
        return (at[known], values[known]) if known.any() else None


def reading(run: Run) -> Reading:
    """Collect what an open run file holds.

    Raises:
        RunFileError: a part of it is damaged.
    """
    experiment = specification(run.experiment_yaml)
    learn = experiment.get("learn")
    rule = learn.get("rule") if isinstance(learn, dict) else None
    metrics = {name: run.metric(name) for name in run.metrics()}
    numeric = {name: pair for name, pair in metrics.items() if pair[1].dtype.kind in "iufb"}
    names = sorted({path.split("/")[1] for path in run.datasets if path.startswith("activity/")})
    probes = {name: probe for name in names if (probe := _probe(run, name)) is not None}
    return Reading(
        title=str(experiment.get("experiment") or run.path.stem),
        label=str(rule).replace("_", " ") if rule and "simulation" not in run.file else run.path.stem,
        metrics=numeric,
        probes=probes,
        settings=_settings(experiment, specification(run.circuit_yaml)),
        seed=f"{experiment.get('seed', run.attributes.get('seed', ''))}",
        stem=run.path.stem,
    )


def _settings(experiment: dict[str, Any], circuit: dict[str, Any]) -> dict[str, str]:
    """What a condition is made of, by dotted key."""
    found: dict[str, str] = {}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{key}.{name}" if key else str(name))
        else:
            found[key] = str(value)

    no_matter = {"seed", "record", "description", "circuit", "device"}
    walk({k: v for k, v in experiment.items() if k not in no_matter}, "")
    walk({k: v for k, v in circuit.items() if k not in {"seed", "description"}}, "circuit")
    return found


def specification(text: str) -> dict[str, Any]:
    """The plain data of a specification kept in a run file; empty where it is none."""
    if not text.strip():
        return {}
    data = read("spec", text).data
    return data if isinstance(data, dict) else {}


def _probe(run: Run, name: str) -> Probe | None:
    """A probe whose frames hold samples and neurons, else None."""
    folder = f"activity/{name}"
    data = run.datasets.get(f"{folder}/data")
    if data is None or axes_of(data) != ("frame", "sample", "unit"):
        return None
    if data.ndim != 3 or not len(data) or data.nbytes > MOST_BYTES * len(data):
        return None
    frames = min(len(data), max(2, int(MOST_BYTES // max(1, data.nbytes // len(data)))))
    kept = np.unique(np.linspace(0, len(data) - 1, frames).round().astype(int))
    time_name, time = frame_axis(run, folder, len(data))
    samples = _beside(run, f"{folder}/sample_ids")
    units = _beside(run, f"{folder}/unit_ids")
    labels = _beside(run, f"{folder}/labels")
    if labels is not None and labels.ndim == 2:
        labels = labels[0] if len(labels) and (labels == labels[0]).all() else None

    def load() -> NDArray:
        try:
            return np.asarray(data[kept])
        except (OSError, RuntimeError, ValueError) as error:
            raise RunFileError(f"{run.path}: {folder}/data: is damaged and cannot be read") from error

    return Probe(
        name=name,
        population=str(data.attrs.get("population", "")),
        variable=str(data.attrs.get("variable", "")),
        phase=str(data.attrs.get("phase", "")),
        shape=(len(kept), *data.shape[1:]),
        time=time[kept],
        time_name=time_name,
        labels=labels,
        units=np.arange(data.shape[2]) if units is None or units.shape != data.shape[2:] else units,
        fixed=samples is None or samples.ndim == 1 or bool((samples == samples[0]).all()),
        load=load,
    )


def axes_of(data: h5py.Dataset) -> tuple[str, ...]:
    """The names of a dataset's axes, from the brackets that its description begins with; empty where there are none."""
    text = str(data.attrs.get("description", ""))
    inside, closing, _ = text.removeprefix("[").partition("]")
    return tuple(name.strip() for name in inside.split(",")) if text.startswith("[") and closing else ()


def frame_axis(run: Run, folder: str, frames: int, along_frames: bool = True) -> tuple[str, NDArray]:
    """What counts the frames of a probe, and the number of each: milliseconds of a simulation, else epochs where it was
    recorded by epochs.

    Args:
        folder: the probe's group. along_frames: whether `time` beside the data counts frames, not points of a settling.
    """
    time = _beside(run, f"{folder}/time") if along_frames else None
    if time is not None and len(time) >= frames:
        return "ms", time[:frames]
    every = str(run.file[folder].attrs.get("every", ""))
    epoch, step = _beside(run, f"{folder}/epoch"), _beside(run, f"{folder}/step")
    if epoch is not None and len(epoch) >= frames:
        return "epoch", epoch[:frames]
    if every.endswith(("epoch", "epochs")) and step is not None and len(step):
        apart = int(every.split()[0])
        return "epoch", apart * (np.arange(frames) + (step[0] > 0))
    if step is not None and len(step) >= frames:
        return "update", step[:frames]
    return "frame", np.arange(frames)


def _beside(run: Run, path: str) -> NDArray | None:
    return run.read(path) if path in run.datasets else None
