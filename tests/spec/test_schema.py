"""The JSON Schema accepts what the reader accepts, refuses misspelt keys, and describes every key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from circuitlab.spec.schema import json_schema
from circuitlab.spec.source import read


def load(name: str) -> Any:
    import importlib.util

    path = Path(__file__).with_name(f"{name}.py")
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


CIRCUITS, EXPERIMENTS = load("test_circuit"), load("test_experiment")


def validator(kind: Any) -> jsonschema.Draft202012Validator:
    schema = json_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("circuit", CIRCUITS.DESIGN),
        ("circuit", CIRCUITS.EVERYTHING),
        ("circuit", CIRCUITS.SPACE),
        ("experiment", EXPERIMENTS.MINIMAL),
        ("experiment", EXPERIMENTS.FULL),
        ("experiment", EXPERIMENTS.SETTLED),
        (
            "experiment",
            EXPERIMENTS.MINIMAL
            + "manipulations: {a: {kind: rewire, model: lattice, projections: [x_h], seed: 3},\n"
            "  b: {kind: rewire, model: random, projections: all}}\n",
        ),
        ("experiment", EXPERIMENTS.MINIMAL + "learn: {constrain: {largest_singular_value: none}}\n"),
        ("experiment", EXPERIMENTS.MINIMAL + "solve: {check_energy: 50 steps}\n"),
        (
            "experiment",
            EXPERIMENTS.MINIMAL
            + "control: {pathway: linear_feedback, feedback: {file: q.npz}}\nloss: squared_error\n",
        ),
    ],
)
def test_what_can_be_read_is_accepted(kind: str, text: str) -> None:
    assert [error.message for error in validator(kind).iter_errors(read("f.yaml", text).data)] == []


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("circuit", "size: 64", "siz: 64"),
        ("circuit", "size: 64", "size: 0"),
        ("circuit", "tau: 10 ms", "tau: 10"),
        ("circuit", "tau: 10 ms", "tau: 10 Hz"),
        ("circuit", "type: interneuron, size: 32", "type: interneurone, size: 32"),
        ("circuit", "connect: all_to_all", "connect: fixed_indegree"),
        ("circuit", "p: 0.3", "p: 1.3"),
        ("circuit", "p: 0.3", "q: 0.3"),
        ("circuit", "indegree: 20", "indegree: many"),
        ("circuit", "{init: xavier_uniform}", "{init: xavier}"),
        ("circuit", "{init: xavier_uniform}", "xavier"),
        ("circuit", "site: soma", "sight: soma"),
        ("circuit", "  retina: ", "  residual: "),
        ("circuit", "  retina: ", "  a/b: "),
        ("experiment", "data: digits", "data: digit"),
        ("experiment", "data: digits", "loss: cross_entropy"),
        ("experiment", "data: digits", "data: digits\nlearn: {epoch: 3}"),
        ("experiment", "data: digits", "data: digits\nlearn: {epochs: 0}"),
        ("experiment", "data: digits", "data: digits\nlearn: {snapshots_every: 3}"),
        ("experiment", "data: digits", "data: digits\nrecord: {r: {population: h}}"),
        ("experiment", "data: digits", "data: digits\ncontrol: energy"),
        ("experiment", "data: digits", "data: digits\ncontrol: {controller: {alpha: {from: 1}}}"),
        ("experiment", "data: digits", "data: digits\nlearn: {constrain: {largest_singular_value: never}}"),
        ("experiment", "data: digits", "data: digits\nsolve: {check_energy: {every: 50}}"),
    ],
)
def test_mistakes_are_refused(kind: str, old: str, new: str) -> None:
    text = CIRCUITS.DESIGN if kind == "circuit" else EXPERIMENTS.MINIMAL
    assert text.count(old) == 1
    assert not validator(kind).is_valid(read("f.yaml", text.replace(old, new)).data)


def properties(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key that a schema knows, wherever it is defined."""
    if isinstance(schema, list):
        for part in schema:
            yield from properties(part, path)
    elif isinstance(schema, dict):
        for name, part in schema.get("properties", {}).items():
            yield f"{path}.{name}", part
        for name, part in schema.items():
            yield from properties(part, f"{path}.{name}")


@pytest.mark.parametrize("kind", ["circuit", "experiment"])
def test_every_key_is_described(kind: Any) -> None:
    found = list(properties(json_schema(kind)))
    assert len(found) > 40
    assert [path for path, part in found if not part.get("description")] == []


@pytest.mark.parametrize("kind", ["circuit", "experiment"])
def test_a_default_is_written_as_in_a_file(kind: Any) -> None:
    for path, part in properties(json_schema(kind)):
        if "ms" in str(part.get("examples")) and "default" in part:
            assert str(part["default"]).endswith(" ms"), path
