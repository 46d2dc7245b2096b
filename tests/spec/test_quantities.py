"""Quantities carry their unit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitlab.spec.quantities import (
    count_of,
    count_text,
    memory_bytes,
    memory_text,
    milliseconds,
    parse,
    time_text,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10 ms", 10.0),
        ("1 s", 1000.0),
        ("250 us", 0.25),
        ("2e-2 s", 20.0),
        ("10ms", 10.0),
        (" .5 ms ", 0.5),
        ("1 min", 60_000.0),
    ],
)
def test_times_are_read_in_milliseconds(text: str, value: float) -> None:
    assert milliseconds(text) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.5 /s", 0.5), ("2 Hz", 2.0), ("1 kHz", 1000.0), ("3 /ms", 3000.0), ("1/s", 1.0), ("4 1/s", 4.0)],
)
def test_rates_are_read_per_second(text: str, value: float) -> None:
    assert parse(text, "rate") == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (10, "10 has no unit"),
        (0.5, "0.5 has no unit"),
        ("10", "'10' has no unit"),
        ("10 Hz", "'10 Hz' is a rate"),
        ("10 parsec", "no unit 'parsec'"),
        ("ms", "not a quantity"),
        (True, "not a quantity"),
        (None, "not a quantity"),
        (["10 ms"], "not a quantity"),
        ("1e400 ms", "'1e400 ms' is not finite"),
        ("-1 ms", "'-1 ms' must be greater than zero"),
    ],
)
def test_what_is_no_time_is_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError, match="^" + message):
        milliseconds(value)


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_a_time_written_and_read_is_the_same(ms: float) -> None:
    assert milliseconds(time_text(ms)) == ms


def test_counts_name_what_they_count() -> None:
    assert count_of("50 steps", ("steps", "epochs")) == (50, "steps")
    assert count_of("1 epoch", ("epochs",)) == (1, "epochs")
    assert [count_text(1, "steps"), count_text(2, "epochs")] == ["1 step", "2 epochs"]
    with pytest.raises(ValueError, match=r"^no unit 'step'; write '1 epoch'$"):
        count_of("1 step", ("epochs",))
    with pytest.raises(ValueError, match=r"^'0 steps' is out of range; it must be at least 1$"):
        count_of("0 steps", ("steps",))


@pytest.mark.parametrize(
    ("text", "value"),
    [("128 MB", 128_000_000), ("1GiB", 2**30), ("0.5 kB", 500), ("1 B", 1), ("2e3 KiB", 2_048_000)],
)
def test_amounts_of_memory_are_read_in_bytes(text: str, value: int) -> None:
    assert memory_bytes(text) == value


@pytest.mark.parametrize(
    ("value", "message"),
    [(100, "100 has no unit"), ("0 MB", "'0 MB' must be at least one byte"), ("1 ms", "'1 ms' is a time")],
)
def test_what_is_no_amount_of_memory_is_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError, match="^" + message):
        memory_bytes(value)


@given(st.integers(min_value=1, max_value=10**15))
def test_an_amount_of_memory_written_and_read_is_the_same(amount: int) -> None:
    assert memory_bytes(memory_text(amount)) == amount
