"""Gap junctions in the equations: current flows between somata in proportion to the difference of their potentials.

    tau dphi_i/dt = ... + sum_j g_ij (phi_j - phi_i),   g_ij = g_ji >= 0

They add L phi to f, with L = G - diag(d) and d = G 1, the load of each neuron. L is symmetric, linear, and none of its
eigenvalues is above zero. So the transposed Jacobian of the prediction gains L, and under feedback among units

    psi = sigma'(phi) (S psi) + L psi + D^T u

whatever S is: a junction is its own way back. The principle's update of a conductance is (d f/d g_ij)^T psi:

    dg_ij = (psi_i - psi_j) (phi_j - phi_i)                                                  [Theorem 1, eq. 4]

A plain iteration phi <- prediction(phi) diverges where a load is large. Sweeps solve every neuron's equation for its
own potential and control instead, given those of its neighbours (Jacobi's method),

    phi = (W sigma(phi) + U x + b + G phi + psi) / (1 + d)
    psi = (sigma'(phi) (S psi) + G psi + D^T u) / (1 + d)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.compile.kernels.electrical import Electrical
from circuitlab.dynamics.activations import kinked_control
from circuitlab.dynamics.sweep import Back, JacobiSweep, Sweep

if TYPE_CHECKING:
    from circuitlab.dynamics.circuit import CircuitSystem
    from circuitlab.dynamics.system import System


class Junctions:
    """All gap junctions of a circuit."""

    def __init__(self, compiled: CompiledCircuit) -> None:
        self.compiled = compiled
        self.links = [
            (link, link.kernel) for link in compiled.electrical if isinstance(link.kernel, Electrical)
        ]

    @property
    def names(self) -> str:
        """The projections, for messages."""
        return ", ".join(link.projection.name for link, _ in self.links)

    @torch.no_grad()
    def loads(self) -> Tensor:
        """d = G 1, the sum of each neuron's conductances, [unit, 1]."""
        out = torch.zeros_like(self.compiled.tau)
        for link, kernel in self.links:
            target, source = kernel.loads()
            out[link.target] += target
            if not kernel.within:
                out[link.source] += source
        return out

    @torch.no_grad()
    def add_neighbours(self, x: Tensor, out: Tensor) -> None:
        """out += G x, each [unit, sample]."""
        for link, kernel in self.links:
            kernel.add_product(x[link.source], out[link.target])
            if not kernel.within:
                kernel.add_transposed(x[link.target], out[link.source])

    @torch.no_grad()
    def add(self, x: Tensor, out: Tensor) -> None:
        """out += L x, each [unit, sample]: the currents, for x the potentials."""
        self.add_neighbours(x, out)
        out.addcmul_(self.loads(), x, value=-1)

    @torch.no_grad()
    def update(self, phi: Tensor, psi: Tensor) -> dict[str, Tensor]:
        """Sums over samples of (psi_i - psi_j) (phi_j - phi_i) for every edge of a plastic projection, [edge].

        Args:
            phi, psi: [unit, sample].
        """
        updates, own = {}, (phi * psi).sum(1)
        for link, kernel in self.links:
            if not link.projection.plastic:
                continue
            of, to = link.source, link.target
            source, target = (
                torch.as_tensor(ends, dtype=torch.int64, device=phi.device)
                for ends in (link.projection.edges.source, link.projection.edges.target)
            )
            found = kernel.outer(psi[to], phi[of]) + kernel.outer(phi[to], psi[of])
            found -= torch.where(
                self._apart(kernel, source, target),
                own[to][target] + own[of][source],
                torch.zeros_like(found),
            )
            updates[link.projection.name] = found[
                kernel.pair
            ]  # to the bit the same where a pair is listed twice
        return updates

    @staticmethod
    def _apart(kernel: Electrical, source: Tensor, target: Tensor) -> Tensor:
        """Which edges join two neurons, bool [edge]."""
        return source != target if kernel.within else torch.ones_like(source, dtype=torch.bool)


class SharedSweep(JacobiSweep):
    """Passes through a linearised circuit with gap junctions, each neuron solved for its own potential.

    Args:
        loads: d, [unit, 1].
    """

    def __init__(self, system: System, drive: Tensor, loads: Tensor) -> None:
        super().__init__(system, drive)
        self.loads = loads
        self.keeps = self.share = 1 / (1 + loads)
        self.mixing = mixing(system.output, loads)

    def forward(self, phi: Tensor, psi: Tensor | None) -> None:
        super().forward(phi, None)
        self.prediction = (self.prediction + self.loads * phi) * self.keeps


def mixing(output: slice, loads: Tensor) -> Tensor | None:
    """How potentials of the outputs answer the controller, [output unit, output unit]; None where no output has a gap
    junction."""
    at = loads[output]
    return torch.diag((1 + at).pow(-2).squeeze(1)) if bool((at > 0).any()) else None


class JunctionSweep(Sweep):
    """Passes through a circuit with gap junctions, every neuron at once, each solved for its own potential and control.

    Args:
        system: the circuit.
        drive: U x + b, [unit, sample].
        back: ways of the control, by the first row of the population they reach; none for the free state.
        kinked: solve neurons that rest on a kink exactly (else they take the slope below it).
        masked: leave units with `controlled: false` without control.
    """

    def __init__(
        self,
        system: CircuitSystem,
        drive: Tensor,
        back: Mapping[int, list[Back]] | None = None,
        kinked: bool = True,
        masked: bool = True,
    ) -> None:
        assert system.junctions is not None
        self.system, self.junctions, self.drive = system, system.junctions, drive
        self.routes = [way.route for ways in (back or {}).values() for way in ways]
        self.kinked = system.kinked if kinked else []
        self.mask = system.controlled if masked else None
        self.loads = self.junctions.loads()
        self.keeps = self.share = 1 / (1 + self.loads)
        self.mixing = mixing(system.output, self.loads)
        self.prediction = drive
        self.arriving = self.slopes = self.phi = drive

    def forward(self, phi: Tensor, psi: Tensor | None) -> None:
        rate = self.system.rates(phi)
        self.phi, self.arriving = phi, self.system.arriving(rate, self.drive)
        self.junctions.add_neighbours(phi, self.arriving)
        self.prediction = self.arriving * self.keeps
        if psi is not None:
            self.slopes = self.system.slopes(phi, rate)

    def hold(self, phi: Tensor) -> None:
        self.forward(phi, phi)

    def outputs(self, psi: Tensor, control: Tensor, potential: Tensor) -> None:
        raw, near = torch.zeros_like(psi), torch.zeros_like(psi)
        for route in self.routes:
            route.add(psi[route.source], raw[route.target])
        self.junctions.add_neighbours(psi, near)
        gated = self.slopes * raw
        for rows, activation in self.kinked:
            assert activation.kink is not None
            phi = activation.above(self.phi[rows])
            gated[rows] = kinked_control(activation.kink, phi, raw[rows], self._lean(near)[rows])
        torch.add(gated, near, out=control).mul_(self.keeps)
        torch.add(self.arriving, control, out=potential).mul_(self.keeps)
        for rows, activation in self.kinked:  # rounding would leave a neuron that rests on its kink
            held = (raw[rows] < 0) & (gated[rows] == -self._lean(near)[rows])
            potential[rows].masked_fill_(held, activation.threshold)
        if self.mask is not None:
            control.mul_(self.mask)
            torch.where(self.mask > 0, potential, self.prediction, out=potential)

    def _lean(self, near: Tensor) -> Tensor:
        """What takes the place of a prediction from the threshold on where junctions share a control, [unit, sample]:
        with the gated feedback q, a potential rests at its threshold where q + lean = 0, and above it where it is more.
        """
        return lean(self.system, self.loads, self.arriving, near)

    def backward(self, psi: Tensor, control: Tensor, potential: Tensor) -> None:
        """Nothing is left to do."""


def lean(system: CircuitSystem, loads: Tensor, arriving: Tensor, near: Tensor) -> Tensor:
    """G psi + (1 + d) (c - (1 + d) threshold), with c what arrives at a neuron but its control, [unit, sample].

    From (1 + d) phi = c + psi and (1 + d) psi = q + G psi for the gated feedback q.

    Args:
        loads: d, [unit, 1]. arriving: c, W sigma(phi) + U x + b + G phi. near: G psi. Both [unit, sample].
    """
    whole = 1 + loads
    ahead = arriving if system.kinks is None else arriving - whole * system.kinks
    return near + whole * ahead
