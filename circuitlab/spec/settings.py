"""The sections of an experiment file: data, loss, control, solve and learn."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from circuitlab.spec.base import MAX_INT, Model, NotBuilt, without_none
from circuitlab.spec.quantities import (
    MemoryBytes,
    Milliseconds,
    MillisecondsOrNone,
    count_of,
    count_text,
    memory_text,
    time_text,
)
from circuitlab.spec.settled import Alpha, AlphaSpec, CheckEnergySpec, ConstrainSpec, PenaltySpec

Count = Annotated[int, Field(ge=1, le=MAX_INT)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


def _epochs(value: Any) -> int:
    return count_of(value, ("epochs",))[0]


Epochs = Annotated[
    int,
    BeforeValidator(_epochs),
    WithJsonSchema({"type": "string", "pattern": r"^\s*[0-9]+\s*epochs?\s*$", "examples": ["1 epoch"]}),
]


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

    name: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    """`cross_entropy` of a softmax over the outputs, or half the `squared_error`."""
    soft_targets: Share = 0.0
    """Share of each one-hot target spread evenly over all classes."""


class ControllerSpec(Model):
    """The output controller: tau du/dt = -dL/dy - alpha u."""

    shorthand: ClassVar[str | None] = "type"

    type: Annotated[Literal["leaky_integral", "integral", "proportional"], NotBuilt("pi")] = "leaky_integral"
    """`leaky_integral` (leak alpha), `integral` (no leak), `proportional` (u = -beta dL/dy)."""
    alpha: Alpha | None = None
    """Leak of the leaky integral; 1 unless given. The smaller, the stronger the control. `{from: 6.4, to: 0.1}`
    changes it over training."""
    beta: Positive | None = None
    """Gain of the proportional controller, 1/alpha; 1 unless given."""
    tau_ms: MillisecondsOrNone = Field(default=100.0, alias="tau")
    """Time constant, such as `100 ms`; a proportional controller has none (0 here)."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        kind = data.get("type", "leaky_integral")
        default = {
            "leaky_integral": {"alpha": 1.0},
            "integral": {"alpha": 0.0},
            "proportional": {"beta": 1.0, "tau": "none"},
        }
        return {**(default.get(kind, {}) if isinstance(kind, str) else {}), **data}

    @property
    def leak(self) -> float | None:
        """Alpha; the one at the end where it changes over training."""
        return self.alpha.end if isinstance(self.alpha, AlphaSpec) else self.alpha

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        data = without_none(self.model_dump(mode="json", by_alias=True, exclude={"tau_ms"}))
        return data if self.type == "proportional" else {**data, "tau": time_text(self.tau_ms)}


class ControlSpec(Model):
    """How control reaches the neurons: a feedback pathway and an output controller."""

    shorthand: ClassVar[str | None] = "pathway"

    pathway: Annotated[
        Literal["dynamic_inversion", "linear_feedback"],
        NotBuilt("energy_based", "lateral_inhibition", "deep_feedback_control"),
    ] = "dynamic_inversion"
    """`dynamic_inversion` (control travels from unit to unit) or `linear_feedback` (psi = Q u)."""
    feedback: Annotated[Literal["tied", "random", "apical", "file"], NotBuilt("kolen_pollack")]
    """Feedback weights: for dynamic inversion `tied` (transposed, the default), `random` or `apical` (the
    circuit's own burst projections); for linear feedback `random` (the default) or `{file: Q.npz}`."""
    scale: Positive = 1.0
    """Multiplies random feedback weights."""
    file: str | None = None
    """File with the feedback weights Q, relative to the experiment file; as in `feedback: {file: Q.npz}`."""
    controller: ControllerSpec = ControllerSpec.model_validate({})
    """The output controller."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        feedback = data.get("feedback")
        if isinstance(feedback, dict) and set(feedback) == {"file"} and "file" not in data:
            data = {**data, "feedback": "file", "file": feedback["file"]}
        linear = data.get("pathway") == "linear_feedback"
        default = "file" if linear and "file" in data else "random" if linear else "tied"
        return {"feedback": default, **data}

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        data = {**without_none(self.model_dump(mode="json")), "controller": self.controller.resolved()}
        return data if self.feedback == "random" else {key: data[key] for key in data if key != "scale"}


class SolveSpec(Model):
    """How equilibria are found, and when one counts as found."""

    shorthand: ClassVar[str | None] = "method"

    method: Literal["auto", "euler", "fixed_point", "anderson", "levenberg"] = "auto"
    """The solver; `auto` chooses one that suits the circuit and falls back on more careful ones."""
    tolerance: Positive | None = None
    """Largest relative residual of a converged sample; 1e-5 in float32 and 1e-6 in float64 unless given."""
    max_iterations: Count = 500
    """Iterations after which a sample counts as unconverged."""
    memory: Annotated[int, Field(ge=1, le=1000)] = 5
    """Earlier iterates that `anderson` mixes."""
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


class OptimizerSpec(Model):
    """An optimizer of torch.optim by its name in lower case; its options stand beside `lr`."""

    shorthand: ClassVar[str | None] = "name"

    name: Annotated[str, Field(min_length=1)] = "adam"
    """Name of the optimizer: `adam`, `sgd`, `adamw`, `rmsprop`, ..."""
    lr: Positive = 1e-3
    """Learning rate."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The optimizer's other options; in the file they may stand beside `lr`."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        return with_options(cls, data)

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        return {"name": self.name, "lr": self.lr, **self.options}


class SchedulerSpec(Model):
    """How the learning rate changes over training; the scheduler's options stand beside its name."""

    shorthand: ClassVar[str | None] = "name"

    name: Annotated[str, Field(min_length=1)] = "constant"
    """Name of the scheduler: `constant`, `cosine`, ..."""
    per: Literal["step", "epoch"]
    """Whether the rate changes after every minibatch (`cosine`, unless given) or every epoch (all others)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The scheduler's other options; in the file they may stand beside `name`."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        return with_options(cls, {"per": "step" if data.get("name") == "cosine" else "epoch", **data})

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        return {"name": self.name, "per": self.per, **self.options}


def with_options(model: type[Model], data: dict[str, Any]) -> dict[str, Any]:
    """Keys that are not the model's own, gathered under `options`."""
    given = data.get("options", {})
    if not isinstance(given, dict):
        return data
    known = {key: value for key, value in data.items() if key in model.model_fields}
    others = {key: value for key, value in data.items() if key not in model.model_fields}
    return {**known, "options": {**given, **others}}


class EarlyStoppingSpec(Model):
    """When training stops before its last epoch."""

    shorthand: ClassVar[str | None] = "metric"

    metric: Literal["loss", "accuracy", "control_cost"] = "loss"
    """Which validation metric is watched."""
    patience: Count = 5
    """Epochs without improvement after which training stops."""
    minimum_change: Annotated[float, Field(ge=0)] = 0.0
    """Change that counts as an improvement."""


class LearnSpec(Model):
    """The learning rule, and how its updates are applied."""

    shorthand: ClassVar[str | None] = "rule"

    rule: Annotated[
        Literal["least_control", "least_control_gated", "recurrent_backprop", "backprop"],
        NotBuilt(
            "deep_feedback_control",
            "kolen_pollack",
            "anti_hebbian",
            "feedback_alignment",
            "direct_feedback_alignment",
            "predictive_coding",
            "equilibrium_propagation",
        ),
    ] = "least_control"
    """The rule: `least_control`, gated by sigma' (`least_control_gated`), or a baseline."""
    presynaptic: Literal["controlled", "free"] = "controlled"
    """Whose rates the presynaptic factor takes: the controlled equilibrium's, or the free one's (two-phase, and no
    longer the gradient of the control cost)."""
    weighting: Literal["equal", "error"] = "equal"
    """Samples count equally, or by the ratio of the free state's output error to the controller, |error| / |u|
    (two-phase)."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """The optimizer, any of torch.optim."""
    scheduler: SchedulerSpec = SchedulerSpec.model_validate({})
    """How the learning rate changes."""
    epochs: Count = 20
    """Passes over the training samples."""
    batch_size: Count = 64
    """Samples per update, over all processes."""
    clip: Positive | None = None
    """Bound on the norm of the whole update; none unless given."""
    constrain: ConstrainSpec = ConstrainSpec()
    """Bounds that hold after every update."""
    penalty: PenaltySpec = PenaltySpec()
    """Penalties on the weights' size as the equilibria see it; none unless given."""
    early_stopping: EarlyStoppingSpec | None = None
    """When to stop before the last epoch; never unless given."""
    snapshots_every: Epochs = 1
    """How often all weights go into the run file, such as `1 epoch`."""

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        return {
            **without_none(self.model_dump(mode="json")),
            "optimizer": self.optimizer.resolved(),
            "scheduler": self.scheduler.resolved(),
            "snapshots_every": count_text(self.snapshots_every, "epochs"),
        }
