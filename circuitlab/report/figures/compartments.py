"""Compartments of single neurons as they were recorded together: soma, basal, apical, control."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import RunFileError
from circuitlab.record.reader import Run
from circuitlab.report.figures.base import (
    Choice,
    chosen_population,
    columns_of,
    example,
    neuron_ids,
    refuse,
)
from circuitlab.report.figures.recorded import UNITS, Recorded, evenly, of_neurons, populations, with_ends

LEFT, RIGHT = ("soma", "basal", "rate"), ("apical", "control", "controller")
"""Variables of the two columns: potentials, and what teaches."""
ROWS = 3
"""Samples with a row of their own, at most."""


@dataclass(frozen=True, eq=False)
class Group:
    """Recordings of the same neurons, samples and frames: the compartments of a population, by variable."""

    population: str
    parts: dict[str, Recorded]

    @property
    def one(self) -> Recorded:
        """Any of them: they share everything but the values."""
        return self.parts.get("soma") or next(iter(self.parts.values()))

    @property
    def driver(self) -> str | None:
        """The variable at the right: what teaches."""
        return next((v for v in RIGHT if v in self.parts), None)


@dataclass(frozen=True, eq=False)
class Traces:
    """What is drawn of one neuron.

    Args:
        at: along the lower axis, [point]. values: by variable, [point, sample]. name: of the lower axis.
    """

    name: str
    at: NDArray
    values: dict[str, NDArray]

    @property
    def gap(self) -> NDArray | None:
        """soma - basal, [point, sample]: the control."""
        if "soma" in self.values and "basal" in self.values:
            return self.values["soma"] - self.values["basal"]
        return None


def groups(run: Run, population: str | None = None) -> list[Group]:
    """What was recorded together, those first that hold most compartments over most frames."""
    found: dict[tuple, dict[str, Recorded]] = {}
    for r in of_neurons(run):
        if r.variable not in (*LEFT, *RIGHT) or (population is not None and r.population != population):
            continue
        key = (
            r.population,
            r.phase,
            r.dims,
            tuple(r.sizes.values()),
            r.unit_ids.tobytes(),
            r.sample_ids.tobytes(),
            r.frames[1].tobytes(),
        )
        found.setdefault(key, {}).setdefault(r.variable, r)
    made = [Group(key[0], parts) for key, parts in found.items()]

    known = populations(run)

    def rank(group: Group) -> tuple:
        one = group.one
        three = "soma" in group.parts and "basal" in group.parts
        teaches = bool({"control", "apical"} & set(group.parts))
        return (
            not (three and teaches),
            str(known.get(group.population, {}).get("type", "")) == "output",
            -len(group.parts),
            "point" in one.dims,
            one.phase == "free",
            not one.fixed,
            -one.sizes.get("frame", 1),
        )

    return sorted(made, key=rank)


def group_of(kind: str, run: Run, choice: Choice) -> tuple[Group, int]:
    """What was recorded of the neuron asked for, and its column; without a number, of the one driven most.

    Args:
        kind: of the figure, for the refusal.

    Raises:
        RunFileError: nothing was recorded of single neurons, or not of this one.
    """
    population = chosen_population(kind, run, choice)
    found = groups(run, population)
    if not found:
        of = f" of '{population}'" if population else " of single neurons"
        one = example(run, "soma", ", samples: [0, 1, 2], of: test", population)
        raise refuse(
            kind,
            run,
            f"has no recorded potentials{of}",
            f"add probes of soma, basal and apical such as {one}",
        )
    if not choice.neurons:
        return found[0], most_driven(found[0])
    names = sorted({g.population for g in found})
    if population is None and len(names) > 1:
        raise RunFileError(
            f"--neuron: of which population? Add --population; recorded are {', '.join(names)}"
        )
    numbers = neuron_ids(run, found[0].population, choice.neurons)
    if len(numbers) > 1:
        raise RunFileError("--neuron: one neuron is shown at a time; give it once")
    group = next((g for g in found if numbers[0] in g.one.unit_ids), found[0])
    return group, columns_of(group.one, group.population, numbers)[0]


def most_driven(group: Group) -> int:
    """Column of the neuron with the largest mean control early on; of the soma's movement where none was recorded."""
    one = group.one
    at: dict = {
        "unit": evenly(one.sizes["unit"], UNITS),
        "sample": evenly(one.sizes["sample"], 50),
    }
    if "frame" in one.dims:
        count = one.sizes["frame"]
        at["frame"] = np.arange(0, max(1, count // 4), max(1, count // 80)) if "point" not in one.dims else 0
        if one.phase == "real time":
            at["frame"] = with_ends(count, 40)
    if "point" in one.dims:
        at["point"] = with_ends(one.sizes["point"], 20)
    if group.driver is not None:
        values = np.abs(group.parts[group.driver].read(**at))
    elif "basal" in group.parts and "soma" in group.parts:
        values = np.abs(group.parts["soma"].read(**at) - group.parts["basal"].read(**at))
    else:
        values = np.abs(one.read(**at))
    strength = np.nan_to_num(values).reshape(-1, values.shape[-1]).mean(0)
    return int(at["unit"][strength.argmax()])


def strength_of(group: Group, values: dict[str, NDArray]) -> NDArray:
    """Mean size of what drives a neuron early in training, [sample]; of a simulation over all its time.

    Args:
        values: by variable, [frame, sample].
    """
    driver = group.driver
    if driver is not None:
        early = values[driver]
    elif "soma" in values and "basal" in values:
        early = values["soma"] - values["basal"]
    else:
        early = next(iter(values.values()))
    count = len(early) if group.one.phase == "real time" else max(1, len(early) // 4)
    return np.abs(np.nan_to_num(early[:count])).mean(0)


def rows_of(one: Recorded, samples: NDArray, choice: Choice, strength: NDArray) -> list[int]:
    """Which of the samples read have a row."""
    if choice.samples:
        return list(range(min(ROWS, len(samples))))
    labels = None if one.labels is None else one.labels[samples]
    candidates = np.arange(len(samples)) if labels is None else np.unique(labels, return_index=True)[1]
    strongest = candidates[np.argsort(-strength[candidates], kind="stable")[:ROWS]]
    return sorted(strongest.tolist())
