"""Which runs belong together: conditions that differ in their specification, and the seeds of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_KEYS = 3
"""A condition is named by the keys in which it differs, unless there are more."""
_UNTOLD = ("seed", "experiment", "description", "record", "device", "threads")
"""Keys that make no other condition of a run."""
LEARNING = ("training", "")
"""Kinds of files that are runs of a condition: those that learn, and those that have only begun."""
KIND = "kind of file"


@dataclass(frozen=True)
class Condition:
    """Runs that differ in their seeds alone.

    Args:
        name: what tells it from the others. runs: places in the list of all runs.
    """

    name: str
    runs: tuple[int, ...]


def conditions(
    experiments: Sequence[Mapping[str, Any]],
    circuits: Sequence[Mapping[str, Any]],
    kinds: Sequence[str],
    files: Sequence[Path],
) -> list[Condition]:
    """Group training runs by what they were asked to do; every file of another kind stands for itself.

    Args:
        experiments, circuits, kinds, files: of each run: both specifications as plain data, what it is, its file.
    """
    flat = [
        {key: value for key, value in _flat(e).items() if key.split(".")[0] not in _UNTOLD}
        | {f"circuit.{key}": value for key, value in _flat(c).items() if key != "seed"}
        | {KIND: "" if kind in LEARNING else f"{kind} {at}"}
        for at, (e, c, kind) in enumerate(zip(experiments, circuits, kinds, strict=True))
    ]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for at, one in enumerate(flat):
        groups.setdefault(tuple(sorted(one.items())), []).append(at)
    firsts = [members[0] for members in groups.values()]
    differing = sorted(
        {key for at in firsts for key in flat[at] if len({flat[b].get(key) for b in firsts}) > 1}
    )
    differing = [key for key in differing if key not in ("circuit", KIND)]
    told = differing if len(differing) <= MOST_KEYS else [key for key in differing if key == "learn.rule"]
    names = []
    for at in firsts:
        if kinds[at] not in LEARNING:
            words = []
        elif told:
            words = [_words(key, flat[at].get(key)) for key in told]
        else:
            words = [str(flat[at].get("learn.rule") or "").replace("_", " ")]
        names.append(", ".join(word for word in words if word) or files[at].stem)
    shared = Counter(names)
    names = [name if shared[name] == 1 else files[at].stem for name, at in zip(names, firsts, strict=True)]
    return [Condition(name, tuple(runs)) for name, runs in zip(names, groups.values(), strict=True)]


def labels(
    found: Sequence[Condition], seeds: Sequence[Any], kinds: Sequence[str], files: Sequence[Path]
) -> list[str]:
    """What tells each run from every other: its condition, its seed, its file where these do not suffice."""
    told = [""] * len(files)
    for one in found:
        for at in one.runs:
            alone = (len(one.runs) == 1 and len(found) > 1) or kinds[at] not in LEARNING
            told[at] = one.name if alone else f"{one.name}, seed {seeds[at]}"
    many = Counter(told)
    told = [
        label if many[label] == 1 else f"{label}, {file}" for label, file in zip(told, files, strict=True)
    ]
    many = Counter(told)
    return [label if many[label] == 1 else f"{label} ({at + 1})" for at, label in enumerate(told)]


def _words(key: str, value: Any) -> str:
    shown = "none" if value is None else str(value).replace("_", " ")
    return shown if key == "learn.rule" else f"{key.removeprefix('learn.').replace('_', ' ')} {shown}"


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for key, item in value.items():
            found |= _flat(item, f"{path}.{key}" if path else str(key))
        return found
    return {path: value if isinstance(value, (str, int, float, bool)) or value is None else repr(value)}
