"""Changes to an experiment from the command line: `--set learn.epochs=3`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from circuitlab.errors import Problem, SpecError
from circuitlab.spec.source import Place, Source, parse_value

SHORTHANDS: dict[tuple[str, ...], str] = {
    ("circuit",): "file",
    ("data",): "name",
    ("loss",): "name",
    ("control",): "pathway",
    ("control", "controller"): "type",
    ("solve",): "method",
    ("solve", "check_energy"): "every",
    ("learn",): "rule",
    ("learn", "optimizer"): "name",
    ("learn", "scheduler"): "name",
    ("learn", "early_stopping"): "metric",
}
"""Sections that a bare text may stand for, and the key it gives."""


def apply_overrides(source: Source, overrides: Sequence[str]) -> None:
    """Put each `KEY=VALUE` into the source's data, its value read as YAML; mistakes go to the source."""
    for text in overrides:
        key, equals, value = (part.strip() for part in text.partition("="))
        name = f"--set {key}"
        path = tuple(key.split("."))
        if not equals or not all(path):
            source.refuse(Problem(f"--set {text}", "", "KEY=VALUE is wanted, such as learn.epochs=3"))
            continue
        try:
            parsed = parse_value(value, name)
        except SpecError as error:
            for problem in error.problems:
                source.refuse(Problem(name, "", problem.message))
            continue
        _put(source, path, parsed, name)


def _put(source: Source, path: tuple[str, ...], value: Any, name: str) -> None:
    data: dict[str, Any] = source.data
    for depth, part in enumerate(path[:-1], start=1):
        here = path[:depth]
        inner = data.get(part)
        if inner is None:
            inner = {}
            source.override(here, name)
        elif isinstance(inner, str) and here in SHORTHANDS:
            inner = {SHORTHANDS[here]: inner}
        elif not isinstance(inner, dict):
            source.refuse(Problem(name, "", f"{'.'.join(here)} is no mapping; it has no keys to set"))
            return
        data[part] = inner
        data = inner
    data[path[-1]] = value
    source.override(path, name)
    _register(source, path, value)


def _register(source: Source, path: Place, value: Any) -> None:
    source.values[path] = (0, 0)
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in parts:
        _register(source, (*path, key), inner)
