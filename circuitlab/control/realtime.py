"""Direct feedback in real time: circuit and controller step by step, with nothing allocated on the way.

    tau dphi/dt = -phi + W sigma(phi) + U x + b + Q u + s eps                              [eq. 121, 122; DFC eq. 1, 12]
    u = u_int + k_p e,   tau_u du_int/dt = e - a u_int,   e = -dL/dy                       [eq. 6; DFC eq. 4]

by the forward Euler method  [eq. 138].
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuitlab.control.base import Controlled
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError


class RealTime:
    """A batch under direct feedback as time passes.

    Args:
        pathway: whose Q it is.
        batch: under control; its `phi` is where potentials begin.
        u: where the controller begins, [output unit, sample]; with its integral part at zero where None.
        dt_ms: time step in ms.

    Attributes:
        phi: potentials, [unit, sample]. u: the controller, [output unit, sample].
        rate, prediction, control: sigma(phi), W sigma(phi) + U x + b and Q u of the last `look`, [unit, sample].
    """

    def __init__(self, pathway: LinearFeedback, batch: Controlled, u: Tensor | None, dt_ms: float) -> None:
        system = batch.system
        if not isinstance(system, CircuitSystem):
            raise CircuitError("learn: direct feedback in real time is for circuits, not for a torch module")
        late = [p.name for p in system.compiled.circuit.projections.values() if p.delay_ms]
        if late:
            raise CircuitError(
                f"learn: what learns while time passes does not know the delay of '{late[0]}'; leave the delay out, or "
                "choose a rule that learns at equilibrium"
            )
        self.batch, self.q, self.controller = batch, pathway.q, batch.controller
        self.phi = batch.phi.clone(memory_format=torch.contiguous_format)
        self.rate, self.prediction, self.control = (torch.empty_like(self.phi) for _ in range(3))
        self.y = self.phi[system.output]
        self.parts = [(a.rate, self.phi[rows], self.rate[rows]) for rows, a in system.activations]
        self.ways = [
            (link.kernel.add_product, self.rate[link.source], self.prediction[link.target])
            for link in system.compiled.recurrent
        ]
        self.junctions = system.junctions
        self.share = dt_ms / system.tau
        self.whole = bool((self.share == 1).all())
        tau_u = self.controller.tau_ms
        self.pace = dt_ms / tau_u if tau_u else 0.0
        self.error = self._error()
        if u is None:
            self.integral = torch.zeros_like(self.error)
            self.u = self.integral.clone()
            self._set_controller()
        else:
            self.u = u.clone()
            self.integral = u - self.controller.k_p * self.error

    def look(self) -> None:
        """Find what the circuit predicts, and what the controller adds, at the present state."""
        for activation, phi, rate in self.parts:
            activation(phi, rate)
        self.prediction.copy_(self.batch.drive)
        for add, rate, out in self.ways:
            add(rate, out)
        if self.junctions is not None:
            self.junctions.add(self.phi, self.prediction)
        torch.mm(self.q, self.u, out=self.control)

    def advance(self, noise: Tensor | None = None, scale: float = 1.0) -> None:
        """One time step from where `look` looked.

        Args:
            noise: eps, [unit, sample]. scale: s.
        """
        if self.whole:
            torch.add(self.prediction, self.control, out=self.phi)
            if noise is not None:
                self.phi.add_(noise, alpha=scale)
        else:
            self.prediction.sub_(self.phi).add_(self.control)
            if noise is not None:
                self.prediction.add_(noise, alpha=scale)
            self.phi.addcmul_(self.share, self.prediction)
        if self.pace:
            self.integral.mul_(1 - self.pace * self.controller.leak).add_(self.error, alpha=self.pace)
        self.error = self._error()
        self._set_controller()

    def _error(self) -> Tensor:
        return self.batch.loss.gradient(self.y, self.batch.target).neg_()

    def _set_controller(self) -> None:
        if self.pace:
            torch.add(self.integral, self.error, alpha=self.controller.k_p, out=self.u)
        else:
            torch.div(self.error, self.controller.alpha, out=self.u)
