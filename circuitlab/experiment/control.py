"""From the words of `control` and `learn.feedback` to a pathway, an output controller and feedback rules."""

from __future__ import annotations

from circuitlab.control import output
from circuitlab.control.base import Pathway
from circuitlab.control.dynamic_inversion import DynamicInversion, feedback
from circuitlab.control.energy_based import EnergyBased
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import OutputController
from circuitlab.data.arrays import read_arrays
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError
from circuitlab.learn.feedback.base import FeedbackRule
from circuitlab.spec.control import ControllerSpec
from circuitlab.spec.experiment import ExperimentSpec


def pathway(spec: ExperimentSpec, system: CircuitSystem) -> Pathway:
    """The feedback pathway of an experiment."""
    control = spec.control
    options = {"scale": control.scale} if control.feedback == "random" else {}
    if control.pathway == "dynamic_inversion":
        return DynamicInversion(feedback(control.feedback, system, spec.seed, options))
    if control.pathway == "energy_based":
        return EnergyBased(feedback(control.feedback, system, spec.seed, options))
    if control.pathway == "linear_feedback":
        if control.file is not None:
            path = spec.folder / control.file
            return LinearFeedback.given(system, read_arrays(path, samples=False), str(path))
        if control.feedback == "random":
            return LinearFeedback.random(system, spec.seed, control.scale)
    raise CircuitError(f"control.pathway: {control.pathway} with {control.feedback} is not built yet")


def controller(spec: ControllerSpec) -> OutputController:
    """The output controller of an experiment; at its final leak where that changes over training."""
    if spec.type == "proportional":
        assert spec.beta is not None
        return output.proportional(spec.beta)
    if spec.type == "integral":
        return output.integral(spec.tau_ms)
    if spec.type == "pi":
        raise CircuitError("control.controller.type: pi is not built yet")
    assert spec.leak is not None
    return output.leaky_integral(spec.leak, spec.tau_ms)


def feedback_rule(spec: ExperimentSpec, system: CircuitSystem) -> FeedbackRule | None:
    """How the feedback weights of an experiment learn, or None."""
    taught = spec.learn.feedback
    if taught is None:
        return None
    raise CircuitError(f"learn.feedback.rule: {taught.rule} is not built yet")
