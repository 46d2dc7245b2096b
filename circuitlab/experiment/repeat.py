"""A run again, from what its file holds: circuit, experiment, code of the loss, drawn connections and weights."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from circuitlab import native
from circuitlab.errors import RunFileError, SpecError
from circuitlab.experiment.fingerprints import file_digest, samples_digest
from circuitlab.experiment.manipulate import GRAPH
from circuitlab.experiment.training import Prepared, prepare
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.parallel import ALONE, Group
from circuitlab.record.circuits import initial_circuit
from circuitlab.record.provenance import provenance
from circuitlab.record.reader import Run, open_run
from circuitlab.spec.circuit import CircuitSpec, load_circuit
from circuitlab.spec.experiment import ExperimentSpec, load_experiment
from circuitlab.spec.source import lookup

OTHER_KINDS = {
    "simulation": "a simulation (circuitlab simulate)",
    "equilibria": "of equilibria (circuitlab equilibrium)",
    "diagnosis": "a diagnosis (circuitlab diagnose)",
}
"""Groups that only the files of other commands have, and what those files are."""
VERSIONS = {
    "circuitlab_version": "circuitlab",
    "torch_version": "torch",
    "numpy_version": "numpy",
    "python_version": "Python",
    "platform": "platform",
    "native": "compiled loops",
}
"""Root attributes on which the last digits of numbers may depend."""
FILES = ("data.train", "data.test", "control.file")


@dataclass(frozen=True)
class Repeat:
    """What a run file says about how to run it again.

    Args:
        spec: the experiment with the changes asked for. circuit: as it was drawn; None where it is drawn anew.
        recorded: attributes of the root and of /training of the file.
        notes: what differs here from there, a sentence each.
        changed_data: whether the changes name other data.
    """

    path: Path
    spec: ExperimentSpec
    circuit: Circuit | None
    recorded: Mapping[str, Any]
    notes: tuple[str, ...]
    changed_data: bool

    def prepare(self, group: Group = ALONE) -> Prepared:
        """The run, ready to begin; the samples are held against the file's checksum.

        Raises:
            CircuitlabError: something is missing here, or the data are not those that the file's run learned from.
        """
        threads = self.recorded.get("threads")
        if self.spec.threads is None and isinstance(threads, int) and 1 <= threads <= 4096:
            torch.set_num_threads(threads)
        prepared = prepare(self.spec, group, self.circuit)
        known = self.recorded.get("sha256_samples", "")
        if not self.changed_data and known and samples_digest(prepared.dataset) != known:
            raise RunFileError(
                f"{self.path}: data: the samples of {prepared.dataset.name} here are not those that the run learned "
                f"from (their checksum differs); to learn from these, say --set data.name={prepared.dataset.name}"
            )
        notes = [*self.notes, *prepared.notes]
        processes = self.recorded.get("processes", 1)
        if processes != group.size:
            notes.append(
                f"the run was made by {processes} processes, here are {group.size}: the last digits of numbers may "
                "differ"
            )
        return replace(prepared, notes=tuple(notes))


def repeat(path: str | Path, overrides: Sequence[str] = (), *, allow_outside: bool = False) -> Repeat:
    """The experiment of a run file.

    Connections and initial weights come from the file. They are drawn anew where a change asks for another seed or
    other manipulations.

    Args:
        overrides: changes such as "learn.epochs=3"; files that they name are relative to the working folder.
        allow_outside: whether the data may lie outside the folder of the experiment.

    Raises:
        RunFileError: no run file, damaged, not of a training, or its data are not there.
        SpecError: a mistake in the changes.
    """
    path = Path(path)
    with open_run(path) as run:
        for group, what in OTHER_KINDS.items():
            if run.is_group(group):
                raise RunFileError(f"{path}: is {what}; --from repeats the runs of circuitlab run")
        if "training/step" not in run.datasets and not run.is_group("training"):
            raise RunFileError(f"{path}: holds no training; --from repeats the runs of circuitlab run")
        return _repeat(run, path, overrides, allow_outside)


def _repeat(run: Run, path: Path, overrides: Sequence[str], allow_outside: bool) -> Repeat:
    training = run.file["training"]
    recorded = {**run.attributes, **dict(training.attrs.items())}
    keys = {text.partition("=")[0].strip() for text in overrides}
    if any(key.split(".")[0] == "circuit" for key in keys):
        raise RunFileError(f"{path}: --set circuit: --from repeats the circuit of the file; leave it out")
    for name in ("circuit", "experiment"):
        run.specification(name)
    circuit = _located(path, load_circuit, f"{path}:/spec/circuit", text=run.circuit_yaml, files=False)
    own_files = bool(keys & {"data", *FILES}) or "control" in keys
    code = {} if any(key.split(".")[0] == "loss" for key in keys) else _code(run)
    folder = Path() if own_files else _folder(run, path, recorded)
    read = {"folder": folder, "circuit": circuit, "allow_outside": allow_outside or own_files, "code": code}
    name = f"{path}:/spec/experiment"
    before = _located(path, load_experiment, name, text=run.experiment_yaml, **read)
    spec = load_experiment(name, overrides, text=run.experiment_yaml, **read) if overrides else before
    drawn = initial_circuit(run)
    seeded = circuit.seed is None or bool(_graph(spec))
    same = (spec.seed == before.seed or not seeded) and _graph(spec) == _graph(before)
    if not same:
        _refuse_undrawable(path, circuit, keys)
    notes = [*_differences(run, recorded, spec)]
    if code:
        named = ", ".join(
            f"{file} (sha256 {str(run.file[f'spec/loss/{name}'].attrs.get('sha256', ''))[:12]})"
            for name, file in _code_files(run).items()
        )
        notes.append(f"runs the Python code of its loss as the file holds it: {named}")
    changed = own_files or any(key.split(".")[0] in ("data", "dtype", "seed") for key in keys)
    return Repeat(path, spec, drawn if same else None, recorded, tuple(notes), changed)


def _located(path: Path, read: Any, *arguments: Any, **options: Any) -> Any:
    """Read a specification of the file; a mistake in it is the file's, said in one line."""
    try:
        return read(*arguments, **options)
    except SpecError as error:
        first, *others = str(error).splitlines()
        more = f" (and {len(others)} more)" if others else ""
        raise RunFileError(f"{first}{more}") from error


def _graph(spec: ExperimentSpec) -> list[Any]:
    """What acts on the graph, in order."""
    return [(name, part.resolved()) for name, part in spec.manipulations.items() if part.kind in GRAPH]


def _code_files(run: Run) -> dict[str, str]:
    """Name of the Python file of every loss of the user's, by output population as the file writes it."""
    found = {}
    for name in run.datasets:
        if name.startswith("spec/loss/"):
            found[name.removeprefix("spec/loss/")] = str(run.datasets[name].attrs.get("file", ""))
    return found


def _code(run: Run) -> dict[str, str]:
    return {file: str(run.read(f"spec/loss/{name}")) for name, file in _code_files(run).items()}


def _refuse_undrawable(path: Path, circuit: CircuitSpec, keys: set[str]) -> None:
    """A circuit whose parts come from files cannot be drawn anew from the run file alone."""
    data = circuit.resolved()
    for section in ("populations", "projections"):
        for name, entry in data[section].items():
            for key in ("names", "positions", "attributes", "bias", "weights", "connect"):
                part = entry.get(key)
                file = part.get("file") if isinstance(part, dict) else part if isinstance(part, str) else None
                if isinstance(file, str) and (
                    isinstance(part, dict) or key in ("names", "positions", "attributes")
                ):
                    changed = ", ".join(
                        sorted(key for key in keys if key.split(".")[0] in ("seed", "manipulations"))
                    )
                    raise RunFileError(
                        f"{path}: --set {changed}: asks for new draws, and {section}.{name}.{key} comes from {file}, "
                        "which the run file holds only as it was used; run the experiment file instead"
                    )


def _folder(run: Run, path: Path, recorded: Mapping[str, Any]) -> Path:
    """Where the files that the experiment names lie: where they lay, here, or beside the run file.

    Raises:
        RunFileError: they are in none of these, or are not what they were.
    """
    data = run.specification("experiment")
    names = {key: value for key in FILES if isinstance(value := lookup(data, key.split(".")), str)}
    said = Path(str(recorded.get("folder", "")) or ".")
    places = list(dict.fromkeys([said, Path(), path.absolute().parent]))
    if not names:
        return said if said.is_dir() else Path()
    missing, differing = "", ""
    for place in places:
        absent = [key for key, name in names.items() if not (place / name).is_file()]
        if absent:
            missing = missing or absent[0]
            continue
        other = [
            key
            for key, name in names.items()
            if (known := recorded.get(f"sha256_{key.replace('.', '_')}"))
            and file_digest(place / name) != known
        ]
        if not other:
            return place
        differing = differing or other[0]
    key = differing or missing
    shown = ", ".join(dict.fromkeys(os.path.normpath(place) for place in places))
    what = "is not the file that the run read (its checksum differs)" if differing else "is not there"
    raise RunFileError(
        f"{path}: {key}: {names[key]} {what}, looked for in {shown}; name it with --set {key}=FILE"
    )


def _differences(run: Run, recorded: Mapping[str, Any], spec: ExperimentSpec) -> list[str]:
    """One sentence about what differs between there and here, or none."""
    here = {**provenance(), "native": native.about()}
    here["platform"] = here.get("platform") or platform.platform()
    parts = []
    for key, words in VERSIONS.items():
        then, now = str(recorded.get(key, "")), str(here.get(key, ""))
        if then != now:
            versions = f"{then or 'unknown'} (here {now or 'unknown'})"
            parts.append(f"other {words}" if key == "native" else f"{words} {versions}")
    if str(recorded.get("device", "")) != spec.device:
        parts.append(f"device {recorded.get('device')} (here {spec.device})")
    if not parts:
        return []
    return [f"the run was made with {', '.join(parts)}: the last digits of numbers may differ"]
