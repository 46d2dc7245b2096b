"""The circuit file: what it means, its defaults and files, and that nothing is lost on the way out and in."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from circuitlab.errors import SpecError
from circuitlab.spec.advice import warnings
from circuitlab.spec.circuit import CircuitSpec, load_circuit

DESIGN = """\
circuit: cortical_digits
description: Two pyramidal layers with PV, SST and VIP cells
populations:
  retina:  {type: input, size: 64}
  l4:      {type: pyramidal, size: 96, activation: tanh, tau: 10 ms, sign: excitatory}
  l23:     {type: pyramidal, size: 128, activation: tanh}
  pv:      {type: interneuron, size: 32, activation: relu, sign: inhibitory}
  sst:     {type: interneuron, size: 16, activation: relu, sign: inhibitory}
  readout: {type: output, size: 10}
projections:
  retina_l4:   {source: retina, target: l4,  site: basal, connect: all_to_all}
  l4_l23:      {source: l4,  target: l23, site: basal, connect: {rule: pairwise_bernoulli, p: 0.3}}
  l23_l23: {source: l23, target: l23, connect: {rule: fixed_indegree, indegree: 20, allow_autapses: false}}
  pv_l23:      {source: pv,  target: l23, site: soma}
  sst_l23:     {source: sst, target: l23, site: apical, carries: rate}
  l23_l4_fb: {source: l23, target: l4, site: apical, carries: burst, connect: {rule: transpose, of: l4_l23}}
  l23_readout: {source: l23, target: readout, weights: {init: xavier_uniform}, plastic: true}
"""

SPACE = """\
circuit: space
layers:
  upper: {from: 0, to: -3}
  lower: {from: 10, to: 20, axis: x}
populations:
  x: {type: input, size: 9, layer: upper, positions: {random: {extent: [4, 4]}, origin: [1, -1]}}
  a: {type: unit, size: 9, layer: lower, positions: {grid: [3, 3], spacing: 2, origin: [11, 0]}}
  y: {type: output, size: 2}
projections:
  x_a: {source: x, target: a, connect: {rule: distance_dependent, length: [3, 9], axes: [x, y], periodic: {y: 8}}}
  a_a:
    source: a
    target: a
    connect: {rule: distance_dependent, kernel: table, points: [[0, 1], [4, 0.5]], indegree: 2, allow_multapses: true}
  a_x:
    source: a
    target: a
    connect: {rule: distance_dependent, kernel: difference_of_gaussians, length: 2, surround_length: [1, 1],
              surround: 1, periodic: [30, 30], cutoff: 6, p: 0.5}
  a_y: {source: a, target: y}
"""

EVERYTHING = """\
circuit: everything
seed: 7
populations:
  x: {type: input, shape: [2, 8, 8]}
  conv: {type: unit, shape: [3, 6, 6], activation: leaky_relu, tau: 250 us, bias: {init: normal,
          scale: 0.1, plastic: false}}
  pooled: {type: unit, shape: [3, 3, 3], bias: false, controlled: false}
  sheet: {type: pyramidal, size: 9, positions: {grid: [3, 3], spacing: 0.5}, sign: excitatory,
          names: names.csv}
  cloud: {type: interneuron, size: 9, positions: {random: {extent: [1.5, 1.5]}}, sign: inhibitory,
          attributes: cells.csv}
  y: {type: output, size: 2, names: [left, right], positions: [[0, 1], [1, 0.5]], bias: {file: bias.csv}}
projections:
  a: {source: x, target: conv, connect: {rule: convolution, kernel: 3}, weights: kaiming_normal}
  b: {source: conv, target: pooled, connect: {rule: pool, kernel: [2, 2]}}
  c: {source: pooled, target: sheet, connect: {rule: fixed_outdegree, outdegree: 4},
          weights: {init: normal, std: 0.2}}
  d: {source: sheet, target: sheet, connect: {rule: small_world, k: 4, p: 0.1},
          weights: {init: lognormal, scale: 0.1}}
  e: {source: sheet, target: cloud, connect: {rule: distance_dependent, length: 0.4, kernel: linear,
          periodic: [2, 2]}}
  f: {source: cloud, target: cloud, connect: {rule: symmetric_pairwise_bernoulli, p: 0.5}, kernel: csr}
  g: {source: cloud, target: sheet, site: apical, connect: one_to_one, kernel: diagonal}
  h: {source: sheet, target: y, connect: {rule: explicit, file: edges.csv}, weights: {scale: 0.01}}
  i: {source: y, target: sheet, site: apical, carries: burst, connect: {rule: transpose, of: h},
          weights: {scale: 2}}
  j: {source: conv, target: y, connect: {rule: fixed_total_number, N: 50}, weights: {init: uniform,
          low: -1, high: 0.5}}
  k: {source: conv, target: y, connect: {rule: pairwise_poisson, pairwise_avg_num_conns: 0.2}, weights: zeros}
  l: {source: sheet, target: sheet, connect: {rule: scale_free}, weights: {init: constant, value: 0.1},
          plastic: false}
  m: {source: sheet, target: sheet, connect: {rule: networkx, generator: random_regular_graph, d: 2}}
  n: {source: cloud, target: y, weights: {file: w.csv}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("names.csv", "cells.csv", "bias.csv", "edges.csv", "w.csv"):
        (tmp_path / name).write_text("name\n")
    return tmp_path


def written(spec: CircuitSpec) -> str:
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(spec.resolved(), stream)
    return stream.getvalue()


def test_the_circuit_of_the_design_page_means_what_the_page_says() -> None:
    spec = load_circuit("design.yaml", text=DESIGN)
    assert (spec.circuit, spec.inputs, spec.outputs, spec.seed) == (
        "cortical_digits",
        ["retina"],
        ["readout"],
        None,
    )
    assert [p.site for p in spec.projections.values()] == [
        "basal",
        "basal",
        "basal",
        "soma",
        "apical",
        "apical",
        "soma",
    ]
    assert spec.populations["l23"].tau_ms == 10.0
    assert spec.populations["readout"].activation == "linear"
    assert spec.projections["l23_l23"].connect.parameters == {
        "indegree": 20,
        "allow_autapses": False,
        "allow_multapses": True,
    }
    assert spec.projections["retina_l4"].connect.rule == "all_to_all"
    assert spec.projections["retina_l4"].weights.init == "torch_linear"
    assert spec.projections["l23_l4_fb"].weights.init == "transpose"
    assert not spec.projections["l23_l4_fb"].plastic
    assert spec.projections["pv_l23"].plastic
    assert list(spec.projections) == [
        "retina_l4",
        "l4_l23",
        "l23_l23",
        "pv_l23",
        "sst_l23",
        "l23_l4_fb",
        "l23_readout",
    ]


def test_defaults_follow_from_type_and_rule(folder: Path) -> None:
    spec = load_circuit(folder / "e.yaml", text=EVERYTHING)
    p, q = spec.populations, spec.projections
    assert p["x"].size == 128 and p["x"].bias is None and not p["x"].controlled
    assert p["pooled"].bias is None and p["conv"].tau_ms == 0.25
    assert p["sheet"].names is not None and p["sheet"].names.file == "names.csv"
    assert q["a"].connect.parameters == {"kernel": (3, 3), "stride": (1, 1), "padding": (0, 0)}
    assert q["b"].connect.parameters == {"kernel": (2, 2), "stride": (2, 2)}
    assert not q["b"].plastic and q["b"].weights.value == 0.25
    assert q["h"].weights.init == "file" and q["h"].weights.file is None
    assert q["n"].weights.init == "file" and q["n"].weights.file == "w.csv"
    assert q["m"].connect.parameters == {
        "generator": "random_regular_graph",
        "arguments": {"d": 2},
        "allow_autapses": True,
    }
    assert q["f"].connect.parameters == {"p": 0.5, "make_symmetric": True, "allow_autapses": False}
    assert spec.folder == folder


@pytest.mark.parametrize("text", [DESIGN, EVERYTHING, SPACE], ids=["design", "everything", "space"])
def test_what_is_resolved_reads_back_as_the_same_circuit(folder: Path, text: str) -> None:
    spec = load_circuit(folder / "c.yaml", text=text)
    again = load_circuit("run.h5", text=written(spec), folder=folder)
    assert again.resolved() == spec.resolved()
    assert again.populations == spec.populations
    assert again.projections == spec.projections


def test_files_stay_below_the_folder_however_they_leave_it(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "names.csv").write_text("name\na\nb\n")
    (inside / "link").symlink_to(outside)
    (inside / "below").mkdir()
    (inside / "below" / "names.csv").write_text("name\na\nb\n")
    text = DESIGN.replace("{type: output, size: 10}", "{type: output, size: 10, names: NAMES}")
    for name in ("../outside/names.csv", "link/names.csv", str(outside / "names.csv")):
        with pytest.raises(SpecError) as caught:
            load_circuit(inside / "c.yaml", text=text.replace("NAMES", name))
        assert len(caught.value.problems) == 1
        assert caught.value.problems[0].path == "populations.readout.names"
        assert "lies outside the folder of this file" in caught.value.problems[0].message
        load_circuit(inside / "c.yaml", text=text.replace("NAMES", name), allow_outside=True)
    load_circuit(inside / "c.yaml", text=text.replace("NAMES", "below/../below/names.csv"))
    for name, message in {
        "below": "'below' is a folder; a file is wanted",
        "below/name.csv": "no file 'below/name.csv'. Did you mean 'names.csv'?",
        "/dev/null": "lies outside",
    }.items():
        with pytest.raises(SpecError, match=message.replace("?", r"\?")):
            load_circuit(inside / "c.yaml", text=text.replace("NAMES", name))


def test_a_mistake_in_one_entry_hides_none_in_another() -> None:
    text = (
        DESIGN.replace("size: 96", "size: 96, colour: red")
        .replace("p: 0.3", "p: 3")
        .replace("source: pv, ", "source: pvv,")
        .replace("site: apical, carries: rate", "site: apical, weights: {init: constant, value: 1}")
    )
    with pytest.raises(SpecError) as caught:
        load_circuit("d.yaml", text=text)
    assert [(p.where.split(":")[1], p.path) for p in caught.value.problems] == [
        ("5", "populations.l4.colour"),
        ("12", "projections.l4_l23.connect.p"),
        ("14", "projections.pv_l23.source"),
        ("15", "projections.sst_l23.weights.value"),
    ]


def test_a_verdict_that_rests_on_a_wrong_value_is_not_given() -> None:
    text = DESIGN.replace("{type: interneuron, size: 16", "{type: interneurons, size: 16").replace(
        "source: sst, target: l23", "source: l23, target: sst"
    )
    with pytest.raises(SpecError) as caught:
        load_circuit("d.yaml", text=text)
    assert [p.path for p in caught.value.problems] == ["populations.sst.type"]


def test_reordering_the_file_changes_no_entry() -> None:
    head, tail = DESIGN.split("projections:\n")
    turned = head + "projections:\n" + "".join(reversed(tail.splitlines(keepends=True)))
    assert load_circuit("a.yaml", text=turned).projections == load_circuit("a.yaml", text=DESIGN).projections


def test_warnings_name_what_is_idle_or_unreached() -> None:
    assert warnings(load_circuit("d.yaml", text=DESIGN)) == [
        "populations.pv: no rate-coded projection reaches it; only its bias drives it",
        "populations.sst: no rate-coded projection reaches it; only its bias drives it",
    ]
