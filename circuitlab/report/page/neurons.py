"""Neurons: the compartments of each over samples, over training and over time, and all of a population at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitlab.record.storage import link_name
from circuitlab.record.weights import weights_at
from circuitlab.report.page.choice import evenly, take
from circuitlab.report.page.pack import pack, packed_bytes, text
from circuitlab.report.page.parts import Part, choice, controls, count, figure, number, paragraph, slider
from circuitlab.report.page.source import Axis, Recording, Source
from circuitlab.report.page.weights import snapshots

ORDER = ("soma", "basal", "apical", "control", "controller", "rate")
MAP_NEURONS, MAP_SAMPLES, MAP_MOMENTS = 300, 150, 200
"""A heat map's rows and columns at most: neurons, samples, moments."""
SYMBOLS = {
    "soma": "phi",
    "basal": "W sigma(phi) + U x + b",
    "apical": "psi + W_apical sigma(phi)",
    "control": "psi",
    "controller": "u",
    "rate": "sigma(phi)",
}
PHASES = {"free": "free equilibrium", "controlled": "controlled equilibrium", "real time": "real time"}


@dataclass
class _Group:
    """Recordings of one population that share frames, points and samples, so that compartments stand side by side."""

    words: str
    frames: Axis
    points: Axis | None
    samples: NDArray
    labels: NDArray | None
    kind: str
    members: list[tuple[str, str, str, Any, NDArray[np.int64]]]
    """Variable, units, name of the probe, dataset, index of each recorded neuron."""


def neurons(sources: Sequence[Source]) -> Part | None:
    """The section of neurons; None where no run could have recorded any."""
    runs = [_run(source) for source in sources]
    if not any(run["populations"] for run in runs):
        training = [source for source in sources if source.kind in ("training", "")]
        return Part("neurons", "Neurons", _invitation(training[0])) if training else None
    body = controls(
        choice("neurons-run", "Run"),
        choice("neurons-population", "Population"),
        choice("neurons-recording", "Recording"),
        choice("neurons-neuron", "Neuron"),
        choice("neurons-sample", "Sample"),
        slider("neurons-frame", "Moment"),
    )
    body += '<p id="neurons-facts" class="facts" aria-live="polite"></p><div class="figures">'
    body += figure("neurons-samples", "One neuron over samples", wide=True)
    body += figure("neurons-training", "One neuron over training")
    body += figure("neurons-time", "One neuron over time")
    body += "</div>"
    body += controls(
        choice("neurons-variable", "Variable of the map"), choice("neurons-order", "Order of its neurons")
    )
    body += f'<div class="figures">{figure("neurons-map", "The population", wide=True, tall=True)}</div>'
    body += '<p id="neurons-held" class="quiet"></p>'
    return Part("neurons", "Neurons", body, {"runs": runs})


def _invitation(source: Source) -> str:
    """What to record to see neurons here."""
    kinds = {name: source.about_population(name).get("type") for name in source.populations}
    inner = [name for name, kind in kinds.items() if kind not in ("input", "output")]
    name = next(iter(inner or kinds), "cells")
    lines = [
        f"  {name}_{variable}: {{population: {name}, variable: {variable}, of: test, every: 1 epoch, "
        f"samples: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}}"
        for variable in ("soma", "basal", "control", "rate")
    ]
    yaml = "\n".join(["record:", *lines])
    return (
        paragraph(
            "No neurons were recorded in this run. To see them here, add to the experiment file, and run it again:"
        )
        + f'<pre tabindex="0"><code>{text(yaml)}</code></pre>'
    )


def _run(source: Source) -> dict[str, Any]:
    populations: dict[str, Any] = {}
    groups: dict[str, list[_Group]] = {}
    for recording in source.activity:
        _place(groups.setdefault(recording.said("population"), []), _of_probe(source, recording))
    for population in sorted({name for _, name, _ in source.settled}):
        for group in _of_equilibria(source, population):
            _place(groups.setdefault(population, []), group)
    if not groups:
        return {"label": source.label, "populations": {}}
    maps = sum(len(group.members) for some in groups.values() for group in some)
    share = int(0.1 * source.most_bytes) // max(1, maps)
    order = [
        *(name for name in source.populations if name in groups),
        *(n for n in groups if n not in source.populations),
    ]
    order.sort(key=lambda name: source.about_population(name).get("type") == "input")
    for some in groups.values():
        some.sort(key=lambda group: group.kind == "settling")  # equilibria first: they have the most samples
    for name in order:
        chosen = source.chosen(name)
        populations[name] = {
            "about": _about(source, name),
            "recordings": [_recording(source, group, chosen, share) for group in groups[name]],
            "bias": _biases(source, name, chosen),
        }
        seen = {unit for one in populations[name]["recordings"] for unit in one["shown"]}
        ids = np.asarray(sorted(seen), dtype=np.int64)
        names = source.names_of(name, ids)
        populations[name]["names"] = {
            str(unit): called for unit, called in zip(ids.tolist(), names, strict=True) if called
        }
    return {"label": source.label, "populations": populations}


def _about(source: Source, population: str) -> str:
    said = source.about_population(population)
    words = [f"{said.get('type', 'neurons')}, {count(source.size(population), 'neuron')}"]
    if said.get("type") != "input":
        words.append(f"activation {said.get('activation', '?')}")
        if isinstance(said.get("tau_ms"), (int, float)):
            words.append(f"time constant {number(float(said['tau_ms']))} ms")
    if said.get("sign"):
        words.append(str(said["sign"]))
    return ", ".join(words)


def _biases(source: Source, population: str, chosen: NDArray[np.int64]) -> dict[str, list[float]]:
    """Bias of the chosen neurons before, and after the last snapshot."""
    before = source.short(f"nodes/{link_name(population)}/0/bias")
    if before is None or not len(chosen) or int(chosen.max()) >= len(before):
        return {}
    name = f"{population}_bias"
    after = weights_at(source.run, name) if snapshots(source, name) else None
    found = {"before": before[chosen].tolist()}
    if after is not None and len(after) == len(before):
        found["after"] = after[chosen].tolist()
    return found | {"units": chosen.tolist()}


def _of_probe(source: Source, recording: Recording) -> _Group:
    frames, points = source.frames(recording), source.points(recording)
    kept = evenly(len(frames.values), source.limits.frame)
    count_of = recording.shape["sample"]
    samples = _samples(source, recording, kept, count_of)
    labels = source.short(f"{recording.path}/labels")
    if labels is not None and labels.ndim == 2:
        labels = labels[0] if len(labels) and (labels == labels[0]).all() else None
    if labels is not None and labels.shape != (count_of,):
        labels = None
    kind = "settling" if points is not None else "time" if frames.name == "ms" else "training"
    phase, of = recording.said("phase"), recording.said("of")
    words = [PHASES.get(phase, phase)] if phase else []
    if kind == "settling":
        how = "in real time" if points is not None and points.name == "ms" else "iterations of the solver"
        words = [f"settling to the {words[0]}" if words and phase != "real time" else "settling", how]
    if of and kind != "time":
        words.append(
            f"{'training' if of == 'train' else of} samples"
            if samples.ndim == 1
            else "samples of the minibatch"
        )
    units = recording.said("units") or "dimensionless"
    member = (recording.said("variable"), units, recording.name, recording.data, source.unit_ids(recording))
    return _Group(", ".join(words) or recording.name, frames, points, samples, labels, kind, [member])


def _samples(source: Source, recording: Recording, frames: NDArray, count_of: int) -> NDArray:
    """Numbers of the samples: [sample], or [frame, sample] of the kept frames where they change."""
    item = source.run.datasets.get(f"{recording.path}/sample_ids")
    if item is None or item.shape[-1:] != (count_of,) or item.ndim not in (1, 2):
        return np.arange(count_of)
    where = f"{source.run.path}: {item.name}"
    if item.ndim == 1:
        return take(item, np.arange(count_of), where=where)
    if len(item) < len(frames) or int(frames[-1]) >= len(item):
        return np.arange(count_of)
    ids = take(item, frames, np.arange(count_of), where=where)
    return ids[0] if (ids == ids[0]).all() else ids


def _of_equilibria(source: Source, population: str) -> list[_Group]:
    found = []
    for (phase, name, variable), data in source.settled.items():
        if name == population:
            units = str(source.said(str(data.name)).get("units", "dimensionless"))
            member = (variable, units, f"equilibria/{phase}", data, np.arange(data.shape[1]))
            once = Axis("frame", np.zeros(1))
            labels = None
            words = PHASES.get(phase, phase)
            found.append(_Group(words, once, None, np.arange(data.shape[0]), labels, "equilibrium", [member]))
    return found


def _place(groups: list[_Group], new: _Group) -> None:
    """Put a recording beside those that share its frames, points and samples."""
    for old in groups:
        same = old.words == new.words and old.kind == new.kind and old.frames.name == new.frames.name
        if (
            same
            and np.array_equal(old.frames.values, new.frames.values)
            and np.array_equal(old.samples, new.samples)
            and (
                old.points is None
                or (new.points is not None and np.array_equal(old.points.values, new.points.values))
            )
            and new.members[0][0] not in [member[0] for member in old.members]
        ):
            old.members += new.members
            old.labels = new.labels if old.labels is None else old.labels
            return
    groups.append(new)


def _recording(source: Source, group: _Group, chosen: NDArray[np.int64], map_bytes: int) -> dict[str, Any]:
    limits = source.limits
    frames = evenly(len(group.frames.values), limits.frame)
    points = None if group.points is None else evenly(len(group.points.values), limits.point)
    samples = evenly(group.samples.shape[-1], limits.sample)
    found: dict[str, Any] = {
        "words": group.words,
        "kind": group.kind,
        "frames": {"name": group.frames.name, "values": group.frames.values[frames].tolist()},
        "points": None,
        "samples": group.samples[..., samples].tolist(),
        "labels": None if group.labels is None else np.asarray(group.labels)[samples].tolist(),
        "variables": {},
        "maps": {},
    }
    if points is not None and group.points is not None:
        found["points"] = {"name": group.points.name, "values": group.points.values[points].tolist()}
    shown: set[int] = set()
    cut = len(frames) < len(group.frames.values) or len(samples) < group.samples.shape[-1]
    most = 0
    for variable, units, probe, data, ids in sorted(group.members, key=_rank):
        units_kept = np.flatnonzero(np.isin(ids, chosen))
        where = f"{source.run.path}: {data.name}"
        found["variables"][variable] = {
            "probe": probe,
            "units": units,
            "symbol": str(source.said(str(data.name)).get("symbol") or SYMBOLS.get(variable, "")),
            "ids": ids[units_kept].tolist(),
            "data": pack(_read(data, frames, points, samples, units_kept, where)),
        }
        shown |= set(ids[units_kept].tolist())
        most = max(most, len(ids))
        fewer = len(units_kept) < len(ids) or len(samples) < group.samples.shape[-1]
        if fewer and group.samples.ndim == 1:
            found["maps"][variable] = _map(group, data, ids, map_bytes, where)
            shown |= set(found["maps"][variable]["ids"])
    found["shown"] = sorted(shown)
    found["held"] = (
        _held(group, most, len(chosen), frames, samples, points) if cut or most > len(chosen) else ""
    )
    return found


def _rank(member: tuple[str, str, str, Any, NDArray]) -> int:
    return ORDER.index(member[0]) if member[0] in ORDER else len(ORDER)


def _read(
    data: Any, frames: NDArray, points: NDArray | None, samples: NDArray, units: NDArray, where: str
) -> NDArray:
    """[frame, sample, unit], or [frame, point, sample, unit]; an equilibrium has one frame."""
    if not len(units):
        axes = [len(frames), *([] if points is None else [len(points)]), len(samples), 0]
        return np.empty(axes, dtype=np.float32)
    if data.ndim == 2:
        return take(data, samples, units, where=where)[None]
    if points is None:
        return take(data, frames, samples, units, where=where)
    return take(data, frames, points, samples, units, where=where)


def _map(group: _Group, data: Any, ids: NDArray[np.int64], most_bytes: int, where: str) -> dict[str, Any]:
    """More neurons and samples than the plots of single neurons hold, at fewer frames."""
    moments = len(group.frames.values)
    columns = MAP_MOMENTS if group.kind == "time" else MAP_SAMPLES
    rows, at_most = MAP_NEURONS, 1 if group.kind == "time" else 2
    while packed_bytes(rows * columns * at_most) > most_bytes and rows > 10:
        rows, columns = int(0.8 * rows), max(10, int(0.8 * columns))
    units = evenly(len(ids), rows)
    if group.kind == "time":
        frames, samples = evenly(moments, columns), np.zeros(1, dtype=np.int64)
    else:
        frames, samples = evenly(moments, 2), evenly(group.samples.shape[-1], columns)
    points = None if group.points is None else np.array([len(group.points.values) - 1])
    values = _read(data, frames, points, samples, units, where)
    if points is not None:
        values = values[:, 0]
    labels = None if group.labels is None else np.asarray(group.labels)[samples].tolist()
    return {
        "frames": group.frames.values[frames].tolist(),
        "samples": group.samples[samples].tolist(),
        "labels": labels,
        "ids": ids[units].tolist(),
        "of": len(ids),
        "data": pack(values),
    }


def _held(
    group: _Group, most: int, chosen: int, frames: NDArray, samples: NDArray, points: NDArray | None
) -> str:
    """What of a recording the page holds, where it is not all."""
    parts = []
    word = "moment" if group.kind == "time" else "frame"
    for kept, of, one in (
        (min(chosen, most), most, "neuron"),
        (len(frames), len(group.frames.values), word),
        (len(samples), int(group.samples.shape[-1]), "sample"),
        (
            0 if points is None else len(points),
            0 if group.points is None else len(group.points.values),
            "point",
        ),
    ):
        if kept < of:
            parts.append(f"{kept:,} of {of:,} recorded {one}s")
    if not parts:
        return ""
    return (
        f"This page holds {', '.join(parts)}: the first, the last, and evenly spaced ones between. "
        "The run file holds them all; report --neuron, --neurons, --frames, --samples and --budget choose others."
    )
