"""A penalty on the Jacobian of the recurrent prediction, which keeps equilibria easy to find and gain from growing.

    R = gamma/2 mean_s sum_ij (W_ij sigma'(phi_j))^2        -dR/dW_ij = -gamma W_ij mean_s sigma'(phi_j)^2

with phi held fixed (Bai et al. 2021, Stabilizing equilibrium models by Jacobian regularization, with the exact norm in
place of an estimate). Each synapse needs its own weight and its presynaptic neuron's slope: the rule is local.
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError
from circuitlab.learn.base import Outcome
from circuitlab.learn.constrain import recurrent_groups


class JacobianPenalty:
    """Adds -dR/dW to the updates of the plastic projections within recurrent groups, each projection on its own.

    Args:
        system: the circuit.
        gamma: weight of the penalty, dimensionless, above 0.

    Raises:
        CircuitError: the circuit has no recurrent group.
    """

    def __init__(self, system: CircuitSystem, gamma: float) -> None:
        self.system, self.gamma = system, gamma
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
        for link in self.links:
            if link.projection.plastic:
                ones = phi.new_ones(link.target.stop - link.target.start, 1)
                seen = link.kernel.outer(ones, slopes[link.source])
                outcome.updates[link.projection.name].addcmul_(
                    link.kernel.values.detach(), seen, value=-self.gamma
                )
