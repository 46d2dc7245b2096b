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

TIMES, SAMPLES_SHOWN, ROWS_SHOWN, LISTED = 8, 3, 24, 6
"""Of a neuron's values: times, samples with several times, samples with one; and samples named that never settled."""


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
    elif len(summaries) > 2:
        known = [name for name in names if not name.startswith("step_")]
        rows = [
            [name, *((one["metrics"].get(name) or {}).get("last") for one in summaries)] for name in known
        ]
        table("training, at the end", ["metric", *labels], rows)
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
    alike = all(one["probes"] == summaries[0]["probes"] for one in summaries)
    for number, (one, label) in enumerate(zip(summaries, labels, strict=True)):
        which = f" of {label}" if len(labels) > 1 else ""
        if not alike or number == 0:
            _probes(one["probes"], "" if alike else which)
        _settled(one, which)
    for one in summaries if len(summaries) == 1 else ():
        _weights(one["weights"])
    if len(summaries) == 1:
        rows = [
            [name, group["datasets"], memory(group["bytes"])]
            for name, group in summaries[0]["groups"].items()
        ]
        table("contents (name a group to see what is in it)", ["group", "datasets", "size"], rows)
    _headlines(summaries, labels)


def _probes(probes: dict[str, dict[str, Any]], which: str) -> None:
    rows = []
    for name, probe in probes.items():
        sizes = [
            f"{probe[key]:,} {key if probe[key] != 1 else key[:-1]}"
            for key in ("frames", "points", "samples", "neurons", "synapses")
            if key in probe
        ]
        what = f"{probe.get('population', probe.get('projection', ''))} {probe.get('variable', '')}".strip()
        rows.append([name, f"{what}, {probe['phase']}" if "phase" in probe else what, ", ".join(sizes)])
    table(f"recorded{which}", ["probe", "what", "holds"], rows)


def _settled(one: dict[str, Any], which: str) -> None:
    rows = [[name, *state.values()] for name, state in one["equilibria"].items()]
    table(f"equilibria{which}", ["", "samples", "converged", "iterations, mean", "residual, largest"], rows)
    rows = [
        [s["of"], s["samples"], s["times"], s["never"], s["sometimes"], _listed(s)] for s in one["unsettled"]
    ]
    columns = ["of", "samples", "times", "never", "at times", "which never settled"]
    table(f"samples that did not settle{which}", columns, rows)


def _weights(weights: dict[str, dict[str, Any]]) -> None:
    keys = ("mean_before", "std_before", "mean_after", "std_after", "moved")
    rows = [[name, w["weights"], *(_short(w[key]) for key in keys)] for name, w in weights.items()]
    if any(row[-1] is not None for row in rows):
        table("weights", ["projection", "count", "mean before", "std", "mean after", "std", "moved by"], rows)
    else:
        table("weights", ["projection", "count", "mean", "std"], [row[:4] for row in rows])


def _short(value: float | None) -> float | None:
    """With three digits."""
    return None if value is None else float(f"{value:.3g}")


def _listed(one: dict[str, Any]) -> str:
    """The samples that never settled, with their classes, the first of them."""
    never, classes = one["never_samples"], one["never_classes"]
    if not never:
        return "none"
    words = (
        [f"{n} (class {c})" for n, c in zip(never, classes, strict=True)]
        if classes
        else [str(n) for n in never]
    )
    return ", ".join(words[:LISTED]) + (" and more" if len(words) > LISTED else "")


def print_neuron(one: dict[str, Any]) -> None:
    """A neuron's values: a row for each time of a few samples, or for each sample where there is one time."""
    at = one["at"]
    say(
        f"{one['file']}: {one['called']} of {one['population']}"
        + (f", {one['phase']}" if one["phase"] else "")
    )
    samples, classes, values = one["samples"], one["classes"], one["values"]
    head = ["sample", *(["class"] if classes else []), *([one["along"]] if at else []), *values]
    rows, shown, moments = [], range(len(samples)), [0]
    if at and len(at) > 1:
        moments = (
            sorted({round(i * (len(at) - 1) / (TIMES - 1)) for i in range(TIMES)})
            if len(at) > TIMES
            else range(len(at))
        )
        shown = shown[:SAMPLES_SHOWN]
    else:
        shown = shown[:ROWS_SHOWN]
    for s in shown:
        for t in moments:
            cells = [values[v][t][s] if at else values[v][s] for v in values]
            number = one["samples"][s] if one["fixed_samples"] else f"column {s}"
            rows.append([number, *([classes[s]] if classes else []), *([at[t]] if at else []), *cells])
    table("", head, rows)
    if len(shown) < len(samples) or (at and len(moments) < len(at)):
        times = f", {len(moments)} of {len(at):,} times" if at and len(at) > 1 else ""
        say(f"shown: {len(shown)} of {len(samples):,} samples{times}; --sample shows others, --json all")


def print_projection(one: dict[str, Any]) -> None:
    """A projection's weights before and after learning, and the synapses that moved most."""
    say(f"{one['file']}: {one['projection']}, {one['source']} to {one['target']}, {one['weights']:,} weights")
    if one["read"] < one["weights"]:
        say(f"read: {one['read']:,} of them, in blocks at equal distances")
    names = list(next(iter(one["quantiles"].values()), {}))
    rows = [
        [when, one[f"mean_{when}"], one[f"std_{when}"], *quantiles.values()]
        for when, quantiles in one["quantiles"].items()
    ]
    table("", ["weights", "mean", "std", *(f"{100 * float(q):g}%" for q in names)], rows)
    rows = [[m["synapse"], m["before"], m["after"], m["change"]] for m in one["moved_most"]]
    table("moved most (source to target)", ["synapse", "before", "after", "change"], rows)


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
