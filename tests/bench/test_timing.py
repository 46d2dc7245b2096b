"""Ratios and spreads against hand computation; what is compared runs in turn."""

from __future__ import annotations

import math

import pytest

from circuitlab.bench.timing import Spread, alternate, least_of_each, paired_ratio


def test_the_spread_of_five_readings_by_hand() -> None:
    # sorted 1 2 4 8 10: quartiles 2 and 8, median 4
    found = Spread.of([4.0, 1.0, 10.0, 8.0, 2.0])
    assert (found.median, found.least, found.count) == (4.0, 1.0, 5)
    assert found.spread == pytest.approx((8 - 2) / 4)


def test_the_ratio_is_the_median_of_pairs_not_the_ratio_of_medians() -> None:
    # pairs 2/1, 9/3, 4/4: 2, 3, 1; medians alone would say 4/3
    assert paired_ratio([2, 9, 4], [1, 3, 4]) == 2


def test_pairs_without_a_ratio_are_left_out() -> None:
    assert paired_ratio([2, 5, math.inf], [1, 0, 3]) == 2
    assert math.isnan(paired_ratio([1.0], [0.0]))


def test_a_pair_is_never_of_different_lengths() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_ratio([1.0, 2.0], [1.0])


def test_the_least_of_each_group() -> None:
    assert least_of_each([3, 1, 2, 9, 7, 8], 3) == [1, 7]


def test_functions_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitlab.report.timing.SHORTEST", 0.0)
    calls: list[str] = []
    found = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3)
    assert {name: len(readings) for name, readings in found.items()} == {"a": 3, "b": 3}
    assert calls[-6:] == ["a", "b", "a", "b", "a", "b"]
    assert all(second >= 0 for readings in found.values() for second in readings)


def test_rounds_end_when_time_is_over() -> None:
    found = alternate({"a": lambda: None}, repeats=1000, most_seconds=0.0)
    assert len(found["a"]) == 3
