"""A circuit as time passes: the equations of its equilibria, integrated step by step.

    tau dphi/dt = -phi + W sigma(phi(t - delay)) + U x(t - delay) + b + psi + eps
    psi = 0, or tau dpsi/dt = -psi + sigma'(phi) (S psi) + D^T u  [eq. 140], or psi = Q u  [eq. 13]
    tau_u du/dt = -dL/dy - alpha u, or another output controller  [eq. 6; DFC eq. 4]

The right-hand sides are those that the solvers drive to zero (`Equations.imbalance`), so the resting states of a
simulation are the equilibria. Inputs are constant within a step, and noise is held over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from circuitlab.dynamics.equations import Equations, Fields
from circuitlab.dynamics.integrators import Integrator
from circuitlab.errors import NotConvergedError
from circuitlab.simulation.noise import Source
from circuitlab.simulation.past import middle
from circuitlab.simulation.timed import TimedCircuit

LOOK_EVERY = 50
"""Steps between two looks at whether the state is still finite."""


class Simulator:
    """Real time for one batch.

    Args:
        system: the circuit, which keeps the time.
        equations: of the free or the controlled circuit, over `system`, their state being [row, sample].
        drive: the very tensor that the equations read U x + b from, [unit, sample]; it is written to when it changes.
        phi: potentials at the first moment, [unit, sample]; control and controller begin at zero.
        method: class of the integrator.
        dt_ms: time step in ms.
        noise: on the somata.

    Attributes:
        number: of the present step. state: the variables at it, [row, sample], in the form that is integrated.
    """

    def __init__(
        self,
        system: TimedCircuit,
        equations: Equations,
        drive: Tensor,
        phi: Tensor,
        method: type[Integrator],
        dt_ms: float,
        noise: Sequence[Source] = (),
    ) -> None:
        self.system, self.equations, self.drive, self.noise = system, equations, drive, noise
        self.dt_ms, self.number = dt_ms, 0
        tau = equations.time_constants
        self.method = method(tau, leaks(equations), dt_ms)
        self.derivative = torch.where(tau > 0, 1 / tau, torch.zeros_like(tau))
        self.closes = "controller" in equations.blocks
        self.state = phi.new_zeros(len(tau), phi.shape[1])
        self.state[equations.blocks["soma"]] = phi
        self.base, self.seen = torch.empty_like(drive), None
        self.first: Tensor | None = None
        system.number, system.stage = 0, 0.0
        system.begin(*self._sources(self.state), halves=self.method.halves)
        self._arrive(moved=True)

    @property
    def time_ms(self) -> float:
        """Time since the beginning, in ms."""
        return self.number * self.dt_ms

    @property
    def fields(self) -> Fields:
        """phi, psi and u at the present step."""
        return self.equations.fields(self._whole(self.state))

    @torch.no_grad()
    def speed(self) -> Tensor:
        """How fast the fastest row of each sample moves at the present step, in 1/ms, [sample]."""
        return (self.derivative * self._slope(self.state, 0.0)).abs().amax(0)

    def run(self, steps: int) -> Iterator[int]:
        """The numbers of the present step and of so many more, each when it is reached.

        Raises:
            NotConvergedError: the state grows without bound; says when.
        """
        last = self.number + steps
        while True:
            if self.number % LOOK_EVERY == 0 or self.number == last:
                self._look()
            yield self.number
            if self.number == last:
                return
            self.advance()

    @torch.no_grad()
    def advance(self) -> None:
        """One step."""
        z = self.state
        first = self._slope(z, 0.0) if self.first is None else self.first
        self.state = self.method.step(z, first, self._slope)
        remembers = self.method.halves and self.system.remembers
        arriving = None
        if remembers:
            arriving = self._slope(self.state, 1.0)
            self._remember_middle(z, first, arriving)
        self.number += 1
        self.system.number, self.system.stage = self.number, 0.0
        for source in self.noise:
            source.process.step()
        same = self._arrive(moved=bool(self.noise))
        self.first = arriving if same else None

    def _arrive(self, moved: bool) -> bool:
        """Bring the drive to the present step, and remember its state.

        Args:
            moved: whether the noise is another than before.

        Returns:
            Whether the drive is as it was.
        """
        seen = self.system.seen(self.number)
        if seen != self.seen:
            self.base.copy_(self.system.present_drive())
            self.seen, moved = seen, True
        if moved:
            self.drive.copy_(self.base)
            for source in self.noise:
                self.drive[source.rows].add_(source.process.value, alpha=source.std)
        if self.system.remembers:
            self.system.keep(*self._sources(self.state))
        return not moved

    def _whole(self, z: Tensor) -> Tensor:
        """The state with its algebraic rows."""
        return self.equations.close_algebraic(z.clone()) if self.closes else z

    def _slope(self, z: Tensor, stage: float) -> Tensor:
        """g at step + stage, [row, sample]."""
        self.system.stage = stage
        return self.equations.imbalance(self._whole(z))

    def _sources(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """What delayed synapses carry: phi, and psi where it is a state (no other pathway sends it), [unit, sample]."""
        blocks = self.equations.blocks
        phi = z[blocks["soma"]]
        return phi, z[blocks["control"]] if "control" in blocks else torch.zeros_like(phi)

    def _remember_middle(self, z: Tensor, leaving: Tensor, arriving: Tensor) -> None:
        pace = self.derivative
        halfway = middle(z, self.state, pace * leaving, pace * arriving, self.dt_ms)
        self.system.keep_middle(self.number, *self._sources(halfway))

    def _look(self) -> None:
        """Stop where a number has become infinite."""
        lost = ~torch.isfinite(self.state).all(0)
        if bool(lost.any()):
            samples = torch.nonzero(lost).flatten()[:5].tolist()
            raise NotConvergedError(
                f"simulation: at {self.time_ms:g} ms the state of {int(lost.sum())} sample(s) ({samples[0]} the first) "
                "is infinite or not a number; a shorter dt, a weaker control or smaller weights help"
            )


def leaks(equations: Equations) -> Tensor:
    """Leak of every row, [row, 1]: 1 for potentials and control, alpha for the controller."""
    leak = torch.ones_like(equations.time_constants)
    if "controller" in equations.blocks:
        leak[equations.blocks["controller"]] = equations.batch.controller.alpha  # type: ignore[attr-defined]
    return leak
