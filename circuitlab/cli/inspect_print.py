"""How `circuitlab inspect` prints what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from circuitlab.cli.common import memory, say, table

FACTS = (
    "file", "status", "experiment", "circuit", "created", "command", "circuitlab_version", "torch_version",
    "device", "seed", "neurons", "synapses",
)  # fmt: skip
FIRST = ("train", "validation", "test", "control_cost", "unconverged", "iterations")
"""The order of metrics, by how they begin; the others follow, those of single steps last."""


def print_summaries(summaries: list[dict[str, Any]]) -> None:
    """One run, or two beside each other: how they were made, what they learned, what they hold."""
    labels = [one["label"] for one in summaries]
    if len(set(labels)) < len(labels):
        labels = [Path(one["file"]).stem for one in summaries]
    facts = [_facts(one) for one in summaries]
    rows = [
        [key.replace("_", " "), *(one[key] for one in facts)]
        for key in FACTS
        if any(one[key] for one in facts)
    ]
    table("", ["", *labels] if len(labels) > 1 else ["run", labels[0]], rows)
    names = sorted({name for one in summaries for name in one["metrics"]}, key=_order)
    if len(summaries) == 1:
        columns = ["first", "last", "lowest", "highest", "rows"]
        rows = [[name, *(summaries[0]["metrics"][name][column] for column in columns)] for name in names]
        table("training", ["metric", *columns], rows)
    else:
        columns = [f"{label}, {end}" for label in labels for end in ("first", "last")]
        rows = [
            [
                name,
                *(
                    (one["metrics"].get(name) or {}).get(end)
                    for one in summaries
                    for end in ("first", "last")
                ),
            ]
            for name in names
        ]
        table("training", ["metric", *columns], rows)
    for one, label in zip(summaries, labels, strict=True):
        which = f" of {label}" if len(labels) > 1 else ""
        rows = [[name, *probe.values()] for name, probe in one["probes"].items()]
        columns = ["probe", "population", "variable", "phase", "frames", "samples", "neurons"]
        table(f"recorded neurons{which}", columns, rows)
        rows = [[name, *state.values()] for name, state in one["equilibria"].items()]
        table(
            f"equilibria{which}", ["", "samples", "converged", "iterations, mean", "residual, largest"], rows
        )
    if len(summaries) == 1:
        rows = [
            [name, group["datasets"], memory(group["bytes"])]
            for name, group in summaries[0]["groups"].items()
        ]
        table("contents (name a group to see what is in it)", ["group", "datasets", "size"], rows)
    _headlines(summaries, labels)


def _facts(one: dict[str, Any]) -> dict[str, Any]:
    facts = one["attributes"] | {key: one[key] for key in ("status", "experiment", "circuit")}
    facts["file"] = f"{one['file']} ({memory(one['bytes'])})"
    for key, part in (("neurons", "populations"), ("synapses", "projections")):
        facts[key] = ", ".join(f"{name} {size:,}" for name, size in one[part].items())
    return {key: str(facts.get(key, "")) for key in FACTS}


def _order(name: str) -> tuple[bool, int, str]:
    places = [place for place, start in enumerate(FIRST) if name.startswith(start)]
    return name.startswith("step_"), places[0] if places else len(FIRST), name


def _headlines(summaries: list[dict[str, Any]], labels: list[str]) -> None:
    """What a reader asks first, one line each."""

    def line(what: str, metric: str, words: Any) -> None:
        known = [
            (label, one["metrics"][metric])
            for label, one in zip(labels, summaries, strict=True)
            if metric in one["metrics"]
        ]
        if known:
            say(f"{what}: " + ", ".join(f"{label} {words(values)}" for label, values in known))

    line("test accuracy at the end", "test_accuracy", lambda m: f"{m['last']:.4f}")
    line(
        "control cost per sample, before and after learning",
        "control_cost",
        lambda m: f"{m['first']:.3g} to {m['last']:.3g}",
    )
    line("unconverged samples, at most", "unconverged", lambda m: f"{100 * m['highest']:.2f}%")


def print_part(part: dict[str, Any]) -> None:
    """A group with its datasets, or a dataset with its attributes and first values."""
    say(f"{part['file']}: {part['path']}")
    for key, value in part["attributes"].items():
        say(f"  {key}: {value}")
    if "datasets" in part:
        say("")
        rows = [
            [
                d["path"],
                " x ".join(str(n) for n in d["shape"]) or "one",
                d["type"],
                d["units"],
                d["description"],
            ]
            for d in part["datasets"]
        ]
        table("datasets", ["path", "shape", "type", "units", "description"], rows)
        return
    if "text" in part:
        say("")
        say(part["text"].rstrip())
        return
    say(f"  shape: {' x '.join(str(n) for n in part['shape']) or 'one value'}, {part['type']}")
    for key in ("mean", "lowest", "highest"):
        if key in part:
            say(f"  {key}: {part[key]:.6g}")
    if part.get("not_finite"):
        say(f"  values that are no finite numbers: {part['not_finite']:,}")
    say(
        "  first values: "
        + ", ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in part["first_values"])
    )
