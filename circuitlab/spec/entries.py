"""Parts of a file read as far as they can be, so that a mistake in one place hides none in another."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from circuitlab.spec.base import Model, failing
from circuitlab.spec.source import Place, Source, lookup

Finding = tuple[Place, str, tuple[str, ...]]
"""Where in the entry, what is wrong, and which of its keys the verdict rests on."""


@dataclass(frozen=True)
class Entry:
    """Part of a file: as written, as read (None where it cannot be), and the places in it that were wrong."""

    raw: Any
    spec: Any
    unsure: frozenset[Place]

    @property
    def keys(self) -> set[str]:
        """The keys of this part that hold a mistake."""
        return {str(place[0]) if place else "" for place in self.unsure}


def entry_of(model: type[Model], raw: Any) -> Entry:
    """Read a part as far as possible: unknown keys are passed over, wrong values take their defaults."""
    try:
        return Entry(raw, model.model_validate(raw), frozenset())
    except ValidationError as error:
        wrong, unknown = failing(error)
    places = {_written(raw, place) for place in wrong}
    for attempt in (places, {place[:1] for place in places}):
        pruned = copy.deepcopy(raw)
        for place in (*unknown, *attempt):
            _drop(pruned, place)
        try:
            return Entry(raw, model.model_validate(pruned), frozenset(attempt))
        except ValidationError:
            continue
    return Entry(raw, None, frozenset({(), *places}))


def _written(raw: Any, place: Place) -> Place:
    """The part of a place that the file has as a key of a mapping."""
    written: Place = ()
    for part in place:
        holder = lookup(raw, written)
        if not isinstance(holder, dict) or part not in holder:
            break
        written = (*written, part)
    return written


def _drop(data: Any, place: Place) -> None:
    holder = lookup(data, place[:-1])
    if place and isinstance(holder, dict):
        holder.pop(place[-1], None)


def publish(source: Source, path: tuple[str, ...], entry: Entry, findings: Iterator[Finding]) -> None:
    """Report findings, except those that rest on a value that is wrong itself."""
    for inner, message, uses in findings:
        rests = [inner, *((use,) for use in uses)]
        if any(_related(place, rest) for place in entry.unsure if place for rest in rests if rest):
            continue
        here = (*path, *inner)
        source.report(here, message, at_key=not inner or not source.knows(here))


def _related(one: Place, other: Place) -> bool:
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]
