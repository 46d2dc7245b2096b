"""The `manipulations` section of an experiment file: what is done to a circuit, by name, and what that asks
of it.

A manipulation's `kind` says what is done, and which further keys it has. Some kinds act on the graph, once,
before it is compiled; others act on the compiled circuit or its state, in a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from circuitlab.spec.base import Model, described, listed, refuse, without_none
from circuitlab.spec.combinations import CONTROLLED_RULES
from circuitlab.spec.entries import Entry, Finding, entry_of

if TYPE_CHECKING:
    from circuitlab.spec.circuit import CircuitSpec
    from circuitlab.spec.experiment import ExperimentSpec

LATER = ("lesion", "silence", "stimulate", "scale", "noise")
"""Kinds of manipulation that are not built yet."""


def _kind(value: Any) -> Any:
    if isinstance(value, str) and value in LATER:
        raise ValueError(f"the kind '{value}' is not built yet; allowed: {listed(KINDS)}")
    if isinstance(value, str) and value not in KINDS:
        raise ValueError(f"no kind of manipulation '{value}'{refuse(KINDS, value)}")
    return value


class ManipulationSpec(Model):
    """One manipulation; its `kind` says what is done and which further keys it has."""

    stand_in: ClassVar[dict[str, Any]] = {}
    """Values of required keys under which the others can be checked where one of them is wrong."""

    kind: Annotated[Literal["rewire", "clamp"], BeforeValidator(_kind)]
    """What is done."""

    @model_validator(mode="wrap")
    @classmethod
    def _by_kind(cls, data: Any, handler: Callable[[Any], Any]) -> Any:
        if cls is not ManipulationSpec or not isinstance(data, dict):
            return handler(data)
        model = cls.at(data)
        if model is cls:
            return handler({key: value for key, value in data.items() if key == "kind"})
        return model.model_validate(data)

    @classmethod
    def at(cls, data: Any) -> type[Model]:
        """The kind's own model."""
        kind = data.get("kind") if isinstance(data, dict) else None
        return KINDS.get(kind, cls) if isinstance(kind, str) else cls

    def findings(self, circuit: CircuitSpec) -> Iterator[Finding]:
        """What is wrong with the manipulation on this circuit."""
        yield from ()

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        return without_none(self.model_dump(mode="json"))


def _names(value: Any) -> tuple[str, ...] | None:
    """Names of projections; None for all."""
    if value is None or value == "all":
        return None
    if not isinstance(value, list | tuple) or not value or not all(isinstance(part, str) for part in value):
        raise ValueError(f"{described(value)} names no projections; allowed: a list of names, or all")
    return tuple(value)


def _populations(value: Any) -> tuple[str, ...]:
    """One or more names of populations."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(part, str) for part in names):
        raise ValueError(f"{described(value)} names no population; allowed: a name, or a list of names")
    return tuple(names)


def _apical(value: Any) -> Any:
    if value in ("soma", "basal"):
        raise ValueError(f"clamping the site '{value}' is not built yet; allowed: apical")
    return value


def _zero(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and value != 0:
        raise ValueError(
            f"an apical potential held at {value} would teach as a control does; only 0 is built; allowed: 0"
        )
    return value


class RewireSpec(ManipulationSpec):
    """Projections replaced by a null model: the same neurons and synapses, joined otherwise.

    Every connection keeps its weight and goes to another pair of neurons; `transpose` projections follow
    those that they are the transposes of.
    """

    stand_in: ClassVar[dict[str, Any]] = {"model": "shuffle_weights"}

    model: Literal["random", "degree_preserving", "shuffle_weights", "lattice"]
    """`random` (pairs drawn with equal chances), `degree_preserving` (every neuron keeps its in- and
    outdegree), `shuffle_weights` (the same pairs, weights permuted) or `lattice` (every neuron from its
    nearest on a ring)."""
    projections: Annotated[
        tuple[str, ...] | None, BeforeValidator(_names, json_schema_input_type=Literal["all"] | list[str])
    ] = None
    """Names of the projections that are rewired; all of them unless given."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    """Seed of the draw; the experiment's seed unless given."""

    def findings(self, circuit: CircuitSpec) -> Iterator[Finding]:
        every = self.projections is None
        names = tuple(circuit.projections) if self.projections is None else self.projections
        for index, name in enumerate(names):
            place = () if every else ("projections", index)
            otherwise = "; name the 'projections' to rewire" if every else "; leave it out"
            if name not in circuit.projections:
                yield place, f"no projection '{name}'{refuse(circuit.projections, name)}", ()
                continue
            if not every and name in names[:index]:
                yield place, f"'{name}' stands twice", ()
            projection = circuit.projections[name]
            rule = projection.connect.rule
            if rule in ("convolution", "pool"):
                what = f"'{name}' is a {rule}, whose windows say which pairs it joins, and has no null model"
                yield place, what + otherwise, ()
            elif projection.rank is not None:
                yield (
                    place,
                    f"'{name}' has a rank, which joins all pairs, and has no null model{otherwise}",
                    (),
                )
            elif projection.kernel in ("diagonal", "convolution") and self.model != "shuffle_weights":
                yield (
                    place,
                    f"'{name}' has the kernel {projection.kernel}, which holds its pairs{otherwise}",
                    (),
                )
            elif rule == "transpose" and not every:
                of = projection.connect.parameters["of"]
                yield place, f"'{name}' is the transpose of '{of}' and follows it; rewire '{of}'", ()

    def resolved(self) -> dict[str, Any]:
        return {
            **super().resolved(),
            "projections": "all" if self.projections is None else list(self.projections),
        }


class ClampSpec(ManipulationSpec):
    """A compartment held at a potential, in a window: so far the apical one of pyramidal cells, at zero.

    The apical potential is the control and the rate-coded apical input together. Held at zero, neither reaches the
    soma, psi is zero, and so is every update made of it; other populations hear no bursts from these cells.
    """

    population: Annotated[
        tuple[str, ...], BeforeValidator(_populations, json_schema_input_type=str | list[str])
    ]
    """Name of the pyramidal population, or a list of names."""
    site: Annotated[Literal["apical"], BeforeValidator(_apical)] = "apical"
    """What is held: `apical`."""
    value: Annotated[float, BeforeValidator(_zero)] = 0.0
    """The potential it is held at: 0."""
    during: Literal["training", "test", "both"] = "both"
    """When: while the circuit learns (`training`), while it is evaluated (`test`), or `both`."""

    def findings(self, circuit: CircuitSpec) -> Iterator[Finding]:
        pyramidal = [name for name, p in circuit.populations.items() if p.type == "pyramidal"]
        for name in self.population:
            if name not in circuit.populations:
                yield ("population",), f"no population '{name}'{refuse(pyramidal, name)}", ()
            elif name not in pyramidal:
                what = f"'{name}' is of type {circuit.populations[name].type} and has no apical site"
                allowed = listed(pyramidal) if pyramidal else "none in this circuit"
                yield ("population",), f"{what}; allowed: {allowed}", ()
            elif self.population.count(name) > 1:
                yield ("population",), f"'{name}' stands twice", ()
                return

    def resolved(self) -> dict[str, Any]:
        return {**super().resolved(), "population": list(self.population)}


KINDS: dict[str, type[ManipulationSpec]] = {"rewire": RewireSpec, "clamp": ClampSpec}
"""Every kind of manipulation by name."""


def check_manipulation(entry: Entry, circuit: CircuitSpec | None) -> Iterator[Finding]:
    """Findings on one manipulation; circuit is None where it could not be read."""
    spec = entry.spec
    if spec is None and isinstance(entry.raw, dict):
        kind = ManipulationSpec.at(entry.raw)
        if issubclass(kind, ManipulationSpec):
            spec = entry_of(ManipulationSpec, {**entry.raw, **kind.stand_in}).spec
    if circuit is not None and isinstance(spec, tuple(KINDS.values())):
        yield from spec.findings(circuit)


def check_clamps(spec: ExperimentSpec, manipulations: Any) -> Iterator[Finding]:
    """Findings on an experiment with clamps, which take away what credit travels by.

    Args:
        manipulations: that section of the file as it was written.
    """
    for name, raw in manipulations.items() if isinstance(manipulations, dict) else ():
        if not isinstance(raw, dict) or raw.get("kind") != "clamp":
            continue
        place = ("manipulations", name)
        if spec.learn.rule not in CONTROLLED_RULES:
            yield (
                place,
                f"the credit of {spec.learn.rule} is not delivered at apical sites, so a clamp would not hold it; "
                f"allowed rules: {listed(CONTROLLED_RULES)}",
                ("learn",),
            )
        if spec.control.pathway != "dynamic_inversion":
            yield (
                place,
                f"clamps under the pathway {spec.control.pathway} are not built yet; allowed: dynamic_inversion",
                ("control",),
            )
        if spec.solve.check_energy is not None:
            yield place, "equilibria under a clamp have no energy; leave out solve.check_energy", ("solve",)
