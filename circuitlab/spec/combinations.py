"""Which feedback a pathway takes, and which rules learn under which pathway."""

from __future__ import annotations

from typing import Any

AMONG_UNITS = ("tied", "random", "kolen_pollack", "apical")
PATHWAYS: dict[str, tuple[str, ...]] = {
    "dynamic_inversion": AMONG_UNITS,
    "energy_based": AMONG_UNITS,
    "lateral_inhibition": ("tied", "random", "kolen_pollack"),
    "linear_feedback": ("random", "jacobian", "file"),
    "deep_feedback_control": ("jacobian", "random", "file"),
}
"""Feedback weights that each pathway takes, its default first."""
AMONG = ("dynamic_inversion", "energy_based", "lateral_inhibition")
"""Pathways in which control travels from unit to unit."""
LINEAR = ("linear_feedback", "deep_feedback_control")
"""Pathways in which the controller reaches every unit directly, psi = Q u."""
SCALED = ("random", "kolen_pollack")
"""Feedback whose weights are drawn at random, and may be scaled."""

EVERY: dict[str, tuple[str, ...]] = PATHWAYS
DIRECT = {pathway: PATHWAYS[pathway] for pathway in LINEAR}
ENERGY = {"energy_based": ("tied",)}
RULES: dict[str, dict[str, tuple[str, ...]]] = {
    "least_control": EVERY,
    "least_control_gated": EVERY,
    "deep_feedback_control": DIRECT,
    "deep_feedback_control_ss": DIRECT,
    "deep_feedback_control_ssa": DIRECT,
    "recurrent_backprop": EVERY,
    "backprop": EVERY,
    "feedback_alignment": {"dynamic_inversion": ("random", "kolen_pollack", "apical")},
    "direct_feedback_alignment": DIRECT,
    "predictive_coding": ENERGY,
    "equilibrium_propagation": ENERGY,
}
"""Pathways, with their feedback, under which each rule learns; the first one of each is taken where none is given."""
FEEDBACK_RULES: dict[str, dict[str, tuple[str, ...]]] = {
    "kolen_pollack": {
        pathway: tuple(name for name in ("kolen_pollack", "apical") if name in PATHWAYS[pathway])
        for pathway in AMONG
    },
    "anti_hebbian": DIRECT,
    "alternating": DIRECT,
}
"""Pathways, with their feedback, whose feedback weights each rule of `learn.feedback` teaches."""
CONTROLLED_RULES = ("least_control", "least_control_gated")
"""Rules made of psi at the controlled equilibrium."""

RATE_RULES = ("deep_feedback_control", "deep_feedback_control_ss", "deep_feedback_control_ssa")
"""Rules whose credit is a difference of rates."""

NUDGED_RULES: dict[str, float | str] = {"predictive_coding": "clamped", "equilibrium_propagation": 0.01}
"""Rules that nudge the outputs by a strength of their own, `learn.beta`, and what it is where none is given."""


def nudging(rule: Any, beta: Any) -> dict[str, Any] | None:
    """The output controller of a rule that has a nudge in its place; None for other rules.

    Args:
        beta: of the file; the rule's own where it is none or wrong.
    """
    if not isinstance(rule, str) or rule not in NUDGED_RULES:
        return None
    number = isinstance(beta, int | float) and not isinstance(beta, bool) and beta > 0
    if not number and NUDGED_RULES[rule] == "clamped":
        return {"type": "integral"}
    return {"type": "proportional", "beta": beta if number else NUDGED_RULES[rule]}


def default_feedback(pathway: Any) -> str:
    """The feedback that a pathway takes where none is given."""
    return PATHWAYS[pathway][0] if isinstance(pathway, str) and pathway in PATHWAYS else "tied"


def default_control(rule: Any) -> dict[str, str]:
    """Pathway and feedback of a rule where the file names none: `control` keys."""
    if not isinstance(rule, str) or rule not in RULES or RULES[rule] is EVERY:
        return {}
    if rule.startswith("deep_feedback_control"):
        return {"pathway": "deep_feedback_control"}
    pathway, feedback = next(iter(RULES[rule].items()))
    return {"pathway": pathway, "feedback": feedback[0]}


def combinations(allowed: dict[str, tuple[str, ...]]) -> str:
    """Pathways and their feedback for a message."""
    return "; ".join(f"{pathway} with {' or '.join(feedback)}" for pathway, feedback in allowed.items())
