"""What keeps a training run settled, from the words of its experiment file."""

from __future__ import annotations

from collections.abc import Mapping

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.compile.kernels import Kernel
from circuitlab.errors import CircuitError
from circuitlab.experiment.assemble import Assembled
from circuitlab.learn.constrain import Bounds, SingularValueBound, SpectralBound, SymmetricEigenvalueBound
from circuitlab.learn.schedule import AlphaSchedule, EnergyCheck
from circuitlab.solve.levenberg import LARGEST
from circuitlab.spec.settled import AlphaSpec, ConstrainSpec

BOUNDS: dict[str, type[SpectralBound]] = {
    bound.key: bound for bound in (SingularValueBound, SymmetricEigenvalueBound)
}


def bounds(
    spec: ConstrainSpec,
    compiled: CompiledCircuit,
    companions: Mapping[str, Mapping[str, Kernel]] | None = None,
) -> Bounds | None:
    """The bounds on a circuit's recurrent weights, or None.

    Args:
        companions: feedback weights that follow them (`Pathway.companions`).

    Raises:
        CircuitError: frozen projections alone exceed a bound that was asked for.
    """
    parts = [BOUNDS[key](compiled, value, spec.frozen, companions) for key, value in spec.bounds.items()]
    return Bounds(parts) if parts else None


def schedules(assembled: Assembled, updates: int) -> tuple[AlphaSchedule | None, EnergyCheck | None]:
    """The leak of each of `updates` updates, and when the energy is checked; None where nothing is asked for.

    Raises:
        CircuitError: the circuit is too large for the descent of the energy.
    """
    alpha, check = assembled.spec.control.controller.alpha, assembled.spec.solve.check_energy
    schedule = None
    if isinstance(alpha, AlphaSpec):
        schedule = AlphaSchedule(alpha.start, alpha.end, updates, alpha.over, alpha.shape == "geometric")
    if check is None:
        return schedule, None
    if assembled.system.size > LARGEST:
        raise CircuitError(
            f"solve.check_energy: the descent of the energy is for at most {LARGEST} units, and the circuit has "
            f"{assembled.system.size}; leave it out"
        )
    return schedule, EnergyCheck(check.every, check.samples)
