"""Small random circuits for theorems, built without files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from circuitlab.graph.circuit import Circuit, Population, Projection
from circuitlab.graph.edges import Edges


def edges(source, target, weight) -> Edges:
    order = np.lexsort((source, target))
    source, target, weight = (np.asarray(a)[order] for a in (source, target, weight))
    return Edges(
        source.astype(np.int32), target.astype(np.int32), weight.astype(float), np.ones(len(source), np.int32)
    )


def sparse(rng, targets, sources, p, scale, sign=0) -> Edges:
    """Every pair with probability p (at least one edge), normal weights, or of one sign."""
    mask = rng.random((targets, sources)) < p
    mask[0, 0] = True
    t, s = np.nonzero(mask)
    w = scale * rng.standard_normal(len(t)) / np.sqrt(max(p * sources, 1))
    return edges(s, t, np.abs(w) * sign if sign else w)


def population(name, type_, size, **options) -> Population:
    bias = options.pop("bias", None)
    if type_ == "output":
        options.setdefault("activation", "linear")
    return Population(name, type_, size, bias=bias, **options)


def projection(
    name, source, target, e, site="soma", carries="rate", kernel="auto", plastic=True
) -> Projection:
    return Projection(name, source, target, site, carries, plastic, kernel, e)


def circuit(populations, projections) -> Circuit:
    return Circuit("small", "", 0, {p.name: p for p in populations}, {p.name: p for p in projections})


def shifted(base: Circuit, seed: int = 3) -> Circuit:
    """The circuit with a gain and a threshold of its own on every population that is no input."""
    rng = np.random.default_rng(seed)
    pops = [
        p
        if p.type == "input"
        else replace(p, gain=float(rng.uniform(0.6, 1.6)), threshold=float(rng.uniform(-0.4, 0.4)))
        for p in base.populations.values()
    ]
    return circuit(pops, list(base.projections.values()))


def conductance(rng, targets, sources, p=0.5, scale=0.6, both=False) -> Edges:
    """Gap junctions between two populations, or in one population of this size: each pair once or both ways."""
    mask = rng.random((targets, sources)) < p
    if both:
        mask = np.triu(mask) | np.triu(mask).T
    g = scale * rng.random((targets, sources))
    t, s = np.nonzero(mask)
    return edges(s, t, np.triu(g)[np.minimum(t, s), np.maximum(t, s)] if both else g[t, s])


def with_junctions(base: Circuit, pairs, seed: int = 5, plastic: bool = True, **options) -> Circuit:
    """The circuit with gap junctions between pairs of populations: (source, target), or one twice."""
    rng, sizes = np.random.default_rng(seed), {n: p.size for n, p in base.populations.items()}
    made = []
    for source, target in pairs:
        e = conductance(rng, sizes[target], sizes[source], **options)
        if source == target and not options.get("both"):
            e = once(e)
        made.append(
            replace(
                projection(f"{source}_{target}_gap", source, target, e, plastic=plastic), kind="electrical"
            )
        )
    return circuit(list(base.populations.values()), [*base.projections.values(), *made])


def once(e: Edges) -> Edges:
    """Edges of one population without those whose pair is listed before; a neuron's own stays."""
    kept = [
        n
        for n in range(len(e))
        if not any((e.source[k], e.target[k]) == (e.target[n], e.source[n]) for k in range(n))
    ]
    return edges(e.source[kept], e.target[kept], e.weight[kept])


def random_circuit(
    seed=0, *, p=0.6, dale=False, outputs=(3,), hidden=7, activation="tanh", gain=0.8
) -> Circuit:
    """Input 4, two hidden populations (pyramidal with apical rate input, interneuron), any outputs, all recurrent."""
    rng = np.random.default_rng(seed)
    sign_e, sign_i = (1, -1) if dale else (0, 0)
    labels = {1: "excitatory", -1: "inhibitory", 0: None}
    pops = [
        population("x", "input", 4, activation="linear"),
        population(
            "e",
            "pyramidal",
            hidden,
            activation=activation,
            sign=labels[sign_e],
            bias=0.1 * rng.standard_normal(hidden),
        ),
        population(
            "i",
            "interneuron",
            4,
            activation="softplus" if dale else activation,
            sign=labels[sign_i],
            bias=0.1 * rng.standard_normal(4),
        ),
    ]
    projs = [
        projection("x_e", "x", "e", sparse(rng, hidden, 4, p, 1.0), site="basal"),
        projection("e_e", "e", "e", sparse(rng, hidden, hidden, p, gain * 0.7, sign_e), site="basal"),
        projection("e_i", "e", "i", sparse(rng, 4, hidden, p, gain, sign_e)),
        projection("i_e", "i", "e", sparse(rng, hidden, 4, p, gain, sign_i), site="apical"),
        projection("i_e_soma", "i", "e", sparse(rng, hidden, 4, p, gain, sign_i), site="soma"),
    ]
    for k, size in enumerate(outputs):
        pops.append(population(f"y{k}", "output", size, bias=0.1 * rng.standard_normal(size)))
        projs.append(projection(f"e_y{k}", "e", f"y{k}", sparse(rng, size, hidden, 0.9, 1.0, sign_e)))
    return circuit(pops, projs)
