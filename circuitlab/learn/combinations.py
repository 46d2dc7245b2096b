"""Rules, of the circuit and of the feedback, that make no sense under a pathway: refused however a trainer was made."""

from __future__ import annotations

from collections.abc import Iterable

from circuitlab.control.base import Pathway
from circuitlab.control.feedback import AmongUnits
from circuitlab.control.lateral_inhibition import LateralInhibition
from circuitlab.errors import CircuitError
from circuitlab.learn.base import LearningRule
from circuitlab.learn.feedback.base import FeedbackRule
from circuitlab.learn.feedback.tracking import Tracking
from circuitlab.spec.combinations import FEEDBACK_RULES, PATHWAYS, RULES, combinations


def refuse(rule: LearningRule, pathway: Pathway, taught: Iterable[FeedbackRule] = ()) -> None:
    """Refuse what `circuitlab.spec.combinations` does not list; rules and pathways of one's own are let through.

    Args:
        taught: how the pathway's own weights learn.

    Raises:
        CircuitError: says what is allowed.
    """
    if not _listed(RULES.get(rule.name), pathway):
        raise CircuitError(
            f"learn.rule: {rule.name} makes no sense under {_found(pathway)}; allowed:"
            f" {combinations(RULES[rule.name])}"
        )
    for one in taught:
        if isinstance(one, Tracking) and not isinstance(pathway, LateralInhibition):
            raise CircuitError(
                f"learn.interneurons: {pathway.name} has no interneurons of its own; allowed with lateral_inhibition"
            )
        if not _listed(FEEDBACK_RULES.get(one.name), pathway):
            raise CircuitError(
                f"learn.feedback: {one.name} does not teach the feedback weights of {_found(pathway)}; allowed:"
                f" {combinations(FEEDBACK_RULES[one.name])}"
            )


def _listed(allowed: dict[str, tuple[str, ...]] | None, pathway: Pathway) -> bool:
    """Whether a rule's pathways have this one; every feedback Q goes where its pathway does."""
    if allowed is None or pathway.name not in PATHWAYS:
        return True
    if pathway.name not in allowed:
        return False
    return not isinstance(pathway, AmongUnits) or pathway.feedback.name in allowed[pathway.name]


def _found(pathway: Pathway) -> str:
    feedback = f" with feedback '{pathway.feedback.name}'" if isinstance(pathway, AmongUnits) else ""
    return pathway.name + feedback
