"""The `record` section of an experiment file: which neurons are recorded, in which samples, how often."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from circuitlab.spec.base import MAX_INT, Model, described, without_none
from circuitlab.spec.quantities import count_of, count_text

Count = Annotated[int, Field(ge=1, le=MAX_INT)]
SLICE = re.compile(r"(-?\d*):(-?\d*)(?::(-?[1-9]\d*)?)?")
UNITS_SCHEMA = Literal["all"] | Annotated[int, Field(ge=0)] | str | list[Annotated[int, Field(ge=0)] | str]


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


def _units(value: Any) -> tuple[int | str, ...] | None:
    """Selected neurons: numbers from 0 and slices `10:20`; None for all."""
    if value is None or value == "all":
        return None
    parts = value if isinstance(value, list | tuple) else [value]
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, int | str):
            raise ValueError(
                f"{described(part)} selects no neuron; allowed: numbers from 0, slices such as '10:20', all"
            )
        if isinstance(part, str) and not SLICE.fullmatch(part):
            raise ValueError(
                f"{described(part)} selects no neuron; allowed: numbers from 0, slices such as '10:20', all"
            )
        if isinstance(part, int) and part < 0:
            raise ValueError(f"{part} selects no neuron; neurons are counted from 0")
    return tuple(parts)


def _samples(value: Any) -> Literal["batch"] | tuple[int, ...]:
    if value == "batch":
        return "batch"
    if isinstance(value, list | tuple) and value and all(type(part) is int and part >= 0 for part in value):
        return tuple(value)
    raise ValueError(
        f"{described(value)} selects no samples; allowed: batch, or a list of sample numbers from 0"
    )


class ProbeSpec(Model):
    """One recording: a variable of a population's neurons."""

    population: str
    """The population recorded from."""
    variable: Literal["soma", "rate", "basal", "apical", "control", "controller"]
    """What is recorded; `apical` on pyramidal populations, `controller` on outputs."""
    units: Annotated[
        tuple[int | str, ...] | None, BeforeValidator(_units, json_schema_input_type=UNITS_SCHEMA)
    ] = None
    """Which neurons: numbers from 0 and slices, `[0, 5, 10:20]`; all unless given."""
    names: (
        Annotated[tuple[str, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] | None
    ) = None
    """Which neurons, by name, in place of `units`."""
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

    def unit_indices(self, size: int) -> list[int]:
        """The selected neurons of a population of `size`, each once, in the order written.

        Raises:
            ValueError: a number beyond the population, or nothing selected; the text says which.
        """
        chosen: dict[int, None] = {}
        for part in self.units if self.units is not None else (":",):
            if isinstance(part, int):
                if part >= size:
                    raise ValueError(f"no neuron {part}; '{self.population}' has {size}, counted from 0")
                chosen[part] = None
                continue
            match = SLICE.fullmatch(part)
            assert match is not None
            start, stop, step = (int(text) if text else None for text in match.groups())
            if max(start or 0, stop or 0) > size:
                raise ValueError(f"'{part}' goes beyond the {size} neurons of '{self.population}'")
            chosen.update(dict.fromkeys(range(size)[slice(start, stop, step)]))
        if not chosen:
            raise ValueError(f"no neuron is selected; '{self.population}' has {size}")
        return list(chosen)

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        data = without_none(self.model_dump(mode="json"))
        units = {} if self.names is not None else {"units": "all" if self.units is None else list(self.units)}
        return {**data, **units, "every": self.every.text}
