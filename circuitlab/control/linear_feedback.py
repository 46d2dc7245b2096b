"""Direct linear feedback: the output controller reaches every neuron through weights Q.

tau dphi/dt = -phi + W sigma(phi) + U x + b + Q u,   tau_u du/dt = -dL/dy - alpha u       [eq. 13, 121, 137]
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from circuitlab.control.base import Controlled, Pathway
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import SMALLEST_SOMA, Equations, Fields
from circuitlab.errors import CircuitError
from circuitlab.graph.streams import stream


class LinearFeedback(Pathway):
    """psi = Q u.

    Args:
        system: the circuit; Q has its units as rows (zero rows where `controlled: false`).
        q: Q, [unit, output unit].
    """

    name = "linear_feedback"

    def __init__(self, system: CircuitSystem, q: Tensor) -> None:
        if q.shape != (system.size, system.output.stop - system.output.start):
            raise CircuitError(
                f"control.feedback: Q has shape {tuple(q.shape)}, but the circuit needs "
                f"{(system.size, system.output.stop - system.output.start)}"
            )
        self.system = system
        self.q = q if system.controlled is None else q * system.controlled
        mixing = self.q[system.output]
        self.identity = bool(torch.equal(mixing, torch.eye(len(mixing), dtype=q.dtype, device=q.device)))

    @classmethod
    def random(cls, system: CircuitSystem, seed: int, scale: float = 1.0) -> LinearFeedback:
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
    def given(cls, system: CircuitSystem, arrays: Mapping[str, np.ndarray], where: str) -> LinearFeedback:
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
        return {f"Q/{name}": self.q[rows] for name, rows in self.system.compiled.units.items()}


class LinearEquations(Equations):
    """Rows: soma phi, controller u; the control is psi = Q u."""

    products = 1

    def __init__(self, pathway: LinearFeedback, batch: Controlled) -> None:
        self.pathway, self.batch = pathway, batch
        n, k = batch.system.size, len(batch.target)
        self.blocks = {"soma": slice(0, n), "controller": slice(n, n + k)}
        self.mixed = slice(0, n + k)  # a sweep's early rates depend on the controller of the sweep before
        self.floors = batch.drive.new_full((2, batch.drive.shape[1]), SMALLEST_SOMA, dtype=torch.float64)
        tau = batch.system.tau
        self.time_constants = torch.cat([tau, torch.full_like(tau[:1], batch.controller.tau_ms).expand(k, 1)])

    def start(self) -> Tensor:
        return torch.cat([self.batch.phi, torch.zeros_like(self.batch.target)])

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor]:
        soma, controller = (state[rows] for rows in self.blocks.values())
        return soma, controller

    def sweep(self, state: Tensor, image: Tensor) -> None:
        """phi = prediction + Q u, with u from what reaches the outputs without it."""
        batch, q, output = self.batch, self.pathway.q, self.batch.system.output
        if self.passes is None:
            self.passes, self.control = batch.system.sweep(batch.drive), torch.empty_like(batch.phi)
            self.work = batch.target.new_empty((2, *batch.target.shape))
        (phi, guess), (potential, following) = self._parts(state), self._parts(image)
        torch.mm(q, guess, out=self.control)
        self.passes.forward(phi, self.control)
        prediction = self.passes.prediction
        problem = (prediction[output], batch.target, batch.controller.alpha, guess)
        if self.pathway.identity:
            following.copy_(guess)
            batch.loss.hold(*problem[:3], following)
        else:
            following.copy_(batch.loss.controller_through(*problem, mixing=q[output]))
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
        return LinearEquations(self.pathway, self.batch.select(columns))

    def fields(self, state: Tensor) -> Fields:
        phi, u = self._parts(state)
        return Fields(phi, self.pathway.q @ u, u)

    def close_algebraic(self, state: Tensor) -> Tensor:
        if self.batch.controller.tau_ms == 0:
            y = state[self.blocks["soma"]][self.batch.system.output]
            state[self.blocks["controller"]] = self.batch.controller.at_once(
                self.batch.loss, y, self.batch.target
            )
        return state
