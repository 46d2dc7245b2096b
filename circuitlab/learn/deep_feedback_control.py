"""Deep Feedback Control's rules: each synapse compares its neuron's rate under control with what its inputs predict.

    dW = (sigma(v) - sigma(v_ff)) r^T,   v_ff = v - Q u at rest                                          [DFC eq. 5, 9]

taken during the dynamics, at their steady state, or at the steady state of the circuit linearised at its free
equilibrium. All are of the size of lambda, as what they compare is.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from circuitlab.control.base import Controlled
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.realtime import RealTime
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import TINY, Equations, Fields
from circuitlab.dynamics.system import System
from circuitlab.dynamics.tangent import Tangent
from circuitlab.errors import CircuitError
from circuitlab.learn.base import Batch, LearningRule, Outcome, Task, usable
from circuitlab.learn.feedback.noisy import pathway_of
from circuitlab.learn.starts import CREDIT
from circuitlab.solve.base import Solution

BLOCK = 16
"""Time steps whose products of rates are summed at once."""


def circuit_of(task: Task, rule: str) -> CircuitSystem:
    """The circuit.

    Raises:
        CircuitError: the system is another.
    """
    if not isinstance(task.system, CircuitSystem):
        raise CircuitError(f"learn.rule: {rule} compares firing rates, which only a circuit has")
    return task.system


def refuse_plastic_junctions(system: System, rule: str) -> None:
    """Refuse gap junctions that learn: they do from potentials and control, not from rates.

    Raises:
        CircuitError: names the first one.
    """
    links = system.compiled.electrical if isinstance(system, CircuitSystem) else []
    plastic = [link.projection.name for link in links if link.projection.plastic]
    if plastic:
        raise CircuitError(
            f"learn.rule: {rule} compares rates, and conductances ('{plastic[0]}') learn from potentials and control; "
            "write plastic: false for these, or choose another rule"
        )


def speed(equations: Equations, state: Tensor) -> Tensor:
    """Largest share by which potentials, or the controller, would change in one of their time constants, [sample]."""
    wrong = equations.imbalance(state)
    shares = []
    for rows in equations.blocks.values():
        size = torch.linalg.vector_norm(state[rows], dim=0).clamp(min=TINY)
        shares.append(torch.linalg.vector_norm(wrong[rows], dim=0) / size)
    return torch.stack(shares).amax(0)


def compared(system: CircuitSystem, fields: Fields) -> tuple[Tensor, Tensor]:
    """sigma(v) - sigma(v - psi), and the rates sigma(v), both [unit, sample]."""
    rate = system.rates(fields.phi)
    return rate - system.rates(fields.phi - fields.psi), rate


class SteadyState(LearningRule):
    """DFC-SS: dW = (sigma(v) - sigma(v_ff)) r^T at the controlled equilibrium  [DFC eq. 5 at rest].

    Without the nonlinearity [DFC eq. 9] this is the rule `least_control` under the same pathway.
    """

    name = "deep_feedback_control_ss"
    controls = True

    def check(self, system: System) -> None:
        refuse_plastic_junctions(system, self.name)

    def outcome(self, task: Task, batch: Batch) -> Outcome:
        system = circuit_of(task, self.name)
        pathway_of(task, self.name)
        drive = system.drive(batch.x)
        free = task.free(drive)
        found = self.state(task, drive, batch, free)
        used = usable(task, found.converged & free.converged)
        fields = found.fields
        post, rate = compared(system, fields)
        post = torch.where(used, post, 0) / max(int(used.sum()), 1)
        loss = task.loss.value(task.outputs(free.fields.phi), batch.target)
        updates = system.synaptic(post, torch.where(used, rate, 0), batch.x)
        return Outcome(updates, loss, free, found, used, at_rest=self.at_rest)

    at_rest = True

    def state(self, task: Task, drive: Tensor, batch: Batch, free: Solution) -> Solution:
        """The state that the update is made of."""
        return task.controlled(drive, batch.target, free)


class LinearisedSteadyState(SteadyState):
    """DFC-SSA: the same at the steady state of the circuit linearised at its free equilibrium,

        v - v_ff = Q (J Q + alpha)^-1 delta,   v = v_free + (1 - W sigma')^-1 (v - v_ff)                 [DFC eq. 6]

    with J = D (1 - W sigma')^-1, for any graph; exact on linear circuits (Lemma 1). Under the pathway linear_feedback
    alpha u = -dL/dy(y_free + J Q u) takes the place of (J Q + alpha) u = delta.
    """

    name = "deep_feedback_control_ssa"
    at_rest = False

    def state(self, task: Task, drive: Tensor, batch: Batch, free: Solution) -> Solution:
        held = task.under_control(drive, batch.target, free)
        system, phi = circuit_of(task, self.name), free.fields.phi
        tangent, constant = Tangent.at(system, phi, drive)
        error = task.loss.gradient(task.outputs(phi), batch.target)
        held = replace(held, system=tangent, drive=constant, phi=phi)
        return task.find(CREDIT, task.pathway.equations(held), error=error)


class DeepFeedbackControl(LearningRule):
    """DFC: the update goes on while circuit and controller move from the free state towards rest  [DFC eq. 5].

    Real time is `solve.max_time` in steps of `solve.dt`; the update is the mean over that time, so that it is as large
    as the steady state's. Where all samples of a batch have come to rest, the time that is left counts with what it
    would repeat. A sample whose potentials or controller, at the end, would still change by more than a share of
    `solve.free_tolerance` in one of their time constants is unsettled, and left out.
    """

    name = "deep_feedback_control"
    controls = True

    def check(self, system: System) -> None:
        refuse_plastic_junctions(system, self.name)

    def outcome(self, task: Task, batch: Batch) -> Outcome:
        system, pathway = circuit_of(task, self.name), pathway_of(task, self.name)
        drive = system.drive(batch.x)
        free = task.free(drive)
        held = replace(task.under_control(drive, batch.target, free), phi=free.fields.phi)
        updates, found = self._simulated(task, pathway, held, batch.x)
        used = usable(task, found.converged & free.converged) & torch.isfinite(found.residual)
        if not bool(used.all()):
            columns = torch.nonzero(used).squeeze(1)
            updates, _ = self._simulated(task, pathway, held.select(columns), batch.x[:, columns])
        loss = task.loss.value(task.outputs(free.fields.phi), batch.target)
        return Outcome(updates, loss, free, found, used)

    def _simulated(
        self, task: Task, pathway: LinearFeedback, held: Controlled, x: Tensor
    ) -> tuple[dict[str, Tensor], Solution]:
        """Mean over time and samples of the updates, and the state at the end."""
        settings, system, samples = task.settings, circuit_of(task, self.name), x.shape[1]
        steps = max(1, round(settings.max_time_ms / settings.dt_ms))
        run, equations = RealTime(pathway, held, None, settings.dt_ms), pathway.equations(held)
        width = min(BLOCK, steps) * samples
        post, pre = (run.phi.new_empty(system.size, width) for _ in range(2))
        whole, ahead = torch.zeros_like(run.phi), torch.empty_like(run.phi)
        mask = 1.0 if system.controlled is None else system.controlled
        updates: dict[str, Tensor] = {}
        residual, done = run.phi.new_full((samples,), torch.inf), 0
        while done < steps and samples:
            count = min(BLOCK, steps - done)
            for number in range(count):
                columns = slice(number * samples, (number + 1) * samples)
                run.look()
                for rows, activation in system.activations:
                    activation.rate(run.prediction[rows], ahead[rows])
                torch.sub(run.rate, ahead, out=ahead)
                ahead.mul_(mask)
                post[:, columns], pre[:, columns] = ahead, run.rate
                whole += ahead
                run.advance()
            done += count
            self._add(updates, system, post[:, : count * samples], pre[:, : count * samples])
            residual = speed(equations, torch.cat([run.phi, run.u]))
            left = steps - done
            if left and bool((residual <= settings.at(run.phi.dtype)).all()):
                run.look()
                fields = Fields(run.phi, run.phi - run.prediction, run.u)
                last, rate = compared(system, fields)
                last = last * mask
                self._add(updates, system, left * last, rate)
                whole += left * last
                break
        scale = 1 / max(steps * samples, 1)
        updates = {name: value * scale for name, value in updates.items()}
        updates |= system.synaptic(whole * scale, None, x)
        residual = torch.where(torch.isfinite(residual), residual, torch.inf)
        limit = max(settings.free_tolerance, settings.at(run.phi.dtype))
        number = torch.full((samples,), done, device=residual.device)
        state = torch.cat([run.phi, run.u])
        kinks = torch.zeros_like(number)
        found = Solution(
            equations.fields(state),
            state,
            residual <= limit,
            residual,
            number,
            number.double(),
            kinks,
            "euler",
        )
        return updates, found

    def _add(self, updates: dict[str, Tensor], system: CircuitSystem, post: Tensor, pre: Tensor) -> None:
        """Sum the products of a block into the updates of recurrent projections."""
        for name, value in system.synaptic(post, pre, None).items():
            updates[name] = updates[name].add_(value) if name in updates else value
