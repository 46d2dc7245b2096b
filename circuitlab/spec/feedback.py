"""The section `learn.feedback` of an experiment file: how feedback weights learn beside the circuit's own."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from circuitlab.spec.base import Model, without_none
from circuitlab.spec.numbers import Count, NotNegative, Positive
from circuitlab.spec.optimizer import OptimizerSpec
from circuitlab.spec.quantities import Milliseconds, time_text

LONGEST_STEP_MS = 10.0
"""Time step of noisy dynamics unless given, where no time constant is shorter."""
NOISE: dict[str, Any] = {
    "noise": 0.01,
    "noise_tau": "50 ms",
    "dt": time_text(LONGEST_STEP_MS),
    "steps": 800,
    "decay": 0.001,
    "optimizer": {"name": "sgd", "lr": 1.0},
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "kolen_pollack": {"decay": 1e-6},
    "anti_hebbian": NOISE,
    "alternating": {
        **NOISE,
        "decay": 0.01,
        "pretraining": 1,
        "passes": 1,
        "alpha": 0.6,
        "k_p": 0.15,
        "optimizer": {"name": "sgd", "lr": 0.1},
    },
}
"""What the keys of each rule are where the file does not say; a rule takes no other keys."""


class FeedbackLearningSpec(Model):
    """How the feedback weights learn."""

    shorthand: ClassVar[str | None] = "rule"

    rule: Literal["kolen_pollack", "anti_hebbian", "alternating"]
    """`kolen_pollack` (S learns by the transposed update of W, both decay), `anti_hebbian` (Q learns from noise while
    the circuit is controlled: a single phase) or `alternating` (Q learns from noise in phases of its own)."""
    decay: NotNegative | None = None
    """Decay of the feedback weights: for `kolen_pollack` a share per update, of W as well (1e-6); for the others the
    factor of Q in its rule (0.001 for `anti_hebbian`, 0.01 for `alternating`)."""
    noise: Positive | None = None
    """Standard deviation of the noise on every neuron (0.01)."""
    noise_tau_ms: Milliseconds | None = Field(default=None, alias="noise_tau")
    """Time constant of the Ornstein-Uhlenbeck noise (50 ms), between the neurons' and the controller's."""
    dt_ms: Milliseconds | None = Field(default=None, alias="dt")
    """Time step of the noisy dynamics, at most the shortest time constant (that, or 10 ms where it is longer)."""
    steps: Count | None = None
    """Time steps of the noisy dynamics per minibatch (800)."""
    pretraining: Count | None = None
    """Passes over the training samples in which `alternating` teaches Q before the circuit learns (1)."""
    passes: Count | None = None
    """Passes in which `alternating` teaches Q before each epoch but the first (1)."""
    alpha: Positive | None = None
    """Leak of the output controller's integral part in the phases of `alternating` (0.6); its time constant is that of
    `control.controller`."""
    k_p: NotNegative | None = None
    """Proportional gain of the output controller in the phases of `alternating` (0.15)."""
    optimizer: OptimizerSpec | None = None
    """The optimizer of the feedback weights: for `kolen_pollack` the circuit's own, for the others sgd, at 1 for
    `anti_hebbian` and 0.1 for `alternating`. A rate of plain sgd is 1/tau_Q, in minibatches: updates are means over
    time and samples."""

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        rule = data.get("rule")
        defaults = DEFAULTS.get(rule, {}) if isinstance(rule, str) else {}
        return {**{key: value for key, value in defaults.items() if key != "dt"}, **data}

    def decided(self, shortest_ms: float) -> FeedbackLearningSpec:
        """The same with its time step, in a circuit whose shortest time constant is given in ms."""
        if self.dt_ms is not None or "dt" not in DEFAULTS[self.rule]:
            return self
        return self.model_copy(update={"dt_ms": min(LONGEST_STEP_MS, shortest_ms)})

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        data = without_none(self.model_dump(mode="json", by_alias=True))
        for key in ("noise_tau", "dt"):
            if key in data:
                data[key] = time_text(data[key])
        return data if self.optimizer is None else {**data, "optimizer": self.optimizer.resolved()}


class InterneuronsSpec(Model):
    """How interneurons learn to track their pyramidal cells."""

    shorthand: ClassVar[str | None] = "optimizer"

    optimizer: OptimizerSpec | None = None
    """The optimizer of the interneurons' weights: the circuit's own unless given."""

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        return {} if self.optimizer is None else {"optimizer": self.optimizer.resolved()}
