"""Whatever stands where, a file is read or refused in single lines of the user's words, and never fails otherwise."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from circuitlab.errors import SpecError
from circuitlab.spec.advice import warnings
from circuitlab.spec.circuit import load_circuit
from circuitlab.spec.experiment import load_experiment
from circuitlab.spec.source import parse_value, read

BASE = Path(__file__).parents[1] / "refusals" / "cases" / "base"
DATA = {name: read(BASE / f"{name}.yaml").data for name in ("circuit", "experiment")}
VALUES: list[Any] = parse_value(
    """[null, true, 0, -1, 2, 1.5, .nan, .inf, '', x, h, ':', 1 ms, 5 epochs, [], [1], [a], [[1]], [null], {}, {a: 1},
    {file: 3}, {rule: [1]}, {rule: pool}, {rule: transpose, of: [x]}, {rule: networkx, generator: nope},
    {rule: networkx, generator: complete_graph, arguments: 3}, {rule: convolution, kernel: [1, 2, 3]}, {init: [x]},
    {random: 3}, {grid: x}, {name: file}, {type: pi}, transpose, burst, apical, integral, {steps: 1, epochs: 2}]""",
    "values",
)
KEYS = [
    "size",
    "shape",
    "bias",
    "names",
    "positions",
    "carries",
    "weights",
    "connect",
    "kernel",
    "units",
    "optimizer",
    "a",
]


def places(data: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key and list position of plain data."""
    parts = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, inner in parts:
        yield (*place, key)
        yield from places(inner, (*place, key))


@pytest.mark.parametrize("kind", ["circuit", "experiment"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 10_000), st.sampled_from(VALUES), st.sampled_from([None, *KEYS])),
        min_size=1,
        max_size=3,
    )
)
def test_any_value_anywhere(kind: str, changes: list[tuple[int, Any, str | None]]) -> None:
    data = copy.deepcopy(DATA[kind])
    for number, value, key in changes:
        known = list(places(data))
        place = known[number % len(known)]
        holder = data
        for part in place[:-1]:
            holder = holder[part]
        holder[key if key is not None and isinstance(holder, dict) else place[-1]] = copy.deepcopy(value)
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(data, stream)
    try:
        if kind == "circuit":
            warnings(load_circuit(BASE / "f.yaml", text=stream.getvalue()))
        else:
            warnings(load_experiment(BASE / "f.yaml", text=stream.getvalue()))
    except SpecError as error:
        for problem in error.problems:
            assert len(str(problem).splitlines()) == 1
            assert "Input should" not in problem.message
