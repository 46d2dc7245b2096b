"""`circuitlab show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from circuitlab.cli.main import main


def _shown(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["show", str(path), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_sizes_densities_and_degrees_follow_from_the_rules(
    cortex: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = _shown(cortex, capsys)
    by_name = {p["name"]: p for p in shown["projections"]}
    assert shown["neurons"] == 6 + 4 + 5 + 2 + 3 + 2
    assert by_name["retina_l4"]["synapses"] == 24
    assert by_name["retina_l4"]["density"] == 1
    sparse = by_name["l4_l23"]
    assert (sparse["synapses"], sparse["indegree"]) == (15, 3)
    assert sparse["outdegree"] == pytest.approx(15 / 4)
    assert sparse["density"] == pytest.approx(3 / 4)
    assert by_name["l23_l4_fb"]["synapses"] == 15
    assert shown["synapses"] == sum(p["synapses"] for p in shown["projections"])
    assert shown["recurrent_groups"] == [["l23", "pv", "sst"]]


def test_the_tables_name_everything(cortex: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(cortex)]) == 0
    shown = capsys.readouterr().out
    for word in (
        "cortex: 22 neurons",
        "retina_l4",
        "pyramidal",
        "apical",
        "burst",
        "inhibitory",
        "spectral radius",
        "balance (summed weights onto a neuron",
        "reciprocity: ",
        "to draw (measured), about ",
        "for an update by least control",
        "for an epoch of 10,000 samples; estimated",
    ):
        assert word in shown


@pytest.mark.parametrize("size", [30, 900])
def test_the_spectral_radius_of_a_ring_is_its_weight(
    size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A ring i -> i + 1 of weight w has the eigenvalues w exp(2 pi i k / n): its radius is w.
    lines = "".join(f"{i},{(i + 1) % size},0.75\n" for i in range(size))
    (tmp_path / "ring.csv").write_text("source,target,weight\n" + lines, encoding="utf-8")
    path = tmp_path / "ring.yaml"
    path.write_text(
        "circuit: ring\n"
        "populations:\n"
        "  x: {type: input, size: 3}\n"
        f"  r: {{type: unit, size: {size}}}\n"
        "  y: {type: output, size: 2}\n"
        "projections:\n"
        "  xr: {source: x, target: r, weights: {init: constant, value: 9}}\n"
        "  rr: {source: r, target: r, connect: {rule: explicit, file: ring.csv}}\n"
        "  ry: {source: r, target: y, weights: {init: constant, value: 9}}\n",
        encoding="utf-8",
    )
    radius = _shown(path, capsys)["spectral_radius"]
    assert radius == pytest.approx(0.75, abs=1e-6)


def test_a_feedforward_circuit_has_radius_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "forward.yaml"
    path.write_text(
        "circuit: forward\n"
        "populations: {x: {type: input, size: 3}, h: {type: unit, size: 40}, y: {type: output, size: 2}}\n"
        "projections: {xh: {source: x, target: h}, hy: {source: h, target: y}}\n",
        encoding="utf-8",
    )
    shown = _shown(path, capsys)
    assert (shown["spectral_radius"], shown["recurrent_groups"]) == (0, [])


def test_the_seed_draws_the_weights(cortex: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def weights(seed: str) -> list[float]:
        return [p["weight_mean"] for p in _shown(cortex, capsys, "--seed", seed)["projections"]]

    assert weights("1") == weights("1")
    assert weights("1") != weights("2")


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_the_drawing_is_of_the_kind_its_name_says(
    suffix: str, start: bytes, cortex: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"cortex.{suffix}"
    assert main(["show", str(cortex), "--draw", str(file)]) == 0
    assert file.read_bytes().startswith(start)
    assert capsys.readouterr().out.endswith(f"drawing: {file}\n")


def test_the_adjacency_picture_is_written_beside_the_drawing(
    cortex: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing, adjacency = tmp_path / "cortex.svg", tmp_path / "adjacency.png"
    shown = _shown(cortex, capsys, "--draw", str(drawing), "--adjacency", str(adjacency))
    assert (shown["drawing"], shown["adjacency"]) == (str(drawing), str(adjacency))
    assert drawing.read_bytes().startswith(b"<?xml") and adjacency.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["--draw", "--adjacency"])
@pytest.mark.parametrize("name", ["cortex.gif", "no_folder/cortex.png"])
def test_a_drawing_that_cannot_be_made_is_refused(
    option: str, name: str, cortex: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(cortex), option, str(tmp_path / name)]) == 1
    said = capsys.readouterr()
    assert (said.err.count("\n"), said.out) == (1, "")


def test_degrees_balance_and_reciprocity_follow_from_the_rules(
    cortex: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = _shown(cortex, capsys, "--samples", "640", "--batch", "64")
    by_name = {p["name"]: p for p in shown["projections"]}
    into = by_name["l4_l23"]["indegrees"]  # fixed_indegree 3: of 5 targets each has 3
    assert (into["mean"], into["std"], into["min"], into["max"]) == (3, 0, 3, 3)
    assert into["histogram"] == {"edges": [3, 4], "counts": [5]}
    out = by_name["l4_l23"]["outdegrees"]
    assert out["mean"] == pytest.approx(15 / 4) and sum(out["histogram"]["counts"]) == 4
    # the bursts of l23_l4_fb turn l4_l23 round, and l23 is joined both ways with pv and sst
    assert by_name["l4_l23"]["reciprocity"] == by_name["l23_l4_fb"]["reciprocity"] == 1
    assert by_name["retina_l4"]["reciprocity"] is None
    pairs = 2 * 15 + 2 * 5 * 2 + 2 * 5 * 3
    assert shown["reciprocity"]["overall"] == pytest.approx(pairs / (pairs + 5 * 2))
    balance = {row["population"]: row for row in shown["balance"]}
    assert balance["l23"]["inhibitory"] >= (5 * 2 + 5 * 3) / (5 * 2 + 5 * 3 + 15)
    assert balance["l4"]["inhibition"] >= 0
    assert shown["time"]["epoch"] == pytest.approx(10 * shown["time"]["update"])


def test_gap_junctions_delays_and_gains_are_shown_where_there_are_any(
    cortex: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(cortex)]) == 0
    headers = [line for line in capsys.readouterr().out.splitlines() if line.startswith("name ")]
    assert len(headers) == 2
    assert not {"gain", "threshold", "noise", "layer", "kind", "delay"} & set(" ".join(headers).split())
    text = cortex.read_text().replace(
        "{type: interneuron, size: 2,", "{type: interneuron, size: 2, gain: 3, noise: {std: 0.2, tau: 4 ms},"
    )
    text = text.replace("{source: l23, target: pv}", "{source: l23, target: pv, delay: 1.5 ms}")
    text += "  pv_pv: {source: pv, target: pv, kind: electrical, weights: {init: constant, value: 0.1}}\n"
    cortex.write_text(text, encoding="utf-8")
    assert main(["show", str(cortex)]) == 0
    shown = capsys.readouterr().out
    for word in ("gain", "delay (ms)", "1.5", "electrical", "0.2, 4 ms", ", 1 gap junctions"):
        assert word in shown
    data = _shown(cortex, capsys)
    assert data["gap_junctions"] == 1
    assert next(p for p in data["populations"] if p["name"] == "pv")["noise"] == {"std": 0.2, "tau_ms": 4.0}


def test_files_outside_the_folder_need_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "edges.csv").write_text("source,target\n0,0\n1,1\n", encoding="utf-8")
    (tmp_path / "inner").mkdir()
    path = tmp_path / "inner" / "outside.yaml"
    path.write_text(
        "circuit: outside\n"
        "populations: {a: {type: input, size: 2}, b: {type: output, size: 2}}\n"
        "projections: {ab: {source: a, target: b, weights: xavier_uniform,"
        " connect: {rule: explicit, file: ../edges.csv}}}\n",
        encoding="utf-8",
    )
    assert main(["show", str(path)]) == 1
    assert "--allow-outside" in capsys.readouterr().err
    assert main(["show", str(path), "--allow-outside"]) == 0


def test_it_says_which_solver_the_circuit_gets_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dense.yaml"
    path.write_text(
        "circuit: dense\n"
        "populations: {x: {type: input, size: 3}, h: {type: unit, size: 40}, y: {type: output, size: 2}}\n"
        "projections: {xh: {source: x, target: h}, hh: {source: h, target: h}, hy: {source: h, target: y}}\n",
        encoding="utf-8",
    )
    said = _shown(path, capsys, "--batch", "100")["solver"]
    build = 4 * 40**3 / (3 * (1600 + 80) * 100)
    assert said.startswith(
        "one recurrent group of 40 units: sweeps with Anderson acceleration (4 steps remembered)"
    )
    assert f"at batch 100 (a build costs {build:.3g} products a sample)" in said
    assert "(42 <= 1024 units)" in said
    assert main(["show", str(path)]) == 0
    assert "\nsolver: one recurrent group of 40 units" in capsys.readouterr().out
    path.write_text(path.read_text().replace("hh: {source: h, target: h}, ", ""), encoding="utf-8")
    assert _shown(path, capsys, "--rule", "backprop")["solver"] == (
        "acyclic: one sweep forward and one backward are exact"
    )
