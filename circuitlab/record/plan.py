"""From the words of `record` to probes: every variable, neuron and edge found, or a line that says why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import CircuitError, suggestion
from circuitlab.record.probes import Probe
from circuitlab.record.select import SelectionError, edges, matching, neurons, nothing
from circuitlab.spec.probes import PARAMETERS, SOLUTION, WILD, ProbeSpec

if TYPE_CHECKING:
    from circuitlab.graph.circuit import Circuit, Population
    from circuitlab.spec.probes import AlongSpec

MOST_POINTS = 1_000_000
"""Moments of one way to an equilibrium."""
Lacks = Callable[[ProbeSpec], tuple[str, str] | None]


def select(spec: ProbeSpec, circuit: Circuit) -> list[int]:
    """The neurons that a probe selects, by their number in its population.

    Raises:
        ValueError: there is no such population, neuron or variable; the text says which.
    """
    return neurons(spec, _population(spec, circuit))


def _population(spec: ProbeSpec, circuit: Circuit) -> Population:
    name = str(spec.population)
    if name not in circuit.populations:
        near = suggestion(name, circuit.populations)
        raise SelectionError(
            "population", f"no population '{name}'; there are {', '.join(circuit.populations)}.{near}"
        )
    population, variable = circuit.populations[name], spec.variables[0]
    wanted = {"apical": "pyramidal", "controller": "output"}.get(variable, population.type)
    inputs = population.type == "input" and variable != "rate"
    bias = variable in ("bias", "updates") and population.bias is None
    if wanted != population.type or inputs or bias:
        raise SelectionError(
            "variable", f"'{name}' is of type {population.type} and has no {variable}", absent=True
        )
    if variable == "updates" and not population.bias_plastic:
        raise SelectionError("variable", f"the bias of '{name}' is not plastic", absent=True)
    return population


def expanded(name: str, spec: ProbeSpec, circuit: Circuit) -> Iterator[tuple[str, ProbeSpec, bool]]:
    """The single recordings that an entry of `record` stands for: their names and settings, and whether one may be
    left out, because only a pattern names it."""
    many = not isinstance(spec.variable, str)
    for variable in spec.variables:
        named = f"{name}_{variable}" if many else name
        if variable in SOLUTION:
            yield named, _one(spec, variable, None, None), False
            continue
        kind = "population" if spec.projection is None else "projection"
        given = spec.population if spec.projection is None else spec.projection
        known = list(circuit.populations if kind == "population" else circuit.projections)
        patterns = (given,) if isinstance(given, str) else given or ()
        places, missing = matching(known, patterns)
        if missing:
            near = suggestion(missing[0], known)
            raise SelectionError(kind, f"no {kind} '{missing[0]}'; there are {', '.join(known)}.{near}")
        wild = any(WILD.search(pattern) and pattern not in known for pattern in patterns)
        several = len(places) > 1 or not isinstance(given, str) or wild
        for place in places:
            own = named if not several else f"{name}_{place}" + (f"_{variable}" if many else "")
            pair = (place, None) if kind == "population" else (None, place)
            yield own, _one(spec, variable, *pair), wild


def _one(spec: ProbeSpec, variable: str, population: str | None, projection: str | None) -> ProbeSpec:
    return spec.model_copy(update={"variable": variable, "population": population, "projection": projection})


def _plan(
    name: str,
    spec: ProbeSpec,
    circuit: Circuit,
    batch_size: int,
    sizes: Mapping[str, int],
    most_iterations: int,
) -> Probe:
    variable = spec.variables[0]
    samples = 0
    if variable not in PARAMETERS:
        total = sizes.get(spec.of, 0)
        if spec.samples != "batch" and max(spec.samples) >= total:
            raise SelectionError(
                "samples",
                f"no sample {max(spec.samples)}; there are {total} {spec.of} samples, counted from 0",
            )
        samples = batch_size if spec.samples == "batch" else len(spec.samples)
    points = None if spec.along is None else points_of(spec.along, most_iterations)
    none = np.array([], dtype=np.int64)
    if variable in SOLUTION:
        return Probe(name, spec, none, None, samples, points=points)
    if spec.projection is not None:
        projection = circuit.projections[str(spec.projection)]
        if variable == "updates" and projection.rank is not None:
            raise SelectionError(
                "variable",
                f"the updates of '{projection.name}' are those of two thin factors (rank: {projection.rank}), not of "
                "its edges; record 'weights'",
                absent=True,
            )
        if variable == "updates" and not projection.plastic:
            raise SelectionError("variable", f"'{projection.name}' is not plastic", absent=True)
        found, shared = edges(spec, circuit, projection), projection.edges.parameter_index
        parameters = None
        if shared is not None and variable != "feedback_weights":
            used = shared[found]
            parameters = used[np.sort(np.unique(used, return_index=True)[1])].astype(np.int64)
        return Probe(name, spec, none, None, 0, found, parameters)
    population = _population(spec, circuit)
    units = neurons(spec, population)
    names = tuple(population.names[unit] for unit in units) if population.names else None
    outputs = sum(circuit.populations[output].size for output in circuit.outputs)
    targets = outputs if variable == "feedback_weights" else 0
    ids = np.array(units, dtype=np.int64)
    return Probe(name, spec, ids, names, samples, targets=targets, points=points)


def points_of(along: AlongSpec, most_iterations: int) -> NDArray:
    """Iterations, or times in ms, at which the way to an equilibrium is recorded, shape [point].

    Args:
        most_iterations: of the solver.
    """
    if along.iterations is not None:
        return np.arange(0, (along.until or most_iterations) + 1, along.iterations)
    assert along.real_time_ms is not None
    count = 100 if along.every_ms is None else round(along.real_time_ms / along.every_ms)
    if count > MOST_POINTS:
        raise SelectionError("along", f"{count:,} moments; at most {MOST_POINTS:,}")
    return along.real_time_ms * np.arange(count + 1) / count


def plan_probes(
    specs: Mapping[str, ProbeSpec],
    circuit: Circuit,
    *,
    batch_size: int,
    sizes: Mapping[str, int],
    steps: int,
    epochs: int,
    most_iterations: int = 500,
    lacks: Lacks = lambda spec: None,
) -> list[Probe]:
    """The probes of an experiment, with their neurons and edges found.

    Args:
        specs: the experiment's `record`.
        sizes: number of samples of train, validation and test.
        steps, epochs: length of the run, in updates and epochs.
        most_iterations: of the solver.
        lacks: why a single recording has nothing to record, its key and the reason, or None.
    Raises:
        CircuitError: a probe selects nothing or something that is not there; one line per probe.
    """
    probes: dict[str, Probe] = {}
    problems = []
    for name, spec in specs.items():
        found, passed = 0, list[SelectionError]()
        try:
            for own, single, optional in expanded(name, spec, circuit):
                try:
                    reason = lacks(single)
                    if reason is not None:
                        raise SelectionError(*reason, absent=reason[0] not in ("units", "names"))
                    probe = _plan(own, single, circuit, batch_size, sizes, most_iterations)
                except SelectionError as error:
                    if not (optional and error.absent):
                        raise
                    passed.append(error)
                    continue
                if own in probes:
                    raise SelectionError(
                        "", f"two probes would be called '{own}'; call one of them otherwise"
                    )
                frames = probe.frames(steps, epochs)
                if frames == 0:
                    raise SelectionError(
                        "every",
                        f"every {spec.every.text}, but the run has {epochs} epochs of {steps} updates in all",
                    )
                if (spec.every.steps or 0) > steps:
                    raise SelectionError("every", f"every {spec.every.text}, but the run has {steps} updates")
                probes[own] = replace(probe, expected=frames)
                found += 1
            if not found:
                raise nothing(passed)
        except SelectionError as error:
            where = f"record.{name}.{error.key}" if error.key else f"record.{name}"
            problems.append(f"{where}: {error}")
    if problems:
        raise CircuitError("\n".join(problems))
    return list(probes.values())
