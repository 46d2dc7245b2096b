"""What a learning rule is: from a batch to one update per existing synapse, nothing applied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from circuitlab.control.base import Controlled, Pathway
from circuitlab.control.output import OutputController
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import Equations, FreeEquations
from circuitlab.dynamics.loss import OutputLoss
from circuitlab.dynamics.system import System
from circuitlab.errors import CircuitError, NotConvergedError
from circuitlab.learn.starts import CREDIT, FREE, SampleStarts
from circuitlab.solve.base import Solution
from circuitlab.solve.choose import SolveSettings, approach, find


@dataclass(frozen=True)
class Batch:
    """Samples to learn from.

    Args:
        x: [input unit, sample].
        target: [output unit, sample].
    """

    x: Tensor
    target: Tensor


@dataclass(frozen=True)
class Task:
    """A circuit with everything needed to find its equilibria on a batch.

    Args:
        system: the free dynamics.
        loss: of the output units.
        pathway, controller: how control is delivered.
        settings: how equilibria are found.
        start: where the controlled state starts, `free` (the free equilibrium) or `zero`.
        on_unconverged: `skip` leaves samples that did not converge out of the update, `keep` uses their best state,
            `raise` stops.
        starts: warm starts of the training samples at hand; None where every state begins at the equations' own.
        check: how many samples of the next batch are also solved by descent of the energy from the free state.
    """

    system: System
    loss: OutputLoss
    pathway: Pathway
    controller: OutputController
    settings: SolveSettings
    start: str = "free"
    on_unconverged: str = "skip"
    starts: SampleStarts | None = None
    check: int = 0

    def __post_init__(self) -> None:
        if self.system.decoder_in_loss and not self.pathway.inverts_decoder:
            raise CircuitError(
                f"control.pathway: {self.pathway.name} cannot control through a decoder that is part of the loss; "
                'allowed: dynamic_inversion with tied feedback, or decoder_in="state"'
            )

    def free(self, drive: Tensor, exact: bool = True) -> Solution:
        """The free equilibrium for U x + b, [unit, sample]; where it is not asked for exactly, a state near it
        (within `settings.free_tolerance`) to start the controlled equilibrium from."""
        return self.find(FREE, FreeEquations(self.system, drive), exact=exact)

    def controlled(self, drive: Tensor, target: Tensor, free: Solution, x: Tensor | None = None) -> Solution:
        """The equilibrium under control, starting from the free one (or from zero, as `start` says), or warm.

        Args:
            x: the inputs, which lateral inhibition needs beside the drive, [input unit, sample].
        """
        error = self.loss.gradient(self.outputs(free.fields.phi), target)
        equations = self.pathway.equations(self.under_control(drive, target, free, x))
        return self.find(CREDIT, equations, error=error, rate=free.rate)

    def under_control(
        self, drive: Tensor, target: Tensor, free: Solution, x: Tensor | None = None
    ) -> Controlled:
        """The batch with the target that the pathway aims at."""
        phi = free.fields.phi if self.start == "free" else self.system.silent(drive)
        batch = Controlled(self.system, drive, target, self.loss, self.controller, phi, x)
        return self.pathway.aimed(batch, free.fields.phi)

    def find(
        self,
        phase: str,
        equations: Equations,
        exact: bool = True,
        error: Tensor | None = None,
        rate: float | None = None,
    ) -> Solution:
        """The equilibrium of a phase, `free` or `credit`, from its warm starts where the task has any.

        Args:
            exact: to the tolerance; else near enough to start from.
            error: dL/dy at the free state, [output unit, sample], to which starts are in proportion.
            rate: of the first steps towards the free state, which tells whether preconditioning pays.
        """

        def solver(problem: Equations, start: Tensor | None, fallback: bool) -> Solution:
            if not exact:
                return approach(problem, self.settings, start)
            return find(problem, self.settings, start, rate, fallback)

        if self.starts is not None:
            return self.starts.find(phase, equations, solver, error)
        return solver(equations, None, True)

    def controlled_rows(self) -> int:
        """Rows of the controlled state: potentials, and whatever the pathway adds to them."""
        phi = torch.zeros_like(self.system.tau)
        target = phi[self.system.output]
        batch = Controlled(self.system, phi, target, self.loss, self.controller, phi)
        return max(rows.stop for rows in self.pathway.equations(batch).blocks.values())

    def outputs(self, phi: Tensor) -> Tensor:
        """y = D phi, [output unit, sample]."""
        return phi[self.system.output]


@dataclass(frozen=True)
class Outcome:
    """What a rule found on one batch.

    Args:
        updates: mean over the used samples of each parameter's update, in the direction of descent, by its name.
        loss: of every sample at the free equilibrium, [sample].
        free: the free equilibrium.
        credit: the equilibrium that carries the credit: the controlled one, or the second phase of backpropagation.
        used: samples that the update is made of, bool [sample].
        phi: potentials whose rates the updates take, [unit, sample]; those of `credit` where None.
        psi: credit signals that the updates take, [unit, sample]; those of `credit` where None.
        gated: whether the updates multiply them by sigma'(phi).
        at_rest: whether `credit` is the equilibrium under control of the task's pathway.
        energy_checked, energy_lowered: samples solved again by descent, and those for which it found a lower energy.
        drive: U x + b that the equilibria were found with, [unit, sample], for those who look; None where not kept.
    """

    updates: dict[str, Tensor]
    loss: Tensor
    free: Solution
    credit: Solution
    used: Tensor
    phi: Tensor | None = None
    energy_checked: int = 0
    energy_lowered: int = 0
    psi: Tensor | None = None
    gated: bool = False
    at_rest: bool = False
    drive: Tensor | None = None

    @property
    def presynaptic(self) -> Tensor:
        """Potentials whose rates the updates take, [unit, sample]."""
        return self.credit.fields.phi if self.phi is None else self.phi

    def factors(self, system: CircuitSystem) -> tuple[Tensor, Tensor]:
        """Rates before and credit signals behind the synapses, each [unit, used sample], so that the product of the
        two, summed over samples, is the update."""
        phi, psi = self.presynaptic, self.credit.fields.psi if self.psi is None else self.psi
        if self.gated:
            psi = psi * system.slopes(phi, system.rates(phi))
        used = self.used
        return system.rates(phi[:, used]), psi[:, used] / max(int(used.sum()), 1)

    @property
    def control_cost(self) -> Tensor:
        """H = 1/2 |psi|^2 of every sample, [sample]  [eq. 3]."""
        return 0.5 * self.credit.fields.psi.square().sum(0)


class LearningRule(ABC):
    """A rule that is local in space and time, or a baseline behind the same interface.

    Attributes:
        name: in experiment files.
        controls: whether the credit signal is a control that acts on the circuit (else it is a second phase).
        needs_free: whether the updates are made of the free state (else it is a start, and a near one will do).
        contrasts: whether the credit is what lies between equilibria of the circuit under control.
    """

    name: str
    controls: bool
    needs_free: bool = True
    contrasts: bool = False

    @abstractmethod
    def outcome(self, task: Task, batch: Batch) -> Outcome:
        """The updates for a batch."""

    def check(self, system: System) -> None:
        """Refuse a circuit that the rule cannot teach; asked once, before the first update.

        Raises:
            CircuitError: says why.
        """
        return

    def credit_rows(self, task: Task) -> int:
        """Rows of the state that carries the credit."""
        return task.controlled_rows() if self.controls else task.system.size


def usable(task: Task, converged: Tensor) -> Tensor:
    """Samples that the update may use, bool [sample].

    Raises:
        NotConvergedError: some did not converge and the task asks for an error.
    """
    if task.on_unconverged == "keep":
        return torch.ones_like(converged)
    if task.on_unconverged == "raise" and not bool(converged.all()):
        missing = int((~converged).sum())
        raise NotConvergedError(
            f"solve: {missing} of {len(converged)} samples did not reach their equilibrium; raise "
            "solve.max_iterations, weaken the control, bound learn.constrain.largest_singular_value, or allow "
            "solve.on_unconverged: skip"
        )
    return converged


def mean_update(
    task: Task, phi: Tensor, psi: Tensor, x: Tensor, used: Tensor, gated: bool = False
) -> dict[str, Tensor]:
    """Mean over the used samples of (d f/d theta)^T psi, by parameter name; zero where no sample is used."""
    if not bool(used.all()):
        phi, psi, x = phi[:, used], psi[:, used], x[:, used]
    return task.system.update(phi, psi / max(psi.shape[1], 1), x, gated)
