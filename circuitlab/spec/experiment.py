"""The experiment file: a circuit, data, a loss, how to control, solve and learn, and what to record."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field, PrivateAttr, Tag

from circuitlab.errors import Problem, SpecError
from circuitlab.spec.base import Model, parse, without_none
from circuitlab.spec.circuit import CircuitSpec, circuit_of, rescale
from circuitlab.spec.combinations import default_control, nudging
from circuitlab.spec.control import ControllerSpec, ControlSpec
from circuitlab.spec.experiment_checks import check_experiment, cycle
from circuitlab.spec.feedback_checks import time_constants
from circuitlab.spec.files import file_problem
from circuitlab.spec.kinds import expect
from circuitlab.spec.learning import EarlyStoppingSpec, LearnSpec
from circuitlab.spec.manipulations import ManipulationSpec
from circuitlab.spec.optimizer import OptimizerSpec, SchedulerSpec
from circuitlab.spec.overrides import apply_overrides
from circuitlab.spec.probes import EverySpec, ProbeSpec
from circuitlab.spec.settings import DataSpec, LossSpec, SolveSpec
from circuitlab.spec.settled import AlphaSpec, CheckEnergySpec, ConstrainSpec, PenaltySpec
from circuitlab.spec.source import Source, read


def _loss_kind(value: Any) -> str:
    keys = {"name", "soft_targets", "file", "function"}
    single = not isinstance(value, dict) or not value or bool(keys & set(value))
    return "@one" if single else "@each"


Loss = Annotated[
    Annotated[LossSpec, Tag("@one")] | Annotated[dict[str, LossSpec], Tag("@each")], Discriminator(_loss_kind)
]


def _device(value: str) -> str:
    kind, _, number = value.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (":" in value and not (kind == "cuda" and number.isdecimal())):
        raise ValueError(f"no device '{value}'; allowed: cpu, cuda, cuda:0 (or another number), mps")
    return value


class CircuitFileSpec(Model):
    """The circuit of an experiment: a file, and how large to make it."""

    shorthand: ClassVar[str | None] = "file"

    file: Annotated[str, Field(min_length=1)]
    """The circuit file, relative to the experiment file."""
    scale: Annotated[float, Field(gt=0)] | None = None
    """Multiplies the neurons of every population but inputs and outputs, in place of the circuit file's own `scale`."""


class ExperimentSpec(Model):
    """An experiment on a circuit."""

    experiment: Annotated[str, Field(min_length=1)]
    """Name of the experiment."""
    description: str = ""
    """What the experiment asks, in a sentence."""
    circuit_file: CircuitFileSpec = Field(alias="circuit")
    """The circuit file, relative to this file; as a mapping with a `scale` for it."""
    data: DataSpec | None = None
    """The data set."""
    loss: Loss = LossSpec()
    """What the outputs are asked for: one loss for all, or a mapping from output population to loss."""
    control: ControlSpec = ControlSpec.model_validate({})
    """How control reaches the neurons."""
    solve: SolveSpec = SolveSpec.model_validate({})
    """How equilibria are found."""
    learn: LearnSpec = LearnSpec.model_validate({})
    """How the circuit learns."""
    record: dict[str, ProbeSpec] = Field(default_factory=dict)
    """Activity to record, by name."""
    manipulations: dict[str, ManipulationSpec] = Field(default_factory=dict)
    """What is done to the circuit, by name, in this order."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """Seed of every random draw."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of every number."""
    device: Annotated[str, AfterValidator(_device)] = "cpu"
    """Where to compute: `cpu`, `cuda`, `cuda:1`."""
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Threads of the CPU; torch's own choice unless given."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        learn, control = data.get("learn"), data.get("control", {})
        rule = learn.get("rule") if isinstance(learn, dict) else learn
        learn = _taught(learn, control)
        if learn is not None:
            data = {**data, "learn": learn}
        controller = nudging(rule, learn.get("beta") if isinstance(learn, dict) else None)
        if isinstance(control, str) and controller is not None:
            control = {"pathway": control}
        if not isinstance(control, dict):
            return data
        if controller is not None:
            control = {"controller": controller, **control}
        if not {"pathway", "feedback"} & set(control):
            control = {**default_control(rule), **control}
        return {**data, "control": control} if control else data

    _circuit: CircuitSpec | None = PrivateAttr(default=None)
    _folder: Path = PrivateAttr(default=Path())
    _where: str = PrivateAttr(default="")
    _source: Source | None = PrivateAttr(default=None)
    _code: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @property
    def circuit(self) -> CircuitSpec:
        """The circuit, read."""
        assert self._circuit is not None, "an experiment is read by load_experiment or experiment_from"
        return self._circuit

    @property
    def folder(self) -> Path:
        """The folder that the file's paths are relative to."""
        return self._folder

    @property
    def where(self) -> str:
        """The file's name, for messages."""
        return self._where

    @property
    def code(self) -> Mapping[str, str]:
        """Texts of Python files by their names, in place of those in the folder."""
        return self._code

    def located(self, text: str) -> str:
        """A message that begins with a key of this file, with the file, line and column of that key before it."""
        return text if self._source is None else self._source.located(text)

    @property
    def losses(self) -> dict[str, LossSpec]:
        """The loss of every output population, in file order of the circuit."""
        return {
            name: self.loss if isinstance(self.loss, LossSpec) else self.loss[name]
            for name in self.circuit.outputs
        }

    def resolved(self) -> dict[str, Any]:
        """The whole file with every default written out; reading it gives the same experiment."""
        data = without_none(self.model_dump(mode="json", by_alias=True))
        if self.circuit_file.scale is None:
            data["circuit"] = self.circuit_file.file
        data["control"], data["solve"] = self.control.resolved(), self.solve.resolved()
        data["learn"] = self.learn.resolved()
        data["record"] = {name: probe.resolved() for name, probe in self.record.items()}
        data["manipulations"] = {name: part.resolved() for name, part in self.manipulations.items()}
        return data


def _taught(learn: Any, control: Any) -> Any:
    """`learn` with the rule of feedback that learns by its nature written out."""
    if not isinstance(control, dict) or control.get("feedback") != "kolen_pollack":
        return learn
    written = {} if learn is None else {"rule": learn} if isinstance(learn, str) else learn
    if not isinstance(written, dict) or written.get("feedback") is not None:
        return learn
    return {**written, "feedback": "kolen_pollack"}


def load_experiment(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    text: str | None = None,
    folder: Path | None = None,
    circuit: CircuitSpec | None = None,
    allow_outside: bool = False,
    code: Mapping[str, str] | None = None,
) -> ExperimentSpec:
    """Read an experiment file and its circuit.

    Args:
        path: the file; only its name for messages where `text` is given.
        overrides: changes such as "learn.epochs=3", the value read as YAML; as if they stood in the file.
        text: YAML to read in place of the file.
        folder: what the file's paths are relative to; the file's own folder unless given.
        circuit: a circuit to use in place of the file's.
        allow_outside: whether files outside the folders of experiment and circuit may be read.
        code: texts of Python files by their names, in place of those in the folder.

    Raises:
        SpecError: with every mistake of the command line, the experiment and the circuit, in this order.
    """
    source = read(path, text)
    expect(source, "experiment")
    folder = Path(path).parent if folder is None else folder
    apply_overrides(source, overrides)
    if source.data.get("data") is None:
        place = ("data",) if "data" in source.data else ()
        source.report(place, "a data set is missing; write 'data: digits', or another one")
    problems: list[Problem] = []
    if circuit is None:
        circuit = _circuit(source, folder, problems, allow_outside)
    return _experiment(source, folder, circuit, problems, allow_outside, code)


def experiment_from(
    circuit: CircuitSpec,
    overrides: Sequence[str] = (),
    *,
    allow_outside: bool = False,
    purpose: str = "equilibrium",
) -> ExperimentSpec:
    """The default experiment on a circuit, without data, with changes from the command line.

    Args:
        purpose: what it is for, the end of its name.
        overrides: changes such as "dtype=float64"; their paths are relative to the working folder.

    Raises:
        SpecError: with every mistake of the changes.
    """
    source = Source(
        "defaults",
        {"experiment": f"{circuit.circuit}_{purpose}", "circuit": circuit.where or circuit.circuit},
    )
    apply_overrides(source, overrides)
    return _experiment(source, Path(), circuit, [], allow_outside)


def _experiment(
    source: Source,
    folder: Path,
    circuit: CircuitSpec | None,
    problems: list[Problem],
    allow_outside: bool,
    code: Mapping[str, str] | None = None,
) -> ExperimentSpec:
    spec = parse(ExperimentSpec, source.data, source)
    check_experiment(source, ExperimentSpec, circuit, folder, allow_outside, code)
    if spec is None or circuit is None or source.found or problems:
        raise SpecError([*source.problems, *problems])
    learn = spec.learn.model_copy(update={"constrain": spec.learn.constrain.decided(bool(cycle(circuit)))})
    if learn.feedback is not None:
        shortest = min(time_constants(spec, circuit).values())
        learn = learn.model_copy(update={"feedback": learn.feedback.decided(shortest)})
    spec = spec.model_copy(update={"learn": learn})
    spec._circuit, spec._folder, spec._where, spec._source = circuit, folder, source.name, source
    spec._code = code or {}
    return spec


def _circuit(
    source: Source, folder: Path, problems: list[Problem], allow_outside: bool
) -> CircuitSpec | None:
    """The experiment's circuit, with its own mistakes in `problems`, and those of its name in the source."""
    given = source.data.get("circuit")
    name, scale = (given.get("file"), given.get("scale")) if isinstance(given, dict) else (given, None)
    if not isinstance(name, str) or not name:
        return None
    problem = file_problem(folder, name, allow_outside=True)
    if problem:
        source.report(("circuit", "file") if isinstance(given, dict) else ("circuit",), problem)
        return None
    path = Path(os.path.normpath(folder / name))
    try:
        inner = read(path)
        if isinstance(scale, int | float) and not isinstance(scale, bool) and 0 < scale < math.inf:
            rescale(inner, scale, f"{source.name}: circuit.scale")
        spec = circuit_of(inner, path.parent, allow_outside=allow_outside)
    except SpecError as error:
        problems.extend(error.problems)
        return None
    problems.extend(inner.problems)
    return None if inner.found else spec


__all__ = [
    "AlphaSpec",
    "CheckEnergySpec",
    "CircuitFileSpec",
    "ConstrainSpec",
    "ControlSpec",
    "ControllerSpec",
    "DataSpec",
    "EarlyStoppingSpec",
    "EverySpec",
    "ExperimentSpec",
    "LearnSpec",
    "LossSpec",
    "OptimizerSpec",
    "PenaltySpec",
    "ProbeSpec",
    "SchedulerSpec",
    "SolveSpec",
    "experiment_from",
    "load_experiment",
]
