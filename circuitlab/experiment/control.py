"""From the words of `control` and `learn.feedback` to a pathway, an output controller and feedback rules."""

from __future__ import annotations

from typing import TypeVar

from circuitlab.control import output
from circuitlab.control.base import Pathway
from circuitlab.control.deep_feedback_control import DeepFeedbackControl
from circuitlab.control.dynamic_inversion import DynamicInversion, feedback
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import OutputController
from circuitlab.data.arrays import read_arrays
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError
from circuitlab.learn.feedback.base import FeedbackRule
from circuitlab.learn.feedback.noisy import Alternating, AntiHebbian, Noise, NoisyFeedback
from circuitlab.spec.control import ControllerSpec
from circuitlab.spec.experiment import ExperimentSpec
from circuitlab.spec.feedback import FeedbackLearningSpec


def pathway(spec: ExperimentSpec, system: CircuitSystem) -> Pathway:
    """The feedback pathway of an experiment."""
    control = spec.control
    options = {"scale": control.scale} if control.feedback == "random" else {}
    if control.pathway == "dynamic_inversion":
        return DynamicInversion(feedback(control.feedback, system, spec.seed, options))
    if control.pathway == "linear_feedback":
        return direct(LinearFeedback, spec, system)
    if control.pathway == "deep_feedback_control":
        assert control.nudge is not None
        return direct(DeepFeedbackControl, spec, system).nudged(control.nudge)
    raise CircuitError(f"control.pathway: {control.pathway} with {control.feedback} is not built yet")


Direct = TypeVar("Direct", bound=LinearFeedback)


def direct(kind: type[Direct], spec: ExperimentSpec, system: CircuitSystem) -> Direct:
    """A pathway in which the controller reaches every unit directly, with the feedback weights asked for."""
    control = spec.control
    if control.file is not None:
        path = spec.folder / control.file
        return kind.given(system, read_arrays(path, samples=False), str(path))
    if control.feedback == "jacobian":
        return kind.jacobian(system)
    return kind.random(system, spec.seed, control.scale)


def controller(spec: ControllerSpec) -> OutputController:
    """The output controller of an experiment; at its final leak where that changes over training."""
    if spec.type == "proportional":
        assert spec.beta is not None
        return output.proportional(spec.beta)
    if spec.type == "integral":
        return output.integral(spec.tau_ms)
    if spec.type == "pi":
        assert spec.leak is not None and spec.k_p is not None
        return output.proportional_integral(spec.leak, spec.k_p, spec.tau_ms)
    assert spec.leak is not None
    return output.leaky_integral(spec.leak, spec.tau_ms)


def feedback_rule(spec: ExperimentSpec, system: CircuitSystem) -> FeedbackRule | None:
    """How the feedback weights of an experiment learn, or None."""
    taught = spec.learn.feedback
    if taught is None:
        return None
    if taught.rule in ("anti_hebbian", "alternating"):
        return noisy_rule(taught, spec)
    raise CircuitError(f"learn.feedback.rule: {taught.rule} is not built yet")


def noisy_rule(taught: FeedbackLearningSpec, spec: ExperimentSpec) -> NoisyFeedback:
    """A rule that learns Q from noise."""
    given = (taught.noise, taught.noise_tau_ms, taught.dt_ms, taught.steps, taught.decay)
    assert None not in given
    noise = Noise(*given, spec.seed)  # type: ignore[arg-type]
    if taught.rule == "anti_hebbian":
        return AntiHebbian(noise)
    assert taught.alpha is not None and taught.k_p is not None
    phase = output.proportional_integral(taught.alpha, taught.k_p, spec.control.controller.tau_ms)
    return Alternating(noise, phase, taught.pretraining or 0, taught.passes or 0)
