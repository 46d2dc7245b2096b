"""How the interneurons of lateral inhibition learn to track: by a delta rule with their pyramidal cell as teacher.

    Delta W_I = (phi - delta) sigma(phi)^T,  Delta U_I = (phi - delta) x^T,  Delta b_I = phi - delta     [S6.4.1]

at the state that the circuit learns from, where phi - delta = psi + (W sigma(phi) + U x + b - delta): what the cell's
own synapses learn, psi sigma(phi)^T, and the tracking error that is left. So within one optimizer an interneuron that
tracks goes on to do so while W learns, and the error of one that does not goes to zero. Where the circuit's rule gates
or weighs psi, so is psi here; of weights that do not learn the interneuron sees the basal potential phi - psi alone.
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

    def teaches(self, name: str) -> bool:
        return name.startswith("I/")

    @torch.no_grad()
    def updates(self, task: Task, batch: Batch, outcome: Outcome | None, step: int) -> dict[str, Tensor]:
        assert outcome is not None, "it learns from what the circuit's rule has found"
        assert isinstance(task.pathway, LateralInhibition)
        assert isinstance(task.system, CircuitSystem)
        x, (rate, psi) = batch.x[:, outcome.used], outcome.factors(task.system)
        error = tracking_error(task, outcome.presynaptic[:, outcome.used], x) / max(psi.shape[1], 1)
        return delta_rule(task.pathway, rate, x, psi, error)


def delta_rule(
    pathway: LateralInhibition, rate: Tensor, x: Tensor, psi: Tensor, error: Tensor
) -> dict[str, Tensor]:
    """The updates of all interneurons, summed over samples, by parameter name.

    Args:
        rate: sigma(phi), [unit, sample]. x: [input unit, sample].
        psi: what the cells' own plastic synapses learn from, [unit, sample].
        error: W sigma(phi) + U x + b - delta, [unit, sample].
    """
    compiled, teacher = pathway.system.compiled, psi + error
    found = {}
    for link, kernel in pathway.interneurons.links:
        pre = x if link.projection.source in compiled.inputs else rate
        post = teacher if link.projection.plastic else error
        found[f"I/{link.projection.name}"] = kernel.outer(post[link.target], pre[link.source])
    for name, bias in compiled.biases.items():
        post = teacher if bias.requires_grad else error
        found[f"I/{name}_bias"] = post[compiled.units[name]].sum(1)
    return found


@torch.no_grad()
def tracking_error(task: Task, phi: Tensor, x: Tensor) -> Tensor:
    """W sigma(phi) + U x + b - delta of every unit, [unit, sample]."""
    assert isinstance(task.pathway, LateralInhibition)
    assert isinstance(task.system, CircuitSystem)
    interneurons, point = task.pathway.interneurons, task.system.linearise(phi, task.system.drive(x))
    return point.prediction - interneurons.potentials(interneurons.drive(x), point.rate)
