"""What a picture or a table needs of a whole run: what it was, and its metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitlab.record.reader import Run
from circuitlab.spec.source import read


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
    return Reading(
        title=str(experiment.get("experiment") or run.path.stem),
        label=str(rule).replace("_", " ") if rule and "simulation" not in run.file else run.path.stem,
        metrics=numeric,
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
