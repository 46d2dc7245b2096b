"""The rules of this version by their names in experiment files."""

from __future__ import annotations

from circuitlab.learn.backprop import Backprop, RecurrentBackprop
from circuitlab.learn.base import LearningRule
from circuitlab.learn.least_control import LeastControl

RULES: dict[str, LearningRule] = {
    rule.name: rule for rule in (LeastControl(), LeastControl(gated=True), RecurrentBackprop(), Backprop())
}


def rule_of(name: str, presynaptic: str = "controlled", weighting: str = "equal") -> LearningRule:
    """The rule of a name, with the options of those that control the circuit (`LeastControl`)."""
    rule = RULES[name]
    return LeastControl(rule.gated, presynaptic, weighting) if isinstance(rule, LeastControl) else rule
