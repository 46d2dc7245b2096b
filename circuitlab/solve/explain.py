"""Which solver a circuit gets, and why, in a sentence or two: what `method: auto` decides before it has seen a sample.

Everything is read off the graph, so that no weight needs to be compiled; `choose` decides by the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from circuitlab.dynamics.preconditioned import build_operations
from circuitlab.graph.circuit import Circuit
from circuitlab.solve.choose import CONTRACTING, LAGGING, LONG, MARGIN, PRECONDITIONED, SolveSettings
from circuitlab.solve.levenberg import LARGEST
from circuitlab.spec.solve_checks import group_problem

WITH_ENERGY = ("dynamic_inversion", "energy_based")
"""Pathways whose equilibria, with tied feedback, have an energy."""
PHASES = 2
"""Products with W in a sweep of both equilibria: forward, and backward."""


@dataclass(frozen=True)
class Asked:
    """What is solved for.

    Args:
        batch: samples solved together.
        dtype: precision.
        controls: whether the credit is a control that acts on the circuit (else a second phase of backpropagation).
        pathway, feedback: of the control.
        leak: alpha of the output controller.
        warm: whether equilibria start from earlier ones.
        transposed: whether the second phase of a rule that does not control goes by the transpose of W.
    """

    batch: int
    dtype: torch.dtype
    controls: bool = True
    pathway: str = "dynamic_inversion"
    feedback: str = "tied"
    leak: float = 1.0
    warm: bool = False
    transposed: bool = True


def explain(circuit: Circuit, settings: SolveSettings, asked: Asked) -> str:
    """Which solver runs and why, a sentence or two without a full stop."""
    if settings.method != "auto":
        return f"{_named(settings)}, as solve.method says{_asked_preconditioner(circuit, settings, asked)}"
    groups = circuit.strongly_connected()
    sweeps = _named(settings)
    if asked.controls and asked.pathway == "energy_based":
        free = (
            f"{_groups(circuit, groups)}: {sweeps} for the free state"
            if groups
            else "acyclic: one sweep forward is exact for the free state"
        )
        return f"{free}; under control {_descent(circuit, settings, asked)}; {_fallback(circuit, asked)}"
    if groups:
        parts = [f"{_groups(circuit, groups)}: {sweeps}", _preconditioning(circuit, settings, asked)]
        parts += (
            [_slow(settings)] if asked.controls and _transposed(asked) and _may_be_plain(settings) else []
        )
        return "; ".join((*parts, _fallback(circuit, asked)))
    if asked.controls:
        return (
            f"acyclic: one sweep forward is exact for the free state; under control {sweeps}; "
            + _fallback(circuit, asked)
        )
    if _feeds_back(circuit):
        return f"acyclic: one sweep forward is exact; backward, past an output that projects on, {sweeps}"
    return "acyclic: one sweep forward and one backward are exact"


def _has_energy(circuit: Circuit, asked: Asked) -> bool:
    """Whether equilibria of energy-based control have an energy to descend, as `EnergyEquations.energy` says."""
    return asked.feedback == "tied" and (
        asked.leak != 0
        or not any(
            p.carries == "rate"
            and (p.source in circuit.outputs or (p.kind == "electrical" and p.target in circuit.outputs))
            for p in circuit.projections.values()
        )
    )


def _descent(circuit: Circuit, settings: SolveSettings, asked: Asked) -> str:
    """How potentials of energy-based control come to rest."""
    if _has_energy(circuit, asked):
        return f"descent of the energy by L-BFGS ({2 * settings.depth} steps remembered)"
    why = f"feedback is {asked.feedback}" if asked.feedback != "tied" else "outputs without a leak project on"
    return f"gradient steps with Anderson acceleration ({settings.depth} steps remembered), for {why}"


def slowest_rate(circuit: Circuit, settings: SolveSettings, asked: Asked) -> float:
    """The rate of the free state's first steps above which preconditioning pays, as `choose.pays` decides it.

    Args:
        circuit: with one recurrent group that a preconditioner serves.
    """
    cost = build_products(circuit, asked.batch) + PRECONDITIONED * PHASES * _dearer(circuit)
    return math.exp(math.log(settings.at(asked.dtype)) * MARGIN * PHASES / cost)


def build_products(circuit: Circuit, batch: int) -> float:
    """What a build takes, in products with all recurrent weights per sample: 4 n^3 / (3 synapses batch)."""
    n, _, synapses = _sizes(circuit)
    return build_operations(n, synapses, batch)


def _sizes(circuit: Circuit) -> tuple[int, int, int]:
    """Units and synapses of the recurrent group, and the synapses of all rate-coded projections among units."""
    (group,) = circuit.strongly_connected()
    inside = total = 0
    for p in circuit.projections.values():
        if p.carries == "rate" and p.source in circuit.units:
            total += len(p.edges)
            inside += len(p.edges) if p.source in group and p.target in group else 0
    return sum(circuit.populations[name].size for name in group), inside, max(1, total)


def _dearer(circuit: Circuit) -> float:
    n, inside, total = _sizes(circuit)
    return (total - inside + n * n) / total


def _named(settings: SolveSettings) -> str:
    if settings.method == "euler":
        return (
            f"the dynamics in real time, {settings.dt_ms:g} ms a step for {settings.max_time_ms:g} ms at most"
        )
    if settings.method == "levenberg":
        return "Levenberg's descent of the energy"
    if settings.method == "lbfgs":
        return f"descent of the energy by L-BFGS ({settings.depth} steps remembered)"
    if settings.method == "fixed_point":
        return f"plain sweeps with steps of {settings.damping:g}"
    return f"sweeps with Anderson acceleration ({settings.depth} steps remembered)"


def _groups(circuit: Circuit, groups: list[tuple[str, ...]]) -> str:
    sizes = [sum(circuit.populations[name].size for name in group) for group in groups]
    if len(sizes) == 1:
        return f"one recurrent group of {sizes[0]} units"
    return f"{len(sizes)} recurrent groups of {', '.join(map(str, sizes[:-1]))} and {sizes[-1]} units"


def _obstacle(circuit: Circuit, asked: Asked) -> str | None:
    """Why nothing can be preconditioned, or None."""
    if asked.controls and asked.pathway != "dynamic_inversion":
        return f"feedback goes by {asked.pathway.replace('_', ' ')}"
    if asked.controls and asked.feedback != "tied":
        return f"feedback is {asked.feedback}"
    if not asked.controls and not asked.transposed:
        return f"the second phase goes by {asked.pathway.replace('_', ' ')}'s feedback {asked.feedback}"
    if not asked.controls and asked.warm:
        return "the baseline starts from earlier states"
    problem = group_problem(circuit.strongly_connected(), circuit.populations, circuit.projections)
    return None if problem is None else problem[0]


def _preconditioning(circuit: Circuit, settings: SolveSettings, asked: Asked) -> str:
    if settings.preconditioner == "none":
        return "not preconditioned, as solve.preconditioner says"
    obstacle = _obstacle(circuit, asked)
    if obstacle is not None:
        return f"not preconditioned, for {obstacle}"
    build = f"a build costs {build_products(circuit, asked.batch):.3g} products a sample"
    if settings.preconditioner == "mean_response":
        return f"preconditioned by the group's mean response, as solve.preconditioner says ({build})"
    rate = slowest_rate(circuit, settings, asked)
    if rate >= CONTRACTING:
        return f"not preconditioned, for it would not pay at batch {asked.batch} ({build})"
    return (
        f"preconditioned by the group's mean response where the first steps leave {rate:.2f} to {CONTRACTING:g} of "
        f"the free state's residual, for there it pays at batch {asked.batch} ({build})"
    )


def _transposed(asked: Asked) -> bool:
    return asked.pathway == "dynamic_inversion" and asked.feedback == "tied"


def _may_be_plain(settings: SolveSettings) -> bool:
    """Whether sweeps may go without a preconditioner."""
    return settings.preconditioner != "mean_response"


def _slow(settings: SolveSettings) -> str:
    """What sweeps that are not preconditioned do where they converge slowly, `choose.find`."""
    return (
        f"where it is not preconditioned and the first steps leave {LAGGING:g} to {CONTRACTING:g}, sweeps under "
        f"control take slopes ahead of the potentials and come to remember {max(LONG, 2 * settings.depth)} steps"
    )


def _asked_preconditioner(circuit: Circuit, settings: SolveSettings, asked: Asked) -> str:
    if settings.method == "anderson" and settings.preconditioner == "mean_response":
        return f"; {_preconditioning(circuit, settings, asked)}"
    return ""


def _fallback(circuit: Circuit, asked: Asked) -> str:
    units = sum(circuit.populations[name].size for name in circuit.units)
    slower = "then slower, deeper Anderson"
    if asked.controls and (asked.pathway not in WITH_ENERGY or asked.feedback != "tied"):
        why = "has no energy"
    elif asked.controls and asked.leak == 0:
        energy = asked.pathway == "energy_based" and _has_energy(circuit, asked)
        why = "has no Hessian without a leak" if energy else "has no energy without a leak"
    elif asked.controls and not all(circuit.populations[name].controlled for name in circuit.units):
        why = "has no energy with units that are not controlled"
    elif units > LARGEST:
        why = f"is too large for a descent of the energy ({units} > {LARGEST} units)"
    else:
        what = "what is left" if asked.controls else "free states that are left"
        return f"then Levenberg's descent of the energy ({units} <= {LARGEST} units) for {what}, {slower}"
    return f"{slower} for what is left, which {why}"


def _feeds_back(circuit: Circuit) -> bool:
    """Whether an output projects to a population that is none, so that one pass backward is not exact."""
    return any(
        p.carries == "rate" and p.source in circuit.outputs and p.target not in circuit.outputs
        for p in circuit.projections.values()
    )
