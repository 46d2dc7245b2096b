"""Predictive coding and equilibrium propagation: what a nudge of the outputs changes at equilibrium is the credit.

predictive coding          dW = psi sigma(phi)^T at the minimum of 1/2 |f|^2 + beta L            [eq. 97-101, S4]
equilibrium propagation    dW = -(dE/dW at phi_beta - dE/dW at phi_-beta) / (2 beta)          [Scellier and Bengio 2017]

Both become minus the gradient of the loss as beta tends to zero; the first one, divided by beta, with an error of
order beta, the second one, which nudges both ways (Laborieux et al. 2021), of order beta squared. With its outputs
clamped, predictive coding is least control by an integral controller [S4.3].
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from circuitlab.control.base import Controlled, Pathway
from circuitlab.control.dynamic_inversion import Feedback
from circuitlab.control.energy_based import EnergyBased
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import OutputController, integral, proportional
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import Fields
from circuitlab.dynamics.system import System
from circuitlab.errors import CircuitError
from circuitlab.learn.base import Batch, LearningRule, Outcome, Task, mean_update, usable
from circuitlab.learn.starts import CREDIT
from circuitlab.learn.symmetric import Pair, symmetric_pairs, symmetric_update
from circuitlab.solve.base import Solution
from circuitlab.solve.choose import SolveSettings

CLAMPED_TAU_MS = 100.0
"""Time constant of the integral controller that clamps the outputs, where real time passes."""
LEAST = 8
"""Units of rounding error below which no residual is asked for."""


class PredictiveCoding(LearningRule):
    """Supervised predictive coding on any graph, by energy-based control with tied feedback  [S4].

    Prediction neurons phi descend 1/2 |psi|^2 + beta L, and error neurons psi = phi - prediction teach: the updates are
    those of least control at alpha = 1/beta, divided by beta, so that their size does not hang on it.

    Args:
        beta: strength of the nudge, above 0; None for outputs clamped at the least loss (beta without end), whose
            updates are psi sigma(phi)^T themselves.
    """

    name = "predictive_coding"
    controls = True
    needs_free = False

    def __init__(self, beta: float | None = None) -> None:
        if beta is not None and not beta > 0:
            raise CircuitError(
                f"learn.beta: predictive_coding has a beta above 0, or none (clamped), not {beta:g}"
            )
        self.beta = beta

    def outcome(self, task: Task, batch: Batch) -> Outcome:
        controller = integral(CLAMPED_TAU_MS) if self.beta is None else proportional(self.beta)
        own = replace(task, pathway=EnergyBased(Feedback()), controller=controller)
        drive = task.system.drive(batch.x)
        free = task.free(drive, exact=task.settings.thorough)
        found = own.controlled(drive, batch.target, free)
        used = usable(task, found.converged)
        updates = mean_update(task, found.fields.phi, found.fields.psi, batch.x, used)
        if self.beta is not None:
            updates = {name: update / self.beta for name, update in updates.items()}
        loss = task.loss.value(task.outputs(free.fields.phi), batch.target)
        return Outcome(updates, loss, free, found, used)


class EquilibriumPropagation(LearningRule):
    """Centred equilibrium propagation: one equilibrium nudged towards the target, one away from it.

    - `discrepancy`: E = 1/2 |f(phi)|^2, on any graph. -dE/dW = psi sigma(phi)^T, and the credit of a neuron is
      (psi_beta - psi_-beta) / (2 beta).
    - `hopfield`: E = sum_i int^r_i sigma^-1 - 1/2 r^T W r - r^T (U x + b), r = sigma(phi), which tau dphi/dt = f(phi)
      descends where W is symmetric; the nudge is added to f at the outputs, which are linear. -dE/dw = r_i r_j for the
      weight w of both synapses between i and j, and the credit is (r_beta - r_-beta) / (2 beta).

    In the outcome, psi is this credit, at the free equilibrium: as from the second phase of recurrent backpropagation.

    Args:
        beta: strength of the nudge, in (0, 1): at 1 the loss could push the outputs away without bound.
        energy: `discrepancy` or `hopfield`.
    """

    name = "equilibrium_propagation"
    controls = False
    contrasts = True
    needs_free = True

    def __init__(self, beta: float = 0.01, energy: str = "discrepancy") -> None:
        if not 0 < beta < 1:
            raise CircuitError(
                f"learn.beta: equilibrium_propagation has a beta between 0 and 1, not {beta:g}"
            )
        if energy not in ("discrepancy", "hopfield"):
            raise CircuitError(f"learn.energy: no energy '{energy}'; allowed: discrepancy, hopfield")
        self.beta, self.energy = beta, energy
        self._known: tuple[System, list[Pair], Pathway] | None = None

    def check(self, system: System) -> None:
        if self.energy == "hopfield":
            self._hopfield(system)

    def outcome(self, task: Task, batch: Batch) -> Outcome:
        drive = task.system.drive(batch.x)
        free = task.free(drive)
        own = task
        if self.energy == "hopfield":
            own = replace(task, pathway=self._hopfield(task.system)[1], settings=self._finer(task, drive))
        else:
            own = replace(task, pathway=EnergyBased(Feedback()))
        plus = replace(own, controller=proportional(self.beta)).controlled(drive, batch.target, free)
        minus = self._away(own, drive, batch, free, plus)
        used = usable(task, free.converged & plus.converged & minus.converged)
        credit = self._credit(task, free, plus, minus)
        if self.energy == "hopfield":
            updates = self._contrast(task, batch, plus, minus, credit.fields.psi, used)
        else:
            towards, away = (
                mean_update(task, s.fields.phi, s.fields.psi, batch.x, used) for s in (plus, minus)
            )
            updates = {name: (towards[name] - away[name]) / (2 * self.beta) for name in towards}
        loss = task.loss.value(task.outputs(free.fields.phi), batch.target)
        return Outcome(updates, loss, free, credit, used)

    def _hopfield(self, system: System) -> tuple[list[Pair], Pathway]:
        """The pairs of projections that are each other's transposes, and the pathway that nudges the outputs alone."""
        if self._known is None or self._known[0] is not system:
            if not isinstance(system, CircuitSystem):
                raise CircuitError(
                    "learn.energy: hopfield needs a circuit of populations; allowed here: discrepancy"
                )
            pairs = symmetric_pairs(system)
            outputs = torch.zeros(
                system.size, system.output.stop - system.output.start, dtype=system.compiled.dtype
            )
            outputs[system.output] = torch.eye(outputs.shape[1], dtype=outputs.dtype)
            self._known = (system, pairs, LinearFeedback(system, outputs.to(system.compiled.device)))
        return self._known[1], self._known[2]

    def _finer(self, task: Task, drive: Tensor) -> SolveSettings:
        """Settings with a tolerance that leaves the difference of two nudged states its digits."""
        tolerance = max(
            task.settings.at(drive.dtype) * self.beta, LEAST * float(torch.finfo(drive.dtype).eps)
        )
        return replace(task.settings, tolerance=min(tolerance, task.settings.at(drive.dtype)))

    def _away(self, own: Task, drive: Tensor, batch: Batch, free: Solution, plus: Solution) -> Solution:
        """The equilibrium nudged away from the target, looked for where the other one is mirrored at the free one."""
        controller = OutputController(-1 / self.beta, 0.0)
        start = 2 * free.fields.phi - plus.fields.phi
        problem = Controlled(own.system, drive, batch.target, own.loss, controller, start)
        return replace(own, starts=None).find(CREDIT, own.pathway.equations(problem))

    def _credit(self, task: Task, free: Solution, plus: Solution, minus: Solution) -> Solution:
        """Both equilibria as one solution that carries what lies between them, per unit of beta."""
        if self.energy == "hopfield":
            assert isinstance(task.system, CircuitSystem)
            psi = task.system.rates(plus.fields.phi) - task.system.rates(minus.fields.phi)
        else:
            psi = plus.fields.psi - minus.fields.psi
        psi, u = psi / (2 * self.beta), (plus.fields.u - minus.fields.u) / (2 * self.beta)
        return replace(
            plus,
            fields=Fields(free.fields.phi, psi, u),
            state=psi,
            converged=plus.converged & minus.converged,
            residual=torch.maximum(plus.residual, minus.residual),
            iterations=plus.iterations + minus.iterations,
            products=plus.products + minus.products,
            kinks=torch.maximum(plus.kinks, minus.kinks),
        )

    def _contrast(
        self, task: Task, batch: Batch, plus: Solution, minus: Solution, psi: Tensor, used: Tensor
    ) -> dict[str, Tensor]:
        """Half the contrast for each of the two synapses of a weight: (psi r^T + r psi^T) / 2, with r the mean of both
        phases, is exactly (r r^T at beta - r r^T at -beta) / (4 beta)."""
        assert isinstance(task.system, CircuitSystem)
        updates = mean_update(task, plus.fields.phi, psi, batch.x, used)
        rate = (task.system.rates(plus.fields.phi) + task.system.rates(minus.fields.phi)) / 2
        share = psi[:, used] / max(int(used.sum()), 1)
        return updates | symmetric_update(self._hopfield(task.system)[0], share, rate[:, used])

    def credit_rows(self, task: Task) -> int:
        return task.system.size + task.system.output.stop - task.system.output.start
