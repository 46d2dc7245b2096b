"""Distance-dependent connections: probabilities by distance against the kernels, and a dense twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
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
