"""The table of pathways and rules: every row has its experiment and its test, and every pathway and rule a row."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from circuitlab.spec.combinations import FEEDBACK_RULES, PATHWAYS, RULES
from circuitlab.spec.experiment import load_experiment

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOP / "benchmarks"))
    for name in ("methods", "trainings"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("methods")


def test_every_row_has_its_files(methods: ModuleType) -> None:
    for row in methods.ROWS:
        assert (TOP / "tests" / row.test).is_file()
        for circuit in row.circuits:
            load_experiment(TOP / "experiments" / f"{row.file(circuit)}.yaml")


def test_every_pathway_and_rule_has_a_row(methods: ModuleType) -> None:
    specs = [
        load_experiment(TOP / "experiments" / f"{row.file(circuit)}.yaml")
        for row in methods.ROWS
        for circuit in row.circuits
    ]
    assert {spec.control.pathway for spec in specs} == set(PATHWAYS)
    baselines = {"backprop", "recurrent_backprop"}  # beside every row
    assert {spec.learn.rule for spec in specs} | baselines == set(RULES)
    assert {spec.learn.feedback.rule for spec in specs if spec.learn.feedback} == set(FEEDBACK_RULES)


def test_rows_and_backprop_keep_the_same_bound(methods: ModuleType) -> None:
    for row in methods.ROWS:
        for circuit in row.circuits:
            spec = load_experiment(TOP / "experiments" / f"{row.file(circuit)}.yaml")
            again = load_experiment(
                TOP / "experiments" / f"{row.file(circuit)}.yaml",
                ["learn.constrain={}", *methods.constraint(row.file(circuit))],
            )
            assert again.learn.constrain == spec.learn.constrain
