"""From the words of `control` and `learn.feedback` to a pathway, an output controller and feedback rules."""

from __future__ import annotations

from typing import TypeVar

from circuitlab.control import output
from circuitlab.control.base import Pathway
from circuitlab.control.deep_feedback_control import DeepFeedbackControl
from circuitlab.control.dynamic_inversion import DynamicInversion
from circuitlab.control.energy_based import EnergyBased
from circuitlab.control.feedback import AmongUnits, feedback
from circuitlab.control.interneurons import Interneurons
from circuitlab.control.lateral_inhibition import LateralInhibition
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import OutputController
from circuitlab.data.arrays import read_arrays
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError
from circuitlab.learn.feedback.base import FeedbackRule
from circuitlab.learn.feedback.kolen_pollack import KolenPollack
from circuitlab.learn.feedback.noisy import Alternating, AntiHebbian, Noise, NoisyFeedback
from circuitlab.learn.feedback.tracking import Tracking
from circuitlab.spec.combinations import SCALED
from circuitlab.spec.control import ControllerSpec
from circuitlab.spec.experiment import ExperimentSpec
from circuitlab.spec.feedback import FeedbackLearningSpec


def pathway(spec: ExperimentSpec, system: CircuitSystem) -> Pathway:
    """The feedback pathway of an experiment."""
    control = spec.control
    options = {"scale": control.scale} if control.feedback in SCALED else {}
    if control.pathway == "dynamic_inversion":
        return DynamicInversion(feedback(control.feedback, system, spec.seed, options))
    if control.pathway == "lateral_inhibition":
        among = feedback(control.feedback, system, spec.seed, options)
        return LateralInhibition(
            system, among, Interneurons(system, control.interneurons == "copied", spec.seed)
        )
    if control.pathway == "energy_based":
        return EnergyBased(feedback(control.feedback, system, spec.seed, options))
    if control.pathway == "linear_feedback":
        return direct(LinearFeedback, spec, system)
    if control.pathway == "deep_feedback_control":
        assert control.nudge is not None
        return direct(DeepFeedbackControl, spec, system).nudged(control.nudge)
    raise CircuitError(f"control.pathway: there is no pathway {control.pathway}")


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


def feedback_rule(spec: ExperimentSpec, system: CircuitSystem, pathway: Pathway) -> FeedbackRule | None:
    """How the feedback weights of an experiment learn, or None.

    Raises:
        CircuitError: the rule has nothing to teach, or nobody teaches burst projections that are plastic.
    """
    taught = spec.learn.feedback
    if taught is None:
        idle = [k.projection.name for k in system.compiled.burst if k.projection.plastic]
        if idle and spec.control.feedback == "apical":
            raise CircuitError(
                f"learn.feedback: nobody teaches the plastic burst projection {', '.join(idle)}; write "
                "learn.feedback: kolen_pollack, or plastic: false in the circuit"
            )
        return None
    if taught.rule == "kolen_pollack" and isinstance(pathway, AmongUnits):
        assert taught.decay is not None
        return KolenPollack(pathway, taught.decay)
    if taught.rule in ("anti_hebbian", "alternating"):
        return noisy_rule(taught, spec)
    raise CircuitError(f"learn.feedback.rule: {taught.rule} does not teach the feedback of {pathway.name}")


def interneuron_rule(pathway: Pathway) -> FeedbackRule | None:
    """How the interneurons of a pathway learn to track their pyramidal cells, or None where it has none."""
    return Tracking() if isinstance(pathway, LateralInhibition) else None


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
