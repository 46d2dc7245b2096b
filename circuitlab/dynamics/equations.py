"""Systems of equations whose solution is an equilibrium: what a solver sees.

A state is [row, sample], its rows grouped in named blocks (`soma`, `control`, `controller`). Each sample is a problem
of its own. Solvers never look inside; they ask for a sweep (the fixed-point map) or for the right-hand sides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from circuitlab.dynamics.cascade import Cascade
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.preconditioned import (
    WHOLE,
    Minibatch,
    PreconditionedSweep,
    Preconditioner,
    build,
    build_cost,
    preconditioned_sweep,
)
from circuitlab.dynamics.sweep import Sweep
from circuitlab.dynamics.system import System
from circuitlab.errors import CircuitError

SMALLEST_SOMA = 1e-3
"""Norm of the potentials below which a residual is judged absolutely (potentials are of order one)."""
TINY = 1e-30
"""Norm of a control below which it counts as none."""


@dataclass(frozen=True)
class Fields:
    """An equilibrium's variables: phi and psi [unit, sample], u [output unit, sample].

    Args:
        decoder: rows of a decoder that is part of the loss, where psi is zero; else None.
    """

    phi: Tensor
    psi: Tensor
    u: Tensor
    decoder: slice | None = None

    @property
    def credit(self) -> Tensor:
        """What updates are made of, [unit, sample]: psi, and u where a decoder is part of the loss [eq. 33, 148]."""
        if self.decoder is None:
            return self.psi
        credit = self.psi.clone()
        credit[self.decoder] = self.u
        return credit


class Equations(ABC):
    """Equations of one batch.

    Attributes:
        blocks: rows of every variable.
        mixed: rows that an accelerated iteration mixes (the rest are eliminated exactly in each sweep).
        floors: smallest scale of each mixed block's residual, [block, sample], float64; a sweep brings it up to date.
        products: products with W (or its transpose) per sample in one sweep, and as many to recompute the residuals.
        dearer: how many times those products a sweep costs (a preconditioner is dense).
        extra: products per sample spent once, before the first sweep (a preconditioner's build).
        direct: whether one sweep from anywhere is exact.
        passes: what a sweep goes by and its buffers, made by the first one.
        sizes: squared norms that the residuals of mixed blocks are measured against where these are not the blocks'
            own, [block, sample], float64; a sweep brings it up to date.
        descends: whether `auto` descends the energy, where there is one, before it tries sweeps.
        time_constants: of every row, in ms, [row, 1]; zero where a row is algebraic.
        preconditioner: that the sweeps go by, or None.
    """

    blocks: dict[str, slice]
    mixed: slice
    floors: Tensor
    products: int
    dearer: float = 1.0
    extra: float = 0.0
    direct: bool = False
    passes: Sweep | None = None
    sizes: Tensor | None = None
    descends: bool = False
    time_constants: Tensor
    preconditioner: Preconditioner | None = None

    @property
    def lag(self) -> float:
        """How many times larger a recomputed residual may be than what a sweep changes."""
        return 1.0

    @abstractmethod
    def start(self) -> Tensor:
        """The state to begin with, [row, sample]."""

    def silence(self) -> Tensor:
        """Where real time begins, [row, sample]."""
        return self.start()

    @abstractmethod
    def sweep(self, state: Tensor, image: Tensor) -> None:
        """The fixed-point map: write the image of a state, both [row, sample]. Allocates nothing for a circuit."""

    @abstractmethod
    def imbalance(self, state: Tensor) -> Tensor:
        """Right-hand sides recomputed from the equations alone, [row, sample]: tau times the time derivative."""

    @abstractmethod
    def scales(self, state: Tensor) -> Tensor:
        """What each block's residual is measured against, [block, sample]."""

    @abstractmethod
    def select(self, columns: Tensor) -> Self:
        """The same equations for some of the samples."""

    @abstractmethod
    def fields(self, state: Tensor) -> Fields:
        """The variables in a state."""

    def release(self) -> None:
        """Give back the memory that sweeps take; another sweep would take it again."""
        self.passes = None

    def energy(self) -> Energy | None:
        """The energy whose stationary points solve these equations, where they have one."""
        return None

    def build_cost(self) -> float | None:
        """Products per sample that preconditioning these equations would take; None where it cannot be done."""
        return None

    def preconditioned_sweep(self) -> float:
        """How many times the products of a sweep a preconditioned one costs."""
        return 1.0

    def preconditioned(self, phi: Tensor, minibatch: Minibatch = WHOLE) -> Equations:
        """The same equations, their sweeps preconditioned by the mean slopes at some potentials, [unit, sample].

        Args:
            minibatch: over which the mean is taken.

        Raises:
            CircuitError: they cannot be preconditioned.
        """
        raise CircuitError(
            "solve.preconditioner: mean_response needs one recurrent group of smooth, controlled populations that "
            "stand side by side in the file, tied feedback, and no output among them; allowed here: none, auto"
        )

    def foreseen(
        self, state: Tensor, rate: float, minibatch: Minibatch = WHOLE
    ) -> tuple[Tensor, float] | None:
        """A better start than a state without control, [row, sample], and what it costs in products per sample; None
        where there is none, or not at a fair price.

        Args:
            rate: of the free state's first steps, in (0, 1).
        """
        return None

    def anticipating(self, share: float) -> Equations:
        """The same equations, their sweeps' slopes ahead of the potentials by so many of the steps that they make; as
        they are where sweeps cannot do that."""
        return self

    def opened(self, state: Tensor) -> Tensor:
        """A state in the variables that sweeps iterate, [row, sample]."""
        return state

    def closed(self, state: Tensor) -> Tensor:
        """The opposite of `opened`."""
        return state

    def settle(self, state: Tensor) -> Tensor:
        """The final form of a converged state (puts neurons that rest on a kink exactly there)."""
        return state

    def integrated(self, state: Tensor) -> Tensor:
        """The state in the variables that real time integrates, [row, sample]: the integral part of a PI controller
        in place of the controller."""
        return state

    def close_algebraic(self, state: Tensor) -> Tensor:
        """The opposite of `integrated`, with the algebraic rows (time constant zero) set from the others."""
        return state

    def kinks(self, state: Tensor) -> Tensor:
        """Number of neurons resting on a kink, [sample]."""
        return torch.zeros(state.shape[1], dtype=torch.long, device=state.device)

    def relative(self, wrong: Tensor, state: Tensor) -> Tensor:
        """Norm of each block's right-hand side relative to its scale, [block, sample]; infinite where the scale is."""
        norms = torch.stack([torch.linalg.vector_norm(wrong[rows], dim=0) for rows in self.blocks.values()])
        scales = self.scales(state)
        return torch.where(torch.isfinite(scales), norms / scales, torch.inf)


@dataclass(frozen=True)
class Slope:
    """An energy at one state of a batch.

    Args:
        value: E, float64 [sample].
        gradient: dE/dphi, [unit, sample]; from below for a neuron exactly on a kink, zero for eliminated units.
        jump: by how much it rises where a neuron passes its kink from below, [unit, sample]; None without kinks.
        scale: norm against which the residual of the equations, or the gradient's own norm, is judged, [sample].
        state: of the equations, [row, sample]: its potentials are those given, but for eliminated units.
        residual: of the equations, [sample]; the norm of the gradient (the smaller of both at a kink) where None.
    """

    value: Tensor
    gradient: Tensor
    jump: Tensor | None
    scale: Tensor
    state: Tensor
    residual: Tensor | None = None


class Energy(ABC):
    """An energy E(phi) of one batch.

    Attributes:
        newton: whether it has the dense derivatives that Newton's method takes.
        curved_products: products with W per sample that `precondition` takes; with none it changes nothing.
        kinks: where potentials have kinks, if they do, [unit, 1]; None where all of these are at zero.
    """

    newton: bool = True
    curved_products: float = 0.0
    kinks: Tensor | None = None

    @abstractmethod
    def value(self, phi: Tensor) -> Tensor:
        """E of every sample, [sample]."""

    @abstractmethod
    def derivatives(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient [unit] and Hessian [unit, unit] of one sample, phi of shape [unit, 1]."""

    @abstractmethod
    def evaluate(self, phi: Tensor) -> Slope:
        """Value and gradient of every sample at phi, [unit, sample], at the price of two products with W."""

    def precondition(self, phi: Tensor, gradient: Tensor) -> Tensor:
        """A guess of the inverse curvature at phi times a gradient, both [unit, sample]; symmetric and positive."""
        return gradient.clone()

    @abstractmethod
    def state(self, phi: Tensor) -> Tensor:
        """The equations' state with these potentials, [row, sample]."""


class FreeEquations(Equations):
    """The free equilibrium: phi = W sigma(phi) + U x + b  [eq. 11, 113].

    Args:
        system: the dynamics.
        drive: U x + b, [unit, sample].
        preconditioner: of the circuit's recurrent group, or None.
    """

    products = 1

    def __init__(self, system: System, drive: Tensor, preconditioner: Preconditioner | None = None) -> None:
        self.system, self.drive, self.preconditioner = system, drive, preconditioner
        self.blocks = {"soma": slice(0, system.size)}
        self.mixed = slice(0, system.size)
        self.floors = drive.new_full((1, drive.shape[1]), SMALLEST_SOMA, dtype=torch.float64)
        self.dearer = preconditioned_sweep(system) if preconditioner is not None else 1.0
        self.direct = system.swept
        self.time_constants = system.tau

    @property
    def lag(self) -> float:
        return self.system.lag

    def start(self) -> Tensor:
        """U x + b, the first step from silence."""
        return self.system.start(self.drive)

    def silence(self) -> Tensor:
        return self.system.silent(self.drive)

    def sweep(self, state: Tensor, image: Tensor) -> None:
        if self.passes is None:
            if self.preconditioner is None:
                self.passes = self.system.sweep(self.drive)
            else:
                assert isinstance(self.system, CircuitSystem)
                self.passes = PreconditionedSweep(self.system, self.drive, self.preconditioner)
        self.passes.forward(state, None)
        image.copy_(self.passes.prediction)

    def imbalance(self, state: Tensor) -> Tensor:
        return self.system.predict(state, self.drive) - state

    def scales(self, state: Tensor) -> Tensor:
        return torch.linalg.vector_norm(state, dim=0).clamp(min=SMALLEST_SOMA).unsqueeze(0)

    def select(self, columns: Tensor) -> FreeEquations:
        return FreeEquations(self.system, self.drive[:, columns], self.preconditioner)

    def build_cost(self) -> float | None:
        return build_cost(self.system, self.drive.shape[1])

    def preconditioned(self, phi: Tensor, minibatch: Minibatch = WHOLE) -> Equations:
        if self.build_cost() is None:
            return super().preconditioned(phi)
        given = build(self.system, phi, minibatch)
        found = FreeEquations(self.system, self.drive, given)
        found.extra = given.extra
        return found

    def preconditioned_sweep(self) -> float:
        return preconditioned_sweep(self.system)

    def energy(self) -> Energy | None:
        return Discrepancy(self.system, self.drive) if isinstance(self.system, CircuitSystem) else None

    def fields(self, state: Tensor) -> Fields:
        outputs = state[self.system.output]
        return Fields(state, torch.zeros_like(state), torch.zeros_like(outputs))


class Discrepancy(Energy):
    """E = 1/2 |f(phi)|^2, zero exactly at free equilibria [eq. 9].

    Args:
        units: those that its preconditioner joins, from the first one on; all where None.
    """

    def __init__(self, system: CircuitSystem, drive: Tensor, units: int | None = None) -> None:
        self.system, self.drive, self.kinks = system, drive, system.kinks
        self.cascade = Cascade(system, system.size if units is None else units)
        self.curved_products = 2 * self.cascade.share

    def precondition(self, phi: Tensor, gradient: Tensor) -> Tensor:
        return self.cascade.solve(phi, gradient)

    def value(self, phi: Tensor) -> Tensor:
        return 0.5 * (phi - self.system.linearise(phi, self.drive).prediction).square().sum(0)

    def derivatives(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """(I - P)^T psi and (I - P)^T (I - P) - diag(sigma'' W^T psi); psi = -f(phi), P = d prediction/d phi."""
        point = self.system.linearise(phi, self.drive)
        psi = phi - point.prediction
        eye = torch.eye(len(phi), dtype=phi.dtype, device=phi.device)
        back = eye - point.transported(eye, controlled_only=False)
        hessian = back @ back.t() - torch.diag(point.curvature(psi).squeeze(1))
        return (back @ psi).squeeze(1), hessian

    def evaluate(self, phi: Tensor) -> Slope:
        point = self.system.linearise(phi, self.drive)
        psi = phi - point.prediction
        gradient, jump = point.slope_of_energy(psi)
        size = torch.linalg.vector_norm(psi, dim=0, dtype=torch.float64)
        scale = torch.linalg.vector_norm(phi, dim=0).clamp(min=SMALLEST_SOMA)
        return Slope(0.5 * size.square(), gradient, jump, scale, phi, size)

    def state(self, phi: Tensor) -> Tensor:
        return phi
