"""One pass through a system on one batch: potentials forward, control backward, in buffers of its own.

A circuit is swept population by population. Forward, a projection from an upstream population sees the rate that this
very pass has found, one within a recurrent group the rate of the state before; backward, control travels the other way
by the same rule. So an acyclic part is exact after one pass, and only recurrence is left to iterate. (Within a group
all populations move at once: new rates of some beside old ones of others would undo the balance of excitation and
inhibition, and such sweeps diverge where the circuit itself is stable.) The output populations come
last. Every pass uses each projection once in each direction, and allocates nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from circuitlab.compile import loops
from circuitlab.compile.kernels import Kernel
from circuitlab.compile.kernels.base import Product
from circuitlab.dynamics.activations import Activation, kinked_control, rate_of_sum

if TYPE_CHECKING:
    from circuitlab.dynamics.circuit import CircuitSystem
    from circuitlab.dynamics.system import Point, System


@dataclass(frozen=True)
class Route:
    """A way along which rates or control travel.

    Args:
        kernel: weights of the way. turned: it goes by their transpose.
        source, target: rows it reads, and rows it reaches.
    """

    kernel: Kernel
    turned: bool
    source: slice
    target: slice

    def add(self, x: Tensor, out: Tensor) -> None:
        """Add what arrives from x [source, sample] to what reaches the target rows, out [target, sample]."""
        (self.kernel.add_transposed if self.turned else self.kernel.add_product)(x, out)

    def product(self) -> Product:
        """What `add` adds, with the weights as they are now; see `Kernel.product`."""
        return self.kernel.product(self.turned)


class Sweep(ABC):
    """Passes through a system on one batch.

    Attributes:
        prediction: W sigma(phi) + U x + b as the last forward pass saw it, [unit, sample]; with gap junctions the
            potential that neurons would have without control.
        share: of a current that a neuron keeps for itself, [unit, 1]: its potential moves by so much; None where all
            neurons keep all of it, having no gap junctions.
        mixing: how potentials of the outputs answer the controller, [output unit, output unit]; None where by itself.
    """

    prediction: Tensor
    share: Tensor | None = None
    mixing: Tensor | None = None

    @abstractmethod
    def forward(self, phi: Tensor, psi: Tensor | None) -> None:
        """Find the prediction from the potentials and the control (none: the free state), each [unit, sample]."""

    @abstractmethod
    def outputs(self, psi: Tensor, control: Tensor, potential: Tensor) -> None:
        """What feedback among units brings to the output rows: their control, and prediction + control, written into
        `control` and `potential`, each [unit, sample]. To be called after `forward`."""

    @abstractmethod
    def backward(self, psi: Tensor, control: Tensor, potential: Tensor) -> None:
        """The same for all other rows, once the output rows of `control` are final."""

    @abstractmethod
    def hold(self, phi: Tensor) -> None:
        """Fix the potentials, so that `outputs` and `backward` transport control at phi alone."""


class JacobiSweep(Sweep):
    """Passes through any system, every row at once, from the protocol's two operations.

    Args:
        masked: leave units without control where the system says so.
    """

    def __init__(self, system: System, drive: Tensor, masked: bool = True) -> None:
        self.system, self.drive, self.masked = system, drive, masked
        self.prediction = drive
        self.point: Point

    def forward(self, phi: Tensor, psi: Tensor | None) -> None:
        if psi is None:
            self.prediction = self.system.predict(phi, self.drive)
            return
        self.point = self.system.linearise(phi, self.drive)
        self.prediction = self.point.prediction

    def outputs(self, psi: Tensor, control: Tensor, potential: Tensor) -> None:
        control.copy_(self.point.transported(psi, self.masked))
        torch.add(self.prediction, control, out=potential)

    def backward(self, psi: Tensor, control: Tensor, potential: Tensor) -> None:
        """Nothing is left to do."""

    def hold(self, phi: Tensor) -> None:
        self.point = self.system.linearise(phi, self.drive)
        self.prediction = self.point.prediction


@dataclass(frozen=True)
class Plan:
    """One population within a pass.

    Args:
        rows: of the population. activation, controlled: the population's.
        early: ways from populations that come before it. late: from itself and populations after it.
        passes_on: whether a later population reads its rate in the same pass.
        remembered: whether some way reads its rate of the pass before.
    """

    rows: slice
    activation: Activation
    controlled: bool
    early: tuple[Route, ...]
    late: tuple[Route, ...]
    passes_on: bool
    remembered: bool


@dataclass(frozen=True)
class Back:
    """A way of the control, and whether this pass knows its source's control by then."""

    route: Route
    fresh: bool


def plan_back(
    order: Sequence[slice], group_of: Mapping[int, int], routes: Sequence[Route]
) -> dict[int, list[Back]]:
    """Ways of the control by the first row of the population they reach.

    Args:
        order: of the backward pass.
        group_of: a number for every recurrent group, by the first rows of its populations.
    """
    place = {rows.start: number for number, rows in enumerate(order)}
    found: dict[int, list[Back]] = {}
    for route in routes:
        a, b = route.source.start, route.target.start
        fresh = place[a] < place[b] and group_of[a] != group_of[b]
        found.setdefault(route.target.start, []).append(Back(route, fresh))
    return found


@dataclass(frozen=True)
class Arrival:
    """What reaches a population in a forward pass: from which rows, by which product, of which rates."""

    source: slice
    product: Product
    rate: Tensor


@dataclass(frozen=True)
class Return:
    """What reaches a population in a backward pass: from which rows, by which product, and whether this very pass has
    found their control by then."""

    source: slice
    product: Product
    fresh: bool


@dataclass
class Stage:
    """A plan with views of its rows in this batch's buffers."""

    plan: Plan
    drive: Tensor
    prediction: Tensor
    potential: Tensor
    rate: Tensor
    raw: Tensor
    old_rate: Tensor | None
    arriving: list[Arrival]
    back: list[Return]
    read: bool

    def predict(self) -> None:
        """prediction = drive + what arrives."""
        base = self.drive
        for way in self.arriving:
            way.product(way.rate, base, self.prediction)
            base = self.prediction
        if not self.arriving:
            self.prediction.copy_(self.drive)

    def gather(self, fresh: Mapping[int, Tensor], old: Mapping[int, Tensor]) -> None:
        """raw = what comes back, from controls by the first rows of their populations."""
        base = None
        for way in self.back:
            way.product((fresh if way.fresh else old)[way.source.start], base, self.raw)
            base = self.raw
        if not self.back:
            self.raw.zero_()


class Cuts:
    """Views of the tensors that an iteration uses again and again, cut once.

    Args:
        rows: of every part.
    """

    def __init__(self, rows: Sequence[slice]) -> None:
        self.rows = tuple(rows)
        self.known: dict[int, tuple[Tensor, dict[int, Tensor]]] = {}

    def of(self, tensor: Tensor) -> dict[int, Tensor]:
        """The parts of a tensor by their first rows; the tensor is kept, so that its number stays its own."""
        found = self.known.get(id(tensor))
        if found is None:
            if len(self.known) >= 8:
                self.known.clear()
            found = (tensor, {rows.start: tensor[rows] for rows in self.rows})
            self.known[id(tensor)] = found
        return found[1]


class CircuitSweep(Sweep):
    """Passes through a circuit in closed form.

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
        back = back or {}
        self.kinked, self.masked, self.last = kinked, masked, system.output.start
        self.prediction, self.potential, self.rate = (torch.empty_like(drive) for _ in range(3))
        self.raw = torch.empty_like(drive) if back else self.prediction
        old = torch.empty_like(drive) if any(plan.remembered for plan in system.plans) else self.rate
        self.cuts = Cuts([plan.rows for plan in system.plans])
        self.stages = [
            Stage(
                plan,
                drive[plan.rows],
                self.prediction[plan.rows],
                self.potential[plan.rows],
                self.rate[plan.rows],
                self.raw[plan.rows],
                old[plan.rows] if plan.remembered else None,
                [
                    *(Arrival(r.source, r.product(), old[r.source]) for r in plan.late),
                    *(Arrival(r.source, r.product(), self.rate[r.source]) for r in plan.early),
                ],
                [Return(b.route.source, b.route.product(), b.fresh) for b in back.get(plan.rows.start, [])],
                plan.passes_on or plan.rows.start in back,
            )
            for plan in system.plans
        ]

    def forward(self, phi: Tensor, psi: Tensor | None) -> None:
        parts = self.cuts.of(phi)
        for stage in self.stages:
            if stage.old_rate is not None:
                stage.plan.activation.rate(parts[stage.plan.rows.start], stage.old_rate)
        control = self.cuts.of(psi) if psi is not None else None
        for stage in self.stages:
            self._predict(stage, control)

    def _predict(self, stage: Stage, psi: dict[int, Tensor] | None) -> None:
        """One population's prediction, and its rate where somebody reads it in this pass."""
        stage.predict()
        if not stage.read:
            return
        activation = stage.plan.activation
        if psi is None:
            activation.rate(stage.potential.copy_(stage.prediction), stage.rate)
        else:
            control = psi[stage.plan.rows.start]
            rate_of_sum(activation, stage.prediction, control, stage.potential, stage.rate)

    def anticipate(self, phi: Tensor, share: float) -> None:
        """Take the slopes of recurrent populations without a kink further along this pass's step from the potentials
        phi, [unit, sample], by a share of it; elsewhere one step is all there is. At a fixed point the step is zero,
        and nothing changes. To be called after `forward`."""
        parts = self.cuts.of(phi)
        for stage in self.stages:
            plan = stage.plan
            if stage.back and plan.late and plan.activation.kink is None and plan.rows.start < self.last:
                torch.lerp(parts[plan.rows.start], stage.potential, 1 + share, out=stage.potential)
                plan.activation.rate(stage.potential, stage.rate)

    def hold(self, phi: Tensor) -> None:
        self.potential.copy_(phi)
        for stage in self.stages:
            stage.plan.activation.rate(stage.potential, stage.rate)

    def outputs(self, psi: Tensor, control: Tensor, potential: Tensor) -> None:
        for stage in self.stages:
            if stage.plan.rows.start >= self.last:
                self._back(stage, psi, control, potential)

    def backward(self, psi: Tensor, control: Tensor, potential: Tensor) -> None:
        for stage in reversed(self.stages):
            if stage.plan.rows.start < self.last:
                self._back(stage, psi, control, potential)

    def _back(self, stage: Stage, psi: Tensor, control: Tensor, potential: Tensor) -> None:
        plan, old, new = stage.plan, self.cuts.of(psi), self.cuts.of(control)
        out, moved = new[plan.rows.start], self.cuts.of(potential)[plan.rows.start]
        if not stage.back or (self.masked and not plan.controlled):
            out.zero_()
            moved.copy_(stage.prediction)
            return
        stage.gather(new, old)
        kinked = self.kinked and plan.activation.kink is not None and plan.rows.start < self.last
        gate(plan.activation, kinked, stage.potential, stage.rate, stage.raw, stage.prediction, out, moved)


def gate(
    activation: Activation,
    kinked: bool,
    phi: Tensor,
    rate: Tensor,
    raw: Tensor,
    prediction: Tensor,
    control: Tensor,
    potential: Tensor,
) -> None:
    """control = sigma'(phi) raw and potential = prediction + control, written in place; all [unit, sample].

    Args:
        kinked: solve neurons that rest on their kink as an inclusion.
    """
    if activation.plain and loops.usable(raw):
        low, high = activation.kink or (0.0, 0.0)
        pointers = [t.data_ptr() for t in (phi, rate, raw, prediction, control, potential)]
        loops.call("gate", raw, loops.KINDS[activation.name], kinked, raw.numel(), *pointers, low, high)
        return
    if not kinked:
        activation.slope_into(phi, rate, control).mul_(raw)
        torch.add(prediction, control, out=potential)
        return
    assert activation.kink is not None
    ahead = activation.above(prediction)
    control.copy_(kinked_control(activation.kink, activation.above(phi), raw, ahead))
    torch.add(prediction, control, out=potential)
    if activation.threshold:  # beside one, rounding would leave a neuron that rests on its kink
        potential.masked_fill_((raw < 0) & (control == -ahead), activation.threshold)
