"""Exports of runs: the network, and what was recorded, in the formats that other tools read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from circuitlab.errors import FormatError, needs, suggestion
from circuitlab.graph.circuit import Circuit
from circuitlab.graph.foreign.formats import WRITERS, edge_rows, refuse_too_large
from circuitlab.graph.foreign.place import MARK, refuse_existing, whole_folder
from circuitlab.record.circuits import circuit_of_run, is_run_file, load, snapshots
from circuitlab.record.exports.find import chosen, recordings
from circuitlab.record.exports.recordings import Recording
from circuitlab.record.reader import Run, open_run

WHAT = ("all", "network", "activity")
"""What of a run is exported: the circuit, what was recorded, or both."""

RUNS = (".h5", ".hdf5")
"""Suffixes of files that are read as runs; a circuit in SONATA files is loaded first, by `load`."""


@dataclass(frozen=True, eq=False)
class Job:
    """What an exporter of recordings is given.

    Args:
        run: the run file. circuit: it, with the weights asked for. found: the recordings to write.
        folder: an empty folder, or one with the network. name: of the run file, without its suffix.
        network: whether the network is asked for. learning: whether learning curves and weights are.
    """

    run: Run
    circuit: Circuit
    found: Sequence[Recording]
    folder: Path
    name: str
    network: bool
    learning: bool

    @property
    def about(self) -> dict[str, str | int]:
        """Where the recordings come from, as plain texts and numbers."""
        said = self.run.attributes
        words = (
            "created",
            "command",
            "circuitlab_version",
            "torch_version",
            "platform",
            "device",
            "git_commit",
        )
        found: dict[str, str | int] = {key: str(said.get(key, "")) for key in words if said.get(key)}
        return {"run": self.name, "status": self.run.status, "seed": int(said.get("seed", 0)), **found}


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Args:
        folder: where. circuit: its name. populations, edges: how many, 0 without the network.
        weights: initial or final; empty for a circuit that is no run's. recordings: names of what was written.
        values: how many values they have. left_out: what the format does not hold, one line each.
    """

    folder: Path
    circuit: str
    populations: int
    edges: int
    weights: str
    recordings: tuple[str, ...]
    values: int
    left_out: tuple[str, ...]


def _sonata(job: Job) -> list[str]:
    from circuitlab.record.exports.sonata_reports import write_reports

    return write_reports(job.circuit, job.found, job.folder, job.about, job.network)


def _csv(job: Job) -> list[str]:
    from circuitlab.record.exports.tidy import write_tidy

    return write_tidy(job.run, job.found, job.folder, job.circuit.name, job.about, job.learning)


def _nwb(job: Job) -> list[str]:
    from circuitlab.record.exports.nwb import write_nwb

    return write_nwb(job)


RECORDED: dict[str, Callable[[Job], list[str]]] = {"sonata": _sonata, "csv": _csv, "nwb": _nwb}
"""Formats that hold what was recorded; each writes it into a folder and returns what it left out."""
FORMATS = (*WRITERS, *(kind for kind in RECORDED if kind not in WRITERS))
"""All formats."""
BYTES_PER_VALUE = {"sonata": 8, "csv": 45, "nwb": 8}
"""Room on the disk that a recorded value takes, about; a compartment's stands in two SONATA reports."""
BYTES_PER_EDGE = {"sonata": 80, "csv": 80, "npz": 24, "graphml": 300, "json": 200, "nwb": 60}
"""Room on the disk that an edge takes, about."""


def export(
    source: Circuit | str | Path,
    kind: str,
    folder: str | Path,
    *,
    what: str = "all",
    weights: str | None = None,
    probes: Sequence[str] = (),
    force: bool = False,
) -> Exported:
    """Write a circuit, or a run with what it recorded, into a folder of another program's files.

    The folder is made whole or not at all. `circuitlab.export("RUN.h5", "nwb", "out")`.

    Args:
        source: a circuit, a run file, or any file that `load` reads.
        kind: sonata, csv and nwb hold a network and recordings; graphml, json and npz a network.
        folder: a new or empty one.
        what: of a run file: network, activity (what was recorded), or all.
        weights: of a run file: initial or final; final unless given, where there are any.
        probes: names of the recordings to write, or patterns such as `l23_*`; all without. Learning curves and
            weights over training are then left out.
        force: whether a folder that circuitlab wrote may be replaced.

    Returns:
        What was written, and what was left out.

    Raises:
        CircuitlabError: no such format or recording, a damaged run, a folder that exists, a disk too small.
    """
    folder, probes = Path(folder), [probes] if isinstance(probes, str) else list(probes)
    if kind not in FORMATS:
        raise FormatError(f"no format '{kind}'; allowed: {', '.join(FORMATS)}.{suggestion(kind, FORMATS)}")
    if what not in WHAT:
        raise FormatError(f"what: no '{what}'; allowed: {', '.join(WHAT)}.{suggestion(what, WHAT)}")
    if kind not in RECORDED and (what == "activity" or probes):
        raise FormatError(
            f"{kind}: holds a network and no recordings; allowed for these: {', '.join(RECORDED)}"
        )
    if probes and what == "network":
        raise FormatError(
            "probes: are recordings, and only the network is asked for; leave one of the two out"
        )
    refuse_existing(folder, force)
    if isinstance(source, Circuit) or (Path(source).suffix not in RUNS and not is_run_file(Path(source))):
        return _export_circuit(source, kind, folder, what, weights, probes, force)
    if kind == "nwb":
        needs("pynwb", extra="nwb", what="circuitlab export RUN.h5 nwb")
    path = Path(source)
    chosen_weights = weights or ("final" if snapshots(path) else "initial")
    circuit = circuit_of_run(path, chosen_weights)
    with open_run(path) as run:
        return _export_run(run, circuit, kind, folder, what, chosen_weights, probes, force)


def _export_circuit(
    source: Circuit | str | Path,
    kind: str,
    folder: Path,
    what: str,
    weights: str | None,
    probes: Sequence[str],
    force: bool,
) -> Exported:
    name = f"circuit '{source.name}'" if isinstance(source, Circuit) else str(source)
    if kind not in WRITERS or what == "activity" or probes:
        asked = "nwb: holds runs" if kind not in WRITERS else "what, probes: recordings are a run's"
        raise FormatError(f"{asked}, and {name} is none; give a run file (.h5)")
    circuit = source if isinstance(source, Circuit) else load(source)
    if weights is not None:
        raise FormatError(f"weights: {name} is no run file and has one set of weights; leave it out")
    _refuse_full(folder, edge_rows(circuit) * BYTES_PER_EDGE[kind])
    refuse_too_large(circuit, kind, folder)
    with whole_folder(folder, force) as place:
        WRITERS[kind](circuit, place)
    return _exported(folder, circuit, True, "", (), [])


def _export_run(
    run: Run,
    circuit: Circuit,
    kind: str,
    folder: Path,
    what: str,
    weights: str,
    probes: Sequence[str],
    force: bool,
) -> Exported:
    network, activity = what != "activity", what != "network"
    found, left_out = recordings(run) if activity else ([], [])
    learning = activity and not probes and bool(run.metrics() or snapshots(Path(run.path)))
    if kind not in RECORDED:
        names = [each.name for each in found] + (["learning curves"] if learning else [])
        held = f"{len(found)} recordings" if found else "learning curves"
        left_out = [f"{held}: {kind} holds a network; {', '.join(RECORDED)} hold recordings"] if names else []
        found, learning, activity = [], False, False
    found = chosen(found, probes, run.path)
    if what == "activity" and not found and not (learning and kind != "sonata"):
        raise FormatError(
            f"{run.path}: recorded nothing that {kind} holds; choose what to record with `record:`"
        )
    values = sum(each.values for each in found)
    edges = edge_rows(circuit) if network else 0
    curves = 200 * sum(len(run.datasets[f"training/{name}"]) for name in run.metrics()) if learning else 0
    _refuse_full(folder, values * BYTES_PER_VALUE.get(kind, 0) + edges * BYTES_PER_EDGE[kind] + curves)
    if network and kind in WRITERS:
        refuse_too_large(circuit, kind, folder)
    with whole_folder(folder, force) as place:
        if network and kind in WRITERS:
            WRITERS[kind](circuit, place)
        if (activity and kind in RECORDED and (found or learning)) or kind not in WRITERS:
            job = Job(run, circuit, found, place, Path(run.path).stem, network, learning)
            left_out = left_out + RECORDED[kind](job)
            _mark(place, job, kind, left_out)
    return _exported(folder, circuit, network, weights if network else "", found, left_out)


def _exported(
    folder: Path,
    circuit: Circuit,
    network: bool,
    weights: str,
    found: Sequence[Recording],
    left_out: Sequence[str],
) -> Exported:
    return Exported(
        folder=folder,
        circuit=circuit.name,
        populations=len(circuit.populations) if network else 0,
        edges=sum(len(p.edges) for p in circuit.projections.values()) if network else 0,
        weights=weights,
        recordings=tuple(each.name for each in found),
        values=sum(each.values for each in found),
        left_out=tuple(left_out),
    )


def _refuse_full(folder: Path, need: int) -> None:
    """Refuse an export that the disk cannot hold."""
    place = folder.absolute().parent
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if need > free:
        raise FormatError(
            f"{folder}: the export takes about {need / 1e9:.3g} GB, {place} has {free / 1e9:.3g} GB free; "
            "export fewer recordings (--probe), or elsewhere"
        )


def _mark(folder: Path, job: Job, kind: str, left_out: Sequence[str]) -> None:
    """A note of what the folder is, by which `--force` knows it again."""
    try:
        program = version("circuitlab")
    except PackageNotFoundError:
        program = ""
    said: dict[str, Any] = {
        "format": kind,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": f"circuitlab {program}".strip(),
        "from": job.about,
        "recordings": [
            {"name": each.name, "axes": list(each.axes), "shape": list(each.shape), "units": each.units}
            for each in job.found
        ],
        "left_out": list(left_out),
    }
    (folder / MARK).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
