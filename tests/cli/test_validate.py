"""`circuitlab validate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitlab.cli.main import main


def test_a_sound_circuit_is_ok(cortex: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(cortex)]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{cortex}: ok (circuit; 6 populations, 8 projections)\n"
    assert shown.err == ""


def test_all_mistakes_of_all_files_come_at_once(
    cortex: Path, broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.yaml"
    assert main(["validate", str(broken), str(cortex), str(missing)]) == 1
    shown = capsys.readouterr()
    assert shown.out == f"{cortex}: ok (circuit; 6 populations, 8 projections)\n"
    lines = shown.err.splitlines()
    assert [line.removeprefix(str(broken)).split(":")[1] for line in lines[:3]] == ["3", "4", "6"]
    assert all("Did you mean" in line for line in lines[:2])
    assert lines[3] == f"{missing}: no such file"


def test_json_says_the_same(cortex: Path, broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--json", str(cortex), str(broken)]) == 1
    good, bad = json.loads(capsys.readouterr().out)
    assert (good["ok"], good["problems"], good["what"]) == (True, [], "circuit; 6 populations, 8 projections")
    assert (bad["ok"], len(bad["problems"])) == (False, 3)


def test_a_rule_that_cannot_be_satisfied_is_found_without_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dale.yaml"
    (tmp_path / "edges.csv").write_text("source,target,weight\n0,0,-1\n", encoding="utf-8")
    path.write_text(
        "circuit: dale\n"
        "populations: {a: {type: input, size: 2, sign: excitatory}, b: {type: output, size: 2}}\n"
        "projections: {ab: {source: a, target: b, connect: {rule: explicit, file: edges.csv}}}\n",
        encoding="utf-8",
    )
    assert main(["validate", str(path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"{path}:3:19: projections.ab: ")
    assert shown.err.count("\n") == 1


def test_what_is_allowed_but_seldom_meant_is_a_warning(
    cortex: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "idle.yaml"
    path.write_text(
        "experiment: idle\ncircuit: cortex.yaml\ndata: digits\ncontrol: {feedback: tied}\n", encoding="utf-8"
    )
    main(["validate", str(path)])
    shown = capsys.readouterr()
    assert f"{path}: warning: projections.l23_l4_fb: " in shown.out


def test_an_experiment_is_checked_with_its_circuit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.yaml").write_text(
        "circuit: small\n"
        "populations: {pixels: {type: input, size: 64}, digit: {type: output, size: 10}}\n"
        "projections: {pixels_digit: {source: pixels, target: digit}}\n",
        encoding="utf-8",
    )
    path = tmp_path / "experiment.yaml"
    path.write_text("experiment: e\ncircuit: small.yaml\ndata: digits\n", encoding="utf-8")
    assert main(["validate", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: ok (experiment; circuit small, 2 populations, 1 projection)\n"


def test_a_hypothesis_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "h.hypothesis.yaml"
    path.write_text("hypothesis: apical input matters\nexperiment: e.yaml\n", encoding="utf-8")
    assert main(["validate", str(path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_schemas_are_json_schemas(capsys: pytest.CaptureFixture[str]) -> None:
    from jsonschema import Draft202012Validator

    for kind in ("circuit", "experiment"):
        assert main(["schema", kind]) == 0
        Draft202012Validator.check_schema(json.loads(capsys.readouterr().out))
    assert main(["schema", "hypothesis"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
