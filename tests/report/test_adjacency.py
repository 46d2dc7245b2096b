"""The adjacency picture: every synapse where it belongs, densities where there are too many neurons for points."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.report import adjacency as module
from circuitlab.report.adjacency import adjacency, apart, axis_of, counts_of, draw_adjacency
from tests.report.conftest import circuit_of

SMALL = """\
circuit: small
populations:
  touch: {type: input, size: 3, names: [ALML, ALMR, AVM]}
  inter: {type: unit, size: 5, names: [AVAL, AVAR, AVBL, AVBR, DVA]}
  motor: {type: output, size: 4, names: [VA1, VA2, VB1, VB2]}
projections:
  t_i: {source: touch, target: inter, connect: {rule: pairwise_bernoulli, p: 0.5}}
  i_i: {source: inter, target: inter, connect: {rule: pairwise_bernoulli, p: 0.5}}
  i_i_gap: {source: inter, target: inter, kind: electrical, connect: {rule: pairwise_bernoulli, p: 0.3}, weights: ONE}
  i_m_gap: {source: inter, target: motor, kind: electrical, connect: {rule: pairwise_bernoulli, p: 0.3}, weights: ONE}
  i_m: {source: inter, target: motor}
""".replace("ONE", "{init: constant, value: 0.1}")
LARGE = """\
circuit: large
populations:
  x: {type: input, size: 9}
  e: {type: unit, size: 3000, sign: excitatory}
  i: {type: interneuron, size: 700, sign: inhibitory}
  y: {type: output, size: 2}
projections:
  x_e: {source: x, target: e}
  e_e: {source: e, target: e, connect: {rule: pairwise_bernoulli, p: 0.02}}
  e_i: {source: e, target: i, connect: {rule: pairwise_bernoulli, p: 0.05}}
  i_e: {source: i, target: e, connect: {rule: fixed_indegree, indegree: 70}}
  e_y: {source: e, target: y}
"""


@pytest.fixture
def small() -> Circuit:
    return circuit_of(SMALL)


def _image(circuit: Circuit, panel: int) -> np.ndarray:
    """The picture's matrix, [row, column, colour]; the first axes are the page."""
    return np.asarray(adjacency(circuit).axes[1 + panel].images[0].get_array())


def _points(circuit: Circuit, panel: int, points: int) -> np.ndarray:
    return _image(circuit, panel)[points // 2 :: points, points // 2 :: points]


def test_every_synapse_is_a_point_at_its_target_and_source_with_its_sign(small: Circuit) -> None:
    image = _points(small, 0, module.NAME_POINTS)
    assert image.shape == (5 + 4, 3 + 5 + 4, 3)
    weights = np.zeros(image.shape[:2])
    for name, row, column in (("t_i", 0, 0), ("i_i", 0, 3), ("i_m", 5, 3)):
        e = small.projections[name].edges
        weights[e.target + row, e.source + column] = e.weight
    white = (image == 1).all(-1)
    assert (white == (weights == 0)).all()
    red, blue = image[..., 0], image[..., 2]
    assert (blue > red)[weights > 0].all() and (red > blue)[weights < 0].all()
    # the stronger, the darker
    order = np.argsort(weights[weights > 0])
    assert (np.diff(image.sum(-1)[weights > 0][order]) <= 1e-12).all()


def test_gap_junctions_have_a_panel_of_their_own_and_go_both_ways(small: Circuit) -> None:
    image = _points(small, 1, module.NAME_POINTS)
    joined = ~(image == 1).all(-1)
    inner = joined[:5, 3:8]
    assert (inner == inner.T).all() and inner.any()
    e = small.projections["i_i_gap"].edges
    assert inner[e.target, e.source].all()
    across = np.zeros((4, 5), dtype=bool)
    across[small.projections["i_m_gap"].edges.target, small.projections["i_m_gap"].edges.source] = True
    assert (joined[5:, 3:8] == across).all() and (joined[:5, 8:] == across.T).all()
    assert not joined[:, :3].any()
    assert (image[joined] == image[joined][:, :1]).all()  # no colour: they neither excite nor inhibit


def test_few_neurons_are_named_on_both_axes(small: Circuit) -> None:
    texts = [text.get_text() for text in adjacency(small).axes[0].texts]
    for population in small.populations.values():
        times = 2 if population.type == "input" else 4
        for name in population.names or ():
            assert texts.count(name) == times  # as a source, and but for inputs as a target, in both panels
    assert "AVAL" not in [t.get_text() for t in adjacency(circuit_of(LARGE)).axes[0].texts]


def test_many_neurons_are_binned_to_densities() -> None:
    circuit = circuit_of(LARGE)
    columns = tuple(circuit.populations)
    across, down = axis_of(circuit, columns, False), axis_of(circuit, columns[1:], False)
    assert across.points <= module.POINTS + module.LEAST * 4
    for p in circuit.projections.values():
        up, low = counts_of(circuit, p, across, down, values=False)
        assert up.shape == (down.bins[p.target], across.bins[p.source])
        targets, sources = circuit.populations[p.target].size, circuit.populations[p.source].size
        dense = np.zeros((targets, sources))
        dense[p.edges.target, p.edges.source] = 1
        rows, columns = (np.arange(n) * b // n for n, b in ((targets, up.shape[0]), (sources, up.shape[1])))
        row, column = up.shape[0] // 2, up.shape[1] // 3
        for i, j in ((0, 0), (row, column)):
            assert (up + low)[i, j] == pytest.approx(dense[rows == i][:, columns == j].mean())
        assert (up + low).max() <= 1 + 1e-12
        assert (low.any(), up.any()) == (
            (True, False) if p.source == "i" else (p.name in ("x_e", "e_y") and low.any(), True)
        )


def test_a_random_part_stands_for_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = circuit_of(LARGE)
    across, down = (axis_of(circuit, names, False) for names in (("x", "e", "i", "y"), ("e", "i", "y")))
    exact = counts_of(circuit, circuit.projections["e_e"], across, down, values=False)[0]
    monkeypatch.setattr(module, "DRAWN", 20_000)
    drawn = counts_of(circuit, circuit.projections["e_e"], across, down, values=False)[0]
    assert drawn.mean() == pytest.approx(exact.mean(), rel=0.01)
    assert (drawn != exact).any()


@pytest.mark.parametrize("text", [SMALL, LARGE], ids=["small", "large"])
def test_no_label_overlaps_another_or_leaves_the_page(text: str) -> None:
    figure = adjacency(circuit_of(text))
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in figure.axes[0].texts]
    for name, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, name
    for (one, first), (other, second) in combinations(boxes, 2):
        assert not first.overlaps(second), (one, other)
    for axes in figure.axes[1:]:
        for name, box in boxes:
            assert not box.overlaps(axes.get_window_extent(renderer)), name


@pytest.mark.parametrize(
    ("places", "expected"),
    [([1.0, 2.0], [1.0, 2.0]), ([1.0, 1.0], [0.75, 1.25]), ([0.0, 0.1, 5.0], [-0.2, 0.3, 5.0])],
)
def test_labels_are_moved_apart_and_no_further(places: list[float], expected: list[float]) -> None:
    assert apart(np.array(places), 0.5) == pytest.approx(expected)


def test_the_same_circuit_makes_the_same_file(small: Circuit, tmp_path: Path) -> None:
    for suffix in ("svg", "png", "pdf"):
        for number in ("one", "two"):
            draw_adjacency(small, tmp_path / f"{number}.{suffix}")
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()
    with pytest.raises(CircuitError, match=r"ending in \.svg, \.png, \.pdf"):
        draw_adjacency(small, tmp_path / "small.jpg")
