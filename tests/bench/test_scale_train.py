"""Slopes, times to a target, and that both benchmarks measure what they say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from circuitlab.bench import scale, train
from circuitlab.bench.scale import limited, slope
from circuitlab.bench.train import methods, time_to


def test_the_slope_of_a_power_is_its_exponent() -> None:
    values = [1.0, 2.0, 8.0, 64.0]
    assert slope(values, [3 * v**1.5 for v in values]) == pytest.approx(1.5)
    assert math.isnan(slope([2.0], [1.0]))


def test_a_limit_leaves_out_what_is_larger() -> None:
    found = limited(scale.Settings(), 1024)
    assert found.neurons == (512, 1024)
    assert found.fixed == 1024
    assert max(found.batches) <= 128


def test_every_axis_varies_alone() -> None:
    settings = scale.Settings((20, 40), (0.1, 0.5), (2, 4), (3, 6), 5, 30, 3, 4, 1, 0)
    tables, numbers = scale.run(settings)
    points = numbers["points"]
    assert [p["value"] for p in points if p["axis"] == "neurons"] == [20, 40]
    # 3 and 15 synapses a neuron, and 10 readouts of 30 neurons each
    assert [p["value"] for p in points if p["axis"] == "synapses"] == [30 * 3 + 300, 30 * 15 + 300]
    assert [p["value"] for p in points if p["axis"] == "batch"] == [2, 4]
    assert [p["value"] for p in points if p["axis"] == "iterations"] == [3, 6]
    for p in points:
        held = {"batch": 3, "iterations": 4}
        assert all(p[name] == value for name, value in held.items() if name != p["axis"])
        assert len(p["seconds"]) == 1
    assert set(numbers["slopes"]) == {"neurons", "synapses", "batch", "iterations"}
    assert [row[0] for row in tables[0].rows] == list(numbers["slopes"])
    assert [row[0] for row in tables[2].rows] == [20, 40]


def test_the_time_to_a_target_is_that_of_the_first_look_there() -> None:
    curve = [(0, 0.0, 0.1), (10, 1.5, 0.94), (20, 3.0, 0.92), (30, 4.0, 0.96)]
    assert time_to(curve, 0.93) == 1.5
    assert time_to(curve, 0.95) == 4.0
    assert time_to(curve, 0.97) is None


@pytest.mark.parametrize(
    ("times", "median"),
    [([3.0, 1.0, 2.0], 2.0), ([1.0, None, None], None), ([1.0, 2.0, None], 2.0), ([None], None)],
)
def test_a_seed_that_never_came_there_counts_as_the_slowest(
    times: list[float | None], median: float | None
) -> None:
    assert train._median(times) == median


def test_every_method_learns_from_every_seed(small: Path) -> None:
    found = methods(small, small.with_name("feedforward.yaml"), [2.0, 0.5])
    settings = train.Settings(found, seeds=(0, 1), epochs=2, targets=(0.0, 1.01), every=3)
    [table], numbers = train.run(settings)
    assert [row[0] for row in table.rows] == list(numbers["training"])
    assert len(table.rows) == 4
    for row, runs in zip(table.rows, numbers["training"].values(), strict=True):
        assert [run["seed"] for run in runs] == [0, 1]
        assert all(run["samples"] == 48 for run in runs)
        assert all([look[0] for look in run["looks"]] == [0, 3, 6, 9, 12] for run in runs)
        assert row[1] > 0
        assert row[2:4] == [0.0, None]
    weak, strong = (numbers["training"][method.name] for method in found[:2])
    assert weak[0]["products_per_sample"] != strong[0]["products_per_sample"]
