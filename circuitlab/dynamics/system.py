"""What the least-control principle asks of a system: f, its transposed Jacobian times a vector, and d f/d theta^T psi.

Controllers, solvers and rules know this protocol only. State is [unit, sample]. f(phi) = prediction(phi) - phi.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from circuitlab.dynamics.sweep import JacobiSweep, Sweep


class System(ABC):
    """Free dynamics tau dphi/dt = f(phi) = -phi + prediction(phi), and the output units y = D phi.

    Attributes:
        size: number of units.
        output: rows of the output units, the last ones of the state.
        swept, swept_back: whether one pass forward, or backward, is exact (in an acyclic circuit).
        decoder_in_loss: whether y = h(phi, theta) is part of the loss [eq. 27-33]: control enters above y, not at it.
    """

    size: int
    output: slice
    swept: bool
    swept_back: bool
    decoder_in_loss: bool = False

    @property
    def lag(self) -> float:
        """How many times further a state may be from balance, tau dphi/dt, than a sweep moves it."""
        return 1.0

    @property
    @abstractmethod
    def tau(self) -> Tensor:
        """Time constants in ms, [unit, 1]."""

    @property
    @abstractmethod
    def controlled(self) -> Tensor | None:
        """1 for units that receive a control, else 0, [unit, 1]; None where all do."""

    @abstractmethod
    def drive(self, x: Tensor) -> Tensor:
        """The part of the prediction that does not depend on the state: U x + b of a circuit, [unit, sample]; what
        the encoder makes of x, [row, sample], of a torch module."""

    def start(self, drive: Tensor) -> Tensor:
        """The state that the free state is looked for from, [unit, sample]: the first step from silence."""
        return drive.clone()

    def silent(self, drive: Tensor) -> Tensor:
        """A state of zeros, [unit, sample]."""
        return drive.new_zeros(self.size, drive.shape[1])

    @abstractmethod
    def linearise(self, phi: Tensor, drive: Tensor) -> Point:
        """Evaluate the system at phi, [unit, sample]."""

    def predict(self, phi: Tensor, drive: Tensor) -> Tensor:
        """The prediction at phi alone, [unit, sample]."""
        return self.linearise(phi, drive).prediction

    def select(self, columns: Tensor) -> System:
        """The system of some of the samples; as a rule all share one."""
        return self

    def sweep(self, drive: Tensor) -> Sweep:
        """Passes through the system on one batch without feedback among units, for its free state."""
        return JacobiSweep(self, drive)

    def transport(self, drive: Tensor) -> Sweep:
        """Passes that carry a signal back through the transposed Jacobian, as backpropagation does."""
        return JacobiSweep(self, drive, masked=False)

    @abstractmethod
    def update(self, phi: Tensor, psi: Tensor, x: Tensor, gated: bool = False) -> dict[str, Tensor]:
        """(d f/d theta)^T psi, summed over samples, by parameter name [Theorem 1, eq. 4, 12].

        Args:
            gated: multiply psi by sigma'(phi) first.
        """


class Point(ABC):
    """A system evaluated at one state phi.

    Attributes:
        prediction: W sigma(phi) + U x + b, [unit, sample].
    """

    prediction: Tensor

    @abstractmethod
    def transported(self, psi: Tensor, controlled_only: bool = True) -> Tensor:
        """(d prediction/d phi)^T psi = sigma'(phi) (W^T psi), [unit, sample]."""
