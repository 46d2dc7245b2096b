"""What a picture or a table needs of a run file: its metrics, and the neurons it recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

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
        variable, phase: what was recorded, and at which equilibrium (free or controlled; empty where not said).
        shape: [frame, sample, unit]. time: epoch of each frame, or its step where epochs were not kept.
        labels: class of each sample, shape [sample]; None where unknown or where samples change between frames.
        units: index of each neuron in its population, shape [unit].
        load: reads the data.
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
    load: Callable[[], NDArray]

    @cached_property
    def data(self) -> NDArray:
        """The recorded values, [frame, sample, unit]."""
        return self.load()


@dataclass(frozen=True, eq=False)
class Reading:
    """A run as its reader sees it.

    Args:
        title: name of the experiment. label: what tells the run from another of it: its rule, or its file's name.
        metrics: name -> epochs (or steps) and values, both of one length.
    """

    title: str
    label: str
    metrics: dict[str, tuple[NDArray, NDArray]] = field(default_factory=dict)
    probes: dict[str, Probe] = field(default_factory=dict)

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
        label=str(rule).replace("_", " ") if rule else run.path.stem,
        metrics=numeric,
        probes=probes,
    )


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
    if data is None or data.ndim != 3 or not len(data) or data[0].nbytes > MOST_BYTES:
        return None
    frames = min(len(data), max(2, int(MOST_BYTES // max(1, data.nbytes // len(data)))))
    kept = np.unique(np.linspace(0, len(data) - 1, frames).round().astype(int))
    time_name = "epoch" if f"{folder}/epoch" in run.datasets else "step"
    time = _beside(run, f"{folder}/{time_name}")
    units = _beside(run, f"{folder}/unit_ids")
    labels = _beside(run, f"{folder}/labels")
    if labels is not None and labels.ndim == 2:
        labels = labels[0] if len(labels) and (labels == labels[0]).all() else None

    def load() -> NDArray:
        try:
            return np.asarray(data[kept])
        except OSError as error:
            raise RunFileError(f"{run.path}: {folder}/data: is damaged and cannot be read") from error

    return Probe(
        name=name,
        population=str(data.attrs.get("population", "")),
        variable=str(data.attrs.get("variable", "")),
        phase=str(data.attrs.get("phase", "")),
        shape=(len(kept), *data.shape[1:]),
        time=np.arange(len(data))[kept] if time is None or len(time) != len(data) else time[kept],
        time_name=time_name,
        labels=labels,
        units=np.arange(data.shape[2]) if units is None or units.shape != data.shape[2:] else units,
        load=load,
    )


def _beside(run: Run, path: str) -> NDArray | None:
    return run.read(path) if path in run.datasets else None
