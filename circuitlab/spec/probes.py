"""The `record` section of an experiment file: what is recorded, of which neurons or edges, in which samples, how
often, at equilibrium or on the way to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from circuitlab.errors import suggestion
from circuitlab.spec.base import MAX_INT, Model, described, listed, without_none
from circuitlab.spec.quantities import Milliseconds, count_of, count_text, time_text
from circuitlab.spec.where import condition

Count = Annotated[int, Field(ge=1, le=MAX_INT)]
SLICE = re.compile(r"(-?\d*):(-?\d*)(?::(-?[1-9]\d*)?)?")
UNITS_SCHEMA = Literal["all"] | Annotated[int, Field(ge=0)] | str | list[Annotated[int, Field(ge=0)] | str]

Variable = Literal[
    "soma",
    "rate",
    "basal",
    "apical",
    "control",
    "controller",
    "bias",
    "residual",
    "iterations",
    "converged",
    "weights",
    "updates",
    "feedback_weights",
]
STATE = ("soma", "rate", "basal", "apical", "control", "controller")
"""Variables of neurons in each sample."""
SOLUTION = ("residual", "iterations", "converged")
"""Variables of a sample's equilibrium as a whole."""
PARAMETERS = ("bias", "weights", "updates", "feedback_weights")
"""Variables that no sample has of its own."""
VARIABLES = (*STATE, "bias", *SOLUTION, "weights", "updates", "feedback_weights")
WILD = re.compile(r"[*?[]")
"""What makes a name a pattern, as in a shell."""


class EverySpec(Model):
    """How often something is recorded; one of the two."""

    steps: Count | None = None
    """Every so many updates."""
    epochs: Count | None = None
    """At the end of every so many epochs."""

    @property
    def text(self) -> str:
        """As it is written in the file: `50 steps`."""
        return count_text(self.steps, "steps") if self.steps else count_text(self.epochs or 1, "epochs")


def _every(value: Any) -> Any:
    if isinstance(value, dict | EverySpec):
        if isinstance(value, dict) and len(value) != 1:
            raise ValueError("one of 'steps' and 'epochs' is wanted; write '50 steps' or '1 epoch'")
        return value
    count, unit = count_of(value, ("steps", "epochs"))
    return {unit: count}


class AlongSpec(Model):
    """The way to an equilibrium: the solver's own, or that of real time; one of the two."""

    iterations: Count | None = None
    """Every so many iterations of the solver."""
    until: Count | None = None
    """The last iteration recorded; `solve.max_iterations` unless given."""
    real_time_ms: Milliseconds | None = Field(default=None, alias="real_time")
    """How long the circuit is simulated, such as `100 ms`."""
    every_ms: Milliseconds | None = Field(default=None, alias="every")
    """Time between two recorded moments of real time; a hundredth of it unless given."""
    dt_ms: Milliseconds | None = Field(default=None, alias="dt")
    """Time step of the simulation; at most a tenth of the shortest time constant unless given."""

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        times = {"real_time": self.real_time_ms, "every": self.every_ms, "dt": self.dt_ms}
        counts = {"iterations": self.iterations, "until": self.until}
        return without_none(
            {**counts, **{key: None if ms is None else time_text(ms) for key, ms in times.items()}}
        )


def _along(value: Any) -> Any:
    if value == "equilibrium":
        return None
    if not isinstance(value, dict | AlongSpec | None):
        raise ValueError(
            f"{described(value)} is no way to an equilibrium; write equilibrium, {{iterations: 5}} or "
            "{real_time: 100 ms, every: 1 ms}"
        )
    if isinstance(value, dict) and ("iterations" in value) == ("real_time" in value):
        raise ValueError("one of 'iterations' and 'real_time' is wanted")
    for way, keys in (("iterations", ("every", "dt")), ("real_time", ("until",))):
        for key in keys:
            if isinstance(value, dict) and way in value and key in value:
                raise ValueError(f"'{key}' does not go with '{way}'")
    return value


def _parts(what: str, words: bool) -> Callable[[Any], tuple[int | str, ...] | None]:
    """Reads numbers from 0, slices `10:20`, and names where `words` says so; None for all."""
    allowed = "numbers from 0, slices such as '10:20', " + ("names, " if words else "") + "all"

    def read(value: Any) -> tuple[int | str, ...] | None:
        if value is None or value == "all":
            return None
        parts = value if isinstance(value, list | tuple) else [value]
        for part in parts:
            if isinstance(part, bool) or not isinstance(part, int | str) or part == "":
                raise ValueError(f"{described(part)} selects no {what}; allowed: {allowed}")
            if isinstance(part, str) and not words and not SLICE.fullmatch(part):
                raise ValueError(f"{described(part)} selects no {what}; allowed: {allowed}")
            if isinstance(part, int) and part < 0:
                raise ValueError(f"{part} selects no {what}; {what}s are counted from 0")
        return tuple(parts)

    return read


def _samples(value: Any) -> Literal["batch"] | tuple[int, ...]:
    if value == "batch":
        return "batch"
    if isinstance(value, list | tuple) and value and all(type(part) is int and part >= 0 for part in value):
        return tuple(value)
    raise ValueError(
        f"{described(value)} selects no samples; allowed: batch, or a list of sample numbers from 0"
    )


def _variables(value: Any) -> Any:
    parts = value if isinstance(value, list | tuple) else [value]
    for part in parts:
        if part not in VARIABLES or not isinstance(part, str):
            near = suggestion(part, VARIABLES) if isinstance(part, str) else ""
            raise ValueError(
                f"{described(part)} is not allowed; allowed: {listed(VARIABLES)}{'.' if near else ''}{near}"
            )
    if not parts or len(set(parts)) < len(parts):
        raise ValueError("each variable is named once, and at least one is")
    return tuple(parts) if isinstance(value, list | tuple) else value


def _names(value: Any) -> Any:
    """One name, or several as a tuple."""
    if not isinstance(value, list | tuple):
        return value
    if not value or not all(isinstance(part, str) for part in value):
        raise ValueError("a name, or a list of names, is wanted")
    return tuple(value)


def _condition(text: str | None) -> str | None:
    if text is not None:
        condition(text)
    return text


def range_of(part: str, size: int) -> range:
    """The numbers of a slice such as `10:20`.

    Raises:
        ValueError: it goes beyond `size`.
    """
    match = SLICE.fullmatch(part)
    assert match is not None
    start, stop, step = (int(text) if text else None for text in match.groups())
    if max(start or 0, stop or 0) > size:
        raise ValueError(f"'{part}' goes beyond")
    return range(size)[slice(start, stop, step)]


Names = Annotated[str | tuple[str, ...], BeforeValidator(_names, json_schema_input_type=str | list[str])]
Neurons = Annotated[
    tuple[int | str, ...] | None,
    BeforeValidator(_parts("neuron", words=True), json_schema_input_type=UNITS_SCHEMA),
]


class ProbeSpec(Model):
    """One recording: a variable of a population's neurons, of a projection's edges, or of the equilibrium itself.

    A list of variables, or populations by a pattern, makes one recording of each, named after it.
    """

    population: Names | None = None
    """The population recorded from; a list, or a pattern such as `l*`, makes one recording of each."""
    projection: Names | None = None
    """The projection whose weights, updates or feedback weights are recorded, in place of a population."""
    variable: Annotated[
        Variable | tuple[Variable, ...],
        BeforeValidator(_variables, json_schema_input_type=Variable | list[Variable]),
    ]
    """What is recorded; a list makes one recording of each."""
    units: Annotated[
        tuple[int | str, ...] | None,
        BeforeValidator(_parts("neuron", words=False), json_schema_input_type=UNITS_SCHEMA),
    ] = None
    """Which neurons: numbers from 0 and slices, `[0, 5, 10:20]`; all unless given."""
    names: (
        Annotated[tuple[str, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] | None
    ) = None
    """Which neurons, by name or by patterns such as `AVA*`, in place of `units`."""
    edges: Annotated[
        tuple[int | str, ...] | None,
        BeforeValidator(_parts("edge", words=False), json_schema_input_type=UNITS_SCHEMA),
    ] = None
    """Which edges of the projection: numbers from 0 and slices; all unless given."""
    source: Neurons = None
    """Only edges from these neurons: numbers, slices, names or patterns."""
    target: Neurons = None
    """Only edges onto these neurons: numbers, slices, names or patterns."""
    where: Annotated[str, AfterValidator(_condition)] | None = None
    """Only neurons, or edges, for which this holds, such as `layer == "L23"`."""
    phase: Literal["controlled", "free"] = "controlled"
    """Which equilibrium is recorded."""
    samples: Annotated[
        Literal["batch"] | tuple[int, ...],
        BeforeValidator(
            _samples, json_schema_input_type=Literal["batch"] | list[Annotated[int, Field(ge=0)]]
        ),
    ] = "batch"
    """Samples of the current minibatch, or a list of sample numbers from 0."""
    of: Literal["train", "validation", "test"] = "train"
    """Which part of the data the sample numbers count in."""
    every: Annotated[EverySpec, BeforeValidator(_every, json_schema_input_type=EverySpec | str)] = EverySpec(
        epochs=1
    )
    """How often, such as `50 steps` or `1 epoch`."""
    along: Annotated[
        AlongSpec | None,
        BeforeValidator(_along, json_schema_input_type=AlongSpec | Literal["equilibrium"]),
    ] = None
    """At the `equilibrium`, or on the way to it: `{iterations: 5}`, or `{real_time: 100 ms, every: 1 ms}`."""

    @property
    def variables(self) -> tuple[str, ...]:
        """What is recorded, one or several."""
        return (self.variable,) if isinstance(self.variable, str) else self.variable

    def unit_indices(self, size: int) -> list[int]:
        """The selected neurons of a population of `size`, each once, in the order written.

        Raises:
            ValueError: a number beyond the population, or nothing selected; the text says which.
        """
        return indices(self.units, size, "neuron", f"'{self.population}'", "neurons of ")

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        data = without_none(self.model_dump(mode="json", exclude={"along"}))
        only = set(self.variables)
        units = {} if self.names is not None else {"units": "all" if self.units is None else list(self.units)}
        if self.projection is not None or only <= set(SOLUTION):
            units = {}
        if only <= set(PARAMETERS):
            for key in ("phase", "samples", "of"):
                del data[key]
        along = {} if self.along is None else {"along": self.along.resolved()}
        return {**data, **units, "every": self.every.text, **along}


def indices(parts: tuple[int | str, ...] | None, size: int, what: str, of: str, whose: str = "") -> list[int]:
    """Numbers that a list of numbers and slices selects, each once, in the order written; all where None.

    Args:
        size: of what is selected from. what, of, whose: words for messages, such as `neuron`, `'l23'`, `neurons of `.

    Raises:
        ValueError: a number beyond `size`, or nothing selected; the text says which.
    """
    chosen: dict[int, None] = {}
    for part in parts if parts is not None else (":",):
        if isinstance(part, int):
            if part >= size:
                raise ValueError(f"no {what} {part}; {of} has {size}, counted from 0")
            chosen[part] = None
            continue
        try:
            chosen.update(dict.fromkeys(range_of(part, size)))
        except ValueError as error:
            raise ValueError(f"{error} the {size} {whose}{of}") from error
    if not chosen:
        raise ValueError(f"no {what} is selected; {of} has {size}")
    return list(chosen)
