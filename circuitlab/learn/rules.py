"""The rules of this version by their names in experiment files."""

from __future__ import annotations

from circuitlab.errors import CircuitError
from circuitlab.learn.backprop import Backprop, RecurrentBackprop
from circuitlab.learn.base import LearningRule
from circuitlab.learn.deep_feedback_control import DeepFeedbackControl, LinearisedSteadyState, SteadyState
from circuitlab.learn.feedback_alignment import DirectFeedbackAlignment, FeedbackAlignment
from circuitlab.learn.least_control import LeastControl
from circuitlab.learn.nudged import EquilibriumPropagation, PredictiveCoding

RULES: dict[str, LearningRule] = {
    rule.name: rule
    for rule in (
        LeastControl(),
        LeastControl(gated=True),
        RecurrentBackprop(),
        Backprop(),
        FeedbackAlignment(),
        DirectFeedbackAlignment(),
        PredictiveCoding(),
        EquilibriumPropagation(),
        DeepFeedbackControl(),
        SteadyState(),
        LinearisedSteadyState(),
    )
}


def rule_of(
    name: str,
    presynaptic: str = "controlled",
    weighting: str = "equal",
    beta: float | str | None = None,
    energy: str | None = None,
) -> LearningRule:
    """The rule of a name, with its options.

    Args:
        presynaptic, weighting: of the least-control rules.
        beta: nudging of predictive coding and equilibrium propagation; the rule's own where None.
        energy: of equilibrium propagation; the rule's own where None.
    """
    if name not in RULES:
        raise CircuitError(f"learn.rule: there is no rule {name}; allowed: {', '.join(RULES)}")
    rule = RULES[name]
    if isinstance(rule, LeastControl):
        return LeastControl(rule.gated, presynaptic, weighting)
    if isinstance(rule, PredictiveCoding) and beta is not None:
        return PredictiveCoding(None if isinstance(beta, str) else beta)
    if isinstance(rule, EquilibriumPropagation):
        given = rule.beta if beta is None or isinstance(beta, str) else beta
        return EquilibriumPropagation(given, energy or rule.energy)
    return rule
