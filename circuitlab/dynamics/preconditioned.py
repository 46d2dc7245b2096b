"""Sweeps preconditioned by a group's mean response: it is inverted once, and only what differs from it iterates.

With S = diag(mean sigma'(phi)) over a batch and B = (I - W S)^-1 W, both equations of the group have exact other forms,

    phi    = B (sigma(phi) - S phi + S (c + psi)) + c + psi
    lambda = B^T ((sigma'(phi) - S) lambda + S q) + q,      psi = sigma'(phi) lambda,

where c is what arrives from outside the group, q the feedback from outside, and lambda = W^T psi + q. A product with B
costs what one with W does, so that a sweep is no dearer, but it contracts by how much the slopes differ between
samples instead of by the gain of the circuit. B must be rebuilt whenever the weights change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.sweep import Back, CircuitSweep, Stage
from circuitlab.dynamics.system import System

FLATTEST = 1e-3
"""Slope below which a control is not divided by it to guess lambda."""


class Minibatch:
    """A minibatch as a preconditioner sees it: all of it is here, and every method leaves what it is given as it is.

    Attributes:
        fraction: share of the minibatch's samples that is here.
    """

    fraction = 1.0

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the minibatch of [row, sample], [row, 1]."""
        return values.mean(1, keepdim=True)

    def agreed(self, *numbers: float) -> list[float]:
        """Means of numbers over all who hold a share, the same to the bit for each."""
        return list(numbers)


WHOLE = Minibatch()


@dataclass(frozen=True)
class Preconditioner:
    """The inverse of a recurrent group's mean response.

    Args:
        rows: of the group.
        slopes: S, the mean of sigma'(phi) over a batch, [unit of the group, 1].
        matrix: B = (I - W S)^-1 W, [unit, unit] of the group.
        extra: what the build costs in products with all recurrent weights, per sample of the batch.
    """

    rows: slice
    slopes: Tensor
    matrix: Tensor
    extra: float


def build(system: System, phi: Tensor, minibatch: Minibatch = WHOLE) -> Preconditioner:
    """The preconditioner of a circuit's recurrent group, from the slopes at the potentials of a batch, [unit, sample].

    Where the batch is a share of a minibatch, all who hold one build the same preconditioner, from all slopes.

    The build takes 8/3 n^3 operations, a product with the recurrent weights 2 for each synapse.
    """
    rows = recurrent_group(system)
    assert isinstance(system, CircuitSystem) and rows is not None
    n = rows.stop - rows.start
    weights = torch.zeros(n, n, dtype=phi.dtype, device=phi.device)
    for link in system.compiled.recurrent:
        if _inside(link.source, rows) and _inside(link.target, rows):
            to, of = (slice(r.start - rows.start, r.stop - rows.start) for r in (link.target, link.source))
            weights[to, of] += link.kernel.matrix()
    slopes = minibatch.mean(system.slopes(phi, system.rates(phi))[rows])
    response = (weights * slopes.t()).neg_()
    response.diagonal().add_(1)
    matrix = torch.linalg.solve_ex(response, weights)[0]
    return Preconditioner(rows, slopes, matrix, build_operations(n, system.synapses, phi.shape[1]))


def build_cost(system: System, samples: int) -> float | None:
    """What a build takes, in products with all recurrent weights per sample; None where there is nothing to build."""
    rows = recurrent_group(system)
    if rows is None or not isinstance(system, CircuitSystem):
        return None
    return build_operations(rows.stop - rows.start, system.synapses, samples)


def preconditioned_sweep(system: System) -> float:
    """How many times the products of a plain sweep a preconditioned one costs: the inverse is dense."""
    rows = recurrent_group(system)
    assert isinstance(system, CircuitSystem) and rows is not None
    inside = [k for k in system.compiled.recurrent if _inside(k.source, rows) and _inside(k.target, rows)]
    outside = system.synapses - sum(len(k.projection.edges) for k in inside)
    return (outside + (rows.stop - rows.start) ** 2) / system.synapses


def build_operations(n: int, synapses: int, samples: int) -> float:
    """What the build for n units takes, in products with all recurrent weights per sample."""
    return 4 * n**3 / (3 * synapses * samples)


def _inside(part: slice, whole: slice) -> bool:
    return whole.start <= part.start and part.stop <= whole.stop


class PreconditionedSweep(CircuitSweep):
    """Sweeps in which one recurrent group goes by its preconditioner. In the group's rows, control stands for lambda.

    Args:
        system, drive, back: as of CircuitSweep.
        preconditioner: of one recurrent group without outputs, kinks and uncontrolled units.
    """

    def __init__(
        self,
        system: CircuitSystem,
        drive: Tensor,
        preconditioner: Preconditioner,
        back: Mapping[int, list[Back]] | None = None,
        kinked: bool = True,
        masked: bool = True,
    ) -> None:
        super().__init__(system, drive, back, kinked, masked)
        self.given, rows = preconditioner, preconditioner.rows
        self.members = [stage for stage in self.stages if _inside(stage.plan.rows, rows)]
        self.psi, self.fresh = torch.zeros_like(drive), torch.zeros_like(drive)
        self.mixed, self.slope, self.outside = (torch.empty_like(drive[rows]) for _ in range(3))
        self.held = False
        for stage in self.members:
            stage.arriving = [way for way in stage.arriving if not _inside(way.source, rows)]
            stage.back = [way for way in stage.back if not _inside(way.source, rows)]

    def forward(self, phi: Tensor, psi: Tensor | None) -> None:
        rows = self.given.rows
        for stage in self.stages:
            if stage.old_rate is not None:
                stage.plan.activation.rate(phi[stage.plan.rows], stage.old_rate)
        if psi is not None:
            self.psi.copy_(psi)
            for stage in self.members:
                assert stage.old_rate is not None
                part = stage.plan.rows
                slope = self.fresh[part]
                stage.plan.activation.slope_into(phi[part], stage.old_rate, slope)
                self.psi[part].mul_(slope)
        for stage in self.stages:
            if stage is self.members[0]:
                self._group(phi, psi is not None)
            if _inside(stage.plan.rows, rows):
                continue
            self._predict(stage, self.cuts.of(self.psi) if psi is not None else None)

    def _group(self, phi: Tensor, controlled: bool) -> None:
        """The group's prediction, and its rates."""
        rows, slopes, inside = self.given.rows, self.given.slopes, self.mixed
        for stage in self.members:
            stage.predict()
            assert stage.old_rate is not None
            self.rate[stage.plan.rows].copy_(stage.old_rate)
        torch.sub(self.prediction[rows], phi[rows], out=inside)
        if controlled:
            inside.add_(self.psi[rows])
        inside.mul_(slopes).add_(self.rate[rows])
        self.prediction[rows].addmm_(self.given.matrix, inside)
        for stage in self.members:
            if controlled:
                torch.add(stage.prediction, self.psi[stage.plan.rows], out=stage.potential)
            else:
                stage.potential.copy_(stage.prediction)
            stage.plan.activation.rate(stage.potential, stage.rate)

    def hold(self, phi: Tensor) -> None:
        super().hold(phi)
        self.held = True
        for stage in self.members:
            stage.plan.activation.slope_into(stage.potential, stage.rate, self._part(self.slope, stage))

    def _part(self, tensor: Tensor, stage: Stage) -> Tensor:
        """One member's rows of a tensor over the group."""
        first = self.given.rows.start
        return tensor[stage.plan.rows.start - first : stage.plan.rows.stop - first]

    def outputs(self, psi: Tensor, control: Tensor, potential: Tensor) -> None:
        if self.held:
            self.psi.copy_(psi)
            self.psi[self.given.rows].mul_(self.slope)
        super().outputs(self.psi, control, potential)

    def backward(self, psi: Tensor, control: Tensor, potential: Tensor) -> None:
        """Control as the units see it goes on from stage to stage; lambda is what `control` gets in the group."""
        rows, fresh = self.given.rows, self.fresh
        fresh[self.last :] = control[self.last :]
        waiting = True
        for stage in reversed(self.stages):
            if stage.plan.rows.start >= self.last:
                continue
            if not _inside(stage.plan.rows, rows):
                self._back(stage, self.psi, fresh, potential)
                control[stage.plan.rows] = fresh[stage.plan.rows]
            elif waiting:
                waiting = False
                self._respond(psi[rows], control[rows], fresh, potential)

    def _respond(self, old: Tensor, lam: Tensor, fresh: Tensor, potential: Tensor) -> None:
        given, rows = self.given, self.given.rows
        for stage in self.members:
            stage.gather(self.cuts.of(fresh), self.cuts.of(self.psi))
            if not self.held:
                stage.plan.activation.slope_into(stage.potential, stage.rate, self._part(self.slope, stage))
        outside = self.raw[rows]
        torch.sub(self.slope, given.slopes, out=self.mixed).mul_(old)
        torch.mul(outside, given.slopes, out=self.outside)
        self.mixed.add_(self.outside)
        lam.copy_(outside).addmm_(given.matrix.t(), self.mixed)
        torch.mul(self.slope, lam, out=fresh[rows])
        torch.add(self.prediction[rows], fresh[rows], out=potential[rows])


def recurrent_group(system: System) -> slice | None:
    """Rows of the one group that a preconditioner serves, or None: all recurrent populations of the circuit, side by
    side, smooth, controlled, and none of them an output."""
    if not isinstance(system, CircuitSystem) or system.junctions is not None:
        return None
    groups = system.groups
    if len(groups) != 1:
        return None
    members = groups[0]
    rows = slice(min(r.start for r in members), max(r.stop for r in members))
    whole = sum(r.stop - r.start for r in members) == rows.stop - rows.start
    plans = [plan for plan in system.plans if _inside(plan.rows, rows)]
    plain = all(plan.controlled and plan.activation.kink is None for plan in plans)
    return rows if whole and plain and rows.stop <= system.output.start else None


def guess_lambda(system: System, rows: slice, phi: Tensor, psi: Tensor) -> Tensor:
    """lambda of the group's rows from psi = sigma'(phi) lambda, [unit of the group, sample]; a guess on flat slopes."""
    assert isinstance(system, CircuitSystem)
    slopes = system.slopes(phi, system.rates(phi))[rows]
    return psi[rows] / slopes.clamp(min=FLATTEST)


def control_of(system: System, rows: slice, phi: Tensor, lam: Tensor) -> Tensor:
    """psi = sigma'(phi) lambda of the group's rows, [unit of the group, sample]."""
    assert isinstance(system, CircuitSystem)
    return system.slopes(phi, system.rates(phi))[rows] * lam[rows]
