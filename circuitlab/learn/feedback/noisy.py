"""Feedback weights Q learned from noise: what a neuron's own noise does to the controller is how it should be reached.

Noise s eps on every neuron travels through the circuit to the outputs, and the controller u works against it. What a
feedback synapse sees is its neuron's feedback compartment, Q u + s eps, and the controller:

    dQ = -(1/s^2) < (Q u + s eps) u_hp^T > - decay Q                                  [eq. 123, 135, 139; DFC eq. 13]

with <> the mean over time and samples, so that a rate lr of plain gradient descent is 1/tau_Q with tau_Q counted in
minibatches. The published code sums over its steps instead: lr = steps / tau_Q in these units.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from circuitlab.control.base import Controlled
from circuitlab.control.deep_feedback_control import tracking
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import OutputController
from circuitlab.control.realtime import RealTime
from circuitlab.dynamics.noise import OrnsteinUhlenbeck, generator
from circuitlab.errors import CircuitError
from circuitlab.learn.base import Batch, Outcome, Task
from circuitlab.learn.feedback.base import FeedbackRule

LOST = 100.0
"""A sample whose controller strays by this many times the noise is unstable, and teaches nothing (Q only
decays, which is what makes circuits stable again)."""


@dataclass(frozen=True)
class Noise:
    """The noisy dynamics of one update.

    Args:
        scale: s, standard deviation of the noise on every neuron.
        tau_ms: time constant of the noise. dt_ms: time step. Both in ms.
        steps: time steps.
        decay: of Q, dimensionless.
        seed: of the experiment.
    """

    scale: float = 0.01
    tau_ms: float = 50.0
    dt_ms: float = 10.0
    steps: int = 800
    decay: float = 0.01
    seed: int = 0


class NoisyFeedback(FeedbackRule):
    """Learning of Q from noise.

    Args:
        noise: the noisy dynamics.
    """

    noisy = True

    def __init__(self, noise: Noise) -> None:
        self.noise = noise

    def change(
        self, pathway: LinearFeedback, batch: Controlled, u: Tensor | None, step: int, high_pass: bool
    ) -> Tensor:
        """dQ, [unit, output unit], from the noisy dynamics of a batch; samples that prove unstable are left out.

        Args:
            batch: under control; its `phi` is where potentials begin.
            u: where the controller begins, [output unit, sample]; from zero where None.
            high_pass: whether u_hp is u less its mean over the time simulated, else u itself.
        """
        s, q = self.noise.scale, pathway.q
        own, cross, lost = self._moments(pathway, batch, u, step, high_pass)
        if bool(lost.any()):
            kept = torch.nonzero(~lost).squeeze(1)
            if not len(kept):
                return -self.noise.decay * q
            u = None if u is None else u[:, kept]
            own, cross, lost = self._moments(pathway, batch.select(kept), u, step, high_pass)
            if bool(lost.any()):
                return -self.noise.decay * q
        found = torch.addmm(cross, q, own, beta=s).mul_(-1 / s**2).sub_(q, alpha=self.noise.decay)
        return found if pathway.system.controlled is None else found * pathway.system.controlled

    def _moments(
        self, pathway: LinearFeedback, batch: Controlled, u: Tensor | None, step: int, high_pass: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """<u u_hp^T>, [output unit, output unit], <eps u_hp^T>, [unit, output unit], and the unstable samples."""
        noise, run = self.noise, RealTime(pathway, batch, u, self.noise.dt_ms)
        origin = run.u.clone()
        source = generator(noise.seed, self.name, step, origin.device)
        eps = OrnsteinUhlenbeck(run.phi, noise.tau_ms, noise.dt_ms, source)
        own = origin.new_zeros(len(origin), len(origin))
        cross = torch.zeros_like(pathway.q)
        strayed, sums, total = torch.empty_like(origin), torch.zeros_like(origin), torch.zeros_like(run.phi)
        largest = torch.zeros_like(origin)
        for _ in range(noise.steps):
            run.look()
            torch.sub(run.u, origin, out=strayed)
            own.addmm_(strayed, strayed.t())
            cross.addmm_(eps.value, strayed.t())
            if high_pass:
                sums += strayed
                total += eps.value
            torch.maximum(largest, strayed.abs(), out=largest)
            run.advance(eps.value, noise.scale)
            eps.step()
        if high_pass:
            own.addmm_(sums, sums.t(), alpha=-1 / noise.steps)
            cross.addmm_(total, sums.t(), alpha=-1 / noise.steps)
        count = noise.steps * origin.shape[1]
        lost = ~(largest.amax(0) <= LOST * noise.scale)
        return own / count, cross / count, lost


class AntiHebbian(NoisyFeedback):
    """Q learned in a single phase, while the circuit is controlled for its own learning  [eq. 122, 135, 138, 139].

    The dynamics begin at the controlled equilibrium. u_hp is u less its mean over the time simulated (assumption iii of
    Proposition S10); the equilibrium's u* of eq. 139 differs from it by the solver's tolerance and by s^2, and 1/s^2 in
    the rule would make both count. On one sample Q^T comes to lie in the row space of D (1 - W sigma')^-1
    [eq. 120, 124], which the output units' rows of Q take part in.
    """

    name = "anti_hebbian"

    def updates(self, task: Task, batch: Batch, outcome: Outcome | None, step: int) -> dict[str, Tensor]:
        assert outcome is not None, "it learns with the circuit"
        pathway, drive = pathway_of(task, self.name), task.system.drive(batch.x)
        rest = outcome.credit if outcome.at_rest else task.controlled(drive, batch.target, outcome.free)
        used = rest.converged & outcome.free.converged if pathway.needs_free else rest.converged
        if not bool(used.any()):
            return named(pathway, torch.zeros_like(pathway.q))
        held = task.under_control(drive, batch.target, outcome.free)
        held, u = replace(held, phi=rest.fields.phi), rest.fields.u
        if not bool(used.all()):
            columns = torch.nonzero(used).squeeze(1)
            held, u = held.select(columns), u[:, columns]
        return named(pathway, self.change(pathway, held, u, step, high_pass=True))


class Alternating(NoisyFeedback):
    """Q learned in phases of its own, in which the controller holds the outputs where they are  [DFC eq. 12-13].

    The dynamics begin at the free equilibrium, whose output is the target, and u_hp is u. On one sample, with a strong
    leak, Q approaches J^T (J J^T + gamma)^-1  [DFC Theorem 6].

    Args:
        noise: the noisy dynamics.
        controller: the output controller of these phases.
        pretraining, passes: passes over the samples before the first epoch, and before each later one.
    """

    name = "alternating"

    def __init__(
        self, noise: Noise, controller: OutputController, pretraining: int = 1, passes: int = 1
    ) -> None:
        super().__init__(noise)
        self.controller, self.pretraining, self.passes = controller, pretraining, passes

    def updates(self, task: Task, batch: Batch, outcome: Outcome | None, step: int) -> dict[str, Tensor]:
        pathway, drive = pathway_of(task, self.name), task.system.drive(batch.x)
        free = task.free(drive)
        columns = torch.nonzero(free.converged).squeeze(1)
        if not len(columns):
            return named(pathway, torch.zeros_like(pathway.q))
        phi = free.fields.phi[:, columns]
        y = task.outputs(phi).clone()
        held = Controlled(task.system, drive[:, columns], y, tracking(len(y)), self.controller, phi)
        return named(pathway, self.change(pathway, held, None, step, high_pass=False))


def pathway_of(task: Task, rule: str) -> LinearFeedback:
    """The pathway, if it is direct feedback.

    Raises:
        CircuitError: it is another.
    """
    if not isinstance(task.pathway, LinearFeedback):
        raise CircuitError(
            f"learn: {rule} is for direct feedback, not for {task.pathway.name}; allowed: linear_feedback, "
            "deep_feedback_control"
        )
    return task.pathway


def named(pathway: LinearFeedback, change: Tensor) -> dict[str, Tensor]:
    """A change of Q as updates of the pathway's parameters."""
    return {f"Q/{name}": change[rows] for name, rows in pathway.units.items()}
