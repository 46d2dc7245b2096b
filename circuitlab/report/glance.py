"""What a run file holds at one moment: how far the run is, how well it does, what it has recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from circuitlab.errors import RunFileError
from circuitlab.record.reader import Run, open_run

WAITING, RUNNING, COMPLETE, LOST = "waiting", "running", "complete", "lost"
FIRST = ("test_", "validation_", "train_")
JUDGED = ("accuracy", "loss", "control_cost", "unconverged", "feedback_angle", "mismatch")
"""Ends of the names of metrics of which there is a best: the highest accuracy, the lowest of all others."""
DIED = "its writer is gone without a word: killed, or its machine went down; everything up to the last flush is kept"
STOPPED = "it was stopped before its end"


@dataclass(frozen=True)
class Curve:
    """A metric's course: `values` [row] at `index` [row], epochs or updates.

    There is no `best` where more is neither gain nor loss, and at single steps.
    """

    name: str
    index: tuple[float, ...]
    values: tuple[float, ...]
    per: str
    best: float | None = None
    best_at: float | None = None

    @property
    def last(self) -> float:
        """Its latest value."""
        return self.values[-1]


@dataclass(frozen=True)
class Records:
    """A growing record: rows so far, and the shape of each."""

    name: str
    rows: int
    shape: tuple[int, ...]
    axes: str


@dataclass(frozen=True)
class Glance:
    """What a run file holds at one moment.

    Args:
        path: of the file.
        status: waiting (no file yet), running, complete, interrupted, failed, lost (it cannot be read any more).
        reason: why it ended where it did not complete, as far as known.
        kind: training, simulation, equilibrium, diagnosis, or empty where it cannot be told.
        title, about: the experiment or circuit, and a line about it.
        epoch, epochs, step, steps: done and in all; None where unknown.
        clock_ms, clock_end_ms: of a simulation, its time and its end.
        curves: metrics in the order in which they are read.
        unconverged, samples_seen: samples left out, and looked at, so far.
        records: rows of probes and weights.
        bytes: size of the file.
        flushed: when it was last written, seconds since 1970.
        began, began_at: when the session that writes began, and at which step.
    """

    path: Path
    status: str = WAITING
    reason: str = ""
    kind: str = ""
    title: str = ""
    about: str = ""
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    clock_ms: float | None = None
    clock_end_ms: float | None = None
    curves: tuple[Curve, ...] = ()
    unconverged: int | None = None
    samples_seen: int | None = None
    records: tuple[Records, ...] = ()
    bytes: int = 0
    flushed: float = 0.0
    began: float | None = None
    began_at: int = 0
    created: str = field(default="", repr=False)

    @property
    def ended(self) -> bool:
        """Whether nobody writes it any more."""
        return self.status not in (WAITING, RUNNING)

    @property
    def share(self) -> float | None:
        """How much is done, 0 to 1; None where unknown."""
        if self.status == COMPLETE:
            return 1.0
        if self.step is None or not self.steps:
            return None
        return min(self.step / self.steps, 1.0)


def look(path: str | Path) -> Glance:
    """A run file as it is now.

    Raises:
        RunFileError: there is none, or it is damaged or of another program.
    """
    found = _look(Path(path))
    if found.reason == DIED:
        # The writer may have finished between our opening and our asking for its lock: only a second look tells, with
        # the file closed in between, as HDF5 shows one process one state of a file.
        found = _look(Path(path))
    return found


def _look(path: Path) -> Glance:
    stat = path.stat() if path.exists() else None
    with open_run(path) as run:
        return _read(run, path, str(run.attributes["status"]), run.status, stat)


def _read(run: Run, path: Path, raw: str, status: str, stat: Any) -> Glance:
    about = run.attributes
    reason = ""
    if status == "failed":
        reason = str(about.get("failure") or "no reason is on record")
    elif status == "interrupted":
        reason = DIED if raw == RUNNING else STOPPED
    try:
        experiment = YAML(typ="safe", pure=True).load(run.experiment_yaml)
    except (YAMLError, ValueError) as error:
        raise RunFileError(f"{path}: spec/experiment: is damaged and cannot be read") from error
    experiment = experiment if isinstance(experiment, dict) else {}
    found: dict[str, Any] = {
        "path": path,
        "status": status,
        "reason": reason,
        "title": str(experiment.get("experiment", "")),
        "records": _records(run),
        "bytes": stat.st_size if stat else 0,
        "flushed": stat.st_mtime if stat else 0.0,
        "created": str(about.get("created", "")),
    }
    paths = [one.path for one in run.tables()]
    if run.is_group("training"):
        found |= _training(run, experiment)
    elif run.is_group("simulation"):
        found |= _simulation(run, paths)
    elif run.is_group("equilibria"):
        found |= _equilibria(run, paths)
    elif run.is_group("diagnosis"):
        found |= {"kind": "diagnosis"}
    return Glance(**found)


def _attributes(run: Run, group: str) -> dict[str, Any]:
    item = run.file[group]
    return {
        str(key): value.item() if isinstance(value, np.generic) else value
        for key, value in item.attrs.items()
    }


def _number(value: Any, kind: type) -> Any:
    """An attribute as a number, None where it is none."""
    try:
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _training(run: Run, experiment: dict[str, Any]) -> dict[str, Any]:
    about = _attributes(run, "training")
    learn = experiment.get("learn")
    learn = learn if isinstance(learn, dict) else {}
    names = set(run.metrics())
    epochs = _number(about.get("epochs", learn.get("epochs")), int)
    per_epoch, samples = _number(about.get("steps_per_epoch"), int), _number(about.get("samples"), int)
    step = _last(run, "training/step")
    epoch = _last(run, "training/epoch")
    missing = run.metric("step_unconverged")[1] if "step_unconverged" in names else None
    seen = None
    if samples and step is not None and per_epoch:
        whole, rest = divmod(step, per_epoch)
        batch = _number(learn.get("batch_size"), int) or -(-samples // per_epoch)
        seen = whole * samples + min(rest * batch, samples)
    words = [str(learn.get("rule", "")).replace("_", " "), str(about.get("data", ""))]
    return {
        "kind": "training",
        "about": ", ".join(word for word in (*words, f"seed {run.attributes.get('seed', 0)}") if word),
        "epoch": epoch or 0,
        "epochs": epochs,
        "step": step or 0,
        "steps": epochs * per_epoch if epochs and per_epoch else None,
        "curves": tuple(_curves(run, sorted(names, key=_place))),
        "unconverged": None if missing is None else int(missing.sum()),
        "samples_seen": seen,
        "began": _seconds(run.attributes.get("session_began")),
        "began_at": _number(run.attributes.get("session_began_at_step"), int) or 0,
    }


def _seconds(text: Any) -> float | None:
    """A time in ISO form as seconds since 1970."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return when.timestamp() if when.tzinfo else when.replace(tzinfo=UTC).timestamp()


def _last(run: Run, path: str) -> int | None:
    found = {one.path: one.shape for one in run.tables()}
    if len(found.get(path, ())) != 1 or not found[path][0]:
        return None
    return int(run.read(path)[-1])


def _place(name: str) -> tuple[int, int, str]:
    """Accuracy first, then losses, the control cost, and the rest; what is measured at every step last."""
    order = ("accuracy", "loss", "control_cost", "unconverged")
    split = next((number for number, word in enumerate(FIRST) if name.startswith(word)), len(FIRST))
    plain = name.removeprefix(FIRST[split]) if split < len(FIRST) else name
    kind = order.index(plain) if plain in order else len(order)
    return (kind + 10 * name.startswith("step_"), split, name)


def _curves(run: Run, names: list[str]) -> list[Curve]:
    found = []
    for name in names:
        index, values = run.metric(name)
        count = min(len(index), len(values))
        if not count:
            continue
        index, values = np.asarray(index[:count], float), np.asarray(values[:count], float)
        per = "step" if name.startswith("step_") else "epoch"
        best = at = None
        finite = np.flatnonzero(np.isfinite(values))
        if len(finite) and name.endswith(JUDGED) and per == "epoch":
            pick = np.argmax if name.endswith("accuracy") else np.argmin
            row = finite[pick(values[finite])]
            best, at = float(values[row]), float(index[row])
        found.append(Curve(name, tuple(index.tolist()), tuple(values.tolist()), per, best, at))
    return found


def _records(run: Run) -> tuple[Records, ...]:
    """Probes by their frames, and the snapshots of all weights."""
    found = []
    for one in run.tables():
        parts = one.path.split("/")
        if parts[0] == "activity" and parts[-1] == "data" and len(one.shape) > 0:
            axes = one.description.partition("]")[0].strip("[ ").partition(",")[2].strip()
            found.append(Records("/".join(parts[1:-1]), one.shape[0], one.shape[1:], axes))
        elif one.path == "weights/step" and len(one.shape) == 1:
            found.append(Records("weights", one.shape[0], (), "snapshots of all weights"))
    return tuple(found)


def _simulation(run: Run, paths: list[str]) -> dict[str, Any]:
    about = _attributes(run, "simulation")
    dt, end = _number(about.get("dt_ms"), float), _number(about.get("duration_ms"), float)
    clocks = [path for path in paths if path.startswith("activity/") and path.endswith("/time")]
    times = [run.read(path) for path in clocks]
    now = max((float(one[-1]) for one in times if one.ndim == 1 and len(one)), default=None)
    steps = round(end / dt) if dt and end else None
    return {
        "kind": "simulation",
        "about": ", ".join(str(about[key]) for key in ("method", "control") if key in about),
        "clock_ms": now,
        "clock_end_ms": end,
        "step": round(now / dt) if dt and now is not None else 0,
        "steps": steps,
        "began": _seconds(run.attributes.get("created")),
    }


def _equilibria(run: Run, paths: list[str]) -> dict[str, Any]:
    reached = [
        run.read(path) for path in paths if path.startswith("equilibria/") and path.endswith("/converged")
    ]
    return {
        "kind": "equilibrium",
        "unconverged": int(sum((~one.astype(bool)).sum() for one in reached)),
        "samples_seen": int(sum(one.size for one in reached)),
    }
