"""A diagnosis: what the theory asks of a circuit, and what was measured on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from circuitlab.report.page.choice import evenly, take
from circuitlab.report.page.convergence import MOST_SAMPLES, real
from circuitlab.report.page.pack import pack, text
from circuitlab.report.page.parts import Part, choice, controls, figure, paragraph, table
from circuitlab.report.page.source import Source


def diagnosis(sources: Sequence[Source]) -> Part | None:
    """The section of a diagnosis: each measure, what the theory asks of it, and its values over samples."""
    runs: list[dict[str, Any]] = [
        {"label": source.label} | _measures(source) for source in sources if source.kind == "diagnosis"
    ]
    if not runs:
        return None
    body = "".join(
        paragraph(f"{run['label']}: {run['conclusion']}" if len(runs) > 1 else run["conclusion"])
        for run in runs
        if run["conclusion"]
    )
    body += controls(choice("diagnosis-run", "Run"), choice("diagnosis-measure", "Measure"))
    body += '<p id="diagnosis-facts" class="facts" aria-live="polite"></p>'
    body += f'<div class="figures">{figure("diagnosis-values", "The measure over samples", wide=True)}</div>'
    for run in runs:
        rows = [
            [m["name"], m["value"], m["asks"] or "nothing", m["verdict"] or "", m["about"]]
            for m in run["measures"]
        ]
        body += table(
            f"Measures of {run['label']}", ["measure", "mean", "the theory asks", "verdict", "what"], rows
        )
        if run["not"]:
            items = "".join(f"<li>{text(line)}</li>" for line in run["not"])
            body += f"<details><summary>Measures that do not apply</summary><ul>{items}</ul></details>"
    return Part("diagnosis", "Diagnosis", body, {"runs": runs})


def _measures(source: Source) -> dict[str, Any]:
    measures: list[dict[str, Any]] = []
    for path, item in source.run.datasets.items():
        name = path.removeprefix("diagnosis/")
        if (
            not path.startswith("diagnosis/")
            or name == "sample_ids"
            or item.dtype.kind not in "iufb"
            or item.ndim > 1
        ):
            continue
        said = source.said(path)
        mean, error = real(said.get("mean")), real(said.get("standard_error"))
        units = str(said.get("units", ""))
        shown = "?" if mean is None else f"{mean:.4g}"
        if error is not None and error == error:
            shown += f" ± {error:.2g}"
        kept = evenly(int(item.size or 0), MOST_SAMPLES)
        measures.append(
            {
                "name": name.replace("_", " "),
                "value": shown,
                "mean": mean,
                "units": units,
                "asks": str(said.get("asks", "")),
                "verdict": str(said.get("verdict", "")),
                "about": str(said.get("description", ""))
                .split("] ")[-1]
                .removeprefix("of all samples together "),
                "values": pack(take(item, kept, where=f"{source.run.path}: {path}")) if item.ndim else None,
            }
        )
    ids = source.short("diagnosis/sample_ids")
    reasons = (
        source.run.read("diagnosis/does_not_apply")
        if "diagnosis/does_not_apply" in source.run.datasets
        else ""
    )
    return {
        "measures": measures,
        "samples": [] if ids is None else ids[evenly(len(ids), MOST_SAMPLES)].tolist(),
        "conclusion": str(source.said("diagnosis").get("conclusion", "")),
        "not": [line for line in str(reasons).splitlines() if line.strip()],
    }
