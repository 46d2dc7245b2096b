"""What a run file holds, in numbers: recorded neurons, unsettled samples, weights before and after learning."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitlab.record.reader import Run
from circuitlab.report.figures.base import Choice, sample_columns
from circuitlab.report.figures.compartments import RIGHT, group_of
from circuitlab.report.figures.recorded import projections, recordings, with_ends
from circuitlab.report.figures.settled import settled
from circuitlab.report.figures.synapses import Synapses, chosen_projection, synapses

FRAMES, SAMPLES = 400, 200
"""Frames and samples of a neuron that are given at most."""
QUANTILES = (0.05, 0.5, 0.95)
MOVERS = 8


def probes(run: Run) -> dict[str, dict[str, Any]]:
    """Every recording under /activity: what it is of, and its sizes; keys without a value are left out."""
    found = {}
    for one in recordings(run):
        if one.path.startswith("activity/"):
            sizes = one.sizes
            held = {
                "population": one.population,
                "projection": one.projection,
                "variable": one.variable,
                "phase": one.phase,
                "frames": sizes.get("frame", 1),
                "points": sizes.get("point"),
                "samples": sizes.get("sample"),
                "neurons": sizes.get("unit"),
                "synapses": sizes.get("edge", sizes.get("parameter")),
            }
            found[one.name] = {key: value for key, value in held.items() if value not in (None, "")}
    return found


def unsettled(run: Run) -> list[dict[str, Any]]:
    """Of every equilibrium and every probe of converged: which samples never settled, and their classes."""
    found = []
    for one in settled(run):
        if one.unsettled is not None:
            never = one.never
            found.append(
                {
                    "of": one.name,
                    "samples": len(one.samples),
                    "times": int(one.seen.max(initial=0)),
                    "never": len(never),
                    "sometimes": len(one.sometimes),
                    "never_samples": never.tolist(),
                    "never_classes": one.classes(never),
                }
            )
    return found


def weights(run: Run) -> dict[str, dict[str, Any]]:
    """Statistics of every projection's weights, before and after learning."""
    return {name: _statistics(synapses(run, name)) for name in projections(run)}


def _statistics(one: Synapses) -> dict[str, Any]:
    before = one.at(0).astype(np.float64)
    found: dict[str, Any] = {
        "weights": one.count,
        "read": one.read,
        "mean_before": _mean(before),
        "std_before": float(before.std()) if len(before) else None,
        "mean_after": None,
        "std_after": None,
        "moved": None,
    }
    if one.snapshots > 1 and len(before):
        after = one.at(-1).astype(np.float64)
        found |= {
            "mean_after": _mean(after),
            "std_after": float(after.std()),
            "moved": float(np.abs(after - before).mean()),
        }
    return found


def _mean(values: NDArray) -> float | None:
    return float(values.mean()) if len(values) else None


def projection(run: Run, choice: Choice) -> dict[str, Any]:
    """One projection's weights in detail: quantiles, and the synapses that moved most."""
    name = chosen_projection(run, choice.projection)
    assert name is not None
    one = synapses(run, name)
    found = {"projection": name, "source": one.source, "target": one.target, **_statistics(one)}
    before = one.at(0).astype(np.float64)
    states = {"before": before} | ({"after": one.at(-1).astype(np.float64)} if one.snapshots > 1 else {})
    found["quantiles"] = {
        when: dict(zip((f"{q:g}" for q in QUANTILES), np.quantile(values, QUANTILES).tolist(), strict=True))
        for when, values in states.items()
        if len(values)
    }
    found["moved_most"] = []
    if "after" in states and len(before):
        change = states["after"] - before
        places = one.places()
        for i in np.argsort(-np.abs(change), kind="stable")[:MOVERS]:
            row = {"synapse": one.ends(int(places[i])), "row": int(places[i])}
            found["moved_most"].append(
                {
                    **row,
                    "before": float(before[i]),
                    "after": float(states["after"][i]),
                    "change": float(change[i]),
                }
            )
    return found


def neuron(run: Run, choice: Choice) -> dict[str, Any]:
    """A neuron's recorded values: over training or time of some samples, or of every sample at one time.

    Raises:
        RunFileError: it was not recorded.
    """
    group, column = group_of("neuron", run, choice)
    one = group.one
    samples = (
        np.array(sample_columns(one, choice.samples))
        if choice.samples
        else with_ends(one.sizes["sample"], SAMPLES)
    )
    at: dict[str, Any] = {"sample": samples, "unit": column}
    name, counted = "", np.arange(1)
    if "point" in one.dims and one.points is not None:
        name, counted = one.points
        kept = with_ends(len(counted), FRAMES)
        at["point"] = kept
        if "frame" in one.dims:
            at["frame"] = one.sizes["frame"] - 1
        counted = counted[kept]
    elif "frame" in one.dims:
        name, counted = one.frames
        kept = with_ends(len(counted), FRAMES)
        at["frame"], counted = kept, counted[kept]
    values = {v: r.read(**at) for v, r in group.parts.items()}
    if {"soma", "basal"} <= set(values):
        values["soma - basal"] = values["soma"] - values["basal"]
    order = ["soma", "basal", "soma - basal", *RIGHT, "rate"]
    return {
        "population": group.population,
        "neuron": int(one.unit_ids[column]),
        "called": one.neuron_word(column),
        "phase": one.phase,
        "along": name,
        "at": counted.tolist() if name else None,
        "samples": one.sample_ids[samples].tolist(),
        "classes": None if one.labels is None else one.labels[samples].tolist(),
        "values": {v: values[v].tolist() for v in order if v in values},
        "fixed_samples": one.fixed,
    }


__all__ = ["neuron", "probes", "projection", "unsettled", "weights"]
