"""Distance-dependent connections: probabilities by distance against the kernels, and a dense twin."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Population
from circuitlab.graph.edges import Synapses
from circuitlab.graph.rules import draw, expected_edges

THEORY = {
    "gaussian": lambda d, length: np.exp(-0.5 * (d / length) ** 2),
    "exponential": lambda d, length: np.exp(-d / length),
    "linear": lambda d, length: np.clip(1 - d / length, 0, None),
    "constant": lambda d, length: np.where(d <= length, 1.0, 0.0),
}


def placed(size: int, name: str = "a", seed: int = 0, dimensions: int = 2) -> Population:
    positions = np.random.default_rng([seed, size]).random((size, dimensions))
    return Population(name, "unit", size, positions=positions)


def drawn(source: Population, target: Population, seed: int = 0, **parameters: Any) -> Synapses:
    return draw("distance_dependent", np.random.default_rng(seed), source, target, parameters)


def around(source: Population, target: Population) -> np.ndarray:
    """Distances [target, source] in the unit box closed on itself: the nearest of all images."""
    assert source.positions is not None
    assert target.positions is not None
    shifts = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(-1, 2)
    images = [cdist(target.positions, source.positions + shift) for shift in shifts]
    return np.min(images, axis=0)


@pytest.mark.parametrize("kernel", sorted(THEORY))
@pytest.mark.parametrize("periodic", [None, (1.0, 1.0)])
@pytest.mark.parametrize("cutoff", [None, 0.3])
def test_probability_falls_with_distance_as_the_kernel_says(
    kernel: str, periodic: tuple[float, float] | None, cutoff: float | None
) -> None:
    source, target, length, top = placed(600), placed(500, "b"), 0.25, 0.6
    synapses = drawn(source, target, kernel=kernel, p=top, length=length, periodic=periodic, cutoff=cutoff)
    assert source.positions is not None
    assert target.positions is not None
    distance = around(source, target) if periodic else cdist(target.positions, source.positions)
    probability = top * THEORY[kernel](distance, length) * (1 if cutoff is None else distance <= cutoff)
    made = np.zeros(distance.shape)
    made[synapses.target, synapses.source] += 1
    assert made.sum() == len(synapses), "at most one synapse a pair"
    assert not made[probability == 0].any()
    for low in np.arange(0.0, 0.7, 0.1):
        ring = (distance >= low) & (distance < low + 0.1)
        expected, spread = probability[ring].sum(), np.sqrt((probability * (1 - probability))[ring].sum())
        assert abs(made[ring].sum() - expected) <= 4 * spread
    guess = expected_edges(
        "distance_dependent",
        source,
        target,
        {"kernel": kernel, "p": top, "length": length, "periodic": periodic, "cutoff": cutoff},
    )
    assert guess == pytest.approx(probability.sum(), rel=0.15)


def test_a_cutoff_beyond_everything_changes_nothing() -> None:
    source, target = placed(300, dimensions=3), placed(200, "b", dimensions=3)
    by_rows = drawn(source, target, kernel="exponential", length=0.2)
    by_tree = drawn(source, target, kernel="exponential", length=0.2, cutoff=10.0)
    assert np.array_equal(by_rows.source, by_tree.source)
    assert np.array_equal(by_rows.target, by_tree.target)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = placed(300), placed(200, "b")
    for cutoff in (None, 0.2):
        whole = drawn(source, target, length=0.2, cutoff=cutoff)
        monkeypatch.setattr("circuitlab.graph.rules_spatial.CHUNK", 1000)
        blocks = drawn(source, target, length=0.2, cutoff=cutoff)
        monkeypatch.undo()
        assert np.array_equal(whole.source, blocks.source)
        assert np.array_equal(whole.target, blocks.target)


def test_autapses_are_left_out_and_nothing_else() -> None:
    p = placed(400)
    every = drawn(p, p, length=0.2, cutoff=0.5)
    without = drawn(p, p, length=0.2, cutoff=0.5, allow_autapses=False)
    keep = every.source != every.target
    assert (~keep).sum() == 400, "at distance 0 the probability is 1"
    assert np.array_equal(every.source[keep], without.source)


def test_the_number_of_synapses_in_a_closed_box_is_the_area_of_the_disc() -> None:
    n, p = 1500, placed(1500, seed=3)
    synapses = drawn(p, p, kernel="constant", p=0.5, length=0.1, periodic=(1.0, 1.0), allow_autapses=False)
    # Two neurons are near with probability q = pi r^2; each direction is then drawn with probability 0.5.
    q = np.pi * 0.1**2
    mean, variance = n * (n - 1) * 0.5 * q, n * (n - 1) / 2 * (1.5 * q - q**2)
    assert abs(len(synapses) - mean) < 4 * np.sqrt(variance)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"length": 0.0}, "length is 0; it is more than 0"),
        (
            {"length": 1.0, "kernel": "gausian"},
            "no distance kernel 'gausian'; there are gaussian, exponential, linear, constant, "
            "difference_of_gaussians, table. "
            "Did you mean 'gaussian'?",
        ),
        ({"length": 1.0, "periodic": (1.0,)}, "periodic has 1 numbers, but positions in 'a' 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(CircuitError) as refusal:
        drawn(placed(5), placed(5), **parameters)
    assert str(refusal.value) == message


def test_positions_are_needed_and_of_one_dimension() -> None:
    with pytest.raises(CircuitError, match="distance_dependent needs positions, and population 'b' has none"):
        drawn(placed(5), Population("b", "unit", 5), length=1.0)
    with pytest.raises(CircuitError, match="positions have 2 dimensions in 'a', 3 in 'b'"):
        drawn(placed(5), placed(5, "b", dimensions=3), length=1.0)


def differences(source: Population, target: Population) -> np.ndarray:
    """Differences [target, source, axis]."""
    assert source.positions is not None
    assert target.positions is not None
    return np.abs(target.positions[:, None] - source.positions)


def agrees(made: Synapses, probability: np.ndarray, rings: np.ndarray) -> None:
    """At most one synapse a pair, and as many as expected in each ring (four standard deviations)."""
    count = np.zeros(probability.shape)
    np.add.at(count, (made.target, made.source), 1)
    assert count.max() <= 1
    assert not count[probability == 0].any()
    assert count[probability == 1].all()
    for low, high in pairwise(rings.ravel()[np.linspace(0, rings.size - 1, 8).astype(int)].tolist()):
        ring = (rings >= low) & (rings < high)
        p = probability[ring]
        assert abs(count[ring].sum() - p.sum()) <= 4 * np.sqrt((p * (1 - p)).sum()) + 1e-9


@pytest.mark.parametrize("cutoff", [None, 0.4])
@pytest.mark.parametrize("kernel", sorted(THEORY))
def test_lengths_of_each_axis_make_ellipses(kernel: str, cutoff: float | None) -> None:
    source, target = placed(400), placed(300, "b")
    apart, lengths = differences(source, target), np.array([0.5, 0.1])
    distance = np.sqrt(((apart / lengths) ** 2).sum(-1))
    probability = THEORY[kernel](distance, 1.0)
    if cutoff is not None:
        probability = probability * (np.sqrt((apart**2).sum(-1)) <= cutoff)
    made = drawn(source, target, kernel=kernel, length=tuple(lengths), cutoff=cutoff)
    agrees(made, probability, distance)


@pytest.mark.parametrize("cutoff", [None, 0.35])
@pytest.mark.parametrize("box", [None, {"x": 1.0}, {"z": 1.0}, (1.0, 1.0)])
def test_distance_along_chosen_axes_in_a_space_closed_along_some(
    box: dict[str, float] | tuple[float, float] | None, cutoff: float | None
) -> None:
    source, target = placed(400, dimensions=3), placed(300, "b", dimensions=3)
    apart = differences(source, target)[..., [2, 0]]
    for index, axis in enumerate("zx"):
        if box is not None and (not isinstance(box, dict) or axis in box):
            apart[..., index] = np.minimum(apart[..., index], 1 - apart[..., index])
    distance = np.sqrt((apart**2).sum(-1))
    probability = 0.8 * THEORY["gaussian"](distance, 0.2) * (1 if cutoff is None else distance <= cutoff)
    parameters = {"p": 0.8, "length": 0.2, "axes": ("z", "x"), "periodic": box, "cutoff": cutoff}
    agrees(drawn(source, target, **parameters), probability, distance)


def test_axes_join_populations_of_different_dimensions() -> None:
    flat, deep = placed(200), placed(150, "b", dimensions=3)
    assert flat.positions is not None
    assert deep.positions is not None
    distance = cdist(deep.positions[:, :2], flat.positions)
    made = drawn(flat, deep, kernel="constant", length=0.3, axes=("x", "y"))
    assert len(made) == (distance <= 0.3).sum()


@pytest.mark.parametrize("surround_length", [0.05, 0.5])
def test_a_difference_of_gaussians(surround_length: float) -> None:
    source, target = placed(500), placed(400, "b")
    distance = np.sqrt((differences(source, target) ** 2).sum(-1))
    centre, surround = (THEORY["gaussian"](distance, length) for length in (0.2, surround_length))
    probability = 0.9 * np.clip(centre - 0.7 * surround, 0, None)
    made = drawn(
        source,
        target,
        kernel="difference_of_gaussians",
        p=0.9,
        length=0.2,
        surround=0.7,
        surround_length=surround_length,
    )
    agrees(made, probability, distance)


def test_a_table_is_a_line_through_its_points() -> None:
    source, target = placed(500), placed(400, "b")
    distance = np.sqrt((differences(source, target) ** 2).sum(-1))
    rise, fall = 0.1 + 0.8 * (distance - 0.1) / 0.2, 0.9 - 0.9 * (distance - 0.3) / 0.3
    probability = 0.5 * np.select([distance < 0.1, distance < 0.3, distance <= 0.6], [0.1, rise, fall], 0.0)
    made = drawn(source, target, kernel="table", p=0.5, points=((0.1, 0.1), (0.3, 0.9), (0.6, 0.0)))
    agrees(made, probability, distance)


@pytest.mark.parametrize("cutoff", [None, 0.5])
def test_exact_indegrees_without_multapses_are_drawn_one_after_another(cutoff: float | None) -> None:
    """Against the probabilities of all ordered draws of 2 of 4 sources without replacement."""
    x = np.array([0.1, 0.2, 0.4, 0.45])
    targets = 6000
    source = Population("a", "unit", 4, positions=x[:, None])
    target = Population("b", "unit", targets, positions=np.zeros((targets, 1)))
    share = np.exp(-x / 0.2)
    made = drawn(source, target, kernel="exponential", length=0.2, indegree=2, cutoff=cutoff)
    assert (np.bincount(made.target, minlength=targets) == 2).all()
    assert (np.diff(made.source.reshape(-1, 2)) > 0).all()
    found = Counter(map(tuple, made.source.reshape(-1, 2).tolist()))
    expected = {}
    for i, j in combinations(range(4), 2):
        p = share / share.sum()
        expected[i, j] = p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j])
    observed = [found[pair] for pair in expected]
    assert stats.chisquare(observed, targets * np.array(list(expected.values()))).pvalue > 1e-3


def test_exact_indegrees_with_multapses_are_multinomial() -> None:
    source, target = placed(5), placed(4000, "b")
    target = replace(target, positions=np.full((4000, 2), 0.5))
    assert source.positions is not None
    share = THEORY["gaussian"](np.sqrt(((source.positions - 0.5) ** 2).sum(-1)), 0.3)
    made = drawn(source, target, length=0.3, indegree=3, allow_multapses=True)
    assert (np.bincount(made.target, minlength=4000) == 3).all()
    observed = np.bincount(made.source, minlength=5)
    assert stats.chisquare(observed, 12_000 * share / share.sum()).pvalue > 1e-3
    first = made.source.reshape(-1, 3) == int(np.argmax(share))
    p = share.max() / share.sum()
    observed = np.bincount(first.sum(1), minlength=4)
    assert stats.chisquare(observed, 4000 * stats.binom.pmf(range(4), 3, p)).pvalue > 1e-3


def test_exact_indegrees_leave_autapses_out_and_know_when_there_are_too_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p = placed(300)
    made = drawn(p, p, length=0.1, indegree=20, allow_autapses=False)
    assert (made.source != made.target).all()
    assert (np.bincount(made.target, minlength=300) == 20).all()
    monkeypatch.setattr("circuitlab.graph.rules_spatial.CHUNK", 1000)
    blocks = drawn(p, p, length=0.1, indegree=20, allow_autapses=False, cutoff=2.0)
    assert (np.bincount(blocks.target, minlength=300) == 20).all()
    assert expected_edges("distance_dependent", p, p, {"length": 0.1, "indegree": 20}) == 6000
    lonely = replace(p, positions=np.concatenate((p.positions[:299], [[9.0, 9.0]])), name="c")  # pyright: ignore
    message = (
        "indegree is 3, but c/299 has 1 neurons of 'c' within reach; "
        "allow_multapses: true would take one more than once"
    )
    with pytest.raises(CircuitError) as refusal:
        drawn(lonely, lonely, kernel="constant", length=0.5, indegree=3)
    assert str(refusal.value) == message
    with pytest.raises(CircuitError, match=r"c/299 has 0 neurons of 'c' within reach$"):
        drawn(
            lonely,
            lonely,
            kernel="constant",
            length=0.5,
            indegree=3,
            allow_autapses=False,
            allow_multapses=True,
        )
    assert len(drawn(lonely, lonely, length=0.5, indegree=0)) == 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"length": (1.0, 1.0, 1.0)}, "3 lengths for 2 axes; one is wanted, or one for each axis"),
        ({"length": (1.0, 0.0)}, "length is [1.0, 0.0]; it is more than 0"),
        ({"length": 1.0, "axes": ("z",)}, "axes: positions in 'a' have no z; there are x, y"),
        ({"length": 1.0, "periodic": {"z": 1.0}}, "periodic: distances have no z; there are x, y"),
        ({"length": 1.0, "axes": ("x",), "periodic": (1.0, 1.0)}, "periodic has 2 numbers, but 1 axes"),
        (
            {"kernel": "table", "points": ((0.2, 1.0), (0.1, 0.5))},
            "points are [distance, probability] pairs, distances growing, from 0 on, at most 1",
        ),
        ({"kernel": "difference_of_gaussians", "length": 1.0}, "the parameter 'surround_length' is missing"),
    ],
)
def test_further_parameters_that_cannot_be_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(CircuitError) as refusal:
        drawn(placed(5), placed(5), **parameters)
    assert str(refusal.value) == message
