"""Dynamic inversion: the control settles through feedback connections that transpose the circuit.

    tau dphi/dt = -phi + W sigma(phi) + U x + b + psi
    tau dpsi/dt = -psi + sigma'(phi) (S psi) + D^T u                       [eq. 14, 140; in eq. 149 S phi is a misprint]
    tau_u du/dt = -dL/dy - alpha u

A sweep eliminates u by the loss's exact proximal step: the output potential is z + u, so
alpha u = -dL/dy(z + u) is solved for u, and the stiffness 1/alpha disappears.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from circuitlab.compile.kernels import Kernel, compile_kernel
from circuitlab.control.base import Controlled, ControlledEquations, Pathway
from circuitlab.dynamics.circuit import CircuitPoint, CircuitSystem
from circuitlab.dynamics.equations import SMALLEST_SOMA, TINY, Discrepancy, Energy, Equations, Fields
from circuitlab.dynamics.foresight import DEAREST, price, respond, steps
from circuitlab.dynamics.preconditioned import (
    WHOLE,
    Minibatch,
    PreconditionedSweep,
    Preconditioner,
    build,
    build_cost,
    control_of,
    guess_lambda,
    preconditioned_sweep,
)
from circuitlab.dynamics.sweep import Back, CircuitSweep, Cuts, JacobiSweep, Route, Sweep
from circuitlab.dynamics.system import Point, System
from circuitlab.errors import CircuitError
from circuitlab.graph.streams import stream

ROUNDING_EVERY = 16
"""Sweeps between two looks at how much of the control is rounding: few samples ever need to know."""


class Feedback:
    """S of eq. 14, tied: the transpose of all rate-coded projections among controlled units."""

    def sweep(self, system: System, drive: Tensor) -> Sweep:
        """Passes through the system on one batch with control travelling along S."""
        if isinstance(system, CircuitSystem):
            return CircuitSweep(system, drive, self.routes(system))
        return JacobiSweep(system, drive)

    def routes(self, system: CircuitSystem) -> dict[int, list[Back]]:
        """The ways of the control, by the first row of the population they reach."""
        return system.tied

    def imbalance(self, point: Point, psi: Tensor) -> Tensor:
        """sigma'(phi) (S psi) - psi, [unit, sample]."""
        if isinstance(point, CircuitPoint):
            return point.gate_imbalance(self.raw(point, psi), psi)
        return point.transported(psi) - psi

    def raw(self, point: CircuitPoint, psi: Tensor) -> Tensor:
        """S psi, [unit, sample]."""
        return point.feedback_input(psi)

    def weights(self) -> dict[str, Tensor]:
        """Weights of its own, by projection, [edge]."""
        return {}


class OwnFeedback(Feedback):
    """S of connections that are not the transpose of the circuit's.

    Args:
        ways: how each adds what it carries, and the rows it reads and reaches.
    """

    def __init__(self, system: CircuitSystem, ways: Sequence[Route]) -> None:
        self.ways = tuple(ways)
        self.planned = system.plan_back(self.ways)

    def routes(self, system: CircuitSystem) -> dict[int, list[Back]]:
        return self.planned

    def raw(self, point: CircuitPoint, psi: Tensor) -> Tensor:
        out = torch.zeros_like(psi)
        for way in self.ways:
            way.add(psi[way.source], out[way.target])
        return out


class RandomFeedback(OwnFeedback):
    """S with the transposed synapses of the circuit's rate-coded projections and random weights of its own.

    Weights of the transpose of projection p are uniform in +-1/sqrt(its mean outdegree) times `scale`, drawn from p's
    own stream. Where p's source population obeys Dale's law the weights keep p's sign, as those of W^T do.
    """

    def __init__(self, system: CircuitSystem, seed: int, scale: float = 1.0) -> None:
        self.kernels: dict[str, Kernel] = {}
        compiled, ways = system.compiled, []
        for link in compiled.recurrent:
            name, edges = link.projection.name, link.projection.edges
            shared = edges.parameters
            sources = link.source.stop - link.source.start
            bound = scale / max(len(edges.source) / sources, 1.0) ** 0.5
            draw = stream(seed, "feedback", name)
            values = draw.uniform(-bound, bound, len(edges.source) if shared is None else len(shared))
            if compiled.sign[name]:
                values = np.abs(values) * compiled.sign[name]
            edges = (
                replace(edges, parameters=values, weight=values[edges.parameter_index])
                if shared is not None
                else replace(edges, weight=values)
            )
            shape = (link.target.stop - link.target.start, sources)
            kernel = compile_kernel(
                replace(link.projection, edges=edges, plastic=False), shape, compiled.dtype
            )
            self.kernels[name] = kernel.to(compiled.device)
            ways.append(Route(self.kernels[name].add_transposed, link.target, link.source))
        super().__init__(system, ways)

    def weights(self) -> dict[str, Tensor]:
        return {name: kernel.edge_values for name, kernel in self.kernels.items()}


class ApicalFeedback(OwnFeedback):
    """S made of the circuit's own burst-coded apical projections (supplement S6.4.1, multiplexed codes)."""

    def __init__(self, system: CircuitSystem) -> None:
        links = system.compiled.burst
        if not links:
            raise CircuitError(
                "control.feedback: apical needs projections with `carries: burst` onto apical sites, and the circuit "
                "has none; allowed: tied, random"
            )
        super().__init__(system, [Route(k.kernel.add_product, k.source, k.target) for k in links])


class DynamicInversion(Pathway):
    """Dynamic inversion with a given feedback S."""

    name = "dynamic_inversion"

    def __init__(self, feedback: Feedback) -> None:
        self.feedback = feedback

    def equations(self, batch: Controlled) -> InversionEquations:
        mask = batch.system.controlled
        if mask is not None and not bool(mask[batch.system.output].all()):
            raise CircuitError(
                "control.pathway: dynamic_inversion delivers the controller at the output units, so an output "
                "population cannot be `controlled: false`"
            )
        return InversionEquations(self.feedback, batch)

    def feedback_weights(self) -> dict[str, Tensor]:
        return {f"S/{name}": values for name, values in self.feedback.weights().items()}


class InversionEquations(ControlledEquations):
    """Rows: soma phi, control psi, controller u."""

    products = 2

    def __init__(
        self, feedback: Feedback, batch: Controlled, preconditioner: Preconditioner | None = None
    ) -> None:
        self.feedback, self.batch, self.preconditioner = feedback, batch, preconditioner
        n, k = batch.system.size, len(batch.target)
        self.blocks = {"soma": slice(0, n), "control": slice(n, 2 * n), "controller": slice(2 * n, 2 * n + k)}
        self.mixed = slice(0, 2 * n)
        self.floors = batch.drive.new_full((2, batch.drive.shape[1]), SMALLEST_SOMA, dtype=torch.float64)
        self.floors[1] = TINY
        self.dearer = preconditioned_sweep(batch.system) if preconditioner is not None else 1.0
        self.cuts, self.outputs = Cuts(list(self.blocks.values())), Cuts([batch.system.output])
        self.count = 0
        tau, tau_u = batch.system.tau, batch.controller.pace_ms
        self.time_constants = torch.cat([tau, tau, torch.full_like(tau[:1], tau_u).expand(k, 1)])

    def start(self) -> Tensor:
        phi = self.batch.phi
        return torch.cat([phi, torch.zeros_like(phi), torch.zeros_like(self.batch.target)])

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        soma, control, controller = (state[rows] for rows in self.blocks.values())
        return soma, control, controller

    def sweep(self, state: Tensor, image: Tensor) -> None:
        """phi = prediction + psi and psi = sigma'(phi) (S psi) + D^T u, each from the newest the pass has found."""
        batch = self.batch
        if self.passes is None:
            self.passes = self._passes()
            self.work = batch.target.new_empty((2, *batch.target.shape))
        phi, psi, u = self.cuts.of(state).values()
        potential, control, following = self.cuts.of(image).values()
        y, held = (self.outputs.of(tensor)[batch.system.output.start] for tensor in (potential, control))
        self.passes.forward(phi, psi)
        self.passes.outputs(psi, control, potential)
        following.copy_(u)
        batch.loss.hold(y, batch.target, batch.controller.alpha, following)
        held += following
        y += following
        self.passes.backward(psi, control, potential)
        self.count += 1
        if self.count % ROUNDING_EVERY == 0:
            self.floors[1] = batch.smallest_control(y, self.work)

    def release(self) -> None:
        super().release()
        self.cuts, self.outputs = Cuts(self.cuts.rows), Cuts(self.outputs.rows)

    def _passes(self) -> Sweep:
        system, drive = self.batch.system, self.batch.drive
        if self.preconditioner is None:
            return self.feedback.sweep(system, drive)
        assert isinstance(system, CircuitSystem)
        return PreconditionedSweep(system, drive, self.preconditioner, self.feedback.routes(system))

    def build_cost(self) -> float | None:
        tied = type(self.feedback) is Feedback
        return build_cost(self.batch.system, self.batch.drive.shape[1]) if tied else None

    def preconditioned(self, phi: Tensor, minibatch: Minibatch = WHOLE) -> Equations:
        if self.build_cost() is None:
            return super().preconditioned(phi)
        given = build(self.batch.system, phi, minibatch)
        found = InversionEquations(self.feedback, self.batch, given)
        found.extra = given.extra
        return found

    def preconditioned_sweep(self) -> float:
        return preconditioned_sweep(self.batch.system)

    def foreseen(
        self, state: Tensor, rate: float, minibatch: Minibatch = WHOLE
    ) -> tuple[Tensor, float] | None:
        system, batch = self.batch.system, self.batch
        if type(self.feedback) is not Feedback or not isinstance(system, CircuitSystem):
            return None
        (rate,) = minibatch.agreed(rate)
        count = steps(rate)
        if price(system, count, batch.drive.shape[1]) * minibatch.fraction > DEAREST:
            return None
        phi, psi, u = self._parts(state.clone())
        response = respond(system, phi, count, minibatch)
        gain = float(response.phi[system.output].diagonal().mean())
        if not gain > 0:
            return None
        batch.loss.hold(phi[system.output].contiguous(), batch.target, batch.controller.alpha / gain, u)
        u /= gain
        psi = system.slopes(phi, system.rates(phi)) * (response.raw @ u)
        if system.controlled is not None:
            psi *= system.controlled
        psi[system.output] += u
        return torch.cat([phi + response.phi @ u, psi, u]), response.extra

    def opened(self, state: Tensor) -> Tensor:
        if self.preconditioner is None:
            return state
        state, rows = state.clone(), self.preconditioner.rows
        phi, psi, _ = self._parts(state)
        psi[rows] = guess_lambda(self.batch.system, rows, phi, psi)
        return state

    def closed(self, state: Tensor) -> Tensor:
        if self.preconditioner is None:
            return state
        state, rows = state.clone(), self.preconditioner.rows
        phi, lam, _ = self._parts(state)
        lam[rows] = control_of(self.batch.system, rows, phi, lam)
        return state

    def imbalance(self, state: Tensor) -> Tensor:
        phi, psi, u = self._parts(state)
        point = self.batch.system.linearise(phi, self.batch.drive)
        control = self.feedback.imbalance(point, psi)
        control[self.batch.system.output] += u
        return torch.cat([point.prediction - phi + psi, control, self.batch.output_imbalance(phi, u)])

    def scales(self, state: Tensor) -> Tensor:
        return self.batch.scales(*self._parts(state))

    def select(self, columns: Tensor) -> InversionEquations:
        return InversionEquations(self.feedback, self.batch.select(columns), self.preconditioner)

    def fields(self, state: Tensor) -> Fields:
        return Fields(*self._parts(state))

    def energy(self) -> Energy | None:
        system, leak = self.batch.system, self.batch.controller.alpha
        if not isinstance(system, CircuitSystem) or type(self.feedback) is not Feedback:
            return None
        return AugmentedEnergy(self.batch, system) if system.controlled is None and leak > 0 else None

    def _on_kink(self, state: Tensor) -> Tensor | None:
        """Neurons on a kink, bool [unit, sample], or None where no population has one."""
        system = self.batch.system
        if not isinstance(system, CircuitSystem) or not system.kinked:
            return None
        phi, psi, _ = self._parts(state)
        point = system.linearise(phi, self.batch.drive)
        return point.kinks(self.feedback.raw(point, psi))

    def kinks(self, state: Tensor) -> Tensor:
        on = self._on_kink(state)
        return super().kinks(state) if on is None else on.sum(0)

    def settle(self, state: Tensor) -> Tensor:
        on = self._on_kink(state)
        if on is None or not bool(on.any()):
            return state
        image = torch.empty_like(state)
        InversionEquations(self.feedback, self.batch).sweep(state, image)
        return torch.where(on.any(0), image, state)


class AugmentedEnergy(Energy):
    """E = 1/2 |f(phi)|^2 + L / alpha, stationary at the controlled equilibria of tied feedback  [section 2.4]."""

    def __init__(self, batch: Controlled, system: CircuitSystem) -> None:
        self.batch, self.discrepancy = batch, Discrepancy(system, batch.drive)

    def _y(self, phi: Tensor) -> Tensor:
        return phi[self.batch.system.output]

    def value(self, phi: Tensor) -> Tensor:
        loss = self.batch.loss.value(self._y(phi), self.batch.target)
        return self.discrepancy.value(phi) + loss / self.batch.controller.alpha

    def derivatives(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        gradient, hessian = self.discrepancy.derivatives(phi)
        output, alpha = self.batch.system.output, self.batch.controller.alpha
        gradient[output] += self.batch.loss.gradient(self._y(phi), self.batch.target).squeeze(1) / alpha
        hessian[output, output] += self.batch.loss.hessian(self._y(phi))[0] / alpha
        return gradient, hessian

    def state(self, phi: Tensor) -> Tensor:
        psi = phi - self.batch.system.linearise(phi, self.batch.drive).prediction
        u = -self.batch.loss.gradient(self._y(phi), self.batch.target) / self.batch.controller.alpha
        return torch.cat([phi, psi, u])


def feedback(name: str, system: CircuitSystem, seed: int, options: Mapping[str, float]) -> Feedback:
    """The feedback of a name: tied, random or apical."""
    if name == "tied":
        return Feedback()
    if name == "random":
        return RandomFeedback(system, seed, **options)
    if name == "apical":
        return ApicalFeedback(system)
    raise CircuitError(
        f"control.feedback: dynamic_inversion has no feedback '{name}'; allowed: tied, random, apical"
    )
