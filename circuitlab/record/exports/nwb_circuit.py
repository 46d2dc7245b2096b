"""What an NWB file says of a circuit: whose recordings they are, its neurons, its projections, its settings."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML, YAMLError

from circuitlab.graph.circuit import Circuit
from circuitlab.record.exports.nwb_types import (
    DynamicTable,
    DynamicTableRegion,
    H5DataIO,
    NWBFile,
    Subject,
    VectorData,
    VectorIndex,
    get_docval,
)
from circuitlab.record.exports.recordings import Recording, file_name
from circuitlab.record.reader import Run
from circuitlab.record.storage import link_name

SYNTHETIC = "http://purl.obolibrary.org/obo/NCBITaxon_32630"
"""The taxonomy's entry for what no organism is: synthetic construct."""


SMALL = 1 << 20
"""Bytes up to which arrays are not compressed."""


def new_file(run: Run, circuit: Circuit, name: str, about: Mapping[str, Any]) -> Any:
    """An NWB file that says what was simulated, when and by what.

    Args:
        name: of the run. about: where it comes from.
    """
    words: dict[str, Any] = {}
    if "was_generated_by" in {each["name"] for each in get_docval(NWBFile.__init__)}:
        programs = [("circuitlab", "circuitlab_version"), ("torch", "torch_version")]
        made = [[program, str(about[key])] for program, key in programs if about.get(key)]
        words["was_generated_by"] = made or None
    described = _described(run) or circuit.description
    nwb = NWBFile(
        session_description=f"Simulation of the circuit '{circuit.name}' by circuitlab; no animal was recorded",
        identifier=str(uuid.uuid4()),
        session_start_time=_started(run),
        session_id=file_name(name, set()),
        experiment_description=described or f"the circuit '{circuit.name}'",
        keywords=["simulation", "neural circuit", "circuitlab"],
        notes="; ".join(f"{key}: {value}" for key, value in about.items()),
        subject=Subject(
            subject_id=file_name(circuit.name, set()),
            species=SYNTHETIC,
            description=f"A simulated neural circuit, {len(circuit.populations)} populations of "
            f"{sum(p.size for p in circuit.populations.values())} neurons; age and sex do not apply",
            age="P0D",
            sex="U",
        ),
        **words,
    )
    for key, text, meaning in (
        ("circuit_yaml", run.circuit_yaml, "the circuit file with every default written out, as YAML"),
        (
            "experiment_yaml",
            run.experiment_yaml,
            "the experiment file with every default written out, as YAML",
        ),
        ("provenance", json.dumps(dict(about)), "where the run comes from, as JSON"),
    ):
        nwb.add_scratch(text, name=key, description=meaning)
    return nwb


def _started(run: Run) -> datetime:
    """When the run began, with its time zone."""
    try:
        found = datetime.fromisoformat(str(run.attributes.get("created", "")))
    except ValueError:
        found = datetime.fromtimestamp(Path(run.path).stat().st_mtime, UTC)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _described(run: Run) -> str:
    try:
        spec: Any = YAML(typ="safe", pure=True).load(run.experiment_yaml)
    except YAMLError:
        return ""
    return str(spec.get("description") or "") if isinstance(spec, dict) else ""


class Circuitry:
    """The neurons and projections of an NWB file.

    Args:
        nwb: the file. circuit: whose they are.
    """

    def __init__(self, nwb: Any, circuit: Circuit) -> None:
        self.circuit = circuit
        self.module = nwb.create_processing_module(
            name="circuit",
            description="the simulated circuit: its neurons, its projections, and what was recorded",
        )
        self.taken = {"neurons", "recordings"}
        sizes = {name: p.size for name, p in circuit.populations.items()}
        self.first = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
        self.neurons = DynamicTable(
            name="neurons",
            description="every neuron of the circuit, population by population",
            columns=self._columns(),
            id=np.arange(sum(sizes.values())),
        )
        self.module.add(self.neurons)

    def _columns(self) -> list[Any]:
        populations = list(self.circuit.populations.values())
        columns = {
            "population": (
                "population of the neuron",
                [np.full(p.size, p.name, dtype=object) for p in populations],
            ),
            "neuron_index": (
                "index of the neuron in its population",
                [np.arange(p.size) for p in populations],
            ),
            "cell_type": (
                "type of its population",
                [np.full(p.size, p.type, dtype=object) for p in populations],
            ),
            "tau_ms": ("membrane time constant, ms", [np.full(p.size, float(p.tau_ms)) for p in populations]),
        }
        texts = {
            "neuron_name": ("name of the neuron, empty where it has none", [p.names for p in populations]),
            "layer": (
                "layer, empty where it lies in none",
                [p.layer and (p.layer,) * p.size for p in populations],
            ),
            "sign": (
                "excitatory or inhibitory, empty without",
                [p.sign and (p.sign,) * p.size for p in populations],
            ),
        }
        for name, (about, values) in texts.items():
            if any(values):
                parts = [
                    np.array(v or ("",) * p.size, dtype=object)
                    for v, p in zip(values, populations, strict=True)
                ]
                columns[name] = (about, parts)
        for i, axis in enumerate("xyz"):
            parts = [
                p.positions[:, i]
                if p.positions is not None and p.positions.shape[1] > i
                else np.full(p.size, np.nan)
                for p in populations
            ]
            if not all(np.isnan(part).all() for part in parts):
                columns[axis] = (f"position along {axis}, in the circuit file's unit of length", parts)
        if any(p.bias is not None for p in populations):
            biases = [np.full(p.size, np.nan) if p.bias is None else np.asarray(p.bias) for p in populations]
            columns["bias"] = ("bias, dimensionless; nan where there is none", biases)
        return [
            VectorData(name=name, description=about, data=np.concatenate(parts))
            for name, (about, parts) in columns.items()
        ]

    def region(self, name: str, population: str, units: np.ndarray, about: str) -> Any:
        """Neurons of a population, as a column of another table."""
        rows = (self.first[population] + units).astype(np.int64)
        return DynamicTableRegion(name=name, description=about, data=packed(rows), table=self.neurons)

    def add_projections(self, run: Run) -> None:
        """A table of synapses for each projection that has any."""
        for name, p in self.circuit.projections.items():
            if not len(p.edges):
                continue
            initial = np.asarray(run.read(f"edges/{link_name(name)}/0/syn_weight"))
            columns: list[Any] = [
                self.region("source", p.source, p.edges.source.astype(np.int64), "sending neuron"),
                self.region("target", p.target, p.edges.target.astype(np.int64), "receiving neuron"),
                _column("weight", p.edges.weight, "weight, parallel synapses summed, dimensionless"),
                _column("weight_initial", initial, "weight before learning, dimensionless"),
                _column("multiplicity", p.edges.multiplicity, "parallel synapses that the row stands for"),
            ]
            self.module.add(
                DynamicTable(
                    name=file_name(name, self.taken),
                    description=f"synapses of projection {name}, from {p.source} to the {p.site} of {p.target}; "
                    f"{p.kind}, carries {p.carries}, {'plastic' if p.plastic else 'not plastic'}, "
                    f"delay {p.delay_ms:g} ms",
                    columns=columns,
                    id=np.arange(len(p.edges)),
                )
            )

    def add_recordings(self, listed: Sequence[tuple[Recording, str, str]]) -> None:
        """A table of the recordings: what each is, and which neurons or synapses its columns are.

        Args:
            listed: recording, the name of its series, the name of the table of its rows.
        """
        each = [recording for recording, _, _ in listed]
        texts = {
            "series": ("name of the series or table in acquisition", [name for _, name, _ in listed]),
            "rows": ("table that says what its rows are", [rows or "none" for _, _, rows in listed]),
            "variable": ("what was recorded", [r.variable or r.name for r in each]),
            "population": ("population of its neurons", [r.population or "none" for r in each]),
            "projection": ("projection of its synapses", [r.projection or "none" for r in each]),
            "phase": ("equilibrium or real time", [r.phase or "none" for r in each]),
            "axes": ("axes in the run file", [", ".join(r.axes) for r in each]),
            "path": ("dataset of the run file", [r.path for r in each]),
        }
        columns: list[Any] = [
            VectorData(name=name, description=about, data=np.array(values, dtype=object))
            for name, (about, values) in texts.items()
        ]
        entries, neurons = [], []
        for r in each:
            ids = next(
                (r.ids[axis] for axis in ("edge", "parameter", "unit") if axis in r.ids),
                np.zeros(0, np.int64),
            )
            entries.append(ids)
            whose = r.population if "unit" in r.ids else None
            neurons.append(np.zeros(0, np.int64) if whose is None else self.first[whose] + r.ids["unit"])
        ids = VectorData(
            name="column_ids",
            description="index of each column in its population or projection",
            data=np.concatenate(entries),
        )
        rows = DynamicTableRegion(
            name="neurons",
            description="neuron of each column",
            data=np.concatenate(neurons),
            table=self.neurons,
        )
        columns += [ids, VectorIndex(name="column_ids_index", data=_ends(entries), target=ids)]
        columns += [rows, VectorIndex(name="neurons_index", data=_ends(neurons), target=rows)]
        self.module.add(
            DynamicTable(
                name="recordings",
                description="every series in acquisition, and the neurons or synapses that its columns are",
                columns=columns,
                id=np.arange(len(listed)),
            )
        )


def _ends(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.cumsum([len(part) for part in parts])


def _column(name: str, values: np.ndarray, about: str) -> Any:
    return VectorData(name=name, description=about, data=packed(np.asarray(values)))


def packed(values: np.ndarray) -> Any:
    """An array, compressed where it is large."""
    if values.nbytes <= SMALL:
        return values
    return H5DataIO(values, compression="gzip", compression_opts=1, shuffle=True)
