"""A circuit in time by scipy: dense matrices, DOP853 at its tightest, delays by the method of steps.

Nothing here knows circuitlab's equations, kernels or integrators; it reads edges, biases and time constants from the
graph and writes the differential equations out anew.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.integrate import solve_ivp

from circuitlab.graph.circuit import Circuit
from tests.oracles.numpy_check import SIGMA, SLOPE

RightHandSide = Callable[[float, np.ndarray], np.ndarray]


class InTime:
    """tau dphi/dt = -phi + sum over delays d of W_d sigma(phi(t - d)) + U_d x(t - d) + b + L phi, units in file order
    with outputs last.

    Attributes:
        rows, inputs: of each population. w, u: by delay in ms, [unit, unit] and [unit, input].
    """

    def __init__(self, circuit: Circuit) -> None:
        units = [p for p in circuit.populations.values() if p.type not in ("input", "output")]
        units += [p for p in circuit.populations.values() if p.type == "output"]
        self.populations = units
        self.rows, self.size = _places(units)
        self.inputs, count = _places([p for p in circuit.populations.values() if p.type == "input"])
        self.tau = np.concatenate([np.full(p.size, p.tau_ms) for p in units])
        self.bias = np.concatenate([np.zeros(p.size) if p.bias is None else p.bias for p in units])
        self.output = slice(self.size - sum(p.size for p in units if p.type == "output"), self.size)
        self.w: dict[float, np.ndarray] = {}
        self.u: dict[float, np.ndarray] = {}
        self.junctions = np.zeros((self.size, self.size))
        for p in circuit.projections.values():
            i = p.edges.target + self.rows[p.target].start
            if p.kind == "electrical":
                j = p.edges.source + self.rows[p.source].start
                once = np.zeros((self.size, self.size))
                np.add.at(once, (i, j), p.edges.weight)
                self.junctions += np.maximum(once, once.T)
            elif p.carries == "rate":
                outside = p.source in self.inputs
                place = self.inputs if outside else self.rows
                kept, width = (self.u, count) if outside else (self.w, self.size)
                matrix = kept.setdefault(p.delay_ms, np.zeros((self.size, width)))
                np.add.at(matrix, (i, p.edges.source + place[p.source].start), p.edges.weight)

    def each(self, function: dict[str, Callable], phi: np.ndarray) -> np.ndarray:
        """A function of the potentials, population by population."""
        parts = []
        for p in self.populations:
            above = p.gain * (phi[self.rows[p.name]] - p.threshold)
            parts.append(function[p.activation](above) * (p.gain if function is SLOPE else 1.0))
        return np.concatenate(parts)

    def prediction(
        self, t: float, past: Callable[[float], np.ndarray], x: Callable[[float], np.ndarray], within: float
    ) -> np.ndarray:
        """W sigma(phi) + U x + b + L phi; inputs are those of a moment `within` the piece, where they do not change."""
        phi = past(t)
        out = self.bias + self.junctions @ phi - self.junctions.sum(1) * phi
        for delay, matrix in self.w.items():
            out = out + matrix @ self.each(SIGMA, past(t - delay) if delay else phi)
        for delay, matrix in self.u.items():
            out = out + matrix @ x(within - delay)
        return out

    def free(
        self, x: Callable[[float], np.ndarray], phi0: np.ndarray, times: np.ndarray, step: float | None = None
    ) -> np.ndarray:
        """Potentials at some times, [time, unit].

        Args:
            step: length of the pieces that are integrated one after the other; it must divide every delay and every
                moment at which the input changes.
        """
        return self.solve(
            lambda t, z, past, within: (self.prediction(t, past, x, within) - z) / self.tau, phi0, times, step
        )

    def solve(self, slope: Callable, z0: np.ndarray, times: np.ndarray, step: float | None) -> np.ndarray:
        """Method of steps: dz/dt = slope(t, z, past, middle of the piece); past(t) is z earlier on, z0
        before the beginning."""
        pieces: list[Callable] = []
        length = times[-1] if step is None else step

        def past(t: float, now: float, value: np.ndarray) -> np.ndarray:
            if abs(t - now) < 1e-12:
                return value
            if t <= 0:
                return z0
            return pieces[min(int(t / length + 1e-9), len(pieces) - 1)](t)

        def piece(start: float, z: np.ndarray) -> Callable:
            middle = start + length / 2
            run = solve_ivp(
                lambda t, v: slope(t, v, lambda s: past(s, t, v), middle),
                (start, start + length),
                z,
                method="DOP853",
                rtol=1e-12,
                atol=1e-13,
                dense_output=True,
            )
            assert run.success
            return run.sol

        z, found = np.asarray(z0, float), {}
        for number in range(round(times[-1] / length)):
            start = number * length
            pieces.append(piece(start, z))
            inside = times[(times >= start - 1e-9) & (times <= start + length + 1e-9)]
            found.update({round(t, 9): pieces[-1](t) for t in inside})
            z = pieces[-1](start + length)
        return np.stack([found[round(t, 9)] for t in times])


def _places(populations) -> tuple[dict[str, slice], int]:
    rows, start = {}, 0
    for p in populations:
        rows[p.name] = slice(start, start + p.size)
        start += p.size
    return rows, start
