"""Learning curves: every metric of every run, by condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from circuitlab.report.page.choice import evenly, take
from circuitlab.report.page.conditions import Condition
from circuitlab.report.page.pack import pack
from circuitlab.report.page.parts import Part, choice, controls, figure, paragraph
from circuitlab.report.page.source import Source

MOST_ROWS = 1500
"""Of a longer curve (one value an update), so many evenly spaced ones are shown."""
FIGURES = (
    ("accuracy", "Accuracy", "samples answered correctly", ("test", "validation", "train")),
    ("loss", "Loss", "loss per sample", ("test", "validation", "train")),
    ("control_cost", "Control cost", "control cost per sample", ("",)),
    ("unconverged", "Unconverged samples", "share of samples", ("",)),
)


def learning(sources: Sequence[Source], found: Sequence[Condition]) -> Part | None:
    """The section of learning curves; None where no run measured anything."""
    curves = [_curves(source) for source in sources]
    names = sorted({name for one in curves for name in one})
    if not names:
        return None
    several = any(len(one.runs) > 1 for one in found)
    about = (
        "Solid line: mean over the seeds of a condition; band: one standard deviation to either side; thin lines: "
        "single runs."
        if several
        else ""
    )
    body = paragraph(about) if about else ""
    places, data = [], []
    for key, title, label, splits in FIGURES:
        metrics = {split: f"{split}_{key}" if split else key for split in splits}
        if any(name in names for name in metrics.values()):
            places.append(figure(f"learning-{key}", title))
            data.append(
                {"key": key, "label": label, "metrics": metrics, "share": key in ("accuracy", "unconverged")}
            )
    thinned = sorted({name for one in curves for name, curve in one.items() if curve["thinned"]})
    note = f"Evenly spaced values of {', '.join(thinned)}: {MOST_ROWS:,} of more." if thinned else ""
    body += f'<div class="figures">{"".join(places)}'
    body += figure("learning-other", "Any other metric", wide=len(places) % 2 == 0)
    body += "</div>" + (paragraph(note, "quiet") if note else "")
    body = controls(choice("learning-metric", "Other metric")) + body
    return Part(
        "learning",
        "Learning curves",
        body,
        {
            "figures": data,
            "names": names,
            "runs": curves,
            "conditions": [{"name": one.name, "runs": list(one.runs)} for one in found],
        },
    )


def _curves(source: Source) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in source.run.metrics():
        item = source.run.datasets[f"training/{name}"]
        if item.dtype.kind not in "iufb" or not item.size:
            continue
        where = f"{source.run.path}: {item.name}"
        said = source.said(f"training/{name}")
        index = str(said.get("index", "")).strip("/")
        beside = source.run.datasets.get(index)
        rows = len(item) if beside is None or beside.ndim != 1 else min(len(item), len(beside))
        kept = evenly(rows, MOST_ROWS)
        at = kept if beside is None or beside.ndim != 1 else take(beside, kept, where=where)
        values = take(item, kept, where=where)
        if not np.isfinite(values).any():
            continue
        words = {"training/epoch": "epoch", "training/evaluation": "epoch", "training/step": "update"}
        found[name] = {
            "at": pack(at),
            "values": pack(values),
            "across": words.get(index, "row"),
            "units": str(said.get("units", "")),
            "thinned": bool(len(kept) < rows),
        }
    return found
