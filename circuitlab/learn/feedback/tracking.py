"""How the interneurons of lateral inhibition learn to track: by a delta rule with their pyramidal cell as teacher.

    Delta W_I = (phi - delta) sigma(phi)^T,  Delta U_I = (phi - delta) x^T,  Delta b_I = phi - delta     [S6.4.1]

in the free state, and once more in the controlled one. In the free state phi - delta is the tracking error alone (free
states that are only near are enough: phi there is what the cell's own synapses predict). Under control it is psi and
the tracking error in states that only control brings about; psi is what the cell's own synapses learn from, and without
it interneurons would lag behind every update of W. So within one optimizer an interneuron that tracks goes on to do so
to the bit, and the error of one that does not goes to zero. Where the circuit's rule gates or weighs psi, so is psi
here; for weights of the cell that do not learn the teacher is its basal potential phi - psi.
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuitlab.control.lateral_inhibition import LateralInhibition
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.learn.base import Batch, Outcome, Task
from circuitlab.learn.feedback.base import FeedbackRule


class Tracking(FeedbackRule):
    """The delta rule of every interneuron; always on while the circuit learns."""

    name = "tracking"
    always = True

    def teaches(self, name: str) -> bool:
        return name.startswith("I/")

    @torch.no_grad()
    def updates(self, task: Task, batch: Batch, outcome: Outcome | None, step: int) -> dict[str, Tensor]:
        """Mean over the used samples; where none is used, of the free state over all."""
        assert outcome is not None, "it learns from what the circuit's rule has found"
        assert isinstance(task.pathway, LateralInhibition)
        assert isinstance(task.system, CircuitSystem)
        some = outcome.used if bool(outcome.used.any()) else torch.ones_like(outcome.used)
        phi, x = outcome.free.fields.phi[:, some], batch.x[:, some]
        error = tracking_error(task, phi, x) / max(x.shape[1], 1)
        free = delta_rule(task.pathway, task.system.rates(phi), x, error, error)
        phi, x, (rate, psi) = (
            outcome.presynaptic[:, outcome.used],
            batch.x[:, outcome.used],
            outcome.factors(task.system),
        )
        error = tracking_error(task, phi, x) / max(x.shape[1], 1)
        controlled = delta_rule(task.pathway, rate, x, psi + error, error)
        return {name: value.add_(controlled[name]) for name, value in free.items()}


def delta_rule(
    pathway: LateralInhibition, rate: Tensor, x: Tensor, soma: Tensor, basal: Tensor
) -> dict[str, Tensor]:
    """The update of every synapse and bias of the interneurons, summed over samples, by name.

    Args:
        rate: of the units, [unit, sample]. x: [input unit, sample].
        soma: phi - delta, the error of those whose counterparts in the circuit learn, [unit, sample].
        basal: phi - psi - delta, the error of the others.
    """
    compiled, found = pathway.system.compiled, {}
    for link, kernel in pathway.interneurons.links:
        pre = x if link.projection.source in compiled.inputs else rate
        post = soma if link.projection.plastic else basal
        found[f"I/{link.projection.name}"] = kernel.outer(post[link.target], pre[link.source])
    for name, bias in compiled.biases.items():
        post = soma if bias.requires_grad else basal
        found[f"I/{name}_bias"] = post[compiled.units[name]].sum(1)
    return found


@torch.no_grad()
def tracking_error(task: Task, phi: Tensor, x: Tensor) -> Tensor:
    """W sigma(phi) + U x + b - delta of every unit, [unit, sample]."""
    assert isinstance(task.pathway, LateralInhibition)
    assert isinstance(task.system, CircuitSystem)
    interneurons, point = task.pathway.interneurons, task.system.linearise(phi, task.system.drive(x))
    return point.prediction - interneurons.potentials(interneurons.drive(x), point.rate)
