"""What must hold of a probe beyond the types of its keys: it records something, which the circuit and its rule have."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from circuitlab.spec.base import listed, refuse
from circuitlab.spec.combinations import AMONG, LINEAR
from circuitlab.spec.entries import Entry, Finding
from circuitlab.spec.probes import PARAMETERS, SOLUTION, STATE, WILD, ProbeSpec
from circuitlab.spec.quantities import time_text

if TYPE_CHECKING:
    from circuitlab.spec.circuit import CircuitSpec, PopulationSpec, ProjectionSpec
    from circuitlab.spec.experiment import ExperimentSpec

NO_TIME = {
    "energy_based": "its potentials descend an energy, which no delayed synapse or noise current is part of",
    "lateral_inhibition": "its interneurons follow at once, and its equations are those of the resting state",
}
"""Why some pathways have no equations in time."""
PHASELESS_RULES = ("backprop", "recurrent_backprop")
"""Rules that send the error back through W itself, whatever feedback weights there are."""
OF_NEURONS = ("units", "names")
OF_EDGES = ("edges", "source", "target")
OF_SAMPLES = ("phase", "samples", "of")


def check_probe(
    entry: Entry, circuit: CircuitSpec | None, experiment: ExperimentSpec | None
) -> Iterator[Finding]:
    """Everything that is wrong with a probe, as far as it shows without its neurons and edges."""
    spec = entry.spec
    raw = entry.raw if isinstance(entry.raw, dict) else {}
    if spec is None:
        yield from _unknown(raw, circuit)
        return
    written = set(raw)
    yield from _place(spec)
    yield from _needless(spec, written)
    yield from _along(spec, experiment)
    if spec.phase == "free" and set(spec.variables) & {"control", "controller"}:
        what = next(v for v in spec.variables if v in ("control", "controller"))
        yield ("phase",), f"there is no {what} in the free phase; allowed: controlled", ("variable",)
    if spec.names is not None and spec.units is not None:
        yield ("names",), "neurons are chosen by 'units' or by 'names', not both", ("units",)
    learned = {v for v in spec.variables if v == "updates" or v not in PARAMETERS}
    before = spec.samples != "batch" or not learned  # recorded before learning, too
    if experiment is not None and (spec.every.epochs or 0) > experiment.learn.epochs and not before:
        yield (
            ("every",),
            f"every {spec.every.text}, but the run has {_many(experiment.learn.epochs, 'epoch')}",
            (),
        )
    yield from _unknown(raw, circuit)
    if circuit is None:
        return
    for name in _exact(spec.population):
        if name in circuit.populations:
            yield from _of_population(spec, name, circuit.populations[name], circuit, experiment)
    for name in _exact(spec.projection):
        if name in circuit.projections:
            yield from _of_projection(spec, name, circuit.projections[name], circuit, experiment)


def absent(spec: ProbeSpec, circuit: CircuitSpec, experiment: ExperimentSpec) -> tuple[str, str] | None:
    """Why one population or projection of a pattern has nothing to record: the key and what is wrong, or None."""
    found: Iterator[Finding] = iter(())
    if isinstance(spec.population, str):
        found = _of_population(
            spec, spec.population, circuit.populations[spec.population], circuit, experiment
        )
    elif isinstance(spec.projection, str):
        found = _of_projection(
            spec, spec.projection, circuit.projections[spec.projection], circuit, experiment
        )
    for path, message, _ in found:
        return str(path[0]), message
    return None


def _exact(given: str | tuple[str, ...] | None) -> list[str]:
    names = [given] if isinstance(given, str) else list(given or ())
    return [name for name in names if not WILD.search(name)]


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _unknown(raw: dict[str, object], circuit: CircuitSpec | None) -> Iterator[Finding]:
    """Names of populations and projections that point nowhere."""
    for key in ("population", "projection"):
        given = raw.get(key)
        known = {} if circuit is None else getattr(circuit, f"{key}s")
        for index, name in enumerate(given if isinstance(given, list) else [given]):
            if circuit is None or not isinstance(name, str) or name in known:
                continue
            here = (key, index) if isinstance(given, list) else (key,)
            if not WILD.search(name):
                yield here, f"no {key} '{name}'{refuse(known, name)}", ()
            elif not any(fnmatchcase(one, name) for one in known):
                yield here, f"no {key}'s name is like '{name}'; there are {listed(known)}", ()


def _place(spec: ProbeSpec) -> Iterator[Finding]:
    """Whether the variables are of a population, of a projection, or of neither."""
    rests = ("population", "projection")
    if spec.population is not None and spec.projection is not None:
        yield ("projection",), "one of 'population' and 'projection' is wanted, not both", rests
        return
    for variable in spec.variables:
        if variable in SOLUTION:
            continue
        if variable in (*STATE, "bias") and spec.population is None:
            what = "the key 'population' is missing" if spec.projection is None else "a projection has none"
            yield ("variable",), f"{variable} is of the neurons of a population; {what}", rests
        elif variable == "weights" and spec.projection is None:
            yield (
                ("variable",),
                "weights are of the edges of a projection; write 'projection: NAME' (a population has 'bias')",
                rests,
            )
        elif spec.population is None and spec.projection is None:
            yield (
                ("variable",),
                f"{variable} are of a projection or a population; write 'projection: NAME' or 'population: NAME'",
                rests,
            )
    for key in rests:
        if getattr(spec, key) is not None and set(spec.variables) <= set(SOLUTION):
            yield (
                (key,),
                f"{spec.variables[0]} is of a sample's whole equilibrium; leave out '{key}'",
                ("variable",),
            )


def _needless(spec: ProbeSpec, written: set[str]) -> Iterator[Finding]:
    """Keys that nothing recorded has a use for."""
    variables = set(spec.variables)
    words = " and ".join(spec.variables)
    if spec.projection is not None:
        for key in OF_NEURONS:
            if key in written:
                yield (
                    (key,),
                    "a projection has edges; choose them by 'edges', 'source', 'target' or 'where'",
                    ("projection",),
                )
    elif spec.population is not None:
        for key in OF_EDGES:
            if key in written:
                yield (
                    (key,),
                    "a population has neurons; choose them by 'units', 'names' or 'where'",
                    ("population",),
                )
    elif variables <= set(SOLUTION):
        for key in (*OF_NEURONS, *OF_EDGES, "where"):
            if key in written:
                yield (key,), f"{words} is of a sample's whole equilibrium; leave out '{key}'", ("variable",)
    for key in OF_SAMPLES:
        if key in written and variables <= set(PARAMETERS):
            yield (key,), f"{words} are of no single sample; leave out '{key}'", ("variable",)


def _along(spec: ProbeSpec, experiment: ExperimentSpec | None) -> Iterator[Finding]:
    along = spec.along
    if along is None:
        return
    allowed = {*STATE, "residual"} if along.iterations is not None else set(STATE)
    other = next((v for v in spec.variables if v not in allowed), None)
    if other is not None:
        words = "a solver's iterations" if along.iterations is not None else "real time"
        yield (
            ("along",),
            f"{other} is not recorded along {words}; allowed: "
            + listed(name for name in (*STATE, "residual") if name in allowed),
            ("variable",),
        )
    if spec.samples == "batch":
        yield (
            ("along",),
            "the way to an equilibrium is of samples that stay the same; give their numbers, 'samples: [0, 1, 2]'",
            ("samples",),
        )
    if along.iterations is not None:
        most = along.until
        if most is not None and along.iterations > most:
            yield (
                ("along", "iterations"),
                f"every {along.iterations} iterations, but the last recorded is {most}",
                (),
            )
        elif experiment is not None:
            limit = experiment.solve.max_iterations
            for key, count in (("iterations", along.iterations), ("until", most or 0)):
                if count > limit:
                    yield (
                        ("along", key),
                        f"{count} iterations, but the solver makes at most {limit} (solve.max_iterations)",
                        (),
                    )
                    return
        return
    assert along.real_time_ms is not None
    if along.every_ms is not None:
        count = along.real_time_ms / along.every_ms
        if round(count) < 1 or abs(count - round(count)) > 1e-9 * count:
            yield (
                ("along", "every"),
                f"{time_text(along.real_time_ms)} is no multiple of {time_text(along.every_ms)}",
                ("along", "real_time"),
            )
    pathway = None if experiment is None else experiment.control.pathway
    if spec.phase == "controlled" and pathway in NO_TIME:
        yield (
            ("along",),
            f"{pathway} has no equations in time: {NO_TIME[pathway]}; allowed: along iterations, or phase free",
            ("phase",),
        )


def _of_population(
    spec: ProbeSpec,
    name: str,
    population: PopulationSpec,
    circuit: CircuitSpec,
    experiment: ExperimentSpec | None,
) -> Iterator[Finding]:
    kind = population.type
    for variable in spec.variables:
        if kind == "input" and variable not in (*SOLUTION, "rate"):
            yield (
                ("population",),
                f"'{name}' is an input, clamped to the data, and has no {variable}; allowed: rate",
                ("variable",),
            )
            return
        if variable == "apical" and kind != "pyramidal":
            yield (
                ("variable",),
                f"'{name}' is of type '{kind}' and has no apical site; allowed: soma, rate, basal, control",
                ("population",),
            )
        if variable == "controller" and kind != "output":
            yield (
                ("variable",),
                f"'{name}' is of type '{kind}', and the controller is read at outputs ({listed(circuit.outputs)})",
                ("population",),
            )
        if variable in ("bias", "updates") and population.bias is None:
            yield ("variable",), f"'{name}' has no bias", ("population",)
        elif variable == "updates" and population.bias is not None and not population.bias.plastic:
            yield (
                ("variable",),
                f"the bias of '{name}' is not plastic, so nothing updates it",
                ("population",),
            )
        if variable == "feedback_weights" and experiment is not None:
            pathway = experiment.control.pathway
            if experiment.learn.rule in PHASELESS_RULES:
                yield ("variable",), _unused(experiment), ("population",)
            elif pathway not in LINEAR:
                yield (
                    ("variable",),
                    f"{pathway} has no feedback weights Q onto neurons; those of a projection, S, may be recorded",
                    ("population",),
                )
    try:
        spec.model_copy(update={"population": name}).unit_indices(population.size)
    except ValueError as error:
        yield ("units",), str(error), ("population",)
    yield from _names(spec, name, population)


def _names(spec: ProbeSpec, name: str, population: PopulationSpec) -> Iterator[Finding]:
    if spec.names is None:
        return
    if population.names is None:
        yield ("names",), f"the neurons of '{name}' have no names; choose them by 'units'", ("population",)
        return
    known = population.names.values
    for index, neuron in enumerate(spec.names if known is not None else ()):
        assert known is not None
        if neuron in known or any(fnmatchcase(one, neuron) for one in known):
            continue
        if WILD.search(neuron):
            yield ("names", index), f"no neuron's name is like '{neuron}' in '{name}'", ("population",)
        else:
            yield (
                ("names", index),
                f"no neuron '{neuron}' in '{name}'{refuse(known, neuron)}",
                ("population",),
            )


def _unused(experiment: ExperimentSpec) -> str:
    return f"{experiment.learn.rule} sends errors back through the weights themselves; it has no feedback weights"


def _of_projection(
    spec: ProbeSpec,
    name: str,
    projection: ProjectionSpec,
    circuit: CircuitSpec,
    experiment: ExperimentSpec | None,
) -> Iterator[Finding]:
    rests = ("projection",)
    burst = projection.carries == "burst"
    if experiment is None:
        return
    feedback, rule = experiment.control.feedback, experiment.learn.rule
    if burst and (feedback != "apical" or rule in PHASELESS_RULES):
        yield (
            ("projection",),
            f"'{name}' carries bursts, which only 'feedback: apical' uses; it is idle here",
            ("variable",),
        )
        return
    for variable in spec.variables:
        if variable == "updates" and not projection.plastic:
            yield ("variable",), f"'{name}' is not plastic, so nothing updates it", rests
        elif variable == "updates" and burst and experiment.learn.feedback is None:
            yield ("variable",), f"nothing teaches the bursts of '{name}'; learn.feedback would", rests
        elif variable == "feedback_weights":
            problem = _no_feedback(name, projection, circuit, experiment)
            if problem is not None:
                yield ("variable",), problem, rests


def _no_feedback(
    name: str, projection: ProjectionSpec, circuit: CircuitSpec, experiment: ExperimentSpec
) -> str | None:
    """Why a projection has no S of its own."""
    pathway, feedback = experiment.control.pathway, experiment.control.feedback
    if experiment.learn.rule in PHASELESS_RULES:
        return _unused(experiment)
    if pathway not in AMONG:
        return f"{pathway} has no feedback weights S along projections; those of a population, Q, may be recorded"
    if feedback == "tied":
        return "under feedback 'tied' S is the transpose of the weights; record 'weights'"
    if feedback == "apical":
        bursts = [one for one, p in circuit.projections.items() if p.carries == "burst"]
        if projection.carries == "burst":
            return None
        return f"under feedback 'apical' S are the projections that carry bursts ({listed(bursts)})"
    if projection.source in circuit.inputs or projection.kind == "electrical":
        return f"no control travels back along '{name}'"
    if feedback == "kolen_pollack" and not projection.plastic:
        return f"'{name}' is frozen, so its S is its transpose; record 'weights'"
    return None
