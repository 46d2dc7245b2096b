"""Traces: which neurons a simulation records, of which variable, frame by frame as time passes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from circuitlab.errors import CircuitError
from circuitlab.record.plan import expanded, select
from circuitlab.record.probes import SYMBOLS, WORDS, write_units
from circuitlab.record.select import SelectionError, nothing
from circuitlab.record.storage import link_name
from circuitlab.spec.probes import SLICE, STATE, ProbeSpec
from circuitlab.spec.probes import VARIABLES as ALL_VARIABLES

if TYPE_CHECKING:
    from circuitlab.graph.circuit import Circuit
    from circuitlab.record.run_file import RunWriter

VARIABLES = STATE
"""What can be recorded."""
PHASE = "real time"
"""The attribute `phase` of a trace, beside `free` and `controlled` of equilibria."""


@dataclass(frozen=True, eq=False)
class Trace:
    """One variable of some neurons over time.

    Args:
        name: in the file, `<population>_<variable>`.
        unit_ids: index of each recorded neuron in its population, shape [unit]. unit_names: their names, or None.
    """

    name: str
    population: str
    variable: str
    unit_ids: np.ndarray
    unit_names: tuple[str, ...] | None

    def start(self, writer: RunWriter, every: str, samples: int, frames: int) -> None:
        """Writes what holds for all frames.

        Args:
            every: how often it is recorded, such as `10 steps`. samples: in each frame. frames: that there will be.
        """
        group = f"activity/{link_name(self.name)}"
        writer.attributes(group, every=every, of="input")
        writer.expect(group, frames)
        write_units(writer, group, self.population, self.unit_ids, self.unit_names)
        writer.put(
            f"{group}/sample_ids",
            np.arange(samples),
            units="dimensionless",
            description="[sample] number of the sample in the input",
        )

    def record(self, writer: RunWriter, step: int, time_ms: float, values: np.ndarray) -> None:
        """Adds one frame.

        Args:
            step: number of the simulation's step. time_ms: the time at it.
            values: [sample, unit].
        """
        group = f"activity/{link_name(self.name)}"
        writer.append(
            f"{group}/data",
            values,
            units="dimensionless",
            description=f"[frame, sample, unit] {WORDS[self.variable]} as time passes",
            variable=self.variable,
            symbol=SYMBOLS[self.variable],
            population=self.population,
            phase=PHASE,
        )
        writer.append(
            f"{group}/time", time_ms, units="ms", description="[frame] time since the simulation began"
        )
        writer.append(f"{group}/step", step, units="time steps", description="[frame] step of the simulation")


def plan_traces(wanted: Iterable[str], circuit: Circuit, controlled: bool) -> list[Trace]:
    """Traces from words such as `l23`, `l23:rate`, `l23:soma:0,5,10:20`, `l23:soma:AVA*`, `l*:rate`, `:rate` or
    `:soma:where layer == "L23"`.

    Args:
        wanted: population (a pattern; every one that has the variable where empty), variable (soma, of inputs rate,
            where left out), neurons by number and slice, by name or pattern, or by a condition (all where left out).
        controlled: whether there is a control to record.

    Raises:
        CircuitError: one line for each that selects nothing or something that is not there.
    """
    traces: dict[str, Trace] = {}
    problems = []
    for text in wanted:
        try:
            for trace in _planned(text, circuit, controlled):
                if trace.name in traces:
                    raise ValueError(
                        f"{trace.variable} of '{trace.population}' is asked for twice; give its neurons together"
                    )
                traces[trace.name] = trace
        except ValueError as error:
            problems.append(f"record: {text}: {error}")
    if problems:
        raise CircuitError("\n".join(problems))
    return list(traces.values())


def _planned(text: str, circuit: Circuit, controlled: bool) -> list[Trace]:
    population, _, rest = text.partition(":")
    variable, _, neurons = rest.partition(":")
    population, variable, neurons = population.strip(), variable.strip(), neurons.strip()
    if not variable:
        kind = circuit.populations[population].type if population in circuit.populations else ""
        variable = "rate" if kind == "input" else "soma"
    if variable in ALL_VARIABLES and variable not in VARIABLES:
        raise ValueError(f"a simulation has no {variable}; allowed: {', '.join(VARIABLES)}")
    if variable not in VARIABLES:
        raise ValueError(f"no variable '{variable}'; allowed: {', '.join(VARIABLES)}")
    if variable in ("control", "controller") and not controlled:
        raise ValueError(f"there is no {variable} in a free simulation; give a target to control the circuit")
    where = re.fullmatch(r"where\s+(.*)", neurons, re.DOTALL)
    if not population and neurons and where is None:
        raise ValueError("neurons are chosen in one population; name it")
    chosen = {"where": where[1]} if where else _chosen(neurons)
    try:
        spec = ProbeSpec.model_validate({"population": population or "*", "variable": variable, **chosen})
    except ValidationError as error:
        raise ValueError(str(error.errors()[0].get("ctx", {}).get("error", error))) from error
    found: list[Trace] = []
    passed: list[SelectionError] = []
    for _, single, optional in expanded("", spec, circuit):
        name = str(single.population)
        try:
            units = select(single, circuit)
        except SelectionError as error:
            if not (optional and error.absent):
                raise
            passed.append(error)
            continue
        one = circuit.populations[name]
        called = tuple(one.names[unit] for unit in units) if one.names else None
        found.append(Trace(f"{name}_{variable}", name, variable, np.array(units, dtype=np.int64), called))
    if not found:
        raise nothing(passed)
    return found


def _chosen(neurons: str) -> dict[str, list[int | str]]:
    """Neurons by numbers and slices, or by names and patterns."""
    parts = [part.strip() for part in re.split(r"[,\s]+", neurons) if part.strip()] if neurons else []
    if not parts:
        return {}
    if all(part == "all" or part.isdecimal() or SLICE.fullmatch(part) for part in parts):
        return {
            "units": [int(part) if part.isdecimal() else ":" if part == "all" else part for part in parts]
        }
    return {"names": list(parts)}
