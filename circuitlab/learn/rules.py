"""The rules of this version by their names in experiment files."""

from __future__ import annotations

from circuitlab.learn.backprop import Backprop, RecurrentBackprop
from circuitlab.learn.base import LearningRule
from circuitlab.learn.least_control import LeastControl

RULES: dict[str, LearningRule] = {
    rule.name: rule for rule in (LeastControl(), LeastControl(gated=True), RecurrentBackprop(), Backprop())
}
