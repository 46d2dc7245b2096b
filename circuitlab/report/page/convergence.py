"""Convergence sample by sample: which equilibria were not reached, and how long the others took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from circuitlab.report.page.choice import evenly, take
from circuitlab.report.page.pack import pack, packed_bytes, text
from circuitlab.report.page.parts import Part, choice, controls, count, figure, paragraph
from circuitlab.report.page.source import Recording, Source

VARIABLES = ("residual", "iterations", "converged")
MOST_SAMPLES, MOST_FRAMES = 2000, 40
MOST_NAMED = 60
"""Samples that a sentence names."""


def convergence(sources: Sequence[Source]) -> Part | None:
    """The section of convergence; None where the runs know nothing of it."""
    runs = [{"label": source.label, "entries": _entries(source), "note": _note(source)} for source in sources]
    if not any(run["entries"] or run["note"] for run in runs):
        return None
    if not any(run["entries"] for run in runs):
        told = [
            f"{source.label}: {run['note']}" if len(sources) > 1 else run["note"]
            for source, run in zip(sources, runs, strict=True)
        ]
        body = "".join(paragraph(note) for note in told if note)
        if any("did not settle" in note for note in told):
            body += _invitation(sources)
        return Part("convergence", "Convergence", body)
    body = controls(
        choice("convergence-run", "Run"),
        choice("convergence-entry", "Equilibrium"),
        choice("convergence-frame", "When"),
    )
    body += '<p id="convergence-facts" class="facts" aria-live="polite"></p><div class="figures">'
    body += figure("convergence-residual", "Residual of each sample")
    body += figure("convergence-iterations", "Iterations of each sample")
    body += "</div>"
    return Part("convergence", "Convergence", body, {"runs": runs})


def _invitation(sources: Sequence[Source]) -> str:
    training = [source for source in sources if source.kind in ("training", "")]
    if not training:
        return ""
    yaml = "record:\n  settled: {variable: converged, of: test, every: 1 epoch, samples: [0, 1, 2, 3, 4, 5, 6, 7]}"
    return (
        paragraph(
            "Which samples these were is not recorded. Probes of converged, residual and iterations tell:"
        )
        + f'<pre tabindex="0"><code>{text(yaml)}</code></pre>'
    )


def _note(source: Source) -> str:
    """How many samples did not settle while a run learned, in words."""
    shares = source.short("training/unconverged")
    if shares is None or shares.ndim != 1 or not shares.size or not np.isfinite(shares).any():
        return ""
    worst = int(np.nanargmax(shares))
    if not shares[worst] > 0:
        return f"Every sample of all {count(len(shares), 'epoch')} settled."
    epochs = source.short("training/epoch")
    at = int(epochs[worst]) if epochs is not None and len(epochs) > worst else worst + 1
    return (
        f"Over training {100 * float(np.nanmean(shares)):.3g}% of the samples did not settle and were not learned "
        f"from; most, {100 * float(shares[worst]):.3g}%, in epoch {at}."
    )


def _entries(source: Source) -> list[dict[str, Any]]:
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for phase in ("free", "controlled"):
        parts = {name: source.run.datasets.get(f"equilibria/{phase}/{name}") for name in VARIABLES}
        known = {
            name: item for name, item in parts.items() if item is not None and item.ndim == 1 and item.size
        }
        if known:
            many = min(len(item) for item in known.values())
            samples = evenly(many, MOST_SAMPLES)
            entry = _entry(f"{phase} equilibrium", [0], "frame", samples.tolist(), many)
            for name, item in known.items():
                entry[name] = pack(take(item, samples, where=f"{source.run.path}: {item.name}")[None])
            entry["tolerance"] = real(source.said(f"equilibria/{phase}").get("tolerance"))
            found[phase,] = entry
    for recording in source.recordings:
        if (
            recording.dims == ("frame", "sample")
            and recording.said("variable") in VARIABLES
            and recording.data.size
        ):
            _add(found, source, recording)
    return list(found.values())


def _add(found: dict[tuple[Any, ...], dict[str, Any]], source: Source, recording: Recording) -> None:
    axis = source.frames(recording)
    many = recording.shape["sample"]
    samples = evenly(many, MOST_SAMPLES)
    room = int(0.03 * source.most_bytes) // packed_bytes(len(samples))
    frames = evenly(len(recording.data), min(MOST_FRAMES, max(2, room)))
    ids = source.short(f"{recording.path}/sample_ids")
    if ids is not None and ids.shape == recording.data.shape:
        ids = ids[frames][:, samples]
        ids = ids[0] if (ids == ids[0]).all() else ids
    elif ids is not None and ids.shape == (many,):
        ids = ids[samples]
    else:
        ids = samples
    phase, of = recording.said("phase"), recording.said("of")
    words = ", ".join(
        part
        for part in (
            f"{phase} equilibrium" if phase else "",
            f"{'training' if of == 'train' else of} samples" if of else "",
        )
        if part
    )
    key = (words, axis.name, axis.values[frames].tobytes(), ids.tobytes())
    entry = found.setdefault(
        key, _entry(words or recording.name, axis.values[frames].tolist(), axis.name, ids.tolist(), many)
    )
    where = f"{source.run.path}: {recording.data.name}"
    values = take(recording.data, frames, samples, where=where)
    variable = recording.said("variable")
    if variable == "converged" and values.dtype.kind == "f":
        values = np.where(np.isnan(values), 1, values).astype(bool)
    entry[variable] = pack(values)
    entry["tolerance"] = entry["tolerance"] or real(recording.attributes.get("tolerance"))


def _entry(words: str, frames: list[float], name: str, samples: list[Any], many: int) -> dict[str, Any]:
    kept = len(samples[0]) if samples and isinstance(samples[0], list) else len(samples)
    return {
        "words": words,
        "frames": {"name": name, "values": frames},
        "samples": samples,
        "named": MOST_NAMED,
        "tolerance": None,
        "held": f"Evenly spaced, {kept:,} of {many:,} samples." if kept < many else "",
    }


def real(value: Any) -> float | None:
    """A number as a float; None for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
