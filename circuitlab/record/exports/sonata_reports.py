"""Recordings as SONATA reports: one file each, that libsonata, SNAP and BMTK read, beside the exported network.

A report has uniform time. Real time is in ms, one report for each sample. Whatever was recorded at equilibria has rows
instead, counted from 0: frame by frame, sample by sample, and along a settling trajectory point by point; a CSV table
beside the report says what each row is. Settling in real time with a uniform step keeps its ms: its rows are one
trajectory after the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from circuitlab.errors import FormatError
from circuitlab.graph.circuit import Circuit
from circuitlab.graph.foreign.hdf5_out import writable
from circuitlab.graph.foreign.sonata_out import edge_places, node_places
from circuitlab.graph.foreign.sonata_write import MAGIC, VERSION
from circuitlab.record.exports.recordings import Recording, file_name, step_of
from circuitlab.record.exports.tidy import write_rows

REPORTS = "reports"
COMPARTMENTS = ("soma", "basal", "apical")
"""Compartments by their element id in a report of all of them."""
ROW = "row"
"""Unit of a report's time where there is none: its rows are counted."""


@dataclass(frozen=True)
class Axis:
    """A report's time: first value, the value after the last, step, unit; and its number of rows."""

    start: float
    stop: float
    step: float
    units: str
    rows: int


@dataclass(frozen=True, eq=False)
class Report:
    """A report to write.

    Args:
        name: of the file. variable, units: of the values. population: SONATA's node population. cells: node set.
        nodes, elements: node id and element id of every column, sorted, shape [column] each.
        meaning: what the element ids are. kind, sections: for the simulation config.
        axis: its time. pieces: gives the values [row, column] in pieces. table: the rows' table, None in real time.
    """

    name: str
    variable: str
    units: str
    population: str
    cells: str
    nodes: np.ndarray
    elements: np.ndarray
    meaning: str
    kind: str
    sections: str
    axis: Axis
    pieces: Callable[[], Iterator[np.ndarray]]
    table: Callable[[], Iterator[Mapping[str, np.ndarray]]] | None


def write_reports(
    circuit: Circuit, found: Sequence[Recording], folder: Path, about: Mapping[str, Any], network: bool
) -> list[str]:
    """Write every recording of neurons or synapses as a report.

    Args:
        about: of the run: texts and numbers for the simulation config. network: whether the folder has the network.

    Returns:
        What was left out, one line each.
    """
    plan = _Plan(circuit)
    reasons: dict[str, list[str]] = {}
    for each in found:
        reason = plan.add(each)
        if reason is not None:
            reasons.setdefault(reason, []).append(each.name)
    left_out = [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
    plan.add_compartments(found)
    if not plan.reports and not network:
        raise FormatError("; ".join(left_out) or "nothing recorded is left for SONATA reports")
    place = folder / REPORTS
    place.mkdir()
    for report in plan.reports:
        _write(place / f"{report.name}.h5", report)
        if report.table is not None:
            write_rows(place / f"{report.name}_rows.csv", report.table())
    if network:
        _write_json(folder / "node_sets.json", plan.sets)
        _write_json(folder / "simulation_config.json", _config(plan.reports, about))
    return left_out


class _Plan:
    """The reports of a run, and the node sets that they name."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.nodes = node_places(circuit)
        self.edges: Mapping[str, tuple[str, np.ndarray | None]] | None = None
        self.reports: list[Report] = []
        self.taken: set[str] = set()
        self.sets: dict[str, dict[str, Any]] = {}
        for name, (sonata, ids) in self.nodes.items():
            whole = {"population": sonata}
            self.sets[name] = whole if ids is None else whole | {"node_id": np.sort(ids).tolist()}
        self.taken_sets = {name.lower() for name in self.sets}

    def add(self, recording: Recording) -> str | None:
        """Plan the reports of a recording; or say why there are none."""
        if not recording.values:
            return "nothing was recorded"
        axes = {recording.axes[i] for i in recording.column_axes}
        if recording.population is not None and axes in ({"unit"}, {"unit", "output unit"}):
            return self._add_units(recording)
        if recording.projection is not None and axes == {"edge"}:
            return self._add_synapses(recording)
        return f"[{', '.join(recording.axes)}], which are not values of neurons or synapses; csv and nwb hold them"

    def _add_units(self, recording: Recording) -> None:
        nodes = self._node_ids(recording.population, recording.ids["unit"])
        outputs, meaning, sections = np.zeros(1, dtype=np.int64), "0: the neuron", "soma"
        if "output unit" in recording.ids:
            outputs, sections = recording.ids["output unit"], "all"
            meaning = "output unit, counted over all output populations"
        columns = np.repeat(nodes, len(outputs)), np.tile(outputs, len(nodes))
        assert recording.population is not None
        cells = self._cells(recording.name, recording.population, recording.ids["unit"])
        self._put(
            [recording],
            recording.name,
            recording.population,
            cells,
            columns,
            meaning,
            "compartment",
            sections,
        )

    def _add_synapses(self, recording: Recording) -> str | None:
        assert recording.projection is not None
        if self.edges is None:
            self.edges = edge_places(self.circuit)
        projection = self.circuit.projections[recording.projection]
        sonata, rows = self.edges[recording.projection]
        if rows is None:
            return (
                f"edges of {recording.projection} stand for several rows of {sonata} each, whose weights are not "
                "recorded one by one; csv and nwb hold those of the edges"
            )
        edges = recording.ids["edge"]
        targets = projection.edges.target[edges].astype(np.int64)
        columns = self._node_ids(projection.target, targets), rows[edges]
        cells = self._cells(recording.name, projection.target, targets)
        meaning = f"edge id in edge population {sonata}; its node is the target"
        self._put([recording], recording.name, projection.target, cells, columns, meaning, "synapse", "all")
        return None

    def add_compartments(self, found: Sequence[Recording]) -> None:
        """Where soma, basal and apical of the same neurons were recorded together: a report of all of them."""
        groups: list[list[Recording]] = []
        for each in found:
            if (
                each.variable not in COMPARTMENTS
                or each.population is None
                or "unit" not in each.ids
                or not each.values
            ):
                continue
            fitting = next((group for group in groups if _same_neurons(group[0], each)), None)
            if fitting is None:
                groups.append([each])
            elif all(other.variable != each.variable for other in fitting):
                fitting.append(each)
        for group in groups:
            parts = sorted(group, key=lambda each: COMPARTMENTS.index(each.variable))
            if len(parts) < 2:
                continue
            population, units = parts[0].population, parts[0].ids["unit"]
            assert population is not None
            ids = np.array([COMPARTMENTS.index(each.variable) for each in parts])
            nodes = self._node_ids(population, units)
            columns = np.tile(nodes, len(parts)), np.repeat(ids, len(nodes))
            meaning = ", ".join(f"{number}: {COMPARTMENTS[number]}" for number in ids)
            name = f"{_stem([each.name for each in parts]) or population}_compartments"
            cells = self._cells(name, population, units)
            self._put(parts, name, population, cells, columns, meaning, "compartment", "all")

    def _node_ids(self, population: str | None, units: np.ndarray) -> np.ndarray:
        assert population is not None
        ids = self.nodes[population][1]
        return units if ids is None else ids[units]

    def _cells(self, name: str, population: str, units: np.ndarray) -> str:
        """A node set of the recorded neurons: the whole population's, or one of the recording's own."""
        units = np.unique(units)
        if len(units) == self.circuit.populations[population].size:
            return population
        own = file_name(f"{name}_neurons", self.taken_sets)
        nodes = np.sort(self._node_ids(population, units))
        self.sets[own] = {"population": self.nodes[population][0], "node_id": nodes.tolist()}
        return own

    def _put(
        self,
        parts: Sequence[Recording],
        name: str,
        population: str,
        cells: str,
        columns: tuple[np.ndarray, np.ndarray],
        meaning: str,
        kind: str,
        sections: str,
    ) -> None:
        """Plan a report of recordings whose columns stand side by side: one, or one for each sample in real time."""
        first = parts[0]
        order = np.lexsort((columns[1], columns[0]))
        axis = _axis(first)
        samples: Sequence[int | None] = [None]
        if first.real_time and axis is not None and "sample" in first.axes:
            samples = range(first.size("sample"))
        for sample in samples:
            suffix = "" if len(samples) == 1 else f"_sample{_sample_id(first, sample or 0)}"
            self.reports.append(
                Report(
                    name=file_name(f"{name}{suffix}", self.taken),
                    variable=first.variable if len(parts) == 1 else "compartments",
                    units=first.units or "dimensionless",
                    population=self.nodes[population][0],
                    cells=cells,
                    nodes=columns[0][order],
                    elements=columns[1][order],
                    meaning=meaning,
                    kind=kind,
                    sections=sections,
                    axis=axis or Axis(0.0, float(first.rows), 1.0, ROW, first.rows),
                    pieces=lambda sample=sample: _pieces(parts, order, sample),
                    table=None if axis is not None and first.real_time else first.row_tables,
                )
            )


def _stem(names: Sequence[str]) -> str:
    """What names have in common before their last part: `l23` of `l23_soma` and `l23_basal`."""
    parts = [re.split(r"(?<=[_/])", name) for name in names]
    shared = ""
    for same in zip(*parts, strict=False):
        if len(set(same)) > 1:
            break
        shared += same[0]
    return shared.strip("_/")


def _same_neurons(one: Recording, other: Recording) -> bool:
    """Whether two recordings are of the same neurons, moments and samples."""
    if (one.population, one.phase, one.of, one.axes, one.shape, one.units) != (
        other.population,
        other.phase,
        other.of,
        other.axes,
        other.shape,
        other.units,
    ):
        return False
    mine, theirs = one.row_axes_said(), other.row_axes_said()
    pairs = [(one.ids["unit"], other.ids["unit"]), *((mine[key], theirs.get(key)) for key in mine)]
    return mine.keys() == theirs.keys() and all(np.array_equal(a, b) for a, b in pairs if b is not None)


def _sample_id(recording: Recording, sample: int) -> int:
    return sample if recording.sample_ids is None else int(recording.sample_ids.ravel()[sample])


def _axis(recording: Recording) -> Axis | None:
    """Time of a report in ms, where it is uniform; None where rows are counted."""
    if recording.real_time and "point" not in recording.axes:
        found = step_of(recording.frames["time"], recording.step_ms)
        rows = recording.shape[0]
        start = float(recording.frames["time"][0])
    elif "time" in recording.points:
        found, rows, start = step_of(recording.points["time"]), recording.rows, 0.0
    else:
        return None
    return None if found is None else Axis(start, _stop(start, found, rows), found, "ms", rows)


def _stop(start: float, step: float, rows: int) -> float:
    """The time after the last row, such that readers find exactly so many rows.

    libsonata adds steps up until it is within 1e-6 of the end; BMTK divides and rounds down.
    """
    stop, last = start + rows * step, start
    for done in range(0, rows - 1, 1 << 20):
        count = min(rows - 1 - done, 1 << 20)
        last = float(np.add.accumulate(np.concatenate(([last], np.full(count, step))))[-1])
    if not last < stop - 1e-6 <= last + step:
        stop = last + step
    while int((stop - start) / step) < rows:
        stop = float(np.nextafter(stop, np.inf))
    return stop


def _pieces(parts: Sequence[Recording], order: np.ndarray, sample: int | None) -> Iterator[np.ndarray]:
    """Values of recordings side by side, [row, column], columns in a report's order; of one sample, or of all."""
    every = 1 if sample is None else parts[0].size("sample")
    in_step = np.array_equal(order, np.arange(len(order)))
    frames = min(each.step for each in parts)
    for pieces in zip(*(each.matrices(frames) for each in parts), strict=True):
        values = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)
        values = values[(sample or 0) :: every]
        yield values if in_step else values[:, order]


def _write(path: Path, report: Report) -> None:
    """One report file, contiguous and uncompressed."""
    with writable(path) as file:
        file.attrs["magic"], file.attrs["version"] = MAGIC, VERSION
        group = file.create_group(f"report/{report.population}")
        data = group.create_dataset("data", (report.axis.rows, len(report.nodes)), dtype=np.float32)
        data.attrs["units"], data.attrs["variable"] = report.units, report.variable
        mapping = group.create_group("mapping")
        nodes, counts = np.unique(report.nodes, return_counts=True)
        mapping["node_ids"] = nodes.astype(np.uint64)
        mapping["node_ids"].attrs["sorted"] = np.uint8(1)
        mapping["index_pointers"] = np.append(0, np.cumsum(counts)).astype(np.uint64)
        # The same dataset under the name that BMTK looks for.
        mapping["index_pointer"] = mapping["index_pointers"]
        mapping["element_ids"] = report.elements.astype(np.uint32)
        mapping["element_ids"].attrs["meaning"] = report.meaning
        mapping["element_pos"] = np.zeros(len(report.elements), dtype=np.float32)
        axis = report.axis
        mapping["time"] = np.array([axis.start, axis.stop, axis.step])
        mapping["time"].attrs["units"] = axis.units
        at = 0
        for piece in report.pieces():
            with np.errstate(over="ignore"):
                _fill(data, at, piece.astype(np.float32, copy=False))
            at += len(piece)


def _fill(data: h5py.Dataset, at: int, values: np.ndarray) -> None:
    data[at : at + len(values)] = values


def _config(reports: Sequence[Report], about: Mapping[str, Any]) -> dict[str, Any]:
    """A SONATA simulation config that names every report."""
    stops = [each.axis.stop for each in reports] or [1.0]
    steps = [each.axis.step for each in reports] or [1.0]
    return {
        "version": 2,
        "manifest": {"$OUTPUT_DIR": f"./{REPORTS}"},
        "metadata": dict(about),
        "network": "circuit_config.json",
        "node_sets_file": "node_sets.json",
        "run": {"tstop": max(stops), "dt": min(steps), "random_seed": int(about.get("seed", 0))},
        "output": {"output_dir": "$OUTPUT_DIR"},
        "reports": {
            each.name: {
                "cells": each.cells,
                "sections": each.sections,
                "type": each.kind,
                "variable_name": each.variable,
                "unit": each.units,
                "dt": each.axis.step,
                "start_time": each.axis.start,
                "end_time": each.axis.stop,
                "file_name": each.name,
                "enabled": True,
            }
            for each in reports
        },
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
