"""Everything that is measured on a circuit, gathered: the equilibria of some samples, what feedback makes of them, and
how the rule's updates lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from circuitlab.control.base import Controlled
from circuitlab.control.dynamic_inversion import AugmentedEnergy
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError
from circuitlab.learn.base import Batch, LearningRule, Task
from circuitlab.learn.energy import energy_floor
from circuitlab.solve.base import Solution
from circuitlab.solve.levenberg import LARGEST
from circuitlab.theory import conditions, references, updates
from circuitlab.theory.jacobian import output_jacobian, portions
from circuitlab.theory.known import Found, KnownTask, of_samples, one_sample
from circuitlab.theory.references import Credit, flat
from circuitlab.theory.stability import DENSE_ROWS, largest_real_part

Tell = Callable[[int, int], None]
"""Told how many of how many samples are done."""

DESCENDED = 16
"""Samples whose energy is also descended from the free state."""
STABILITY, STABILITY_LARGE = 20, 3
"""Samples whose dynamics are linearised, and as many where their eigenvalues are looked for iteratively."""
LOSS, CONTROL, CONTROL_ZERO, GAUSS_NEWTON, MINIMUM_NORM = (
    "loss_gradient",
    "control_gradient",
    "control_gradient_zero",
    "gauss_newton",
    "minimum_norm",
)
"""What updates are compared with."""


@dataclass(frozen=True)
class Examination:
    """What was found on a batch; arrays are [sample] with NaN where a sample has no value.

    Args:
        task, rule, batch: what was looked at.
        free, controlled: equilibria under the experiment's own settings.
        used: samples whose equilibria both converged, bool [sample].
        q: feedback weights Q of the pathway, [unit, output unit], or None.
        optimum: controlled equilibrium under exact dynamic inversion at the same leak; `optimum_zero` at none, or None
            where the outputs have no finite target.
        numbers: measurements by name.
        rule_updates: the rule's updates beside the references; `parts`: the two parts of psi sigma(phi)^T beside the
            loss gradient, by `prediction`, `gain` and, per neuron's rate, `rates`.
    """

    task: Task
    rule: LearningRule
    batch: Batch
    free: Solution
    controlled: Solution
    used: np.ndarray
    q: Tensor | None
    optimum: Solution
    optimum_zero: Solution | None
    numbers: dict[str, np.ndarray]
    rule_updates: updates.Comparison
    parts: dict[str, updates.Comparison] = field(default_factory=dict)


def finite_target(problem: Controlled) -> bool:
    """Whether a finite output has the least loss, so that control without a leak can rest."""
    for loss, rows in problem.loss.parts:
        soft = loss.name == "cross_entropy" and bool((problem.target[rows] > 0).all())
        if loss.name != "squared_error" and not soft:
            return False
    return True


@torch.no_grad()
def examine(task: Task, rule: LearningRule, batch: Batch, tell: Tell | None = None) -> Examination:
    """Measure a circuit, its control and its rule on some samples.

    Args:
        task: with the circuit's system in float64 where eigenvalues are asked for.
        tell: told of the samples done.

    Raises:
        CircuitError: the system is no circuit.
    """
    if not isinstance(task.system, CircuitSystem):
        raise CircuitError(
            "diagnose: it measures circuits of populations and projections, and this is a torch module"
        )
    task = replace(
        task, on_unconverged="keep" if task.on_unconverged == "keep" else "skip", starts=None, check=0
    )
    system, x = task.system, batch.x
    assert isinstance(system, CircuitSystem)
    drive = system.drive(x)
    free = task.free(drive)
    controlled = task.controlled(drive, batch.target, free, batch.x)
    alpha, used = task.controller.alpha, free.converged & controlled.converged
    optimum = references.optimal_control(task, batch, free, alpha)
    zero = None
    if alpha > 0 and finite_target(references.optimal_problem(task, batch, free, 0.0)):
        zero = references.optimal_control(task, batch, free, 0.0)
    q = conditions.feedback_matrix(task.pathway, system)
    numbers = _states(task, batch, free, controlled, used)
    numbers |= _conditions(system, batch, free, controlled, q, used)
    numbers |= _optimality(controlled, optimum, zero, used)
    numbers["energy_excess"] = _descended(task, batch, drive, free, optimum)
    numbers["largest_real_part"] = _stability(task, batch, drive, free, controlled)
    credits_ = _references(task, batch, free, optimum, zero)
    known = KnownTask.of(Found(task, drive, batch.target, free, controlled))
    compared, parts = _updates(known, rule, batch, credits_, used, tell)
    return Examination(
        task,
        rule,
        batch,
        free,
        controlled,
        used.cpu().numpy(),
        q,
        optimum,
        zero,
        numbers,
        compared,
        parts,
    )


def _array(values: Tensor, used: Tensor | None = None) -> np.ndarray:
    """Values [sample] as float64, NaN where not used."""
    values = values.double()
    return (values if used is None else torch.where(used, values, torch.nan)).cpu().numpy()


def _states(
    task: Task, batch: Batch, free: Solution, controlled: Solution, used: Tensor
) -> dict[str, np.ndarray]:
    phi, psi = controlled.fields.phi, controlled.fields.psi
    losses = {
        "free_loss": task.loss.value(task.outputs(free.fields.phi), batch.target),
        "controlled_loss": task.loss.value(task.outputs(phi), batch.target),
        "control_cost": 0.5 * psi.square().sum(0),
        "gain": updates.gain(psi, phi, free.fields.phi),
    }
    shares = {
        "unconverged": ~controlled.converged,
        "free_unconverged": ~free.converged,
        "kinks": controlled.kinks,
    }
    found = {name: _array(values, used) for name, values in losses.items()}
    return found | {name: _array(values) for name, values in shares.items()}


def _conditions(
    system: CircuitSystem,
    batch: Batch,
    free: Solution,
    controlled: Solution,
    q: Tensor | None,
    used: Tensor,
) -> dict[str, np.ndarray]:
    drive = system.drive(batch.x)
    found: dict[str, list[Tensor]] = {}

    def keep(name: str, values: Tensor) -> None:
        found.setdefault(name, []).append(values)

    for some in portions(system, drive.shape[1]):
        phi, psi = controlled.fields.phi[:, some], controlled.fields.psi[:, some]
        whole = output_jacobian(system, phi, drive[:, some])
        jacobian = whole.masked(system.controlled)
        keep("control_share", conditions.control_share(jacobian, psi))
        if q is not None:
            keep("column_space", conditions.column_space_share(jacobian, q))
            keep("jq", conditions.controllability(whole, q))
            at_rest = output_jacobian(system, free.fields.phi[:, some], drive[:, some])
            keep("column_space_free", conditions.column_space_share(at_rest.masked(system.controlled), q))
    numbers = {name: _array(torch.cat(parts), used) for name, parts in found.items()}
    spread = conditions.norm_spread(system, free.fields.phi, batch.x)
    return numbers | {"norm_spread": _array(spread, free.converged)}


def _optimality(
    controlled: Solution, optimum: Solution, zero: Solution | None, used: Tensor
) -> dict[str, np.ndarray]:
    psi, numbers = controlled.fields.psi, {}
    for name, best in (("", optimum), ("_zero", zero)):
        if best is not None:
            both, other = used & best.converged, best.fields.psi
            numbers[f"distance{name}"] = _array(updates.relative_distance(psi, other), both)
            lengths = torch.linalg.vector_norm(psi, dim=0) * torch.linalg.vector_norm(other, dim=0)
            numbers[f"control_cosine{name}"] = _array((psi * other).sum(0) / lengths, both)
    return numbers


def _descended(task: Task, batch: Batch, drive: Tensor, free: Solution, optimum: Solution) -> np.ndarray:
    """1 where descent from the free state finds a lower energy H + L/alpha than the optimum's, else 0; NaN where it was
    not tried."""
    found = np.full(drive.shape[1], np.nan)
    alpha = task.controller.alpha
    if alpha == 0 or task.system.controlled is not None or task.system.size > LARGEST:
        return found
    assert isinstance(task.system, CircuitSystem)
    some = torch.arange(min(DESCENDED, drive.shape[1]), device=drive.device)
    few = Batch(batch.x[:, some], batch.target[:, some])
    at_rest, other = of_samples(free, some), of_samples(optimum, some)
    lowest = references.optimal_control(task, few, at_rest, alpha, descend=True)
    problem = references.optimal_problem(task, few, at_rest, alpha)
    energy = AugmentedEnergy(problem, task.system)
    before, after = energy.value(other.fields.phi), energy.value(lowest.fields.phi)
    floor = energy_floor(energy, other.fields.phi, task.settings.at(drive.dtype))
    lower = torch.where(lowest.converged & other.converged, (after < before - floor).double(), torch.nan)
    found[: len(some)] = lower.cpu().numpy()
    return found


def _stability(task: Task, batch: Batch, drive: Tensor, free: Solution, controlled: Solution) -> np.ndarray:
    found = np.full(drive.shape[1], np.nan)
    if drive.dtype != torch.float64:
        return found
    equations = task.pathway.equations(task.under_control(drive, batch.target, free, batch.x))
    state = controlled.state
    possible = torch.nonzero(controlled.converged & (controlled.kinks == 0)).squeeze(1).tolist()
    for sample in possible[: STABILITY if len(state) <= DENSE_ROWS else STABILITY_LARGE]:
        found[sample] = largest_real_part(equations, state, sample)
    return found


def _references(
    task: Task, batch: Batch, free: Solution, optimum: Solution, zero: Solution | None
) -> dict[str, Credit]:
    """Every reference update of every sample."""
    system, phi, x = task.system, free.fields.phi, batch.x
    drive = system.drive(x)
    delta = -task.loss.gradient(task.outputs(phi), batch.target)
    credits_ = {LOSS: references.loss_gradient(task, batch, free)}
    for name, best in ((CONTROL, optimum), (CONTROL_ZERO, zero)):
        if best is not None:
            psi = torch.where(best.converged, best.fields.psi, torch.nan)
            credits_[name] = Credit(best.fields.phi, psi)
    newton, least = [], []
    for some in portions(system, drive.shape[1]):
        part = phi[:, some]
        jacobian = output_jacobian(system, part, drive[:, some])
        newton.append(references.gauss_newton(system, jacobian, part, x[:, some], delta[:, some]).psi)
        least.append(references.minimum_norm(jacobian, part, delta[:, some]).psi)
    for name, parts in ((GAUSS_NEWTON, newton), (MINIMUM_NORM, least)):
        credits_[name] = Credit(phi, torch.where(free.converged, torch.cat(parts, dim=1), torch.nan))
    return credits_


def _updates(
    known: KnownTask,
    rule: LearningRule,
    batch: Batch,
    credits_: dict[str, Credit],
    used: Tensor,
    tell: Tell | None,
) -> tuple[updates.Comparison, dict[str, updates.Comparison]]:
    """The rule's update of each sample on its own beside the references, and the parts of psi sigma(phi)^T."""
    found, x, count = known.found, batch.x, batch.x.shape[1]
    assert found is not None
    assert isinstance(known.system, CircuitSystem)
    compared = updates.Comparison(count, tuple(credits_))
    parts = {name: updates.Comparison(count, (LOSS,)) for name in ("prediction", "gain", "rates")}
    phi, psi = found.controlled.fields.phi, found.controlled.fields.psi
    phi_free = found.free.fields.phi
    rated = psi
    if not references.shares_weights(known.system):
        power = references.presynaptic_power(known.system, phi_free, x)
        rated = torch.where(power > 0, psi / torch.where(power > 0, power, 1), 0)
    for sample in range(count):
        one = torch.tensor([sample], device=x.device)
        outcome = rule.outcome(known.only(one), one_sample(batch, sample))
        own = flat(outcome.updates) if bool(outcome.used.all()) else None
        others = {name: credit.update(known.system, x, sample) for name, credit in credits_.items()}
        compared.add(own, others)
        if rule.controls and bool(used[sample]):
            gradient = {LOSS: others[LOSS]}
            split = updates.split(known.system, psi, phi, phi_free, x, sample)
            parts["prediction"].add(split.prediction, gradient)
            parts["gain"].add(split.gain, gradient)
            parts["rates"].add(Credit(phi, rated).update(known.system, x, sample), gradient)
        else:
            for part in parts.values():
                part.add(None, {})
        if tell is not None:
            tell(sample + 1, count)
    return compared, parts
