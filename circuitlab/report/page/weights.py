"""Weights: their histograms before and after, what reaches a chosen neuron, and how its synapses moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitlab.record.storage import link_name
from circuitlab.record.weights import recorded, snapshot_count, weights_at
from circuitlab.report.page.choice import evenly
from circuitlab.report.page.pack import pack, packed_bytes
from circuitlab.report.page.parts import Part, choice, controls, figure
from circuitlab.report.page.source import Source

MOST_EDGES = 4_000_000
"""Projections with more edges are left out: reading them would take long, and much memory."""
BINS = 60
"""Of a histogram, at most."""
MOST_SNAPSHOTS = 12
MOVED = 8
"""Synapses of a neuron whose way through training is drawn: those that moved most."""


def weights(sources: Sequence[Source]) -> Part | None:
    """The section of weights; None where no circuit has any."""
    runs = [{"label": source.label, "projections": _projections(source)} for source in sources]
    if not any(run["projections"] for run in runs):
        return None
    body = controls(
        choice("weights-run", "Run"),
        choice("weights-projection", "Projection"),
        choice("weights-neuron", "Onto neuron"),
    )
    body += '<p id="weights-facts" class="facts" aria-live="polite"></p><div class="figures">'
    body += figure("weights-histogram", "All weights of the projection")
    body += figure("weights-moved", "Synapses of the neuron that moved most")
    body += figure("weights-before", "Receptive field before learning")
    body += figure("weights-after", "Receptive field after learning")
    body += "</div>"
    return Part("weights", "Weights", body, {"runs": runs})


def snapshots(source: Source, name: str) -> int:
    """How many snapshots a run has of a projection's weights or a population's biases (`l23_bias`)."""
    return snapshot_count(source.run, name) if link_name(name) in recorded(source.run) else 0


def initial(source: Source, name: str) -> NDArray | None:
    """Weights of each edge of a projection before learning."""
    path = f"edges/{link_name(name)}/0/syn_weight"
    return np.asarray(source.run.read(path)) if path in source.run.datasets else None


def per_edge(source: Source, name: str, values: NDArray) -> NDArray | None:
    """Weights of each edge, of which several may share one; None where the numbers do not fit."""
    edges = source.edges(name)
    index = f"edges/{link_name(name)}/0/parameter_index"
    if index in source.run.datasets:
        of = np.asarray(source.run.read(index))
        return values[of] if not of.size or int(of.max()) < len(values) else None
    return values if len(values) == edges else None


def _projections(source: Source) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = source.projections
    share = int(0.25 * source.most_bytes) // max(1, len(names))
    for name in names:
        said = source.about_projection(name)
        edges = source.edges(name)
        about = {
            "source": str(said.get("source", "")),
            "target": str(said.get("target", "")),
            "site": str(said.get("site", "")),
            "carries": str(said.get("carries", "")),
            "kind": str(said.get("kind", "chemical")),
            "edges": edges,
            "plastic": bool(said.get("plastic", False)),
        }
        if not edges:
            continue
        if edges > MOST_EDGES:
            found[name] = about | {"left_out": f"{edges:,} edges: too many for a page; inspect shows them"}
            continue
        found[name] = about | _weights(source, name, about, share)
    return found


def _weights(source: Source, name: str, about: dict[str, Any], share: int) -> dict[str, Any]:
    before = initial(source, name)
    if before is None or len(before) != about["edges"]:
        return {"left_out": "its weights are not in the file"}
    many = snapshots(source, name)
    last = weights_at(source.run, name) if many else None
    after = None if last is None else per_edge(source, name, last)
    both = before if after is None else np.concatenate([before, after])
    both = both[np.isfinite(both)]
    low, high = (float(both.min()), float(both.max())) if both.size else (0.0, 1.0)
    if not low < high:
        low, high = low - 0.5, high + 0.5
    bins = int(np.clip(1.5 * math.sqrt(len(before)), 8, BINS))
    found: dict[str, Any] = {"bins": np.linspace(low, high, bins + 1).tolist()}
    for key, values in (("before", before), ("after", after)):
        if values is not None:
            known = values[np.isfinite(values)]
            found[key] = np.histogram(known, bins, (low, high))[0].tolist()
            found[f"{key}_mean"] = float(known.mean()) if known.size else None
            found[f"{key}_std"] = float(known.std()) if known.size else None
    return found | _fields(source, name, about, before, after, share)


def _fields(
    source: Source, name: str, about: dict[str, Any], before: NDArray, after: NDArray | None, share: int
) -> dict[str, Any]:
    """Of chosen neurons, the weights that reach them, before and after, and the way of those that moved most."""
    senders, targets = source.ends(name)
    chosen = source.chosen(about["target"])
    chosen = chosen[np.isin(chosen, targets)]
    mean = max(1.0, len(targets) / max(1, len(np.unique(targets))))
    room = max(1, int(share / packed_bytes(int(3 * mean + MOVED * MOST_SNAPSHOTS)))) if share else 1
    wanted = [unit for unit in source.neurons.get(about["target"], ()) if unit in chosen]
    kept = chosen[evenly(len(chosen), max(1, room - len(wanted)))]
    kept = np.unique(np.concatenate([kept, np.asarray(wanted, dtype=np.int64)]))
    many = snapshots(source, name)
    steps = source.short("weights/step")
    at = evenly(many, MOST_SNAPSHOTS)
    places = {int(unit): np.flatnonzero(targets == unit) for unit in kept.tolist()}
    moved = {} if after is None else {unit: _movers(before, after, p) for unit, p in places.items()}
    ways = {unit: np.empty((len(at), len(p))) for unit, p in moved.items()}
    for row, number in enumerate(at.tolist() if moved else []):
        values = per_edge(source, name, weights_at(source.run, name, number))
        for unit, p in moved.items():
            ways[unit][row] = np.nan if values is None else values[p]
    fields = {}
    for unit, p in places.items():
        fields[str(unit)] = {
            "from": pack(senders[p]),
            "before": pack(before[p]),
            "after": None if after is None else pack(after[p]),
            "moved": senders[moved[unit]].tolist() if unit in moved else [],
            "ways": pack(ways[unit].T) if unit in ways and len(moved[unit]) else None,
        }
    seen = np.unique(np.concatenate([senders[p] for p in places.values()] or [np.empty(0, dtype=np.int64)]))
    senders_names = dict(zip(map(str, seen.tolist()), source.names_of(about["source"], seen), strict=True))
    targets_names = dict(zip(map(str, kept.tolist()), source.names_of(about["target"], kept), strict=True))
    return {
        "fields": fields,
        "sources": source.size(about["source"]),
        "image": _image(source, about["source"]),
        "steps": steps[at].tolist() if steps is not None and len(steps) >= many and many else at.tolist(),
        "source_names": {key: called for key, called in senders_names.items() if called},
        "target_names": {key: called for key, called in targets_names.items() if called},
        "held": ""
        if len(kept) == source.size(about["target"])
        else f"{len(kept)} of {source.size(about['target']):,}",
    }


def _movers(before: NDArray, after: NDArray, places: NDArray) -> NDArray:
    """Of some edges, those whose weights changed most, the most first."""
    change = np.abs(after[places].astype(np.float32) - before[places].astype(np.float32))
    order = np.argsort(-change, kind="stable")[:MOVED]
    return places[order[change[order] > 0]]


def _image(source: Source, population: str) -> list[int] | None:
    """Rows and columns in which a population's neurons stand as pixels; None where they do not."""
    said = source.about_population(population)
    shape = said.get("shape")
    if isinstance(shape, list) and len(shape) in (2, 3):
        rows, columns = shape[-2:]
        return [int(rows), int(columns)] if int(rows) * int(columns) == source.size(population) else None
    side = math.isqrt(source.size(population))
    pixels = side > 3 and side * side == source.size(population) and said.get("type") == "input"
    return [side, side] if pixels else None
