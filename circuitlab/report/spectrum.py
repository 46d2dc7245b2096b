"""How far activity echoes in a circuit: the spectral radius of its recurrent weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, eigs

from circuitlab.graph.circuit import Circuit, Projection
from circuitlab.graph.junctions import conductances

DENSE_BELOW = 800
"""Neurons up to which all eigenvalues are computed; beyond, ARPACK looks for the largest."""
EXACT_BELOW = 5_000_000
"""Synapses among units up to which the weights are put into one matrix, and ARPACK may take its time."""
STEPS = 24
"""Products with W of an estimate."""
RESTARTS, RESTARTS_LARGE = 3000, 60
"""Of ARPACK; the second in a part of more neurons than LARGE_PART."""
LARGE_PART = 3000


@dataclass(frozen=True)
class Radius:
    """The spectral radius of W.

    Args:
        value: largest modulus of an eigenvalue, dimensionless; None where it was not found.
        how: `exact`, or `estimated` from a few products with W.
    """

    value: float | None
    how: str


def recurrent(circuit: Circuit) -> list[Projection]:
    """The chemical projections among units that carry rates: W."""
    inner = set(circuit.units)
    return [p for p in circuit.projections.values() if in_weights(p) and p.source in inner]


def in_weights(projection: Projection) -> bool:
    """Whether a projection's weights multiply rates: gap junctions act on potentials, bursts on the control."""
    return projection.carries == "rate" and projection.kind == "chemical"


def _starts(circuit: Circuit) -> tuple[dict[str, int], int]:
    starts, size = {}, 0
    for name in circuit.units:
        starts[name], size = size, size + circuit.populations[name].size
    return starts, size


def rate_weights(circuit: Circuit) -> sparse.csr_array:
    """W: rate-coded weights among all units that are not inputs, in file order, times the gains of their senders, shape
    (units, units). With gap junctions (1 + d)^-1 (W + G), for conductances G with row sums d: what a linear circuit
    iterates where each neuron is solved for its own potential."""
    starts, size = _starts(circuit)
    parts = [
        (
            p.edges.target + starts[p.target],
            p.edges.source + starts[p.source],
            p.edges.weight * circuit.populations[p.source].gain,
        )
        for p in recurrent(circuit)
    ]
    found = sparse.csr_array((size, size))
    if parts:
        rows, columns, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
        found = sparse.csr_array(sparse.coo_array((weights, (rows, columns)), shape=(size, size)))
    if not _junctions(circuit):
        return found
    gaps = conductances(circuit)
    return sparse.csr_array(sparse.diags_array(1 / (1 + gaps.sum(axis=1))) @ (found + gaps))


def _junctions(circuit: Circuit) -> bool:
    return any(p.kind == "electrical" for p in circuit.projections.values())


def _gains(circuit: Circuit) -> NDArray[np.float64]:
    """Gain of every unit that is not an input, [unit]."""
    return np.concatenate([np.full(p.size, p.gain) for n in circuit.units if (p := circuit.populations[n])])


def spectral_radius(circuit: Circuit) -> float | None:
    """Largest modulus of an eigenvalue of W (`rate_weights`), 0 where rates never return to where they came from."""
    return radius(circuit).value


def radius(circuit: Circuit) -> Radius:
    """The spectral radius of W (`rate_weights`): of the linearised circuit where every neuron's activation has slope 1.

    The eigenvalues of W are those of its strongly connected parts, so each part is looked at by itself. Of more than
    `EXACT_BELOW` synapses the radius is estimated from `STEPS` products, without another copy of the weights. Below 1
    a linear circuit settles by itself; a nonlinear one may settle above, too.
    """
    if not circuit.strongly_connected():
        return Radius(0.0, "exact")
    if sum(len(p.edges) for p in recurrent(circuit)) > EXACT_BELOW:
        return Radius(krylov(circuit).radius, "estimated")
    weights = rate_weights(circuit)
    weights.eliminate_zeros()
    if not weights.nnz:
        return Radius(0.0, "exact")
    _, part = connected_components(weights, directed=True, connection="strong")
    found = float(np.abs(weights.diagonal()).max())
    for index in np.flatnonzero(np.bincount(part) > 1):
        members = np.flatnonzero(part == index)
        block = weights[members][:, members]
        if len(members) <= DENSE_BELOW:
            largest = np.abs(np.linalg.eigvals(block.toarray())).max()
        else:
            try:
                start = np.ones(len(members))
                most = RESTARTS if len(members) <= LARGE_PART else RESTARTS_LARGE
                values = eigs(block, k=4, v0=start, return_eigenvectors=False, maxiter=most)
            except ArpackNoConvergence as stopped:
                values = stopped.eigenvalues
            except ArpackError:
                values = np.empty(0)
            if not len(values):
                value = krylov(circuit).radius if len(members) > LARGE_PART else None
                return Radius(value, "exact" if value is None else "estimated")
            largest = np.abs(values).max()
        found = max(found, float(largest))
    return Radius(found, "exact")


@dataclass(frozen=True)
class Krylov:
    """What a few products with W tell.

    Args:
        upper: W in the basis that they span (Arnoldi's Hessenberg matrix), shape (k + 1, k).
    """

    upper: NDArray[np.float64]

    @property
    def radius(self) -> float:
        """The largest Ritz value's modulus, an estimate of the spectral radius, mostly from below."""
        steps = self.upper.shape[1]
        return float(np.abs(np.linalg.eigvals(self.upper[:steps])).max(initial=0.0))

    def residuals(self, slope: float) -> NDArray[np.float64]:
        """What GMRES leaves of the residual of (1 - slope W) x = b after 1, 2, ... products; shape (k,)."""
        steps = self.upper.shape[1]
        full = np.eye(steps + 1, steps) - slope * self.upper
        left = []
        for k in range(1, steps + 1):
            b = np.eye(1, k + 1)[0]
            x = np.linalg.lstsq(full[: k + 1, :k], b, rcond=None)[0]
            left.append(float(np.linalg.norm(b - full[: k + 1, :k] @ x)))
        return np.array(left)


def krylov(circuit: Circuit, steps: int = STEPS) -> Krylov:
    """Arnoldi's iteration with W (`rate_weights`), from a random vector.

    Every product goes through the edges as they lie in memory, sorted by target; beside them it takes `steps` vectors
    of one number per unit.
    """
    starts, size = _starts(circuit)
    parts = []
    for p in recurrent(circuit):
        shape = circuit.populations[p.target].size, circuit.populations[p.source].size
        pointers = p.edges.pointers(shape[0])
        pointers = pointers.astype(p.edges.source.dtype) if len(p.edges) < 2**31 else pointers
        matrix = sparse.csr_array((p.edges.weight, p.edges.source, pointers), shape=shape, copy=False)
        rows = slice(starts[p.target], starts[p.target] + shape[0])
        parts.append((rows, slice(starts[p.source], starts[p.source] + shape[1]), matrix))
    gains, gaps = _gains(circuit), conductances(circuit) if _junctions(circuit) else None
    leaks = 1.0 if gaps is None else 1 / (1 + gaps.sum(axis=1))
    steps = min(steps, size)
    basis = np.zeros((steps + 1, size))
    upper = np.zeros((steps + 1, steps))
    basis[0] = np.random.default_rng(0).standard_normal(size)
    basis[0] /= np.linalg.norm(basis[0])
    for k in range(steps):
        sent, image = gains * basis[k], np.zeros(size)
        for rows, columns, matrix in parts:
            image[rows] += matrix @ sent[columns]
        image = leaks * (image if gaps is None else image + gaps @ basis[k])
        for _ in range(2):
            along = basis[: k + 1] @ image
            upper[: k + 1, k] += along
            image -= along @ basis[: k + 1]
        upper[k + 1, k] = length = float(np.linalg.norm(image))
        if length < 1e-12:
            upper[k + 1, k] = 0.0
            return Krylov(upper[: k + 2, : k + 1])
        basis[k + 1] = image / length
    return Krylov(upper)
