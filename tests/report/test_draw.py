"""The drawing of a circuit: nothing overlaps, every arrow ends where its synapses do."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from circuitlab.errors import CircuitError
from circuitlab.report.draw import draw, picture
from circuitlab.report.layout import Cell, Layout, layout
from tests.report.conftest import RECURRENT, areas, circuit_of

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
  vip_sst: {source: vip, target: sst}
  sst_l23: {source: sst, target: l23, site: apical}
  l23_l4: {source: l23, target: l4, site: apical, carries: burst}
  l23_readout: {source: l23, target: readout}
"""
TEXTS = {"cortex": CORTEX, "recurrent": RECURRENT, "five areas": areas(5)}


def _edges(cell: Cell) -> tuple[float, float, float, float]:
    half = cell.width / 2
    return cell.x - half, cell.x + half, cell.y - cell.below, cell.y + cell.above


def _plan(text: str) -> Layout:
    return layout(circuit_of(text))


def test_forty_populations_are_meant_by_many() -> None:
    assert len(circuit_of(TEXTS["five areas"]).populations) == 44


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_no_two_populations_overlap_and_all_lie_on_the_page(text: str) -> None:
    plan = _plan(text)
    for one, other in combinations(plan.cells.values(), 2):
        left, right, bottom, top = _edges(one)
        left2, right2, bottom2, top2 = _edges(other)
        assert right < left2 or right2 < left or top < bottom2 or top2 < bottom, (one.name, other.name)
    for cell in plan.cells.values():
        left, right, bottom, top = _edges(cell)
        assert left >= 0 and bottom >= 0 and right <= plan.width and top <= plan.height


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_inputs_stand_left_and_outputs_right(text: str) -> None:
    circuit = circuit_of(text)
    cells = layout(circuit).cells
    inner = [cells[name].x for name in circuit.populations if name not in circuit.inputs + circuit.outputs]
    assert max(cells[name].x for name in circuit.inputs) < min(inner)
    assert min(cells[name].x for name in circuit.outputs) > max(inner)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_every_arrow_leaves_a_soma_and_ends_at_its_site(text: str) -> None:
    plan = _plan(text)
    for arrow in plan.arrows:
        projection = arrow.projection
        for (px, py), name, site in (
            (arrow.points[0], projection.source, "soma"),
            (arrow.points[-1], projection.target, projection.site),
        ):
            x, y, width, height = plan.cells[name].box(site)
            assert abs(abs(px - x) - width / 2) < 1e-9
            assert abs(py - y) < height / 2


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_no_arrow_runs_through_a_population(text: str) -> None:
    plan = _plan(text)
    for arrow in plan.arrows:
        for (x0, y0), (x1, _) in zip(arrow.points[1:-1:2], arrow.points[2:-1:2], strict=True):
            for cell in plan.cells.values():
                _, _, bottom, top = _edges(cell)
                if min(x0, x1) < cell.x < max(x0, x1):
                    assert not bottom < y0 < top, (arrow.projection.name, cell.name)


def test_kinds_of_projections_follow_from_where_they_lead() -> None:
    kinds = {arrow.projection.name: arrow.kind for arrow in _plan(CORTEX).arrows}
    assert kinds == {
        "retina_l4": "feedforward",
        "retina_readout": "feedforward",
        "l4_l23": "feedforward",
        "l23_l23": "lateral",
        "pv_l23": "inhibitory",
        "vip_sst": "inhibitory",
        "sst_l23": "inhibitory",
        "l23_l4": "feedback",
        "l23_readout": "feedforward",
    }


def test_interneurons_stand_with_the_cells_they_inhibit() -> None:
    cells = _plan(CORTEX).cells
    assert cells["pv"].x == cells["sst"].x == cells["vip"].x == cells["l23"].x


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_texts_fit_into_their_boxes_and_do_not_overlap(text: str) -> None:
    circuit = circuit_of(text)
    figure = picture(circuit)
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()
    axes = figure.axes[0]
    plan = layout(circuit)
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in axes.texts}
    for cell in plan.cells.values():
        assert boxes[cell.name].width / figure.dpi < cell.width - 0.1, cell.name
    shown = [text.get_window_extent(renderer) for text in axes.texts]
    for one, other in combinations(shown, 2):
        assert not one.overlaps(other)


def test_the_same_circuit_makes_the_same_file(tmp_path: Path) -> None:
    circuit = circuit_of(CORTEX)
    for suffix in ("svg", "png"):
        for name in ("one", "two"):
            draw(circuit, tmp_path / f"{name}.{suffix}")
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()


def test_an_svg_holds_its_words_as_text(tmp_path: Path) -> None:
    draw(circuit_of(CORTEX), tmp_path / "cortex.svg")
    text = (tmp_path / "cortex.svg").read_text(encoding="utf-8")
    for word in ("retina", "apical", "inhibitory", "carries bursts"):
        assert f">{word}<" in text


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CircuitError, match=r"ending in \.svg, \.png, \.pdf"):
        draw(circuit_of(CORTEX), tmp_path / "cortex.jpg")
