"""Probes: what goes into the run file of neurons, edges and equilibria, when, and in which frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import RunFileError
from circuitlab.record.storage import link_name
from circuitlab.record.variables import MISSING, SYMBOLS, UNITS, WORDS, meaning
from circuitlab.spec.probes import PARAMETERS, SOLUTION, STATE, ProbeSpec

if TYPE_CHECKING:
    from circuitlab.record.run_file import RunWriter

__all__ = ["PARAMETERS", "SOLUTION", "STATE", "SYMBOLS", "WORDS", "Probe", "write_units"]


@dataclass(frozen=True, eq=False)
class Probe:
    """One recording: one variable of a population, of a projection, or of the equilibrium.

    Args:
        name: its group in the file, below /activity.
        spec: its settings, of one variable and at most one population or projection.
        unit_ids: index of each recorded neuron in its population, shape [unit]; empty of projections and equilibria.
        unit_names: their names, or None.
        samples: number of samples in a frame; 0 where no sample is recorded of its own.
        edge_ids: rows of /edges of the recorded edges, shape [edge], or None.
        parameter_ids: which shared weights are recorded in their place, shape [parameter], or None.
        targets: number of output units that a neuron's Q reaches it from, in place of samples.
        points: moments in a frame along the way to an equilibrium: iterations, or ms, shape [point]; None at it.
        dt_ms: time step of a simulated way, in ms.
        expected: frames that the whole run records, where that is known.
    """

    name: str
    spec: ProbeSpec
    unit_ids: NDArray
    unit_names: tuple[str, ...] | None
    samples: int
    edge_ids: NDArray | None = None
    parameter_ids: NDArray | None = None
    targets: int = 0
    points: NDArray | None = None
    dt_ms: float = 0.0
    expected: int | None = None

    @cached_property
    def variable(self) -> str:
        """What is recorded."""
        return self.spec.variables[0]

    @property
    def population(self) -> str | None:
        """Of which population, or None."""
        return None if self.spec.population is None else str(self.spec.population)

    @property
    def projection(self) -> str | None:
        """Of which projection, or None."""
        return None if self.spec.projection is None else str(self.spec.projection)

    @cached_property
    def group(self) -> str:
        """Where it is in the file."""
        return f"activity/{link_name(self.name)}"

    @cached_property
    def place(self) -> slice | NDArray:
        """Which rows of the population, or of the weights, are recorded: a range where they are one."""
        ids = self.edge_ids if self.edge_ids is not None else self.unit_ids
        ids = ids if self.parameter_ids is None else self.parameter_ids
        first = int(ids[0]) if len(ids) else 0
        consecutive = len(ids) > 0 and np.array_equal(ids, np.arange(first, first + len(ids)))
        return slice(first, first + len(ids)) if consecutive else ids

    @cached_property
    def sampled(self) -> bool:
        """Whether a frame has samples."""
        return self.variable not in PARAMETERS

    @cached_property
    def sample_ids(self) -> NDArray | None:
        """Samples to run the circuit on, counted in `spec.of`; None for those of the minibatch."""
        return None if self.spec.samples == "batch" else np.array(self.spec.samples, dtype=np.int64)

    @cached_property
    def of_minibatch(self) -> bool:
        """Whether it records what an update was made from, or the update itself."""
        return self.variable == "updates" or (self.sampled and self.sample_ids is None)

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of a frame, without `frame`."""
        along = () if self.points is None else ("point",)
        if self.variable in SOLUTION:
            return (*along, "sample")
        if self.sampled:
            return (*along, "sample", "unit")
        if self.projection is not None:
            return ("edge" if self.parameter_ids is None else "parameter",)
        return ("unit", "output unit") if self.targets else ("unit",)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of a frame."""
        chosen = self.edge_ids if self.parameter_ids is None else self.parameter_ids
        sizes = {
            "point": 0 if self.points is None else len(self.points),
            "sample": self.samples,
            "unit": len(self.unit_ids),
            "output unit": self.targets,
            "edge": 0 if chosen is None else len(chosen),
            "parameter": 0 if chosen is None else len(chosen),
        }
        return tuple(sizes[axis] for axis in self.axes)

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
        """Number of frames in a run of so many steps and epochs; what needs no minibatch is recorded before learning
        too where it is recorded by epochs."""
        if self.spec.every.steps is not None:
            return -(-steps // self.spec.every.steps)
        return epochs // (self.spec.every.epochs or 1) + (not self.of_minibatch)

    def datasets(self, itemsize: int) -> list[tuple[tuple[int, ...], int]]:
        """Shape and bytes of a number of everything that grows by a row with each frame.

        Args:
            itemsize: of a number of the circuit's precision.
        """
        size = {"iterations": 8, "converged": 1}.get(self.variable, itemsize)
        found: list[tuple[tuple[int, ...], int]] = [(self.shape, size), ((), 8)]
        if self.sampled:
            found.append(((self.samples,), 8))
        if self.points is not None and self.along_solver:
            found.append(((self.samples,), 8))
            if self.variable != "residual":
                found.append(((len(self.points), self.samples), itemsize))
        return found

    def frame_bytes(self, itemsize: int) -> int:
        """Size of a frame with what stands beside it, in bytes, before compression; `itemsize` as in `datasets`."""
        return sum(int(np.prod(shape)) * size for shape, size in self.datasets(itemsize))

    @property
    def along_solver(self) -> bool:
        """Whether the way is the solver's, not real time."""
        return self.spec.along is not None and self.spec.along.iterations is not None

    def start(self, writer: RunWriter) -> None:
        """Writes what holds for all frames; once per writer, also after a resumption."""
        group = self.group
        about = {"every": self.spec.every.text}
        if self.sampled:
            about["of"] = self.spec.of
        if self.points is not None:
            about["along"] = "iterations of the solver" if self.along_solver else "real time"
            if self.dt_ms:
                about["dt_ms"] = self.dt_ms  # type: ignore[assignment]
        writer.attributes(group, **about)
        if self.expected is not None:
            writer.expect(group, self.expected)
        if self.population is not None and self.variable not in SOLUTION:
            write_units(writer, group, self.population, self.unit_ids, self.unit_names)
        for ids, word, words in (
            (self.parameter_ids, "parameter", "number of the shared weight, as parameter_index counts"),
            (self.edge_ids if self.parameter_ids is None else None, "edge", "row of the edge"),
        ):
            if ids is not None:
                writer.put(
                    f"{group}/{word}_ids",
                    ids,
                    units="dimensionless",
                    description=f"[{word}] {words} in /edges/{self.projection}",
                )
        if self.points is not None and self.along_solver:
            writer.put(
                f"{group}/iteration",
                self.points,
                units="iterations",
                description="[point] iterations made; a sample that has come to rest stays where it is",
            )
        elif self.points is not None:
            writer.put(
                f"{group}/time", self.points, units="ms", description="[point] time since the beginning"
            )

    def record(
        self,
        writer: RunWriter,
        step: int,
        values: NDArray,
        sample_ids: NDArray | None = None,
        beside: Mapping[str, NDArray] | None = None,
    ) -> None:
        """Adds one frame; a smaller minibatch is filled up with NaN (-1, false) and sample number -1.

        Args:
            values: of the samples the circuit was run on, with the axes of `axes`.
            sample_ids: number of each of those samples in its split, shape [sample]; None where there are none.
            beside: `residual` [point, sample] and `iterations` [sample] of a solver's way.
        """
        group, count = self.group, 0 if sample_ids is None else len(sample_ids)
        missing = self.samples - count
        shape = self.shape
        if missing:
            shape = tuple(count if axis == "sample" else n for axis, n in zip(self.axes, shape, strict=True))
        if values.shape != shape or missing < 0:
            raise RunFileError(
                f"record.{self.name}: got values of shape {list(values.shape)} in place of {list(shape)}, in frames of "
                f"{self.samples} samples"
            )
        writer.append(f"{group}/data", self._filled(values, missing), **self._data)
        if sample_ids is not None:
            ids = np.asarray(sample_ids, dtype=np.int64)
            writer.append(
                f"{group}/sample_ids",
                np.pad(ids, (0, missing), constant_values=-1) if missing else ids,
                units="dimensionless",
                description=f"[frame, sample] number of the sample within {self.spec.of}, -1 where there is none",
            )
        for name, axes in (("residual", "point, sample"), ("iterations", "sample")):
            if beside is not None and name in beside and name != self.variable:
                writer.append(
                    f"{group}/{name}",
                    beside[name],
                    units=UNITS.get(name, "dimensionless"),
                    description=f"[frame, {axes}] {meaning(name, self.spec.phase, self.spec.along)}",
                )
        writer.append(
            f"{group}/step", step, units="updates", description="[frame] update at which it was recorded"
        )

    @cached_property
    def _data(self) -> dict[str, str]:
        """Attributes of the data."""
        about = {"variable": self.variable, "symbol": self._symbol}
        about |= {
            key: name for key in ("population", "projection") if (name := getattr(self, key)) is not None
        }
        if self.sampled:
            about["phase"] = self.spec.phase
        about["units"] = UNITS.get(self.variable, "dimensionless")
        about["description"] = f"[frame, {', '.join(self.axes)}] {self._words}"
        return about

    def _filled(self, values: NDArray, missing: int) -> NDArray:
        if not missing or not self.sampled:
            return values
        gap = [(0, missing if axis == "sample" else 0) for axis in self.axes]
        return np.pad(values, gap, constant_values=MISSING.get(self.variable, np.nan))

    @property
    def _symbol(self) -> str:
        if self.variable == "updates":
            return "db" if self.projection is None else "dW"
        if self.variable == "feedback_weights":
            return "Q" if self.projection is None else "S"
        return SYMBOLS[self.variable]

    @property
    def _words(self) -> str:
        if self.variable == "feedback_weights" and self.projection is None:
            return "Q, from the controller onto the neuron, psi = Q u"
        return meaning(self.variable, self.spec.phase if self.sampled else "", self.spec.along)


def write_units(
    writer: RunWriter, group: str, population: str, unit_ids: NDArray, unit_names: tuple[str, ...] | None
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
