"""A circuit as dense numpy matrices, written from the graph's edges alone: nothing compiled is used.

Rows are the hidden populations in file order, then the output populations; one sample at a time, float64.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import root

from circuitlab.graph.circuit import Circuit
from tests.oracles.numpy_check import SIGMA, SLOPE


class Twin:
    """W, U, b, S of burst-coded projections, and the free and controlled equations of one sample."""

    def __init__(self, circuit: Circuit) -> None:
        pops = circuit.populations.values()
        self.inputs = [p for p in pops if p.type == "input"]
        hidden = [p for p in pops if p.type not in ("input", "output")]
        self.units = hidden + [p for p in pops if p.type == "output"]
        self.rows = _rows(self.units)
        inputs = _rows(self.inputs)
        n, m = sum(p.size for p in self.units), sum(p.size for p in self.inputs)
        self.n, self.k = n, n - sum(p.size for p in hidden)
        self.w, self.u_in, self.s, self.b = np.zeros((n, n)), np.zeros((n, m)), np.zeros((n, n)), np.zeros(n)
        self.d = np.eye(n)[n - self.k :]
        self.g = np.zeros((n, n))
        for p in circuit.projections.values():
            if p.kind == "electrical":
                to, of = (
                    self.rows[p.target].start + p.edges.target,
                    self.rows[p.source].start + p.edges.source,
                )
                seen = set()
                for i, j, g in zip(to.tolist(), of.tolist(), p.edges.weight.tolist(), strict=True):
                    if i != j and (j, i) not in seen:
                        seen.add((i, j))
                        self.g[i, j] += g
                        self.g[j, i] += g
                continue
            from_input = p.source in inputs
            matrix = self.u_in if from_input else self.s if p.carries == "burst" else self.w
            column = (inputs if from_input else self.rows)[p.source].start
            np.add.at(
                matrix, (self.rows[p.target].start + p.edges.target, column + p.edges.source), p.edges.weight
            )
        for p in self.units:
            if p.bias is not None:
                self.b[self.rows[p.name]] = p.bias
        self.l = self.g - np.diag(self.g.sum(1))
        self.tau = np.concatenate([np.full(p.size, p.tau_ms) for p in self.units])
        self.controlled = np.concatenate([np.full(p.size, float(p.controlled)) for p in self.units])

    def sigma(self, phi: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [SIGMA[p.activation](p.gain * (phi[self.rows[p.name]] - p.threshold)) for p in self.units]
        )

    def slope(self, phi: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [
                p.gain * SLOPE[p.activation](p.gain * (phi[self.rows[p.name]] - p.threshold))
                for p in self.units
            ]
        )

    def prediction(self, phi: np.ndarray, x: np.ndarray) -> np.ndarray:
        return self.w @ self.sigma(phi) + self.u_in @ x + self.b + self.l @ phi

    def f(self, phi: np.ndarray, x: np.ndarray) -> np.ndarray:
        return self.prediction(phi, x) - phi

    def jacobian(self, phi: np.ndarray) -> np.ndarray:
        """df/dphi = W sigma' + L - 1, L of gap junctions."""
        return self.w * self.slope(phi) + self.l - np.eye(self.n)

    def free(self, x: np.ndarray) -> np.ndarray:
        found = root(lambda phi: self.f(phi, x), np.zeros(self.n), jac=self.jacobian, tol=1e-14)
        assert np.abs(self.f(found.x, x)).max() < 1e-11
        return found.x

    def controlled_equations(
        self, state: np.ndarray, x: np.ndarray, gradient, alpha: float, s: np.ndarray | None = None
    ) -> np.ndarray:
        """Right-hand sides of soma, control and controller (eq. 14, 140, 6) for a feedback S (W^T where None)."""
        n = self.n
        phi, psi, u = state[:n], state[n : 2 * n], state[2 * n :]
        s = self.w.T if s is None else s
        control = self.controlled * (self.slope(phi) * (s @ psi) + self.l @ psi) + self.d.T @ u - psi
        return np.concatenate([self.f(phi, x) + psi, control, -gradient(phi[-self.k :]) - alpha * u])

    def controlled_root(
        self, x: np.ndarray, gradient, alpha: float, s: np.ndarray | None = None
    ) -> np.ndarray:
        """phi, psi, u by scipy from the free state."""
        start = np.concatenate([self.free(x), np.zeros(self.n + self.k)])
        for leak in sorted({alpha, 100 * alpha, 10 * alpha}, reverse=True):
            found = root(self.controlled_equations, start, (x, gradient, leak, s), tol=1e-14)
            start = found.x
        assert np.abs(found.fun).max() < 1e-10
        return found.x


def cross_entropy(target: np.ndarray):
    """dL/dy of the cross-entropy."""
    return lambda y: np.exp(y - np.logaddexp.reduce(y)) - target


def squared_error(target: np.ndarray):
    """dL/dy of half the squared error."""
    return lambda y: y - target


def _rows(populations) -> dict[str, slice]:
    rows, start = {}, 0
    for p in populations:
        rows[p.name] = slice(start, start + p.size)
        start += p.size
    return rows
