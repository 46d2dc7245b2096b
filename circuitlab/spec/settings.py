"""The sections of an experiment file: data, loss and solve (control and learn have files of their own)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from circuitlab.spec.base import Model, without_none
from circuitlab.spec.numbers import Count, Positive, Share
from circuitlab.spec.quantities import MemoryBytes, Milliseconds, memory_text, time_text
from circuitlab.spec.settled import CheckEnergySpec


def _test(value: str | float | None) -> str | float | None:
    if isinstance(value, float) and not 0 <= value < 1:
        raise ValueError(
            f"{value:g} is no share; allowed: a file's name, or a number of at least 0 and below 1"
        )
    return value


class DataSpec(Model):
    """The data set, and how it is divided."""

    shorthand: ClassVar[str | None] = "name"

    name: Literal["digits", "mnist", "fashion_mnist", "file"]
    """The data set; `file` for your own arrays."""
    train: str | None = None
    """File with the training samples (for `file`), relative to the experiment file."""
    test: Annotated[str | float | None, AfterValidator(_test)] = None
    """File with the test samples (for `file`), relative to the experiment file, or the share of `train` to set aside
    for testing."""
    validation: Share = 0.1
    """Share of the training samples set aside for validation."""
    limit: Count | None = None
    """At most this many training samples."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Which array each input population is clamped to; needed only where there is more than one."""
    targets: dict[str, str] = Field(default_factory=dict)
    """Which array each output population is compared with; needed only where there is more than one."""


class LossSpec(Model):
    """What an output population is asked for."""

    shorthand: ClassVar[str | None] = "name"

    name: Literal["cross_entropy", "squared_error", "function"] = "cross_entropy"
    """`cross_entropy` of a softmax over the outputs, half the `squared_error`, or a `function` of your own."""
    file: str | None = None
    """The Python file with the function (for `function`), relative to the experiment file."""
    function: str | None = None
    """Name of the function of one sample, (y [unit], target [unit]) -> a number, in torch (for `function`)."""
    soft_targets: Share = 0.0
    """Share of each one-hot target spread evenly over all classes."""


class SolveSpec(Model):
    """How equilibria are found, and when one counts as found."""

    shorthand: ClassVar[str | None] = "method"

    method: Literal["auto", "euler", "fixed_point", "anderson", "lbfgs", "levenberg"] = "auto"
    """The solver; `auto` chooses one that suits the circuit and falls back on more careful ones."""
    tolerance: Positive | None = None
    """Largest relative residual of a converged sample; 1e-5 in float32 and 1e-6 in float64 unless given."""
    max_iterations: Count = 500
    """Iterations after which a sample counts as unconverged."""
    memory: Annotated[int, Field(ge=1, le=1000)] = 4
    """Earlier iterates that `anderson` mixes, and earlier steps that `lbfgs` learns the curvature from."""
    damping: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Step length of the iterations, 1 for full steps."""
    dt_ms: Milliseconds = Field(default=1.0, alias="dt")
    """Time step of `euler`, such as `1 ms`."""
    max_time_ms: Milliseconds = Field(default=20_000.0, alias="max_time")
    """Simulated time after which `euler` stops, such as `20 s`."""
    start: Literal["free", "zero", "class_mean", "last"] = "free"
    """Where the controlled equilibrium is looked for from: the free equilibrium, zero, or in training the running mean
    of its class, or the sample's own last one (`last`: both phases of every rule begin at their own last states)."""
    start_memory: MemoryBytes = 128_000_000
    """Memory for the states that `start: last` keeps, such as `128 MB`; samples that do not fit start from the mean of
    their class."""
    free_tolerance: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Largest relative residual, in training, of the free state that a controlled equilibrium starts from, and never
    below `tolerance`. Where the rule needs the free state itself, and outside training, `tolerance` holds."""
    preconditioner: Literal["auto", "mean_response", "none"] = "auto"
    """Whether sweeps are preconditioned by the mean response of the circuit's recurrent group, which is inverted once
    for every batch: where it pays (`auto`, of method `auto`), always (`mean_response`), or never (`none`)."""
    on_unconverged: Literal["skip", "keep", "raise"] = "skip"
    """What becomes of unconverged samples: left out of the update, kept, or an error."""
    check_energy: CheckEnergySpec | None = None
    """Now and then, in training, some samples are solved again by descent of the energy from the free state; never
    unless given."""

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        data = without_none(self.model_dump(mode="json", by_alias=True))
        data |= {"dt": time_text(self.dt_ms), "max_time": time_text(self.max_time_ms)}
        if self.start == "last":
            data["start_memory"] = memory_text(self.start_memory)
        else:
            del data["start_memory"]
        return data if self.check_energy is None else {**data, "check_energy": self.check_energy.resolved()}
