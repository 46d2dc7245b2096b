"""A penalty on the Jacobian of the recurrent prediction, which keeps equilibria easy to find and gain from growing.

    R = gamma/2 mean_s sum_ij (W_ij sigma'(phi_j))^2        -dR/dW_ij = -gamma W_ij mean_s sigma'(phi_j)^2

with phi held fixed (Bai et al. 2021, Stabilizing equilibrium models by Jacobian regularization, with the exact norm in
place of an estimate). Each synapse needs its own weight and its presynaptic neuron's slope: the rule is local.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from circuitlab.compile.kernels import Kernel
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError
from circuitlab.learn.base import Outcome
from circuitlab.learn.constrain import recurrent_groups
from circuitlab.learn.feedback.base import PREFIX


class JacobianPenalty:
    """Adds -dR/dW to the updates of the plastic projections within recurrent groups, each projection on its own.

    Args:
        system: the circuit.
        gamma: weight of the penalty, dimensionless, above 0.
        companions: weights that follow a projection's, each of which then learns by the same rule with its own value
            in place of W_ij (`Pathway.companions`).
        turned: whether these are projections of their own that run the other way.

    Raises:
        CircuitError: the circuit has no recurrent group.
    """

    def __init__(
        self,
        system: CircuitSystem,
        gamma: float,
        companions: Mapping[str, Mapping[str, Kernel]] | None = None,
        turned: bool = False,
    ) -> None:
        self.system, self.gamma = system, gamma
        self.companions, self.turned = companions or {}, turned
        groups = recurrent_groups(system.compiled)
        if not groups:
            raise CircuitError(
                "learn.penalty.jacobian: it is on recurrent projections, and the circuit has none; leave it out"
            )
        self.links = [link for links in groups for link in links]

    def _slopes(self, phi: Tensor) -> Tensor:
        """mean_s sigma'(phi)^2, [unit, 1]."""
        return self.system.slopes(phi, self.system.rates(phi)).square().mean(1, keepdim=True)

    @torch.no_grad()
    def value(self, phi: Tensor) -> Tensor:
        """R at potentials phi, [unit, sample]: a number."""
        total = phi.new_zeros(())
        slopes = self._slopes(phi)
        for link in self.links:
            edges = link.projection.edges
            source = torch.as_tensor(edges.source, device=phi.device).long()
            total += (link.kernel.edge_values.square() * slopes[link.source][source, 0]).sum()
        return 0.5 * self.gamma * total

    @torch.no_grad()
    def add(self, outcome: Outcome) -> None:
        """Add -dR/dW to an outcome's updates, at the equilibrium whose rates they take, over the samples used."""
        phi = outcome.presynaptic[:, outcome.used]
        if not phi.shape[1]:
            return
        slopes = self._slopes(phi)
        done: set[str] = set()
        for link in self.links:
            if not link.projection.plastic:
                continue
            name, slope = link.projection.name, slopes[link.source]
            ones = phi.new_ones(link.target.stop - link.target.start, 1)
            _descend(outcome.updates[name], link.kernel, link.kernel.outer(ones, slope), self.gamma)
            for key, kernel in self.companions.get(name, {}).items():
                update = outcome.updates.get(PREFIX + key)
                if update is None or key in done:
                    continue
                seen = kernel.outer(slope, ones) if self.turned else kernel.outer(ones, slope)
                _descend(update, kernel, seen, self.gamma)
                done.add(key)


def _descend(update: Tensor, kernel: Kernel, seen: Tensor, gamma: float) -> None:
    update.addcmul_(kernel.values.detach(), seen, value=-gamma)
