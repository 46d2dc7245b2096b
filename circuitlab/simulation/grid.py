"""Whether times fit the steps of a simulation: everything that happens happens at a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import gcd
from typing import Protocol

from circuitlab.errors import CircuitError

PER_MS = 10**9
"""Times are compared in picoseconds, so that 0.1 ms is a tenth of 1 ms exactly."""
FARTHEST = 100_000
"""Steps more in the longest common time that are looked at for one that fits."""


class HasDelay(Protocol):
    """What has a delay in ms: a projection."""

    @property
    def delay_ms(self) -> float:
        """Zero where there is none."""
        ...


def whole(ms: float) -> int:
    """A time in picoseconds."""
    return round(ms * PER_MS)


def steps_of(ms: float, dt_ms: float) -> int | None:
    """How many steps a time takes; None where it is no multiple of the step."""
    time, step = whole(ms), whole(dt_ms)
    return time // step if step and time % step == 0 else None


def check_times(projections: Mapping[str, HasDelay], dt_ms: float, times: Mapping[str, float]) -> None:
    """Refuse a step that a delay or another time is no multiple of.

    Args:
        projections: of a circuit, or of its file.
        times: in ms, by what messages call them.

    Raises:
        CircuitError: one line for each time that does not fit, with the nearest step that fits all of them.
    """
    if whole(dt_ms) <= 0:
        raise CircuitError(f"dt: {dt_ms:g} ms is too short; at least 1e-9 ms")
    delays = {
        f"projections.{name}.delay": projection.delay_ms
        for name, projection in projections.items()
        if projection.delay_ms
    }
    every = {**times, **delays}
    wrong = {name: ms for name, ms in every.items() if steps_of(ms, dt_ms) is None}
    if not wrong:
        return
    step = nearest(every.values(), dt_ms)
    raise CircuitError(
        "\n".join(
            f"{name}: {ms:g} ms is no multiple of the time step, {dt_ms:g} ms; allowed: {_beside(ms, dt_ms)}, or "
            f"dt = {step:.12g} ms"
            for name, ms in wrong.items()
        )
    )


def _beside(ms: float, dt_ms: float) -> str:
    """The multiples of the step on both sides of a time."""
    count = whole(ms) // whole(dt_ms)
    return " or ".join(f"{n * whole(dt_ms) / PER_MS:.12g} ms" for n in (count, count + 1) if n)


def nearest(times: Iterable[float], dt_ms: float) -> float:
    """The step nearest to dt, in ms, that every one of the times is a multiple of."""
    common = gcd(*(whole(ms) for ms in times))
    middle = max(1, round(common / whole(dt_ms)))
    fits = [n for n in range(1, min(2 * middle, middle + FARTHEST) + 1) if common % n == 0]
    best = min(fits, key=lambda n: abs(common / n - whole(dt_ms)))
    return common / best / PER_MS
