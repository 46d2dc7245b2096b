"""Every probe of a run: what it recorded, and any of its values over frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitlab.record.storage import link_name
from circuitlab.report.page.choice import evenly, take
from circuitlab.report.page.pack import pack, packed_bytes
from circuitlab.report.page.parts import Part, choice, controls, figure, table
from circuitlab.report.page.source import Recording, Source

MOST_ROWS, MOST_FRAMES = 200, 300
"""Of a probe of synapses, biases or samples, so many rows and frames at most."""


def recorded(sources: Sequence[Source]) -> Part | None:
    """The section of recorded probes; None where there are none."""
    if not any(source.recordings for source in sources):
        return None
    rows = [
        [*([source.label] if len(sources) > 1 else []), *_row(source, recording)]
        for source in sources
        for recording in source.recordings
    ]
    columns = ["probe", "variable", "of", "where", "shape", "every"]
    body = table(
        "What was recorded, where, and how often", ["run", *columns] if len(sources) > 1 else columns, rows
    )
    runs = [{"label": source.label, "probes": _probes(source)} for source in sources]
    if not any(run["probes"] for run in runs):
        return Part("recorded", "Recorded probes", body)
    body += controls(
        choice("recorded-run", "Run"),
        choice("recorded-probe", "Probe"),
        choice("recorded-row", "Which"),
        choice("recorded-column", "To"),
    )
    body += (
        f'<div class="figures">{figure("recorded-values", "A recorded value over training", wide=True)}</div>'
    )
    body += '<p id="recorded-held" class="quiet"></p>'
    return Part("recorded", "Recorded probes", body, {"runs": runs})


def _row(source: Source, recording: Recording) -> list[str]:
    said = recording.said
    axes = " × ".join(f"{length:,} {axis}s" for axis, length in recording.shape.items())
    return [
        recording.name,
        said("variable").replace("_", " "),
        said("population") or said("projection"),
        said("phase"),
        axes,
        said("every"),
    ]


def _probes(source: Source) -> list[dict[str, Any]]:
    """Probes that the section of neurons does not show: synapses, biases, feedback weights, convergence."""
    shown = {recording.name for recording in source.activity}
    others = [
        r
        for r in source.recordings
        if r.name not in shown
        and r.dims[:1] == ("frame",)
        and r.data.ndim in (2, 3)
        and r.data.size
        and r.data.dtype.kind in "iufb"
    ]
    share = int(0.05 * source.most_bytes) // max(1, len(others))
    return [_probe(source, recording, share) for recording in others]


def _probe(source: Source, recording: Recording, most_bytes: int) -> dict[str, Any]:
    frames, rows = min(len(recording.data), MOST_FRAMES), min(recording.data.shape[1], MOST_ROWS)
    columns = min(recording.data.shape[2], MOST_ROWS) if recording.data.ndim == 3 else 1
    while packed_bytes(frames * rows * columns) > most_bytes and max(frames, rows, columns) > 2:
        frames, rows, columns = (
            max(2, int(0.8 * n)) if n > 2 and n == max(frames, rows, columns) else n
            for n in (frames, rows, columns)
        )
    axis = source.frames(recording)
    kept = [evenly(len(axis.values), frames), evenly(recording.data.shape[1], rows)]
    if recording.data.ndim == 3:
        kept.append(evenly(recording.data.shape[2], columns))
    held = [
        f"{len(k):,} of {length:,} {name}s"
        for k, (name, length) in zip(kept, recording.shape.items(), strict=True)
        if len(k) < length
    ]
    values = take(recording.data, *kept, where=f"{source.run.path}: {recording.data.name}")
    return {
        "name": recording.name,
        "variable": recording.said("variable").replace("_", " "),
        "units": recording.said("units") or "dimensionless",
        "across": axis.name,
        "at": pack(axis.values[kept[0]]),
        "rows": _names(source, recording, recording.dims[1], kept[1]),
        "columns": _names(source, recording, recording.dims[2], kept[2]) if len(kept) == 3 else [],
        "data": pack(values),
        "held": f"This page holds {', '.join(held)}, evenly spaced." if held else "",
    }


def _names(source: Source, recording: Recording, axis: str, kept: NDArray[np.int64]) -> list[str]:
    """What the places of an axis are called: neurons, synapses by their ends, samples."""
    if axis == "edge":
        return _synapses(source, recording, kept)
    key = {"unit": "unit_ids", "sample": "sample_ids", "parameter": "parameter_ids"}.get(axis)
    beside = None if key is None else source.run.datasets.get(f"{recording.path}/{key}")
    ids = kept
    if beside is not None and beside.ndim == 1 and len(beside) > int(kept[-1]):
        ids = take(beside, kept, where=f"{source.run.path}: {beside.name}")
    names = [""] * len(ids)
    if axis == "unit" and recording.said("population"):
        names = source.names_of(recording.said("population"), np.asarray(ids, dtype=np.int64))
    word = {"unit": "neuron"}.get(axis, axis)
    return [f"{word} {at} {name}".strip() for at, name in zip(ids.tolist(), names, strict=True)]


def _synapses(source: Source, recording: Recording, kept: NDArray[np.int64]) -> list[str]:
    projection = recording.said("projection")
    beside = source.run.datasets.get(f"{recording.path}/edge_ids")
    edges = kept
    if beside is not None and beside.ndim == 1 and len(beside) > int(kept[-1]):
        edges = take(beside, kept, where=f"{source.run.path}: {beside.name}")
    said, ends = source.about_projection(projection), []
    for end in ("source", "target"):
        item = source.run.datasets.get(f"edges/{link_name(projection)}/{end}_node_id")
        if item is None or not len(edges) or int(edges.max()) >= len(item):
            return [f"edge {edge}" for edge in edges.tolist()]
        order = np.unique(edges)
        units = take(item, order, where=f"{source.run.path}: {item.name}")[np.searchsorted(order, edges)]
        names = (
            source.names_of(str(said.get(end, "")), units)
            if (np.diff(units) > 0).all()
            else [""] * len(units)
        )
        ends.append([f"{unit} {name}".strip() for unit, name in zip(units.tolist(), names, strict=True)])
    return [f"{a} → {b}" for a, b in zip(*ends, strict=True)]
