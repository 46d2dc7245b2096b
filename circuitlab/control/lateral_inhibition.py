"""Lateral inhibition: interneurons cancel what apical dendrites receive as far as it can be predicted.

    tau dphi/dt = -phi + W sigma(phi) + U x + b + psi
    tau dpsi/dt = -psi + sigma'(phi) (S e) + D^T u                                    [supplement S6.4.1, eq. 140]
    e = (sigma(phi) - sigma(delta)) / max(sigma'(phi), sigma'(delta)),   delta = W_I sigma(phi) + U_I x + b_I

Pyramidal cells send their rates to apical sites along S, and their interneurons send theirs with the opposite sign.
The supplement writes S phi - S delta for linear cells. With rates, the difference is sigma'(phi) psi to first order;
divided by the gain of the pair it is psi, so that sigma' stands where dynamic inversion has it: once, at the receiving
cell. Where tracking is exact (delta = W sigma(phi) + U x + b) and rates are linear, this is dynamic inversion; with
other rates psi differs from dynamic inversion's by a share of the order of psi; where tracking is not exact, by S times
the tracking error.

At rest phi - delta = psi + (W sigma(phi) + U x + b - delta), which is the form used: no digits of a small control are
lost where interneurons are exact copies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from circuitlab.compile.kernels import Kernel
from circuitlab.control.base import Controlled, digits_kept
from circuitlab.control.dynamic_inversion import ROUNDING_EVERY, InversionEquations
from circuitlab.control.feedback import AmongUnits, Feedback
from circuitlab.control.interneurons import Interneurons, sent
from circuitlab.dynamics.circuit import CircuitPoint, CircuitSystem
from circuitlab.dynamics.equations import Energy, Equations
from circuitlab.dynamics.preconditioned import WHOLE, Minibatch
from circuitlab.dynamics.sweep import CircuitSweep, Cuts, Stage, Sweep, gate
from circuitlab.dynamics.system import Point
from circuitlab.errors import CircuitError


class LateralInhibition(AmongUnits):
    """Control by what interneurons leave of the apical input.

    Args:
        system: the circuit.
        feedback: S, along which rates reach apical sites.
        interneurons: one per unit.
    """

    name = "lateral_inhibition"

    def __init__(self, system: CircuitSystem, feedback: Feedback, interneurons: Interneurons) -> None:
        super().__init__(feedback)
        if system.junctions is not None:
            raise CircuitError(
                "control.pathway: the interneurons of lateral_inhibition foresee what synapses predict, not the "
                f"currents of gap junctions ({system.junctions.names}); allowed: dynamic_inversion, energy_based, "
                "linear_feedback, deep_feedback_control"
            )
        self.system, self.interneurons = system, interneurons

    def equations(self, batch: Controlled) -> LateralEquations:
        mask = batch.system.controlled
        if mask is not None and not bool(mask[batch.system.output].all()):
            raise CircuitError(
                "control.pathway: lateral_inhibition delivers the controller at the output units, so an output "
                "population cannot be `controlled: false`"
            )
        return LateralEquations(self.feedback, self.interneurons, batch)

    def feedback_weights(self) -> dict[str, Tensor]:
        return super().feedback_weights() | self.interneurons.weights()

    def parameters(self) -> dict[str, nn.Parameter]:
        return super().parameters() | self.interneurons.parameters()

    def companions(self) -> dict[str, dict[str, Kernel]]:
        found = {
            link.projection.name: {f"I/{link.projection.name}": kernel}
            for link, kernel in self.interneurons.links
        }
        for name, kernels in super().companions().items():
            found[name] |= kernels
        return found

    def hold_signs(self) -> None:
        super().hold_signs()
        self.interneurons.hold_signs()


class LateralEquations(InversionEquations):
    """Rows: soma phi, control psi, controller u; interneurons follow at once."""

    products = 3

    def __init__(self, feedback: Feedback, interneurons: Interneurons, batch: Controlled) -> None:
        super().__init__(feedback, batch)
        self.interneurons = interneurons

    def _drive(self) -> Tensor:
        """U_I x + b_I, [unit, sample]."""
        assert self.batch.x is not None, "interneurons have synapses of their own from the inputs"
        return self.interneurons.drive(self.batch.x)

    def _passes(self) -> Sweep:
        system = self.batch.system
        assert isinstance(system, CircuitSystem)
        return LateralSweep(system, self.batch.drive, self.feedback, self.interneurons, self._drive())

    def sweep(self, state: Tensor, image: Tensor) -> None:
        super().sweep(state, image)
        if self.count == 1 or self.count % ROUNDING_EVERY == 0:
            assert isinstance(self.passes, LateralSweep)
            self.floors[1] = torch.maximum(self.floors[1], self._rounding(state, self.passes.slack))

    def _rounding(self, state: Tensor, slack: Tensor) -> Tensor:
        """Norm below which a control's digits are lost in the rounding of phi - delta, [sample]."""
        phi = state[self.blocks["soma"]]
        noise = 0.5 * torch.finfo(phi.dtype).eps * torch.linalg.vector_norm(phi, dim=0)
        return torch.where(slack.any(0), noise / digits_kept(phi.dtype), 0.0).to(self.floors.dtype)

    def _slack(self, point: CircuitPoint) -> tuple[Tensor, Tensor]:
        """delta, and the error W sigma(phi) + U x + b - delta of its tracking, each [unit, sample]."""
        delta = self.interneurons.potentials(self._drive(), point.rate)
        return delta, point.prediction - delta

    def _turned(self, point: Point, psi: Tensor) -> Tensor:
        assert isinstance(point, CircuitPoint)
        return point.gate_imbalance(self.arriving(point, psi), psi)

    def arriving(self, point: CircuitPoint, psi: Tensor) -> Tensor:
        delta, slack = self._slack(point)
        return self.feedback.raw(point, self.interneurons.sent(delta, psi + slack))

    def scales(self, state: Tensor) -> Tensor:
        scales = super().scales(state)
        system = self.batch.system
        assert isinstance(system, CircuitSystem)
        _, slack = self._slack(system.linearise(state[self.blocks["soma"]], self.batch.drive))
        scales[1] = torch.maximum(scales[1], self._rounding(state, slack).to(scales.dtype))
        return scales

    def afresh(self) -> LateralEquations:
        return LateralEquations(self.feedback, self.interneurons, self.batch)

    def select(self, columns: Tensor) -> LateralEquations:
        return LateralEquations(self.feedback, self.interneurons, self.batch.select(columns))

    def build_cost(self) -> float | None:
        return None

    def foreseen(
        self, state: Tensor, rate: float, minibatch: Minibatch = WHOLE
    ) -> tuple[Tensor, float] | None:
        return None

    def anticipating(self, share: float) -> Equations:
        return self

    def energy(self) -> Energy | None:
        return None


class LateralSweep(CircuitSweep):
    """A circuit's passes in which what travels back is e, of cells whose control this very pass has found.

    Attributes:
        delta: potentials of the interneurons as the last forward pass saw them, [unit, sample].
        slack: the error of their tracking, W sigma(phi) + U x + b - delta.
    """

    def __init__(
        self,
        system: CircuitSystem,
        drive: Tensor,
        feedback: Feedback,
        interneurons: Interneurons,
        own_drive: Tensor,
    ) -> None:
        super().__init__(system, drive, feedback.routes(system))
        self.interneurons, self.own_drive = interneurons, own_drive
        self.delta, self.slack, self.fresh = (torch.empty_like(drive) for _ in range(3))
        self.before = self.fresh
        self.outward = Cuts([stage.plan.rows for stage in self.stages])
        twins = interneurons.twins
        self.tracking = [
            (stage.plan.rows.start, twins[id(route.kernel)].product(), way.rate)
            for stage in self.stages
            for route, way in zip((*stage.plan.late, *stage.plan.early), stage.arriving, strict=True)
        ]

    def forward(self, phi: Tensor, psi: Tensor | None) -> None:
        super().forward(phi, psi)
        self.delta.copy_(self.own_drive)
        parts = self.outward.of(self.delta)
        for target, product, rate in self.tracking:
            product(rate, parts[target], parts[target])
        torch.sub(self.prediction, self.delta, out=self.slack)

    def outputs(self, psi: Tensor, control: Tensor, potential: Tensor) -> None:
        self.before = self.interneurons.sent(self.delta, psi + self.slack)
        self.fresh.copy_(self.before)
        super().outputs(psi, control, potential)

    def backward(self, psi: Tensor, control: Tensor, potential: Tensor) -> None:
        for stage in self.stages:
            if stage.plan.rows.start >= self.last:
                self._send(stage, control)
        super().backward(psi, control, potential)

    def _send(self, stage: Stage, control: Tensor) -> None:
        rows = stage.plan.rows
        error = control[rows] + self.slack[rows]
        self.fresh[rows] = sent(stage.plan.activation, self.delta[rows], error)

    def _back(self, stage: Stage, psi: Tensor, control: Tensor, potential: Tensor) -> None:
        plan, new, moved = stage.plan, self.cuts.of(control), self.cuts.of(potential)
        out, there = new[plan.rows.start], moved[plan.rows.start]
        if stage.back and plan.controlled:
            base = None
            for way in stage.back:
                way.product((self.fresh if way.fresh else self.before)[way.source], base, stage.raw)
                base = stage.raw
            kinked = plan.activation.kink is not None and plan.rows.start < self.last
            gate(
                plan.activation, kinked, stage.potential, stage.rate, stage.raw, stage.prediction, out, there
            )
        else:
            out.zero_()
            there.copy_(stage.prediction)
        if plan.rows.start < self.last:
            self._send(stage, control)
