"""What can be recorded, in the words and symbols of the run file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from circuitlab.spec.probes import STATE

if TYPE_CHECKING:
    from circuitlab.spec.probes import AlongSpec

SYMBOLS = {
    "soma": "phi",
    "rate": "sigma(phi)",
    "basal": "W sigma(phi) + U x + b",
    "apical": "psi + W_apical sigma(phi)",
    "control": "psi",
    "controller": "u",
    "bias": "b",
    "weights": "W",
    "updates": "dW",
    "feedback_weights": "S",
    "residual": "",
    "iterations": "",
    "converged": "",
}
WORDS = {
    "soma": "somatic potential",
    "rate": "firing rate",
    "basal": "what basal and somatic synapses, gap junctions and the bias predict",
    "apical": "apical potential",
    "control": "control, the neuron's credit signal",
    "controller": "output controller",
    "bias": "bias, after the update of this step",
    "weights": "weight, after the update of this step",
    "updates": "the rule's update, mean over the samples used, in the direction of descent",
    "feedback_weights": "feedback weight S, from the edge's target back to its source, after the update of this step",
    "residual": "largest block-wise relative residual of the equations",
    "iterations": "iterations of the solver",
    "converged": "whether the residual is within the tolerance",
}
UNITS = {"iterations": "iterations", "converged": "none"}
"""Those that are not dimensionless."""
MISSING = {"iterations": -1, "converged": False}
"""What stands for samples that a smaller minibatch does not have; NaN for the others."""


def meaning(variable: str, phase: str, along: AlongSpec | None) -> str:
    """What a variable's numbers are, for a dataset's description.

    Args:
        phase: of the equilibrium, empty where there is none.
        along: the way to it, None at it.
    """
    words = WORDS[variable]
    if not phase:
        return words
    if along is None:
        between = " at" if variable in STATE else " of"
        return f"{words}{between} the {phase} equilibrium"
    if variable == "iterations":
        return f"{words} until it stopped, on the way to the {phase} equilibrium"
    if along.iterations is not None:
        return f"{words} on the solver's way to the {phase} equilibrium"
    return f"{words} as time passes, {phase}"
