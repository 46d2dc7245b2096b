"""What was run, in plain words: the page's first section, and its provenance at the end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from circuitlab.report.page.pack import text
from circuitlab.report.page.parts import Part, count, fold, number, paragraph, table
from circuitlab.report.page.source import KINDS, Source

STATUS = {
    "complete": "complete",
    "running": "still running when this page was made",
    "interrupted": "interrupted: it holds everything up to its last flush, and run --resume goes on from there",
    "failed": "failed: it holds everything up to the failure",
}
BRIEF = {"complete": "complete", "running": "running", "interrupted": "interrupted", "failed": "failed"}
SHARES = ("accuracy", "unconverged")
RESULTS = (
    ("test_accuracy", "test samples answered correctly"),
    ("validation_accuracy", "validation samples answered correctly"),
    ("train_accuracy", "training samples answered correctly"),
    ("test_loss", "test loss per sample"),
    ("train_loss", "training loss per sample"),
    ("control_cost", "control cost per sample"),
    ("unconverged", "samples whose equilibrium was not reached"),
)
FACTS = (
    ("circuitlab_version", "circuitlab"),
    ("torch_version", "torch"),
    ("numpy_version", "numpy"),
    ("python_version", "Python"),
    ("platform", "platform"),
    ("device", "device"),
    ("native", "compiled loops"),
    ("seed", "seed"),
    ("git_commit", "git commit"),
)


def what_was_run(sources: Sequence[Source]) -> Part:
    """A card for every run: sentences, and its last numbers."""
    cards = "".join(_card(source) for source in sources)
    return Part("run", "What was run", f'<div class="cards">{cards}</div>')


def provenance(sources: Sequence[Source]) -> Part:
    """Versions, seeds, commands, and the specifications as YAML."""
    facts = [[word, *(_told(source.run.attributes.get(key)) for source in sources)] for key, word in FACTS]
    body = table("Versions, machine and seed", ["", *(source.label for source in sources)], facts)
    for source in sources:
        command = str(source.run.attributes.get("command") or "")
        again = f"circuitlab run --from {shlex.quote(source.run.path.name)}"
        title = f"<h3>{text(source.label)}</h3>" if len(sources) > 1 else ""
        lines = [f"<dt>Command</dt><dd><code>{text(command)}</code></dd>"] if command else []
        if source.kind in ("training", ""):
            lines.append(f"<dt>To repeat it</dt><dd><code>{text(again)}</code></dd>")
        body += f"{title}<dl>{''.join(lines)}</dl>"
        for name, yaml in (("Experiment", source.run.experiment_yaml), ("Circuit", source.run.circuit_yaml)):
            if yaml.strip():
                heading = f"{name} file, every default written out"
                body += fold(heading, f'<pre tabindex="0"><code>{text(yaml)}</code></pre>')
    return Part("provenance", "Provenance", body)


def _told(value: Any) -> str:
    return "not recorded" if value is None or value == "" else str(value)


def _card(source: Source) -> str:
    status = source.run.status
    lines = [
        f"<h3>{text(source.label)}</h3>",
        f'<p class="badge {text(status)}">{text(KINDS.get(source.kind, "run file"))}, {text(BRIEF[status])}</p>',
        paragraph(sentences(source)),
    ]
    results = "".join(
        f"<div><dt>{text(word)}</dt><dd>{text(value)}</dd></div>" for word, value in last_numbers(source)
    )
    if results:
        lines.append(f'<dl class="results">{results}</dl>')
    elif source.kind in ("training", ""):
        lines.append(paragraph("Nothing has been measured yet."))
    failure = str(source.run.attributes.get("failure") or "")
    if failure and status == "failed":
        lines.append(paragraph(f"It failed: {failure}"))
    facts = [f"File {source.run.path.name}", *_when(source), STATUS[status] if status != "complete" else ""]
    lines.append(paragraph("; ".join(fact for fact in facts if fact) + ".", "quiet"))
    return f'<article class="card">{"".join(lines)}</article>'


def sentences(source: Source) -> str:
    """What a run did, in two or three sentences."""
    experiment = source.experiment
    said = str(experiment.get("description") or source.circuit.get("description") or "").strip()
    first = f"{said.rstrip('.')}." if said else ""
    return " ".join(part for part in (first, _circuit(source), _asked(source)) if part)


def _circuit(source: Source) -> str:
    populations, projections = source.populations, source.projections
    neurons, edges = sum(map(source.size, populations)), sum(map(source.edges, projections))
    name = source.circuit.get("circuit") or "?"
    return (
        f"Circuit {name}: {count(len(populations), 'population')}, {count(neurons, 'neuron')}, "
        f"{count(edges, 'connection')}."
    )


def _asked(source: Source) -> str:
    experiment, kind = source.experiment, source.kind
    control = _inner(experiment, "control")
    controller = _inner(control, "controller")
    pathway = str(control.get("pathway") or "").replace("_", " ")
    how = f"{pathway} with {control.get('feedback')} feedback" if control.get("feedback") else pathway
    if isinstance(controller.get("alpha"), (int, float)):
        how += f", alpha {controller['alpha']:g}"
    if kind == "simulation":
        said = source.said("simulation")
        free = said.get("control", "none") == "none"
        return (
            f"{number(float(said.get('duration_ms', float('nan'))))} ms in steps of "
            f"{number(float(said.get('dt_ms', float('nan'))))} ms by {said.get('method', '?')}, "
            f"{'free' if free else 'under ' + str(said['control']).replace('_', ' ')}."
        )
    if kind == "equilibria":
        controlled = any(key[0] == "controlled" for key in source.settled)
        return f"Its free{' and its controlled' if controlled else ''} equilibrium{f' ({how})' if controlled else ''}."
    if kind == "diagnosis":
        conclusion = str(source.said("diagnosis").get("conclusion", ""))
        return f"What the theory asks, measured under {how}. {conclusion}".strip()
    learn, data = _inner(experiment, "learn"), _inner(experiment, "data")
    rule = str(learn.get("rule") or "an unnamed rule").replace("_", " ")
    samples = data.get("name", "its data")
    samples = Path(str(data.get("train", "its data"))).name if samples == "file" else samples
    parts = [f"It learned {samples} by {rule}"]
    if "control" in rule and how.strip():
        parts.append(f"control by {how}")
    return ", ".join(parts) + f"; {_progress(source, learn)}, seed {experiment.get('seed', '?')}."


def _inner(value: dict[str, Any], key: str) -> dict[str, Any]:
    inner = value.get(key)
    return inner if isinstance(inner, dict) else {}


def _progress(source: Source, learn: dict[str, Any]) -> str:
    done = source.short("training/epoch")
    made, asked = (0 if done is None or not done.size else int(done[-1])), learn.get("epochs")
    return f"{made} of {count(asked, 'epoch')}" if isinstance(asked, int) else count(made, "epoch")


def last_numbers(source: Source) -> list[tuple[str, str]]:
    """The last value of what was measured between epochs, beside the first."""
    found = []
    for key, word in RESULTS:
        values = source.short(f"training/{key}")
        if values is None or values.ndim != 1 or values.dtype.kind not in "iuf":
            continue
        known = values[values == values]
        if not len(known):
            continue
        if key.split("_")[-1] == "accuracy" and "test" not in key and any("test" in w for w, _ in found):
            continue
        share = key.split("_")[-1] in SHARES
        last, first = (f"{100 * v:.3g}%" if share else number(float(v)) for v in (known[-1], known[0]))
        before = key not in SHARES and len(known) > 1
        found.append((word, f"{last} ({first} before learning)" if before else last))
    return found


def _when(source: Source) -> list[str]:
    """Begin and duration, as far as the file tells."""
    attributes = source.run.attributes
    try:
        begun = datetime.fromisoformat(str(attributes.get("created", "")))
    except ValueError:
        return []
    begun = begun if begun.tzinfo else begun.replace(tzinfo=UTC)
    words = [f"begun {begun.astimezone(UTC):%Y-%m-%d %H:%M} UTC"]
    try:
        ended = datetime.fromisoformat(str(attributes.get("finished", "")))
        ended = ended if ended.tzinfo else ended.replace(tzinfo=UTC)
        words.append(f"took {duration((ended - begun).total_seconds())}")
    except ValueError:
        seconds = source.run.path.stat().st_mtime - begun.timestamp()
        if 0 <= seconds < 90 * 86400:
            words.append(f"last written {duration(seconds)} later")
    return words


def duration(seconds: float) -> str:
    """Seconds in the unit a person would choose."""
    seconds = max(0.0, seconds)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
