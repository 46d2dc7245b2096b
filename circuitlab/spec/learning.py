"""The section `learn` of an experiment file: the rule, and how its updates are applied."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from circuitlab.spec.base import Model, without_none
from circuitlab.spec.combinations import NUDGED_RULES
from circuitlab.spec.feedback import FeedbackLearningSpec, InterneuronsSpec
from circuitlab.spec.numbers import Count, Epochs, Positive
from circuitlab.spec.optimizer import OptimizerSpec, SchedulerSpec
from circuitlab.spec.quantities import count_text
from circuitlab.spec.settled import ConstrainSpec, PenaltySpec


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

    rule: Literal[
        "least_control",
        "least_control_gated",
        "deep_feedback_control",
        "deep_feedback_control_ss",
        "deep_feedback_control_ssa",
        "recurrent_backprop",
        "backprop",
        "feedback_alignment",
        "direct_feedback_alignment",
        "predictive_coding",
        "equilibrium_propagation",
    ] = "least_control"
    """The rule: `least_control`, gated by sigma' (`least_control_gated`), deep feedback control during the dynamics, at
    their steady state (`_ss`) or at the linearised one (`_ssa`), or a baseline."""
    feedback: FeedbackLearningSpec | None = None
    """How the feedback weights learn; not at all unless given (`kolen_pollack` where control.feedback asks for it)."""
    interneurons: InterneuronsSpec | None = None
    """How the interneurons of `lateral_inhibition` learn to track."""
    beta: float | Literal["clamped"] | None = None
    """Nudging of `predictive_coding` (`clamped`, or a number) and `equilibrium_propagation` (0.01)."""
    energy: Literal["discrepancy", "hopfield"] | None = None
    """Energy of `equilibrium_propagation`: `discrepancy` (1/2 |f|^2, any circuit; the default) or `hopfield`
    (symmetric weights)."""
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

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        rule = data.get("rule")
        if isinstance(rule, str) and rule in NUDGED_RULES:
            data = {"beta": NUDGED_RULES[rule], **data}
        return {"energy": "discrepancy", **data} if rule == "equilibrium_propagation" else data

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as it would be written in the file."""
        return {
            **without_none(self.model_dump(mode="json")),
            "optimizer": self.optimizer.resolved(),
            "scheduler": self.scheduler.resolved(),
            **({} if self.feedback is None else {"feedback": self.feedback.resolved()}),
            **({} if self.interneurons is None else {"interneurons": self.interneurons.resolved()}),
            "snapshots_every": count_text(self.snapshots_every, "epochs"),
        }
