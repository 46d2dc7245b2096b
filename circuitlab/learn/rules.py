"""The rules of this version by their names in experiment files."""

from __future__ import annotations

from circuitlab.errors import CircuitError
from circuitlab.learn.backprop import Backprop, RecurrentBackprop
from circuitlab.learn.base import LearningRule
from circuitlab.learn.deep_feedback_control import DeepFeedbackControl, LinearisedSteadyState, SteadyState
from circuitlab.learn.least_control import LeastControl

RULES: dict[str, LearningRule] = {
    rule.name: rule
    for rule in (
        LeastControl(),
        LeastControl(gated=True),
        RecurrentBackprop(),
        Backprop(),
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
) -> LearningRule:
    """The rule of a name, with its options.

    Args:
        presynaptic, weighting: of the least-control rules.
        beta: nudging of predictive coding and equilibrium propagation; the rule's own where None.
    """
    if name not in RULES:
        raise CircuitError(f"learn.rule: {name} is not built yet; allowed: {', '.join(RULES)}")
    rule = RULES[name]
    if isinstance(rule, LeastControl):
        return LeastControl(rule.gated, presynaptic, weighting)
    return rule
