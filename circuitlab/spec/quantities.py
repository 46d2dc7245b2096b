"""Quantities with units, written as text: `10 ms`, `0.5 /s`; a bare number hides its unit and is refused."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

UNITS = {
    "time": {"s": 1000.0, "ms": 1.0, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "min": 60_000.0},
    "memory size": {
        "B": 1.0,
        "kB": 1e3,
        "MB": 1e6,
        "GB": 1e9,
        "KiB": 2.0**10,
        "MiB": 2.0**20,
        "GiB": 2.0**30,
    },
    "rate": {"Hz": 1.0, "kHz": 1000.0, "/s": 1.0, "1/s": 1.0, "/ms": 1000.0, "1/ms": 1000.0},
}
"""Units of each dimension, in milliseconds, bytes and 1/s."""

EXAMPLES = {"time": "'10 ms'", "memory size": "'128 MB'", "rate": "'0.5 /s'"}
SHOWN = {"time": "s, ms, us, min", "memory size": "B, kB, MB, GB, KiB, MiB, GiB", "rate": "Hz, kHz, /s, /ms"}
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
PATTERN = {
    "time": rf"^\s*{NUMBER}\s*(s|ms|us|µs|min)\s*$",
    "memory size": rf"^\s*{NUMBER}\s*(B|kB|MB|GB|KiB|MiB|GiB)\s*$",
    "rate": rf"^\s*{NUMBER}\s*(Hz|kHz|1?/m?s)\s*$",
}


def parse(value: Any, dimension: str) -> float:
    """A quantity's magnitude in the base unit of its dimension: milliseconds for a time, bytes for a memory size,
    1/s for a rate.

    Raises:
        ValueError: no number, no unit, a unit of another dimension, or an infinite magnitude.
    """
    wanted = f"a {dimension} with its unit, such as {EXAMPLES[dimension]} (units: {SHOWN[dimension]})"
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"{value} has no unit; write {wanted}")
    match = re.fullmatch(rf"\s*({NUMBER})\s*(\S*)\s*", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"not a quantity; write {wanted}")
    number, unit = float(match[1]), match[2]
    if not unit:
        raise ValueError(f"'{value}' has no unit; write {wanted}")
    for other, units in UNITS.items():
        if unit in units and other != dimension:
            raise ValueError(f"'{value}' is a {other}; write {wanted}")
    if unit not in UNITS[dimension]:
        raise ValueError(f"no unit '{unit}'; write {wanted}")
    magnitude = number * UNITS[dimension][unit]
    if not math.isfinite(magnitude):
        raise ValueError(f"'{value}' is not finite")
    return magnitude


def milliseconds(value: Any) -> float:
    """A positive time in ms."""
    time = parse(value, "time")
    if time <= 0:
        raise ValueError(f"'{value}' must be greater than zero")
    return time


def milliseconds_or_none(value: Any) -> float:
    """A positive time in ms, or 0.0 for what is written as `none`: something without a time constant."""
    return 0.0 if value == "none" else milliseconds(value)


def time_text(ms: float) -> str:
    """A time as it is written in a file: 10.0 gives `10 ms`; reading it again gives the same number."""
    return f"{int(ms) if ms == int(ms) else repr(ms)} ms"


TIME_SCHEMA = WithJsonSchema({"type": "string", "pattern": PATTERN["time"], "examples": ["10 ms"]})

Milliseconds = Annotated[float, BeforeValidator(milliseconds), TIME_SCHEMA]
"""A time in milliseconds, read from text such as `10 ms`."""

MillisecondsOrNone = Annotated[float, BeforeValidator(milliseconds_or_none), TIME_SCHEMA]
"""A time in milliseconds; 0.0 where there is none."""


def memory_bytes(value: Any) -> int:
    """A positive amount of memory in whole bytes."""
    amount = round(parse(value, "memory size"))
    if amount <= 0:
        raise ValueError(f"'{value}' must be at least one byte")
    return amount


def memory_text(amount: int) -> str:
    """An amount of memory as it is written in a file: 128000000 gives `128 MB`; reading it gives the same number."""
    unit = next(unit for unit in ("GB", "MB", "kB", "B") if amount % int(UNITS["memory size"][unit]) == 0)
    return f"{amount // int(UNITS['memory size'][unit])} {unit}"


MemoryBytes = Annotated[
    int,
    BeforeValidator(memory_bytes),
    WithJsonSchema({"type": "string", "pattern": PATTERN["memory size"], "examples": ["128 MB"]}),
]
"""An amount of memory in bytes, read from text such as `128 MB`."""


def count_of(value: Any, units: tuple[str, ...]) -> tuple[int, str]:
    """`50 steps` or `1 epoch` as a number and the plural unit.

    Raises:
        ValueError: no whole number above zero, no unit, or none of `units`.
    """
    examples = {"steps": "'50 steps'", "epochs": "'1 epoch'"}
    wanted = "write " + " or ".join(examples[unit] for unit in units)
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"{value} has no unit; {wanted}")
    match = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]+)\s*", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"not a count of {' or '.join(units)}; {wanted}")
    unit = match[2].removesuffix("s") + "s"
    if unit not in units:
        raise ValueError(f"no unit '{match[2]}'; {wanted}")
    if not 1 <= int(match[1]) < 2**31:
        raise ValueError(f"'{value}' is out of range; it must be at least 1")
    return int(match[1]), unit


def count_text(count: int, unit: str) -> str:
    """A count as it is written in a file: `50 steps`, `1 epoch`."""
    return f"{count} {unit.removesuffix('s') if count == 1 else unit}"
