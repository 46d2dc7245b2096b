"""A circuit in numbers: sizes, densities, degrees, memory, and how far activity echoes in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackNoConvergence, eigs

from circuitlab.compile.kernels import compile_kernel
from circuitlab.graph.circuit import Circuit, Population, Projection
from circuitlab.graph.junctions import conductances
from circuitlab.learn.rules import RULES
from circuitlab.report.memory import predict, stored_bytes
from circuitlab.solve.choose import SolveSettings
from circuitlab.solve.explain import Asked, explain
from circuitlab.spec.combinations import default_control, default_feedback

DENSE_BELOW = 800
"""Neurons up to which all eigenvalues are computed; beyond, ARPACK looks for the largest."""


def summarize(
    circuit: Circuit, *, batch: int = 64, rule: str = "least_control", dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Everything `circuitlab show` tells, as plain data; `bytes` are of the compiled weights with their transposes.

    Args:
        batch, rule, dtype: of the training whose memory and solver are predicted, under the rule's default control.
    """
    projections = [_projection(circuit, p, dtype) for p in circuit.projections.values()]
    stored = sum(p["bytes"] for p in projections)
    random = default_control(rule) == {"pathway": "dynamic_inversion", "feedback": "random"}
    own = sum(
        p["bytes"] for p in projections if random and p["carries"] == "rate" and p["source"] in circuit.units
    )
    return {
        "circuit": circuit.name,
        "description": circuit.description,
        "seed": circuit.seed,
        "neurons": sum(p.size for p in circuit.populations.values()),
        "synapses": sum(p["synapses"] for p in projections),
        "bytes": stored,
        "memory": {
            "batch": batch,
            "rule": rule,
            "dtype": str(dtype).removeprefix("torch."),
            **predict(circuit, stored, batch=batch, rule=rule, dtype=dtype, own=own).as_dict(),
        },
        "solver": explain(circuit, SolveSettings(), _asked(rule, batch, dtype)),
        "recurrent_groups": [list(group) for group in circuit.strongly_connected()],
        "spectral_radius": spectral_radius(circuit),
        "populations": [_population(p) for p in circuit.populations.values()],
        "projections": projections,
    }


def _asked(rule: str, batch: int, dtype: torch.dtype) -> Asked:
    """What a rule asks the solver for, under the control that it takes by default."""
    controls = RULES[rule].controls or RULES[rule].contrasts
    control = default_control(rule)
    pathway = control.get("pathway", "dynamic_inversion")
    feedback = control.get("feedback", default_feedback(pathway))
    leak = 0.0 if rule == "predictive_coding" else 1.0
    return Asked(batch, dtype, controls, pathway, feedback, leak)


def _population(p: Population) -> dict[str, Any]:
    unit = p.type != "input"
    return {
        "name": p.name,
        "type": p.type,
        "neurons": p.size,
        "shape": None if p.shape is None else list(p.shape),
        "activation": p.activation if unit else None,
        "gain": p.gain if unit else None,
        "threshold": p.threshold if unit else None,
        "tau_ms": p.tau_ms if unit else None,
        "sign": p.sign,
        "controlled": p.controlled if unit else None,
    }


def _projection(circuit: Circuit, p: Projection, dtype: torch.dtype) -> dict[str, Any]:
    shape = circuit.populations[p.target].size, circuit.populations[p.source].size
    kernel = compile_kernel(p, shape, dtype)
    weight, synapses = p.edges.weight, int(p.edges.multiplicity.sum())
    return {
        "name": p.name,
        "source": p.source,
        "target": p.target,
        "site": p.site,
        "kind": p.kind,
        "carries": p.carries,
        "delay_ms": p.delay_ms,
        "plastic": p.plastic,
        "synapses": synapses,
        "density": circuit.density(p.name),
        "indegree": synapses / shape[0],
        "outdegree": synapses / shape[1],
        "weight_mean": float(weight.mean()) if weight.size else None,
        "weight_std": float(weight.std()) if weight.size else None,
        "kernel": kernel.name,
        "bytes": stored_bytes(kernel),
    }


def rate_weights(circuit: Circuit) -> sparse.csr_array:
    """W: rate-coded weights among all units that are not inputs, in file order, times the gains of their senders, shape
    (units, units). With gap junctions (1 + d)^-1 (W + G), for conductances G with row sums d: what a linear circuit
    iterates where each neuron is solved for its own potential."""
    starts, size = {}, 0
    for name in circuit.units:
        starts[name], size = size, size + circuit.populations[name].size
    parts = [
        (
            p.edges.target + starts[p.target],
            p.edges.source + starts[p.source],
            p.edges.weight * circuit.populations[p.source].gain,
        )
        for p in circuit.projections.values()
        if p.carries == "rate" and p.kind == "chemical" and p.source in starts
    ]
    found = sparse.csr_array((size, size))
    if parts:
        rows, columns, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
        found = sparse.csr_array(sparse.coo_array((weights, (rows, columns)), shape=(size, size)))
    if not any(p.kind == "electrical" for p in circuit.projections.values()):
        return found
    gaps = conductances(circuit)
    return sparse.csr_array(sparse.diags_array(1 / (1 + gaps.sum(axis=1))) @ (found + gaps))


def spectral_radius(circuit: Circuit) -> float | None:
    """Largest modulus of an eigenvalue of W, 0 where rates never return to where they came from.

    The eigenvalues of W are those of its strongly connected parts, so each part is looked at by itself.
    Below 1 a linear circuit settles by itself; a nonlinear one may settle above, too.

    Returns:
        The radius, dimensionless, or None where ARPACK did not find it.
    """
    weights = rate_weights(circuit)
    weights.eliminate_zeros()
    if not weights.nnz:
        return 0.0
    _, part = connected_components(weights, directed=True, connection="strong")
    radius = float(np.abs(weights.diagonal()).max())
    for index in np.flatnonzero(np.bincount(part) > 1):
        members = np.flatnonzero(part == index)
        block = weights[members][:, members]
        if len(members) <= DENSE_BELOW:
            largest = np.abs(np.linalg.eigvals(block.toarray())).max()
        else:
            try:
                start = np.ones(len(members))
                found = eigs(block, k=4, v0=start, return_eigenvectors=False, maxiter=3000)
            except ArpackNoConvergence as stopped:
                found = stopped.eigenvalues
            if not len(found):
                return None
            largest = np.abs(found).max()
        radius = max(radius, float(largest))
    return radius
