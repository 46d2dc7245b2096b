"""A circuit linearised at a state: what it would do if its neurons answered linearly."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.junctions import SharedSweep
from circuitlab.dynamics.sweep import Sweep
from circuitlab.dynamics.system import Point, System
from circuitlab.errors import CircuitError


class Tangent(System):
    """f(phi) = -phi + c + W (S phi) + L phi, with the slopes S = sigma'(phi_0) of each sample at a state phi_0.

    Args:
        base: the circuit.
        slopes: S, [unit, sample].
    """

    def __init__(self, base: CircuitSystem, slopes: Tensor) -> None:
        self.base, self.gains = base, slopes
        self.size, self.output = base.size, base.output
        self.swept = self.swept_back = False

    @classmethod
    def at(cls, base: CircuitSystem, phi: Tensor, drive: Tensor) -> tuple[Tangent, Tensor]:
        """The tangent at a state and the drive c with which both agree there, each state [unit, sample]."""
        point = base.linearise(phi, drive)
        slopes = point.slopes()
        made = cls(base, slopes)
        return made, point.prediction - made.linearise(phi, phi.new_zeros(phi.shape)).prediction

    @property
    def tau(self) -> Tensor:
        return self.base.tau

    @property
    def lag(self) -> float:
        return self.base.lag

    @property
    def controlled(self) -> Tensor | None:
        return self.base.controlled

    def drive(self, x: Tensor) -> Tensor:
        raise CircuitError("a linearised circuit has the drive it was made with")

    def select(self, columns: Tensor) -> Tangent:
        return Tangent(self.base, self.gains[:, columns])

    def sweep(self, drive: Tensor) -> Sweep:
        junctions = self.base.junctions
        return super().sweep(drive) if junctions is None else SharedSweep(self, drive, junctions.loads())

    def linearise(self, phi: Tensor, drive: Tensor) -> TangentPoint:
        rate, prediction = self.gains * phi, drive.clone()
        for link in self.base.compiled.recurrent:
            link.kernel.add_product(rate[link.source], prediction[link.target])
        if self.base.junctions is not None:
            self.base.junctions.add(phi, prediction)
        return TangentPoint(self, prediction)

    def update(self, phi: Tensor, psi: Tensor, x: Tensor, gated: bool = False) -> dict[str, Tensor]:
        raise CircuitError("a linearised circuit does not learn; its circuit does")


@dataclass(frozen=True, eq=False)
class TangentPoint(Point):
    """A linearised circuit at a state."""

    system: Tangent
    prediction: Tensor

    def transported(self, psi: Tensor, controlled_only: bool = True) -> Tensor:
        """S (W^T psi), [unit, sample]."""
        out = psi.new_zeros(psi.shape)
        for link in self.system.base.compiled.recurrent:
            link.kernel.add_transposed(psi[link.target], out[link.source])
        out *= self.system.gains
        if self.system.base.junctions is not None:
            self.system.base.junctions.add(psi, out)
        if controlled_only and self.system.controlled is not None:
            out *= self.system.controlled
        return out
