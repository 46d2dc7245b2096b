"""The drawing of a circuit: nothing overlaps, every arrow ends where its synapses do, and all projections are there."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from circuitlab.errors import CircuitError
from circuitlab.graph.build import build
from circuitlab.graph.circuit import Circuit
from circuitlab.report import draw as drawing
from circuitlab.report.draw import draw, picture, plan_of
from circuitlab.report.layout import Cell, Layout, areas_of, kind_of, layout, ranks_of
from circuitlab.report.matrix import matrix
from circuitlab.spec.circuit import load_circuit
from tests.report.conftest import RECURRENT, areas, circuit_of
from tests.report.cortex import CASES

CORTEX = """\
circuit: cortex
populations:
  retina: {type: input, size: 6}
  l4: {type: pyramidal, size: 4, sign: excitatory}
  l23: {type: pyramidal, size: 5}
  pv: {type: interneuron, size: 2, sign: inhibitory}
  vip: {type: interneuron, size: 2, sign: inhibitory}
  sst: {type: interneuron, size: 3, sign: inhibitory}
  readout: {type: output, size: 2}
projections:
  retina_l4: {source: retina, target: l4}
  retina_readout: {source: retina, target: readout}
  l4_l23: {source: l4, target: l23}
  l23_l23: {source: l23, target: l23}
  pv_l23: {source: pv, target: l23, site: soma}
  pv_pv: {source: pv, target: pv, kind: electrical, weights: {init: constant, value: 0.1}}
  vip_sst: {source: vip, target: sst}
  sst_l23: {source: sst, target: l23, site: apical}
  l23_l4: {source: l23, target: l4, site: apical, carries: burst}
  l23_readout: {source: l23, target: readout}
"""
TEXTS = {"cortex": CORTEX, "recurrent": RECURRENT, "five areas": areas(5), **CASES}
TOPOLOGIES = sorted((Path(__file__).parents[2] / "topologies").glob("*.yaml"))
SCALED = {"potjans_diesmann": 0.01}
EVERY = pytest.mark.parametrize("name", [*TEXTS, *(path.stem for path in TOPOLOGIES)])


@cache
def _circuit(name: str) -> Circuit:
    if name in TEXTS:
        return circuit_of(TEXTS[name])
    path = next(path for path in TOPOLOGIES if path.stem == name)
    return build(load_circuit(path, scale=SCALED.get(name)))


def _plan(name: str) -> Layout:
    plan = plan_of(_circuit(name))
    assert plan is not None
    return plan


@cache
def _figure(name: str) -> Figure:
    return picture(_circuit(name))


def _edges(cell: Cell) -> tuple[float, float, float, float]:
    half = cell.width / 2
    return cell.x - half, cell.x + half, cell.y - cell.below, cell.y + cell.above


def test_forty_populations_are_meant_by_many() -> None:
    assert len(_circuit("five areas").populations) == 44
    sizes = {name: (len(c.populations), len(c.projections)) for name in CASES if (c := _circuit(name))}
    assert sizes["four"] == (4, 6)
    assert sizes["eight"] == (8 + 2, 55 + 5)
    assert sizes["seventeen"][0] == 17
    assert sizes["forty"] == (40, 140)


@EVERY
def test_no_two_populations_overlap_and_all_lie_on_the_page(name: str) -> None:
    plan = _plan(name)
    for one, other in combinations(plan.cells.values(), 2):
        left, right, bottom, top = _edges(one)
        left2, right2, bottom2, top2 = _edges(other)
        assert right < left2 or right2 < left or top < bottom2 or top2 < bottom, (one.name, other.name)
    for cell in plan.cells.values():
        left, right, bottom, top = _edges(cell)
        assert left >= 0 and bottom >= 0 and right <= plan.width and top <= plan.height


@EVERY
def test_inputs_stand_left_and_outputs_right(name: str) -> None:
    circuit, cells = _circuit(name), _plan(name).cells
    inner = [cells[name].x for name in circuit.populations if name not in circuit.inputs + circuit.outputs]
    if inner:
        assert max(cells[name].x for name in circuit.inputs) < min(inner)
        assert min(cells[name].x for name in circuit.outputs) > max(inner)


@EVERY
def test_every_projection_is_an_arrow_from_a_soma_to_its_site(name: str) -> None:
    plan, circuit = _plan(name), _circuit(name)
    assert [arrow.projection.name for arrow in plan.arrows] == list(circuit.projections)
    for arrow in plan.arrows:
        projection = arrow.projection
        for (px, py), population, site in (
            (arrow.points[0], projection.source, "soma"),
            (arrow.points[-1], projection.target, projection.site),
        ):
            x, y, width, height = plan.cells[population].box(site)
            assert abs(abs(px - x) - width / 2) < 1e-9
            assert abs(py - y) < height / 2


@EVERY
def test_no_arrow_runs_through_a_population(name: str) -> None:
    plan = _plan(name)
    for arrow in plan.arrows:
        if arrow.angular:
            pieces = list(zip(arrow.points, arrow.points[1:], strict=False))
            ends = {arrow.projection.source, arrow.projection.target}
        else:
            pieces = list(zip(arrow.points[1:-1:2], arrow.points[2:-1:2], strict=True))
            ends = set()
        for number, ((x0, y0), (x1, y1)) in enumerate(pieces):
            for cell in plan.cells.values():
                if cell.name in ends and number in (0, len(pieces) - 1):
                    continue  # the first and last pieces begin and end at the edges of these
                left, right, bottom, top = _edges(cell)
                apart = (
                    max(x0, x1) <= left or min(x0, x1) >= right or max(y0, y1) <= bottom or min(y0, y1) >= top
                )
                assert apart, (arrow.projection.name, cell.name)


@pytest.mark.parametrize("name", ["eight", "seventeen", "forty", "seventeen, layers", "forty, layers"])
def test_lines_that_lie_on_each_other_are_of_one_kind_and_one_population(name: str) -> None:
    # Pieces of different nets may cross, but not run along the same line.
    pieces = []
    for arrow in _plan(name).arrows:
        p = arrow.projection
        net = (p.source, arrow.kind, p.carries, p.name if arrow.kind == "electrical" else "")
        for (x0, y0), (x1, y1) in zip(arrow.points, arrow.points[1:], strict=False):
            along, across = ((x0, x1), y0) if y0 == y1 else ((y0, y1), x0)
            pieces.append((y0 == y1, across, min(along), max(along), net))
    for one, other in combinations(pieces, 2):
        if one[0] == other[0] and one[4] != other[4] and abs(one[1] - other[1]) < 0.02:
            assert one[3] <= other[2] + 1e-9 or other[3] <= one[2] + 1e-9, (one, other)


def test_kinds_of_projections_follow_from_where_they_lead() -> None:
    kinds = {arrow.projection.name: arrow.kind for arrow in _plan("cortex").arrows}
    assert kinds == {
        "retina_l4": "feedforward",
        "retina_readout": "feedforward",
        "l4_l23": "feedforward",
        "l23_l23": "lateral",
        "pv_l23": "inhibitory",
        "pv_pv": "electrical",
        "vip_sst": "inhibitory",
        "sst_l23": "inhibitory",
        "l23_l4": "feedback",
        "l23_readout": "feedforward",
    }


def test_between_areas_the_order_of_areas_decides() -> None:
    circuit = _circuit("forty, layers")
    ranks = ranks_of(circuit)
    order = areas_of(circuit, ranks)
    assert [order[f"{area}_l4_e"] for area in ("v1", "v2", "v4")] == [0, 1, 2]
    kinds = {name: kind_of(circuit, p, ranks, order) for name, p in circuit.projections.items()}
    for low, high in (("v1", "v2"), ("v2", "v4"), ("v1", "v4")):
        assert kinds[f"{low}_l23_e_{high}_l4_e"] == kinds[f"{low}_l23_e_{high}_l6_pv"] == "feedforward"
        assert kinds[f"{high}_l6_e_{low}_l5_sst"] == kinds[f"{high}_l6_e_{low}_l23_e"] == "feedback"


def test_interneurons_stand_with_the_cells_they_inhibit() -> None:
    cells = _plan("cortex").cells
    assert cells["pv"].x == cells["sst"].x == cells["vip"].x == cells["l23"].x
    for name in ("eight", "eight, layers"):
        cells = _plan(name).cells
        for layer in ("l23", "l4", "l5", "l6"):
            assert cells[f"{layer}i"].column == cells[f"{layer}e"].column + 1


@pytest.mark.parametrize("name", ["eight, layers", "seventeen, layers", "forty, layers"])
def test_layers_lie_above_each_other_in_the_order_of_the_file(name: str) -> None:
    circuit, plan = _circuit(name), _plan(name)
    assert [band.name for band in plan.bands] == ["l23", "l4", "l5", "l6"]
    for upper, lower in zip(plan.bands, plan.bands[1:], strict=False):
        assert upper.bottom >= lower.top
    bands = {band.name: band for band in plan.bands}
    for population in circuit.populations.values():
        if population.layer is not None:
            _, _, bottom, top = _edges(plan.cells[population.name])
            assert bands[population.layer].bottom <= bottom and top <= bands[population.layer].top
    if name.startswith("forty"):
        assert [area for area, _, _ in plan.headers] == ["v1", "v2", "v4"]


def test_names_say_layers_where_the_file_does_not() -> None:
    assert [band.name for band in _plan("seventeen").bands] == ["L2/3", "L4", "L5", "L6"]
    assert _plan("cortex").bands == []


@EVERY
def test_texts_fit_into_their_boxes_lie_on_the_page_and_do_not_overlap(name: str) -> None:
    figure = _figure(name)
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer, axes = canvas.get_renderer(), figure.axes[0]
    plan = _plan(name)
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in axes.texts]
    legend = axes.get_legend()
    if legend is not None:
        boxes.append(("legend", legend.get_window_extent(renderer)))
    widths: dict[str, float] = {}
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
        widths.setdefault(text, box.width / figure.dpi)
    for cell in plan.cells.values():
        assert widths[cell.name] < cell.width - 0.1, cell.name
    edges = np.array([[box.x0, box.y0, box.x1, box.y1] for _, box in boxes])
    for index, (text, _) in enumerate(boxes):
        x0, y0, x1, y1 = edges[index]
        over = (edges[:, 0] < x1) & (edges[:, 2] > x0) & (edges[:, 1] < y1) & (edges[:, 3] > y0)
        over[index] = False
        assert not over.any(), (text, [boxes[other][0] for other in np.flatnonzero(over)])
    for patch in axes.patches:
        if str(patch.get_gid()).startswith("population "):
            box = patch.get_window_extent(renderer)
            own = {"apical", "basal", str(patch.get_gid()).partition(" ")[2]}
            over = (
                (edges[:, 0] < box.x1)
                & (edges[:, 2] > box.x0)
                & (edges[:, 1] < box.y1)
                & (edges[:, 3] > box.y0)
            )
            inside = [boxes[index] for index in np.flatnonzero(over)]
            assert own & {text for text, _ in inside}
            assert all(other.x0 > box.x0 and other.x1 < box.x1 for _, other in inside), patch.get_gid()


@EVERY
def test_every_projection_is_in_the_picture(name: str) -> None:
    circuit, axes = _circuit(name), _figure(name).axes[0]
    drawn = {
        gid for patch in axes.patches if (gid := str(patch.get_gid())).startswith(("projection", "entry"))
    }
    arrows = {f"projection {projection}" for projection in circuit.projections}
    assert arrows <= drawn
    entries = {f"entry {projection}" for projection in circuit.projections}
    many = len(circuit.projections) > drawing.MATRIX_FROM
    assert drawn - arrows == (entries if many else set())


def test_the_matrix_has_targets_as_rows_and_sources_as_columns() -> None:
    circuit = _circuit("forty, layers")
    found = matrix(circuit, _plan("forty, layers"))
    for entry in found.entries:
        p = circuit.projections[entry.name]
        assert (found.names[entry.row], found.names[entry.column]) == (p.target, p.source)
        assert entry.density == circuit.density(p.name)
        assert (entry.apical, entry.burst) == (p.site == "apical", p.carries == "burst")
    assert len({(e.row, e.column, e.part) for e in found.entries}) == len(circuit.projections)


def test_too_many_projections_for_arrows_are_a_matrix_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "MOST_ARROWS", 100)
    circuit = _circuit("forty, layers")
    assert plan_of(circuit) is None
    axes = picture(circuit).axes[0]
    drawn = {str(patch.get_gid()) for patch in axes.patches if patch.get_gid()}
    assert drawn == {f"entry {projection}" for projection in circuit.projections}
    assert any("too many projections" in text.get_text() for text in axes.texts)


def test_weak_projections_are_faint() -> None:
    text = RECURRENT.replace(
        "target: cells}\n  cells_cells", "target: cells, weights: {scale: 0.001}}\n  cells_cells"
    )
    text = text.replace(
        "circuit: recurrent", "circuit: recurrent\nlayers: {up: {from: 0, to: 1}, low: {from: 1, to: 2}}"
    )
    text = text.replace("cells: {type: unit,", "cells: {layer: up, type: unit,")
    text = text.replace("digits: {type: output,", "digits: {layer: low, type: output,")
    plan = plan_of(circuit_of(text))
    assert plan is not None
    assert {arrow.projection.name: arrow.faint for arrow in plan.arrows} == {
        "pixels_cells": True,
        "cells_cells": False,
        "cells_digits": False,
    }


@pytest.mark.parametrize("name", ["cortex", "eight, layers"])
def test_the_same_circuit_makes_the_same_file(name: str, tmp_path: Path) -> None:
    circuit = _circuit(name)
    for suffix in ("svg", "png", "pdf"):
        for number in ("one", "two"):
            draw(circuit, tmp_path / f"{number}.{suffix}")
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()


def test_an_svg_holds_its_words_as_text(tmp_path: Path) -> None:
    draw(_circuit("cortex"), tmp_path / "cortex.svg")
    text = (tmp_path / "cortex.svg").read_text(encoding="utf-8")
    for word in ("retina", "apical", "inhibitory", "gap junctions", "carries bursts"):
        assert f">{word}<" in text


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CircuitError, match=r"ending in \.svg, \.png, \.pdf"):
        draw(_circuit("cortex"), tmp_path / "cortex.jpg")


def test_a_small_circuit_without_layers_is_drawn_with_curves() -> None:
    assert not any(arrow.angular for arrow in _plan("cortex").arrows)
    assert layout(_circuit("cortex")).cells == _plan("cortex").cells
