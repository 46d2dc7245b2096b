"""What every feedback pathway shares: the batch under control, and the controlled state's scales."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from circuitlab.compile.kernels import Kernel
from circuitlab.control.output import OutputController
from circuitlab.dynamics.equations import SMALLEST_SOMA, TINY, Equations
from circuitlab.dynamics.loss import OutputLoss
from circuitlab.dynamics.sweep import Sweep
from circuitlab.dynamics.system import System


@dataclass(frozen=True)
class Controlled:
    """A batch whose outputs a controller holds at their target.

    Args:
        system: the free dynamics.
        drive: U x + b, [unit, sample].
        target: [output unit, sample].
        loss: of the output units.
        controller: the output controller.
        phi: potentials to start from, [unit, sample] (the free equilibrium, as a rule).
        x: what drives it, [input unit, sample], where a pathway has synapses of its own from the inputs.
    """

    system: System
    drive: Tensor
    target: Tensor
    loss: OutputLoss
    controller: OutputController
    phi: Tensor
    x: Tensor | None = None

    def select(self, columns: Tensor) -> Controlled:
        """The same for some of the samples."""
        x = None if self.x is None else self.x[:, columns]
        drive, target, phi = (tensor[:, columns] for tensor in (self.drive, self.target, self.phi))
        return replace(self, system=self.system.select(columns), drive=drive, target=target, phi=phi, x=x)

    def deliver(self, passes: Sweep, y: Tensor, held: Tensor, u: Tensor) -> None:
        """Solve alpha u = -dL/dy for the controller and add it to the outputs' potential and control, all [output unit,
        sample] and in place; with gap junctions a current moves a potential, and a control, by a share of it.

        Args:
            y, held: potential and control without u. u: from the guess that it holds.
        """
        alpha = self.controller.alpha
        if passes.mixing is None or passes.share is None:
            self.loss.hold(y, self.target, alpha, u)
            held += u
            y += u
            return
        share = passes.share[self.system.output]
        u.copy_(self.loss.controller_through(y, self.target, alpha, u.clone(), passes.mixing))
        held += share * u
        y += share.square() * u

    def output_imbalance(self, phi: Tensor, u: Tensor) -> Tensor:
        """-dL/dy - alpha u, [output unit, sample]  [eq. 6]."""
        gradient = self.loss.gradient(phi[self.system.output], self.target)
        return -gradient - self.controller.alpha * u

    def scales(self, phi: Tensor, psi: Tensor | None, u: Tensor) -> Tensor:
        """Norms that residuals of soma, control and controller are measured against, [block, sample]; no control is
        asked for more digits than rounding leaves in the error that it comes from."""
        y, digits = phi[self.system.output], digits_kept(phi.dtype)
        soma = torch.linalg.vector_norm(phi, dim=0).clamp(min=SMALLEST_SOMA)
        error = self.loss.rounding(y, self.target) / digits
        strength = abs(self.controller.alpha) or 1.0
        scales = [soma, torch.maximum(strength * torch.linalg.vector_norm(u, dim=0), error.clamp(min=TINY))]
        if psi is not None:
            scales.insert(1, torch.maximum(torch.linalg.vector_norm(psi, dim=0), self.smallest_control(y)))
        return torch.stack(scales)

    def control_scale(self, phi: Tensor, psi: Tensor) -> Tensor:
        """Norm that the balance of the control psi = phi - prediction is measured against, [sample]: its own, where the
        rounding of potentials and of y leaves it any digits."""
        y, digits = phi[self.system.output], digits_kept(phi.dtype)
        rounding = torch.finfo(phi.dtype).eps * torch.linalg.vector_norm(phi, dim=0)
        floor = torch.maximum(rounding / digits, self.smallest_control(y))
        return torch.maximum(torch.linalg.vector_norm(psi, dim=0), floor)

    def smallest_control(self, y: Tensor, work: Tensor | None = None) -> Tensor:
        """Norm below which the digits of a control mean nothing beside the rounding of y, [sample].

        Args:
            work: memory to work in, [2, output unit, sample].
        """
        noise = self.loss.controller_rounding(y, self.target, self.controller.alpha, work)
        return (noise / digits_kept(y.dtype)).clamp(min=TINY)


class ControlledEquations(Equations):
    """Equations with a controller u among their rows, which in real time may have a proportional part.

    Attributes:
        batch: under control. `blocks` has `soma` and `controller`.
    """

    batch: Controlled

    def _lay_out(self, control: bool) -> None:
        """Name the rows and their time constants: soma phi, then the control psi where it is a state, then u."""
        n, k, tau = self.batch.system.size, len(self.batch.target), self.batch.system.tau
        last = 2 * n if control else n
        middle = {"control": slice(n, last)} if control else {}
        self.blocks = {"soma": slice(0, n), **middle, "controller": slice(last, last + k)}
        pace = torch.full_like(tau[:1], self.batch.controller.pace_ms).expand(k, 1)
        self.time_constants = torch.cat([tau] * (2 if control else 1) + [pace])

    @property
    def lag(self) -> float:
        return self.batch.system.lag

    def silence(self) -> Tensor:
        """With the integral part of the controller at zero."""
        return self.close_algebraic(self.start())

    def _proportional(self, state: Tensor) -> Tensor:
        """k_p e, [output unit, sample]."""
        y = state[self.blocks["soma"]][self.batch.system.output]
        return self.batch.loss.gradient(y, self.batch.target) * -self.batch.controller.k_p

    def integrated(self, state: Tensor) -> Tensor:
        if not self.batch.controller.k_p:
            return state
        state = state.clone()
        state[self.blocks["controller"]] -= self._proportional(state)
        return state

    def close_algebraic(self, state: Tensor) -> Tensor:
        batch, rows = self.batch, self.blocks["controller"]
        if batch.controller.tau_ms == 0:
            y = state[self.blocks["soma"]][batch.system.output]
            state[rows] = batch.controller.at_once(batch.loss, y, batch.target)
        elif batch.controller.k_p:
            state[rows] += self._proportional(state)
        return state


def digits_kept(dtype: torch.dtype) -> float:
    """Relative accuracy that rounding must leave to what a residual is judged by: well below the default tolerances."""
    return 2.5e-6 if dtype == torch.float32 else 1e-9


class Pathway(ABC):
    """A feedback pathway: how the controller u becomes each neuron's control psi.

    Attributes:
        needs_free: whether what control aims at depends on the free state.
        inverts_decoder: whether it can control through a decoder that is part of the loss [eq. 31].
    """

    name: str
    inverts_decoder: bool = False

    needs_free: bool = False

    def aimed(self, batch: Controlled, free: Tensor) -> Controlled:
        """The batch with the target that control aims at.

        Args:
            free: potentials at the free equilibrium, [unit, sample].
        """
        return batch

    @abstractmethod
    def equations(self, batch: Controlled) -> Equations:
        """The equations of the controlled equilibrium."""

    def feedback_weights(self) -> dict[str, Tensor]:
        """Feedback weights of its own (not the circuit's projections), by their name in the run file: `S/projection`,
        [edge], or `Q/population`, [unit, output unit]."""
        return {}

    def parameters(self) -> dict[str, nn.Parameter]:
        """Those of its weights that learning may change, in the form they are stored in, by name."""
        return {}

    def companions(self) -> dict[str, dict[str, Kernel]]:
        """Kernels that learn to follow a projection's weights, by the projection and their parameters' names: what
        scales the one (a bound, decay, a penalty) must scale the others."""
        return {}

    def measures(self) -> dict[str, float]:
        """What an evaluation says of the feedback weights, by the metric's name."""
        return {}

    def hold_signs(self) -> None:
        """Bring its weights back to the signs that Dale's law asks of them; as a rule none asks for any."""
        return
