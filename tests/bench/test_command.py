"""`circuitlab bench`: tables, JSON, pages and pictures of tiny measurements; wrong command lines and wrong input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from circuitlab.bench import kernels, scale
from circuitlab.bench.kernels import Case
from circuitlab.bench.rates import Rates
from circuitlab.bench.step import METHODS
from circuitlab.cli.main import main

RATES = Rates(1e9, 1e9, 1e9, 1e9, 2**20, 2**25)


def _bench(
    capsys: pytest.CaptureFixture[str], folder: Path, name: str, *options: str
) -> tuple[str, dict[str, Any], str]:
    """The terminal's text, the JSON and the page of one benchmark with a picture."""
    files = {kind: folder / f"out.{kind}" for kind in ("json", "md", "png")}
    places = ["--json", str(files["json"]), "--markdown", str(files["md"]), "--plot", str(files["png"])]
    assert main(["bench", name, "--threads", "1", *options, *places]) == 0
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    data = json.loads(files["json"].read_text(encoding="utf-8"))
    for key in ("format", "format_version", "benchmark", "options", "machine", "tables", "numbers"):
        assert key in data, key
    assert data["benchmark"] == name
    assert data["machine"]["threads"] == 1
    assert "seed" in data["options"] or "seeds" in data["options"]
    shown = capsys.readouterr().out
    page = files["md"].read_text(encoding="utf-8")
    for table in data["tables"]:
        assert len({len(row) for row in table["rows"]} | {len(table["columns"])}) == 1, table["title"]
        assert table["title"] in shown
        assert table["title"] in page
        for head in table["columns"]:
            assert head in shown
    return shown, data, page


def test_cost(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--experiment",
        str(small),
        "--batches",
        "2",
        "--oracle",
        "5",
        "--step",
        "2",
        "--neurons",
        "60",
    ]
    shown, data, page = _bench(
        capsys, tmp_path, "cost", "--short", "--dtype", "both", "--alpha", "1", *options
    )
    nets = [(net["dtype"], net["trained_by"], net["updates"]) for net in data["numbers"]["nets"]]
    rules = ("least control 1", "recurrent backprop")
    assert nets == [
        (dtype, *net)
        for dtype in ("float32", "float64")
        for net in [("", 0), *((rule, at) for rule in rules for at in (2, 6))]
    ]
    for net in data["numbers"]["nets"]:
        for readings in net["contenders"].values():
            assert len(readings["products"]) == 2
            assert len(readings["solve"]) == 8
        assert len(net["updates_checked"]["1"]["errors"]) == 5
    assert data["numbers"]["training"]["least control 1"]["samples"] == 24
    assert len(data["numbers"]["sparse"]) == 2
    assert "Published, not measured here" in page
    assert "35,280" in page
    assert "\u2026" not in shown


def test_kernels(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "measure", lambda: RATES)
    cases = {"dense 8": Case(((8, 8),), 1.0, "dense", 4), "csr 30": Case(((30, 30),), 0.1, "csr", 4)}
    monkeypatch.setattr(kernels, "CASES", cases)
    _, data, _ = _bench(capsys, tmp_path, "kernels", "--repeats", "2")
    assert data["numbers"]["rates"]["matrix"] == 1e9
    kinds = [(one["case"], one["operation"]) for one in data["numbers"]["kernels"]]
    assert kinds == [(name, operation) for name in cases for operation in ("product", "transposed", "outer")]
    assert set(data["numbers"]["kernels"][3]["seconds"]) == {"own", "torch"}
    assert set(data["numbers"]["kernels"][0]["seconds"]) == {"own"}
    assert set(data["numbers"]["step"]) == set(METHODS)


def test_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = scale.Settings((20, 40), (0.1, 0.5), (2, 4), (3, 6), 5, 30, 3, 4, 1, 0)
    monkeypatch.setattr(scale, "limited", lambda settings, largest: tiny)
    _, data, _ = _bench(capsys, tmp_path, "scale", "--short")
    assert set(data["numbers"]["slopes"]) == {"neurons", "synapses", "batch", "iterations"}


def test_train(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--experiment", str(small), "--feedforward", str(small.with_name("feedforward.yaml"))]
    options = ["--seeds", "1", "--epochs", "1", "--every", "2", "--target", "50", "--alpha", "1"]
    _, data, _ = _bench(capsys, tmp_path, "train", *files, *options)
    assert data["options"]["seeds"] == [0]
    assert data["numbers"]["targets"] == [0.5]
    assert list(data["numbers"]["training"]) == [
        "least control, alpha 1", "recurrent backprop", "feedforward, backprop",
    ]  # fmt: skip


def test_anatomy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Synapses as the file counts them, both equilibria found, every plastic synapse moved."""
    circuit = tmp_path / "net.yaml"
    circuit.write_text(
        """
circuit: net
populations:
  x: {type: input, size: 5}
  h: {type: unit, size: 400}
  y: {type: output, size: 3}
projections:
  x_h: {source: x, target: h}
  h_h: {source: h, target: h, connect: {rule: fixed_total_number, N: 16000}, weights: {scale: 0.5}}
  h_y: {source: h, target: y}
""",
        encoding="utf-8",
    )
    out = tmp_path / "out.json"
    assert (
        main(["bench", "anatomy", str(circuit), "--scale", "0.5", "--threads", "1", "--json", str(out)]) == 0
    )
    data = json.loads(out.read_text(encoding="utf-8"))
    numbers = data["numbers"]
    assert numbers["neurons"] == 5 + 200 + 3
    assert numbers["synapses"] == 5 * 200 + 4000 + 3 * 200
    assert numbers["edges"] < numbers["synapses"]
    assert numbers["free"]["converged"] == numbers["controlled"]["converged"] == 1
    assert numbers["changed"] > 0.99
    parts = ["build", "compile", "free equilibrium", "controlled equilibrium", "update"]
    assert list(numbers["seconds"]) == list(numbers["processor"]) == list(numbers["peak"]) == parts
    shown = capsys.readouterr().out
    for word in (*parts, "bytes per synapse", "5,600"):
        assert word in shown


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["speed"],
        ["cost", "--circuit", "brain"],
        ["cost", "--dtype", "float16"],
        ["cost", "--batches", "0"],
        ["kernels", "--repeats", "none"],
        ["train", "--target", "101"],
    ],
)
def test_a_wrong_command_line_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *argv]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["kernels", "--case", "csr 1025, 0.1"], "Did you mean 'csr 1024, 0.1'?"),
        (["kernels", "--threads", "4097"], "--threads: 4097 threads"),
        (["scale", "--threads", "0"], "allowed: 1 to"),
        (["kernels", "--json", "no_such_folder/x.json"], "does not exist"),
        (["scale", "--plot", "x.gif"], "a picture is a file ending in"),
        (["train", "--experiment", "missing.yaml"], "missing.yaml: no such file"),
        (["cost", "--experiment", "missing.yaml"], "missing.yaml: no such file"),
    ],
)
def test_wrong_input_is_1_with_one_line(
    argv: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *argv]) == 1
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_data_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuitlab.data.idx.search_folders", lambda: [tmp_path])
    assert main(["bench", "cost", "--circuit", "mnist", "--threads", "1"]) == 1
    error = capsys.readouterr().err
    assert "mnist was not found" in error
    assert "CIRCUITLAB_DATA" in error


def test_recording(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, population = tmp_path / "out.json", "cells"
    options = [
        "--population",
        population,
        "--neurons",
        "5",
        "--pairs",
        "2",
        "--stretch",
        "2",
        "--lengths",
        "3",
        "6",
    ]
    command = ["bench", "recording", "--experiment", str(small), *options, "--json", str(place)]
    assert main(command) == 0
    shown, data = capsys.readouterr().out, json.loads(place.read_text(encoding="utf-8"))
    assert "recorded step, ms" in shown
    times = data["numbers"]["seconds per update"]
    assert len(times["plain"]) == len(times["recorded"]) == 2
    short, long = data["numbers"]["memory"]
    assert (short["updates"], long["updates"]) == (3, 6)
    assert 0 < short["bytes"] <= long["bytes"]
    assert main([*command, "--population", "nobody"]) == 1
    assert "no population 'nobody' to record from" in capsys.readouterr().err
