"""A circuit in numbers: sizes, densities, degrees, balance, memory, time, and how far activity echoes in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from circuitlab.graph.circuit import Circuit, Population, Projection
from circuitlab.learn.rules import RULES
from circuitlab.report.duration import Products, estimate, products
from circuitlab.report.memory import predict
from circuitlab.report.spectrum import krylov, radius
from circuitlab.report.statistics import (
    balance,
    indegrees,
    mean_and_deviation,
    outdegrees,
    reciprocity,
    single,
    spread,
    synapses,
)
from circuitlab.solve.choose import SolveSettings
from circuitlab.solve.explain import Asked, explain
from circuitlab.spec.combinations import default_control, default_feedback

SAMPLES = 10_000
"""Of the epoch whose time is estimated, unless another number is asked for."""


def summarize(
    circuit: Circuit,
    *,
    batch: int = 64,
    rule: str = "least_control",
    dtype: torch.dtype = torch.float32,
    samples: int = SAMPLES,
    built_in: float | None = None,
) -> dict[str, Any]:
    """Everything `circuitlab show` tells, as plain data; `bytes` are of the compiled weights with their transposes.

    Args:
        batch, rule, dtype: of the training whose memory, time and solver are predicted, under its default control.
        samples: of its epochs. built_in: seconds that building the circuit took, where that was timed.
    """
    kernels = {name: products(circuit, p, batch, dtype) for name, p in circuit.projections.items()}
    mutual = reciprocity(circuit)
    found = [_projection(circuit, p, kernels[name]) for name, p in circuit.projections.items()]
    for row in found:
        row["reciprocity"] = mutual["projections"].get(row["name"])
    stored = sum(k.bytes_ for k in kernels.values())
    random = default_control(rule) == {"pathway": "dynamic_inversion", "feedback": "random"}
    own = sum(p["bytes"] for p in found if random and p["carries"] == "rate" and p["source"] in circuit.units)
    echo = radius(circuit)
    recurrent = circuit.strongly_connected()
    time = estimate(
        circuit,
        kernels,
        krylov(circuit) if recurrent else None,
        batch=batch,
        rule=rule,
        dtype=dtype,
        samples=samples,
        building=built_in,
    )
    return {
        "circuit": circuit.name,
        "description": circuit.description,
        "seed": circuit.seed,
        "neurons": sum(p.size for p in circuit.populations.values()),
        "synapses": sum(p["synapses"] for p in found if p["kind"] == "chemical"),
        "gap_junctions": sum(p["synapses"] for p in found if p["kind"] == "electrical"),
        "bytes": stored,
        "memory": {
            "batch": batch,
            "rule": rule,
            "dtype": str(dtype).removeprefix("torch."),
            "estimated": not all(k.whole for k in kernels.values()),
            **predict(circuit, round(stored), batch=batch, rule=rule, dtype=dtype, own=round(own)).as_dict(),
        },
        "time": {"batch": batch, "rule": rule, "threads": torch.get_num_threads(), **vars(time)},
        "solver": explain(circuit, SolveSettings(), _asked(rule, batch, dtype)),
        "recurrent_groups": [list(group) for group in recurrent],
        "spectral_radius": echo.value,
        "spectral_radius_is": echo.how,
        "reciprocity": {key: mutual[key] for key in ("overall", "how", "pairs")},
        "balance": balance(circuit),
        "populations": [_population(p) for p in circuit.populations.values()],
        "projections": found,
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
        "layer": p.layer,
        "activation": p.activation if unit else None,
        "gain": p.gain if unit else None,
        "threshold": p.threshold if unit else None,
        "tau_ms": p.tau_ms if unit else None,
        "noise": None if p.noise is None else {"std": p.noise.std, "tau_ms": p.noise.tau_ms},
        "sign": p.sign,
        "controlled": p.controlled if unit else None,
    }


def _projection(circuit: Circuit, p: Projection, kernel: Products) -> dict[str, Any]:
    targets, sources = circuit.populations[p.target].size, circuit.populations[p.source].size
    count, onto, from_ = synapses(p.edges), indegrees(p.edges, targets), outdegrees(p.edges, sources)
    pairs = targets * sources
    if p.kind == "electrical" and p.source == p.target:
        # a junction is one, listed once or in both directions, and has no direction
        once = single(p)
        ends = [end[once] for end in (p.edges.source, p.edges.target)]
        onto = from_ = np.bincount(np.concatenate(ends), minlength=targets)
        count, pairs = int(once.sum()), max(1, targets * (targets - 1) // 2)
    into, out = spread(onto), spread(from_)
    mean, deviation = mean_and_deviation(p.edges.weight)
    return {
        "name": p.name,
        "source": p.source,
        "target": p.target,
        "kind": p.kind,
        "site": p.site,
        "carries": p.carries,
        "plastic": p.plastic,
        "delay_ms": p.delay_ms,
        "synapses": count,
        "density": count / pairs if p.kind == "electrical" else circuit.density(p.name),
        "indegree": into["mean"],
        "indegrees": into,
        "outdegree": out["mean"],
        "outdegrees": out,
        "weight_mean": mean,
        "weight_std": deviation,
        "kernel": kernel.name,
        "bytes": kernel.bytes_,
    }
