"""Recordings as CSV: one tidy table each, a row for every value, with a description that tools and people read.

Numbers are written with as many digits as bring the same number back, float32 as float32.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from circuitlab.record.exports.find import names_of
from circuitlab.record.exports.recordings import ROW_AXES, ROWS, Recording, file_name, unlinked
from circuitlab.record.reader import Run
from circuitlab.record.storage import link_name
from circuitlab.record.weights import recorded, snapshot_count, weights_at

FOLDER = "recorded"
MEANING = {
    "frame": ("", "number of the frame, from 0"),
    "snapshot": ("", "number of the snapshot, from 0"),
    "time": ("", "number of the moment, from 0"),
    "step": ("updates", "update at which the frame was recorded"),
    "time_ms": ("ms", "time since the simulation began"),
    "point": ("", "place along the settling trajectory, from 0"),
    "settling_time_ms": ("ms", "time since the settling began"),
    "iteration": ("iterations", "iterations of the solver since the settling began"),
    "sample": ("", "number of the sample in the data that it comes from"),
    "label": ("class", "class of the sample"),
    "unit": ("", "index of the neuron in its population, from 0"),
    "name": ("", "name of the neuron"),
    "edge": ("", "row of the synapse in /edges/<projection> of the run file"),
    "parameter": ("", "number of the shared weight"),
    "source": ("", "index of the sending neuron in its population"),
    "target": ("", "index of the receiving neuron in its population"),
    "source_name": ("", "name of the sending neuron"),
    "target_name": ("", "name of the receiving neuron"),
    "output_unit": ("", "number of the output unit, counted over all output populations"),
    "epoch": ("epochs", "number of the epoch"),
    "evaluation": ("epochs", "epochs finished; the first row is before learning"),
    "initial": ("dimensionless", "weight before learning"),
    "final": ("dimensionless", "weight after learning"),
}
"""Units and meaning of the columns."""


@dataclass
class Package:
    """The tables of a folder, as a frictionless data package describes them."""

    folder: Path
    resources: list[dict[str, Any]] = field(default_factory=list)
    taken: dict[str, set[str]] = field(default_factory=dict)

    def path(self, place: str, name: str) -> Path:
        """A new file in a folder of its own kind."""
        (self.folder / place).mkdir(exist_ok=True)
        return self.folder / place / f"{file_name(name, self.taken.setdefault(place, set()))}.csv"

    def add(self, path: Path, name: str, about: str, fields: Sequence[dict[str, Any]]) -> None:
        """Describe a table."""
        inside = path.relative_to(self.folder)
        self.resources.append(
            {
                "name": re.sub(r"[^a-z0-9._-]+", "-", str(inside.with_suffix("")).lower()),
                "title": name,
                "description": about,
                "path": inside.as_posix(),
                "format": "csv",
                "mediatype": "text/csv",
                "encoding": "utf-8",
                "schema": {"fields": list(fields), "missingValues": [""]},
            }
        )

    def write(self, name: str, about: Mapping[str, Any]) -> None:
        """datapackage.json, and README.txt for people."""
        package = {
            "name": re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-") or "run",
            "title": name,
            "profile": "tabular-data-package",
            "circuitlab": dict(about),
            "resources": self.resources,
        }
        text = json.dumps(package, indent=2, ensure_ascii=False) + "\n"
        (self.folder / "datapackage.json").write_text(text, encoding="utf-8")
        lines = [
            f"What was recorded of {name}, one CSV table each; datapackage.json says the same for programs.",
            "Every float has as many digits as bring the same number back in its type. Activity is dimensionless.",
            "",
        ]
        for each in self.resources:
            lines += [each["path"], f"    {each['description']}"]
            for column in each["schema"]["fields"]:
                unit = f" [{column['unit']}]" if "unit" in column else ""
                lines.append(f"    {column['name']}{unit}: {column['description']}")
            lines.append("")
        (self.folder / "README.txt").write_text("\n".join(lines), encoding="utf-8")


def write_tidy(
    run: Run, found: Sequence[Recording], folder: Path, name: str, about: Mapping[str, Any], learning: bool
) -> list[str]:
    """Write every recording, and what was measured in training, as CSV tables below a folder.

    Args:
        name: of the circuit. about: of the run, for datapackage.json. learning: whether learning curves and weights
            are written, too.

    Returns:
        What was left out: nothing.
    """
    package = Package(folder / FOLDER)
    package.folder.mkdir()
    wide: dict[tuple[str, tuple[str, ...]], list[Recording]] = {}
    for each in found:
        place = each.path.rpartition("/")[0]
        if each.axes == ("sample",) and not each.path.startswith("activity/"):
            wide.setdefault((place, each.axes), []).append(each)
        else:
            _write_recording(package, each)
    for (place, _), parts in wide.items():
        _write_samples(package, place, parts)
    if learning:
        _write_training(package, run)
        _write_weights(package, run)
    package.write(name, about)
    return []


def _field(name: str, values: Any, **more: str) -> dict[str, Any]:
    """A column's description: name, type, unit, meaning."""
    kind = np.asarray(values).dtype.kind
    unit, meaning = MEANING.get(name, ("", name))
    said = {"unit": unit, "description": meaning} | more
    return {
        "name": name,
        "type": {"f": "number", "b": "boolean", "i": "integer", "u": "integer"}.get(kind, "string"),
        **{key: value for key, value in said.items() if value},
    }


def texts(values: np.ndarray) -> list[Any]:
    """Values as csv writes them exactly: the shortest digits that bring each number back in its own type."""
    if values.dtype.kind == "f" and values.dtype.itemsize < 8:
        return list(map(str, values))
    if values.dtype.kind == "b":
        return ["true" if value else "false" for value in values.tolist()]
    return values.tolist()


def write_rows(path: Path, tables: Iterable[Mapping[str, np.ndarray]]) -> None:
    """A table that comes in pieces: columns of equal length by name, shape [row] each."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        header = False
        for columns in tables:
            if not header:
                writer.writerow(columns)
                header = True
            for start in range(0, len(next(iter(columns.values()), ())), ROWS):
                part = slice(start, start + ROWS)
                writer.writerows(zip(*(texts(values[part]) for values in columns.values()), strict=True))


def _write_recording(package: Package, recording: Recording) -> None:
    place = recording.path.partition("/")[0]
    path = package.path(place, recording.name.removeprefix(f"{place}/"))
    columns = _columns(recording)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*(name for name, _, _ in columns), "value"])
        for start, block in recording.blocks(_step(recording)):
            for rows in _table(recording, columns, start, block):
                writer.writerows(rows)
    fields = [_field(name, table, **_clock(recording, name)) for name, _, table in columns]
    value = dict(unit=recording.units, description=recording.about)
    fields.append(_field("value", np.empty(0, dtype=recording.dtype), **value))
    what = (
        f"{recording.variable} of {recording.population or recording.projection}"
        if recording.variable
        else ""
    )
    package.add(path, recording.name, recording.about or what, fields)


def _clock(recording: Recording, column: str) -> dict[str, str]:
    """What a column says where it is another thing in simulations than in training."""
    if column != "step" or not recording.real_time:
        return {}
    return {"unit": "time steps", "description": "step of the simulation"}


def _step(recording: Recording) -> int:
    """Entries of the first axis in a piece of about ROWS values."""
    rows = recording.shape[0] if recording.shape else 1
    return max(1, min(recording.step, ROWS // max(1, recording.values // max(1, rows))))


def _columns(recording: Recording) -> list[tuple[str, tuple[int, ...], np.ndarray]]:
    """Columns beside the value: name, the axes that it depends on, and its values along them."""
    found: list[tuple[str, tuple[int, ...], np.ndarray]] = []
    axes = recording.axes
    rows = [i for i, axis in enumerate(axes) if axis in ROW_AXES]
    said = recording.said([axes[i] for i in rows], np.ix_(*(np.arange(recording.shape[i]) for i in rows)))
    for name, values in said.items():
        along = tuple(i for i, size in zip(rows, np.shape(values), strict=True) if size != 1)
        found.append((name, along, values.reshape([recording.shape[i] for i in along])))
    for i, axis in enumerate(axes):
        if axis not in ROW_AXES:
            for name, values in _entries(recording, axis):
                found.append((name, (i,), values))
    return found


def _entries(recording: Recording, axis: str) -> list[tuple[str, np.ndarray]]:
    """Columns that say what the entries of a column axis are."""
    ids = recording.ids[axis]
    found: list[tuple[str, np.ndarray]] = [(axis.replace(" ", "_"), ids)]
    if axis == "unit" and recording.unit_names is not None:
        found.append(("name", np.array(recording.unit_names, dtype=object)))
    if axis == "edge" and recording.projection is not None:
        found += ends(recording.run, recording.projection, ids)
    return found


def ends(run: Run, projection: str, edges: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Columns of the two neurons of some edges: source, target, and their names where they have any."""
    found = []
    named = []
    for end in ("source", "target"):
        path = f"edges/{link_name(projection)}/{end}_node_id"
        ids = np.asarray(run.read(path))[edges]
        found.append((end, ids))
        names = names_of(run, str(run.datasets[path].attrs.get("node_population", "")))
        if names is not None:
            named.append((f"{end}_name", np.array(names, dtype=object)[ids]))
    return found + named


def _table(
    recording: Recording,
    columns: Sequence[tuple[str, tuple[int, ...], np.ndarray]],
    start: int,
    block: np.ndarray,
) -> Iterator[Iterator[tuple[Any, ...]]]:
    """Rows of a piece of a recording, without samples that are not there."""
    flat = block.reshape(-1)
    for first in range(0, len(flat), ROWS):
        where = np.arange(first, min(first + ROWS, len(flat)))
        at = np.unravel_index(where, block.shape) if block.ndim else ()
        at = tuple(index + start if axis == 0 else index for axis, index in enumerate(at))
        values, keep = flat[where], slice(None)
        made = {name: table[tuple(at[i] for i in along)] for name, along, table in columns}
        if recording.sample_ids is not None and np.any(made["sample"] < 0):
            keep = np.broadcast_to(made["sample"] >= 0, values.shape)
        shown = [texts(np.broadcast_to(column, values.shape)[keep]) for column in made.values()]
        yield zip(*shown, texts(values[keep]), strict=True)


def _write_samples(package: Package, place: str, parts: Sequence[Recording]) -> None:
    """What was measured of every sample, side by side."""
    path = package.path(place.partition("/")[0], f"{place.partition('/')[2] or place}_samples")
    columns = dict(parts[0].row_table())
    fields = [_field(name, values) for name, values in columns.items()]
    for each in parts:
        if len(each.shape) == 1 and each.shape == parts[0].shape:
            name = each.path.rpartition("/")[2]
            columns[name] = np.concatenate([block for _, block in each.blocks()])
            fields.append(_field(name, columns[name], unit=each.units, description=each.about))
        else:
            _write_recording(package, each)
    write_rows(path, [columns])
    package.add(path, place, f"what was measured of every sample: {place}", fields)


def _write_training(package: Package, run: Run) -> None:
    """Learning curves: one table for each index, of epochs, evaluations and steps."""
    curves: dict[str, list[str]] = {}
    for name in run.metrics():
        index = str(run.datasets[f"training/{name}"].attrs.get("index", "")).strip("/")
        curves.setdefault(index.removeprefix("training/"), []).append(name)
    for index, names in curves.items():
        steps = {name: run.metric(name) for name in names}
        rows = min((len(values) for _, values in steps.values()), default=0)
        key = index or "row"
        columns = {key: next(iter(steps.values()))[0][:rows]} | {
            name: values[:rows] for name, (_, values) in steps.items()
        }
        fields = [_field(key, columns[key])]
        for name in names:
            item = run.datasets[f"training/{name}"]
            about = re.sub(r"^\[[^\]]*\]\s*", "", str(item.attrs.get("description", "")))
            fields.append(
                _field(name, columns[name], unit=str(item.attrs.get("units", "")), description=about)
            )
        path = package.path("training", key)
        write_rows(path, [columns])
        package.add(path, f"training by {key}", f"learning curves, one row for each {key}", fields)


def _write_weights(package: Package, run: Run) -> None:
    """Weights and biases at the first and the last snapshot."""
    for link in recorded(run):
        if not snapshot_count(run, link):
            continue
        name = unlinked(link)
        first, last = weights_at(run, link, 0), weights_at(run, link, -1)
        ids = np.arange(len(first))
        path = f"edges/{link}/source_node_id"
        if path in run.datasets and len(run.datasets[path]) == len(first):
            columns = {"edge": ids} | dict(ends(run, name, ids))
        elif path in run.datasets:
            columns = {"parameter": ids}
        else:
            columns = {"unit": ids}
            names = names_of(run, name.removesuffix("_bias"))
            if names is not None:
                columns["name"] = np.array(names, dtype=object)
        columns |= {"initial": first, "final": last}
        path = package.path("weights", name)
        write_rows(path, [columns])
        fields = [_field(key, values) for key, values in columns.items()]
        package.add(path, name, f"weights of {name} at the first and the last snapshot", fields)
