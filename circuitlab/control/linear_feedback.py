"""Direct linear feedback: the output controller reaches every neuron through weights Q.

tau dphi/dt = -phi + W sigma(phi) + U x + b + Q u,   tau_u du/dt = -dL/dy - alpha u       [eq. 13, 121, 137]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from circuitlab.control.base import Controlled, ControlledEquations, Pathway
from circuitlab.control.jacobian import response, silent_slopes
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import SMALLEST_SOMA, Fields
from circuitlab.dynamics.foresight import spread
from circuitlab.dynamics.system import System
from circuitlab.dynamics.tangent import Tangent
from circuitlab.errors import CircuitError
from circuitlab.graph.streams import stream

STEPS, SETTLED = 6, 0.2
"""Sweeps towards the answer of a recurrent circuit, and the largest change in the last one that is let pass."""
FEEBLE = 0.3
"""Gain through other units below which the controller is found from the direct way alone."""


class LinearFeedback(Pathway):
    """psi = Q u.

    Args:
        system: the circuit, or another system; Q has its units as rows (zero rows where `controlled: false`).
        q: Q, [unit, output unit]; a copy is kept, whose rows are the parameters that learning changes, the output
            units' too, as in S6.3 and DFC: the column space that they learn asks for all of Q in one basis.
    """

    name = "linear_feedback"

    def __init__(self, system: System, q: Tensor) -> None:
        if q.shape != (system.size, system.output.stop - system.output.start):
            raise CircuitError(
                f"control.feedback: Q has shape {tuple(q.shape)}, but the circuit needs "
                f"{(system.size, system.output.stop - system.output.start)}"
            )
        self.system = system
        self.q = q.detach().clone() if system.controlled is None else q.detach() * system.controlled
        circuit = isinstance(system, CircuitSystem)
        self.units = system.compiled.units if circuit else {"units": slice(0, system.size)}
        self._parameters = {name: nn.Parameter(self.q[rows]) for name, rows in self.units.items()}

    @property
    def identity(self) -> bool:
        """Whether each output unit feels its own controller, and no other."""
        mixing = self.q[self.system.output]
        return bool(torch.equal(mixing, torch.eye(len(mixing), dtype=mixing.dtype, device=mixing.device)))

    @classmethod
    def random(cls, system: CircuitSystem, seed: int, scale: float = 1.0) -> Self:
        """Q normal with standard deviation scale / sqrt(number of output units) on every population, drawn from the
        population's own stream, and the identity on the output units, which feel their own controller."""
        compiled = system.compiled
        q = torch.zeros(system.size, compiled.output_size, dtype=compiled.dtype)
        for name, rows in compiled.units.items():
            draw = stream(seed, "feedback", name)
            block = draw.standard_normal((rows.stop - rows.start, compiled.output_size))
            q[rows] = torch.as_tensor(scale * block / compiled.output_size**0.5, dtype=compiled.dtype)
        q[system.output] = torch.eye(compiled.output_size, dtype=compiled.dtype)
        return cls(system, q.to(compiled.device))

    @classmethod
    def jacobian(cls, system: CircuitSystem) -> Self:
        """Q = (D (1 - W sigma'(0))^-1)^T, the transposed Jacobian of the outputs at silence; of layers the product
        of the transposed weights, DFC's fixed feedback. Output units that project nowhere have the identity."""
        return cls(system, response(system, silent_slopes(system)))

    @classmethod
    def given(cls, system: CircuitSystem, arrays: Mapping[str, np.ndarray], where: str) -> Self:
        """Q from one array [unit, output unit] per population; output populations may be left out (identity).

        Raises:
            CircuitError: an array is missing, of the wrong shape, not finite, or of no population.
        """
        compiled = system.compiled
        unknown = sorted(set(arrays) - set(compiled.units))
        if unknown:
            raise CircuitError(
                f"{where}: {unknown[0]} is no non-input population; allowed: {', '.join(compiled.units)}"
            )
        q = torch.zeros(system.size, compiled.output_size, dtype=compiled.dtype)
        q[system.output] = torch.eye(compiled.output_size, dtype=compiled.dtype)
        for name, rows in compiled.units.items():
            if name not in arrays and name in compiled.outputs:
                continue
            if name not in arrays:
                raise CircuitError(
                    f"{where}: there is no array '{name}'; give [unit, output unit] for each population"
                )
            array, shape = np.asarray(arrays[name]), (rows.stop - rows.start, compiled.output_size)
            if array.shape != shape or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
                raise CircuitError(
                    f"{where}: {name} must hold finite numbers of shape {shape}, not {array.shape}"
                )
            q[rows] = torch.as_tensor(array, dtype=compiled.dtype)
        return cls(system, q.to(compiled.device))

    def equations(self, batch: Controlled) -> LinearEquations:
        return LinearEquations(self, batch)

    def feedback_weights(self) -> dict[str, Tensor]:
        return {f"Q/{name}": self.q[rows] for name, rows in self.units.items()}

    def parameters(self) -> dict[str, nn.Parameter]:
        return {f"Q/{name}": parameter for name, parameter in self._parameters.items()}

    def hold_signs(self) -> None:
        """No sign is asked of Q; units without control keep none."""
        if self.system.controlled is not None:
            self.q *= self.system.controlled


@dataclass(frozen=True)
class Answer:
    """How the circuit answers a small change of the controller, at the mean slopes of a batch.

    Args:
        phi: (1 - W S)^-1 Q, [unit, output unit]; its output rows are DFC's J Q.
        extra: what finding it cost, in products per sample.
    """

    phi: Tensor
    extra: float


def answer(system: System, q: Tensor, phi: Tensor) -> Answer | None:
    """The answer of a circuit at some potentials, [unit, sample]; None where it is not found in a few steps, or where
    hardly more than Q itself reaches the outputs."""
    base = system.base if isinstance(system, Tangent) else system
    if not isinstance(base, CircuitSystem):
        return None
    slopes = system.gains if isinstance(system, Tangent) else base.slopes(phi, base.rates(phi))
    slopes = slopes.mean(1, keepdim=True)
    if base.junctions is not None:
        q = q / (1 + base.junctions.loads())
    count = 1 if base.swept else STEPS
    moved = spread(base, slopes, q, q, count)
    if not base.swept:
        before, moved = moved, spread(base, slopes, q, moved, 1)
        if not float((moved - before).norm()) <= SETTLED * float(moved.norm()):
            return None
    through = moved[base.output] - q[base.output]
    if float(torch.linalg.matrix_norm(through, 2)) < FEEBLE:
        return None
    return Answer(moved, (count + 1) * q.shape[1] / phi.shape[1])


class LinearEquations(ControlledEquations):
    """Rows: soma phi, controller u; the control is psi = Q u.

    Args:
        batch: under control.
        given: the circuit's answer to the controller; found where None.
    """

    products = 1

    def __init__(self, pathway: LinearFeedback, batch: Controlled, given: Answer | None = None) -> None:
        self.pathway, self.batch = pathway, batch
        self.identity = pathway.identity
        self._lay_out(control=False)
        # a sweep's early rates depend on the controller of the sweep before
        self.mixed = slice(0, self.blocks["controller"].stop)
        self.floors = batch.drive.new_full((2, batch.drive.shape[1]), SMALLEST_SOMA, dtype=torch.float64)
        self.answer = given
        self.looked = given is not None
        self.q: Tensor | None = None

    def start(self) -> Tensor:
        return torch.cat([self.batch.phi, torch.zeros_like(self.batch.target)])

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor]:
        soma, controller = (state[rows] for rows in self.blocks.values())
        return soma, controller

    def sweep(self, state: Tensor, image: Tensor) -> None:
        """phi = prediction + Q u, with u from the outputs that it would bring about.

        Where much of the controller reaches the outputs through other units, u is sought along the circuit's linear
        answer at the batch's mean slopes, y + J Q (u - u_before); else along the direct way alone.
        """
        batch, q, output = self.batch, self.pathway.q, self.batch.system.output
        (phi, guess), (potential, following) = self._parts(state), self._parts(image)
        if self.passes is None:
            self.passes, self.control = batch.system.sweep(batch.drive), torch.empty_like(batch.phi)
            self.work = batch.target.new_empty((2, *batch.target.shape))
            if not self.looked:
                self.looked, self.answer = True, answer(batch.system, q, phi)
                self.extra = 0.0 if self.answer is None else self.answer.extra
            if self.passes.share is not None:
                self.q = q * self.passes.share
                self.identity = self.identity and self.passes.mixing is None
        q = q if self.q is None else self.q
        torch.mm(q, guess, out=self.control)
        self.passes.forward(phi, self.control)
        prediction, alpha = self.passes.prediction, batch.controller.alpha
        if self.answer is not None:
            torch.add(prediction, self.control, out=potential)
            moved = self.answer.phi
            rest = torch.addmm(potential[output], moved[output], guess, alpha=-1)
            u = batch.loss.controller_through(rest, batch.target, alpha, guess, moved[output])
            torch.sub(u, guess, out=self.work[0])
            potential.addmm_(moved, self.work[0])
            following.copy_(u)
        else:
            if self.identity:
                following.copy_(guess)
                batch.loss.hold(prediction[output], batch.target, alpha, following)
            else:
                following.copy_(
                    batch.loss.controller_through(prediction[output], batch.target, alpha, guess, q[output])
                )
            torch.addmm(prediction, q, following, out=potential)
        self.floors[1] = batch.smallest_control(potential[output], self.work)

    def release(self) -> None:
        super().release()
        self.control = self.work = self.batch.drive.new_empty(0)

    def imbalance(self, state: Tensor) -> Tensor:
        phi, u = self._parts(state)
        prediction = self.batch.system.linearise(phi, self.batch.drive).prediction
        return torch.cat([prediction + self.pathway.q @ u - phi, self.batch.output_imbalance(phi, u)])

    def scales(self, state: Tensor) -> Tensor:
        phi, u = self._parts(state)
        return self.batch.scales(phi, None, u)

    def select(self, columns: Tensor) -> LinearEquations:
        found = LinearEquations(self.pathway, self.batch.select(columns), self.answer)
        found.looked = self.looked
        return found

    def fields(self, state: Tensor) -> Fields:
        phi, u = self._parts(state)
        return Fields(phi, self.pathway.q @ u, u)
