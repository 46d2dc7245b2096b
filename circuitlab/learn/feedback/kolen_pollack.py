"""Kolen-Pollack learning of the feedback S: both ends of a loop learn the same, and forget.

    Delta W = psi sigma(phi)^T - gamma W,   Delta S = sigma(phi) psi^T - gamma S                    [eq. 150, S6.4.1]

so that W - S^T shrinks by 1 - gamma with every update, whatever is learned. The decay acts after the optimizer, as
published; within one optimizer S takes the steps of W^T to the bit, with Adam as with plain descent.
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.base import Pathway
from circuitlab.control.feedback import AmongUnits, ApicalFeedback, KolenPollackFeedback
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError
from circuitlab.learn.base import Batch, Outcome, Task
from circuitlab.learn.feedback.base import FeedbackRule


class KolenPollack(FeedbackRule):
    """Delta S is Delta W of the same synapse, seen from its other end; of the circuit's own apical projections it is
    made of what each of their synapses has at hand, the rate sigma(phi) after it and the burst psi before it.

    Args:
        pathway: whose S learns.
        decay: gamma, a share per update, of W as well.

    Raises:
        CircuitError: nothing of S is plastic, or a plastic burst projection mirrors no plastic projection, or its
            weights are two thin factors.
    """

    name = "kolen_pollack"

    def __init__(self, pathway: Pathway, decay: float) -> None:
        self.decay = decay
        feedback = getattr(pathway, "feedback", None)
        if isinstance(feedback, ApicalFeedback):
            check_bursts(feedback)
        elif not isinstance(feedback, KolenPollackFeedback):
            raise CircuitError(
                "learn.feedback.rule: kolen_pollack teaches S of its own; allowed with control.feedback: "
                "kolen_pollack, apical"
            )
        elif not feedback.learning():
            raise CircuitError(
                "learn.feedback.rule: kolen_pollack has nothing to teach, for no projection among units is plastic, so "
                "that S is tied; allowed: control.feedback: tied"
            )

    def teaches(self, name: str) -> bool:
        return name.startswith("S/")

    @torch.no_grad()
    def updates(self, task: Task, batch: Batch, outcome: Outcome | None, step: int) -> dict[str, Tensor]:
        assert outcome is not None, "it learns from what the circuit's rule has found"
        assert isinstance(task.pathway, AmongUnits)
        assert isinstance(task.system, CircuitSystem)
        feedback = task.pathway.feedback
        if not isinstance(feedback, ApicalFeedback):
            return {f"S/{name}": outcome.updates[name].clone() for name in feedback.learning()}
        rate, psi = outcome.factors(task.system)
        return {
            f"S/{link.projection.name}": link.kernel.outer(rate[link.target], psi[link.source])
            for link in feedback.links
            if link.projection.plastic
        }

    @torch.no_grad()
    def after_step(self, task: Task, compiled: CompiledCircuit) -> None:
        """The decay of W, of S, and of what else follows W, each once."""
        followers = task.pathway.companions()
        taught = [name for name in followers if any(key.startswith("S/") for key in followers[name])]
        kernels = [compiled.links[name].kernel for name in taught]
        kernels += [kernel for name in taught for kernel in followers[name].values()]
        for kernel in {id(kernel): kernel for kernel in kernels}.values():
            kernel.scale_(1 - self.decay)


def check_bursts(feedback: ApicalFeedback) -> None:
    """Refuse burst projections that Kolen-Pollack cannot teach.

    Raises:
        CircuitError: as `KolenPollack` says.
    """
    plastic = [link.projection for link in feedback.links if link.projection.plastic]
    if not plastic:
        raise CircuitError(
            "learn.feedback.rule: kolen_pollack teaches plastic burst projections, and the circuit has none; write "
            "plastic: true for those that should learn, or leave learn.feedback out"
        )
    for p in plastic:
        if not feedback.mirrored[p.name]:
            raise CircuitError(
                f"learn.feedback.rule: kolen_pollack mirrors updates, but no plastic rate-coded projection runs from "
                f"'{p.target}' to '{p.source}' for '{p.name}' to mirror; write plastic: false for it"
            )
        if p.rank is not None:
            raise CircuitError(
                f"learn.feedback.rule: kolen_pollack teaches single synapses, but the weights of '{p.name}' are a "
                "product of two thin factors; leave out its rank"
            )
