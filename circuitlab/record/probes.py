"""Probes: which neurons' activity goes into the run file, when, and in which frames."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from circuitlab.errors import CircuitError, RunFileError, suggestion
from circuitlab.record.storage import link_name

if TYPE_CHECKING:
    from circuitlab.graph.circuit import Circuit, Population
    from circuitlab.record.run_file import RunWriter
    from circuitlab.spec.probes import ProbeSpec

Fields = Callable[[str, str, str, np.ndarray], np.ndarray]
"""Gives a variable: (population, variable, phase, unit ids) to values [sample, unit]."""

SYMBOLS = {
    "soma": "phi",
    "rate": "sigma(phi)",
    "basal": "W sigma(phi) + U x + b",
    "apical": "psi + W_apical sigma(phi)",
    "control": "psi",
    "controller": "u",
}
WORDS = {
    "soma": "somatic potential",
    "rate": "firing rate",
    "basal": "what basal and somatic synapses, gap junctions and the bias predict",
    "apical": "apical potential",
    "control": "control, the neuron's credit signal",
    "controller": "output controller",
}


@dataclass(frozen=True, eq=False)
class Probe:
    """One recording of a variable of some neurons.

    Args:
        name: as in the experiment's `record`.
        spec: its settings.
        unit_ids: index of each recorded neuron in its population, shape [unit].
        unit_names: their names, or None.
        samples: number of samples in a frame.
    """

    name: str
    spec: ProbeSpec
    unit_ids: np.ndarray
    unit_names: tuple[str, ...] | None
    samples: int

    @property
    def sample_ids(self) -> np.ndarray | None:
        """Samples to run the circuit on, counted in `spec.of`; None for those of the minibatch."""
        return None if self.spec.samples == "batch" else np.array(self.spec.samples, dtype=np.int64)

    def due(self, step: int, epochs_done: int | None) -> bool:
        """Whether to record at this step.

        Args:
            step: number of the update, counted from 0: the first is always recorded.
            epochs_done: number of epochs finished where the step is the last of one, else None.
        """
        if self.spec.every.steps is not None:
            return step % self.spec.every.steps == 0
        return epochs_done is not None and epochs_done % (self.spec.every.epochs or 1) == 0

    def frames(self, steps: int, epochs: int) -> int:
        """Number of frames in a run of so many steps and epochs; fixed samples are recorded before learning too."""
        if self.spec.every.steps is not None:
            return -(-steps // self.spec.every.steps)
        return epochs // (self.spec.every.epochs or 1) + (self.sample_ids is not None)

    def start(self, writer: RunWriter) -> None:
        """Writes what holds for all frames; once per writer, also after a resumption."""
        group = f"activity/{link_name(self.name)}"
        writer.attributes(group, every=self.spec.every.text, of=self.spec.of)
        write_units(writer, group, self.spec.population, self.unit_ids, self.unit_names)

    def record(self, writer: RunWriter, step: int, fields: Fields, sample_ids: np.ndarray) -> None:
        """Adds one frame; a smaller minibatch is filled up with NaN and sample number -1.

        Args:
            fields: gives the variable, [sample, unit], for the samples the circuit was run on.
            sample_ids: number of each of those samples in its split, shape [sample].
        """
        spec, group = self.spec, f"activity/{link_name(self.name)}"
        values = np.asarray(fields(spec.population, spec.variable, spec.phase, self.unit_ids))
        missing = self.samples - len(sample_ids)
        if values.shape != (len(sample_ids), len(self.unit_ids)) or missing < 0:
            raise RunFileError(
                f"record.{self.name}: got values of shape {values.shape} for {len(sample_ids)} samples of "
                f"{len(self.unit_ids)} neurons, in frames of {self.samples} samples"
            )
        writer.append(
            f"{group}/data",
            np.pad(values, ((0, missing), (0, 0)), constant_values=np.nan) if missing else values,
            units="dimensionless",
            description=f"[frame, sample, unit] {WORDS[spec.variable]} at the {spec.phase} equilibrium",
            variable=spec.variable,
            symbol=SYMBOLS[spec.variable],
            population=spec.population,
            phase=spec.phase,
        )
        writer.append(
            f"{group}/sample_ids",
            np.pad(np.asarray(sample_ids, dtype=np.int64), (0, missing), constant_values=-1),
            units="dimensionless",
            description=f"[frame, sample] number of the sample within {spec.of}, -1 where there is none",
        )
        writer.append(
            f"{group}/step", step, units="updates", description="[frame] update at which it was recorded"
        )


def _units_of(spec: ProbeSpec, population: Population) -> list[int]:
    if spec.names is None:
        return spec.unit_indices(population.size)
    if population.names is None:
        raise ValueError(f"the neurons of '{population.name}' have no names; select them by units")
    place = {name: index for index, name in enumerate(population.names)}
    for name in spec.names:
        if name not in place:
            raise ValueError(f"no neuron '{name}' in '{population.name}'.{suggestion(name, place)}")
    if not spec.names:
        raise ValueError("no neuron is selected")
    return [place[name] for name in dict.fromkeys(spec.names)]


def select(spec: ProbeSpec, circuit: Circuit) -> list[int]:
    """The neurons that a probe selects, by their number in its population.

    Raises:
        ValueError: there is no such population, neuron or variable; the text says which.
    """
    if spec.population not in circuit.populations:
        near = suggestion(spec.population, circuit.populations)
        raise ValueError(
            f"no population '{spec.population}'; there are {', '.join(circuit.populations)}.{near}"
        )
    population = circuit.populations[spec.population]
    wanted = {"apical": "pyramidal", "controller": "output"}.get(spec.variable, population.type)
    if wanted != population.type or (population.type == "input" and spec.variable != "rate"):
        raise ValueError(f"'{spec.population}' is of type {population.type} and has no {spec.variable}")
    return _units_of(spec, population)


def _plan(name: str, spec: ProbeSpec, circuit: Circuit, batch_size: int, sizes: Mapping[str, int]) -> Probe:
    units, population = select(spec, circuit), circuit.populations[spec.population]
    total = sizes.get(spec.of, 0)
    if spec.samples != "batch" and max(spec.samples) >= total:
        raise ValueError(
            f"no sample {max(spec.samples)}; there are {total} {spec.of} samples, counted from 0"
        )
    count = batch_size if spec.samples == "batch" else len(spec.samples)
    names = tuple(population.names[unit] for unit in units) if population.names else None
    return Probe(name, spec, np.array(units, dtype=np.int64), names, count)


def plan_probes(
    specs: Mapping[str, ProbeSpec],
    circuit: Circuit,
    *,
    batch_size: int,
    sizes: Mapping[str, int],
    steps: int,
    epochs: int,
) -> list[Probe]:
    """The probes of an experiment, with their neurons found.

    Args:
        specs: the experiment's `record`.
        sizes: number of samples of train, validation and test.
        steps, epochs: length of the run, in updates and epochs.
    Raises:
        CircuitError: a probe selects nothing or something that is not there; one line per probe.
    """
    probes, problems = [], []
    for name, spec in specs.items():
        try:
            probe = _plan(name, spec, circuit, batch_size, sizes)
            if probe.frames(steps, epochs) == 0:
                raise ValueError(
                    f"every {spec.every.text}, but the run has {epochs} epochs of {steps} updates in all"
                )
            probes.append(probe)
        except ValueError as error:
            problems.append(f"record.{name}: {error}")
    if problems:
        raise CircuitError("\n".join(problems))
    return probes


def estimate_bytes(probes: Iterable[Probe], *, steps: int, epochs: int, dtype: str = "float32") -> int:
    """Size of what the probes will record, in bytes, before compression."""
    size = np.dtype(dtype).itemsize
    return sum(
        probe.frames(steps, epochs) * (probe.samples * (len(probe.unit_ids) * size + 8) + 8)
        for probe in probes
    )


def require_space(path: str | Path, size: int) -> None:
    """Refuses a recording that the disk cannot hold, with the copy that is made while writing.

    Args:
        path: the run file, or where it will be.
        size: what will be recorded, in bytes.
    Raises:
        RunFileError: the free space is less than twice that.
    """
    folder = Path(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if 2 * size > free:
        raise RunFileError(
            f"{path}: recording needs about {2 * size / 1e9:.3g} GB while it is written, {folder} has "
            f"{free / 1e9:.3g} GB free; record fewer neurons or samples, or less often"
        )


def write_units(
    writer: RunWriter, group: str, population: str, unit_ids: np.ndarray, unit_names: tuple[str, ...] | None
) -> None:
    """Writes which neurons a group of /activity records.

    Args:
        unit_ids: index of each in its population, shape [unit]. unit_names: their names, or None.
    """
    writer.put(
        f"{group}/unit_ids",
        unit_ids,
        units="dimensionless",
        description=f"[unit] index of the recorded neuron in population {population}",
    )
    if unit_names is not None:
        names = np.array(unit_names, dtype=object)
        writer.put(
            f"{group}/unit_names", names, units="none", description="[unit] name of the recorded neuron"
        )
