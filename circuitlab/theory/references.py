"""What a rule's update is compared with: updates that theory names, of each sample on its own.

Every one of them is a credit signal times presynaptic rates, dW = c sigma(phi)^T, dU = c x^T, db = c (with weights that
many synapses share the sum over them), in the direction of descent:

    loss gradient               c = J^T delta at the free state                          [eq. 5, 89-90]
    control-cost gradient       c = psi at the optimal control, phi controlled            [Theorem 1; section 2.4]
    Gauss-Newton                c = J^T (J_theta J_theta^T)^-1 delta at the free state    [DFC eq. 7: J_theta^+ delta]
    weighted minimum norm       c = J^T (J J^T)^-1 delta at the free state                [DFC Theorem 3, eq. 10]

delta = -dL/dy at the free state: DFC's output error for lambda = 1, and lambda only scales what is linear in it.
Weights W_ij move the outputs by J_i r_j, so that J_theta J_theta^T = sum over neurons i of p_i J_i J_i^T with p_i, the
power of i's plastic input, the sum of its presynaptic rates squared (and 1 for a plastic bias).

DFC eq. 10 weighs the change of neuron i's weights by p_i; its solution is the c above divided by p_i. DFC's updates
reach it up to that rate for each neuron (in a layer the same for all), and without the division the comparison needs no
such rates: `power` gives it to whoever wants them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from circuitlab.control.base import Controlled
from circuitlab.control.dynamic_inversion import DynamicInversion, Feedback
from circuitlab.control.output import leaky_integral
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.system import System
from circuitlab.learn.backprop import AdjointEquations
from circuitlab.learn.base import Batch, Task
from circuitlab.solve.base import Solution
from circuitlab.solve.choose import find
from circuitlab.solve.levenberg import fits
from circuitlab.theory.jacobian import OutputJacobian


@dataclass(frozen=True)
class Credit:
    """An update in its two factors.

    Args:
        phi: potentials whose rates the synapses see, [unit, sample].
        psi: the credit signal, [unit, sample]; NaN for samples without one.
    """

    phi: Tensor
    psi: Tensor

    def update(self, system: System, x: Tensor, sample: int) -> Tensor:
        """One sample's update of every plastic parameter, [parameter].

        Args:
            x: [input unit, sample].
        """
        one = slice(sample, sample + 1)
        return flat(system.update(self.phi[:, one], self.psi[:, one], x[:, one]))


def flat(updates: dict[str, Tensor]) -> Tensor:
    """Updates one after another, [parameter]."""
    return torch.cat([updates[name].reshape(-1) for name in sorted(updates)])


@torch.no_grad()
def loss_gradient(task: Task, batch: Batch, free: Solution) -> Credit:
    """-dL/dtheta at the free equilibrium, by the second phase of recurrent backpropagation."""
    drive, phi = task.system.drive(batch.x), free.fields.phi
    y = task.outputs(phi)
    error, rounding = task.loss.gradient(y, batch.target), task.loss.rounding(y, batch.target)
    second = find(
        AdjointEquations(task.system, phi, drive, -error, rounding), replace(task.settings, thorough=True)
    )
    return Credit(phi, torch.where(second.converged & free.converged, second.fields.psi, torch.nan))


def optimal_problem(task: Task, batch: Batch, free: Solution, alpha: float) -> Controlled:
    """The batch under control towards what the task's pathway aims at (its nudged target, where it has one), starting
    from the free state.

    Args:
        alpha: leak of the output controller.
    """
    held = task.under_control(task.system.drive(batch.x), batch.target, free, batch.x)
    # the time constant of the controller moves no equilibrium
    return replace(held, controller=leaky_integral(alpha, 100.0), phi=free.fields.phi)


@torch.no_grad()
def optimal_control(
    task: Task, batch: Batch, free: Solution, alpha: float, descend: bool = False
) -> Solution:
    """The controlled equilibrium under exact dynamic inversion with tied feedback.

    Its update is the negative gradient of H + L/alpha, and of H for alpha 0  [Theorem 1, section 2.4].

    L is the loss that the pathway's controller sees: of a nudged target, where it has one.
    Where some population is `controlled: false` it is the control that travels among the others, which is no optimum.

    Args:
        alpha: leak of the output controller.
        descend: follow the energy downhill from the free state where the circuit has one and is small enough, so that
            the equilibrium is the free state's own; else whatever the task's solver finds.
    """
    equations = DynamicInversion(Feedback()).equations(optimal_problem(task, batch, free, alpha))
    settings = replace(task.settings, thorough=True, max_iterations=max(task.settings.max_iterations, 2000))
    if descend and fits(equations):
        settings = replace(settings, method="levenberg", max_iterations=100)
    return find(equations, settings)


def presynaptic_power(system: CircuitSystem, phi: Tensor, x: Tensor) -> Tensor:
    """p, the sum over each neuron's plastic synapses of their presynaptic rates squared, and 1 for a plastic bias,
    [unit, sample].

    Args:
        phi: [unit, sample]. x: [input unit, sample].
    """
    compiled, rate = system.compiled, system.rates(phi)
    power = torch.zeros_like(phi)
    for links, pre in ((compiled.feedforward, x), (compiled.recurrent, rate)):
        for link in links:
            if link.projection.plastic:
                edges = link.projection.edges
                source = torch.as_tensor(edges.source.astype(np.int64), device=phi.device)
                target = torch.as_tensor(edges.target.astype(np.int64), device=phi.device)
                for start in range(0, phi.shape[1], 16):  # a number for every synapse and sample
                    some = slice(start, start + 16)
                    squared = pre[link.source, some].square()[source]
                    power[link.target, some] = power[link.target, some].index_add(0, target, squared)
    for name, bias in compiled.biases.items():
        if bias.requires_grad:
            power[compiled.units[name]] += 1
    return power


def shares_weights(system: CircuitSystem) -> bool:
    """Whether some plastic parameter is the weight of more than one synapse, a factor of many, or a conductance, which
    acts on two neurons."""
    projections = [link.projection for link in system.compiled.links.values() if link.projection.plastic]
    return any(
        p.edges.parameters is not None or p.rank is not None or p.kind == "electrical" for p in projections
    )


@torch.no_grad()
def parameter_gram(system: System, jacobian: OutputJacobian, phi: Tensor, x: Tensor) -> Tensor:
    """J_theta J_theta^T, [sample, output unit, output unit], with J_theta = dy/dtheta at the free state.

    Args:
        jacobian: J at phi. phi: [unit, sample]. x: [input unit, sample].
    """
    if isinstance(system, CircuitSystem) and not shares_weights(system):
        return jacobian.gram(presynaptic_power(system, phi, x))
    found = []
    for sample in range(phi.shape[1]):
        one = slice(sample, sample + 1)
        rows = torch.stack(
            [flat(system.update(phi[:, one], row.unsqueeze(1), x[:, one])) for row in jacobian.rows[sample]]
        )
        found.append(rows @ rows.t())
    return torch.stack(found)


def gauss_newton(system: System, jacobian: OutputJacobian, phi: Tensor, x: Tensor, delta: Tensor) -> Credit:
    """J_theta^+ delta of each sample: Gauss-Newton with a minibatch of one  [DFC eq. 7].

    Args:
        jacobian: J at phi. phi: the free potentials, [unit, sample]. x: [input unit, sample].
        delta: output error, [output unit, sample].
    """
    gram = parameter_gram(system, jacobian, phi, x)
    return Credit(phi, jacobian.credit(_solved(gram, delta)))


def minimum_norm(jacobian: OutputJacobian, phi: Tensor, delta: Tensor, power: Tensor | None = None) -> Credit:
    """The weighted minimum-norm update  [DFC Theorem 3, eq. 10], c = J^+ delta.

    Args:
        jacobian: J at phi. phi: the free potentials, [unit, sample].
        delta: output error, [output unit, sample].
        power: p of every neuron, [unit, sample]: divide by it, for the solution of eq. 10 itself rather than up to a
            rate for each neuron; neurons without plastic input (p = 0) get none.
    """
    psi = jacobian.credit(_solved(jacobian.gram(), delta))
    if power is not None:
        psi = torch.where(power > 0, psi / torch.where(power > 0, power, 1), 0)
    return Credit(phi, psi)


def linearised_control(jacobian: OutputJacobian, q: Tensor, alpha: float, delta: Tensor) -> Tensor:
    """psi = Q (J Q + alpha I)^-1 delta, [unit, sample]: the steady state under direct feedback to first order in the
    output error  [DFC Lemma 1, eq. 6].

    Args:
        jacobian: J at the free state. q: Q, [unit, output unit].
        alpha: leak of the controller at rest, alpha / (1 + alpha k_p) for a PI controller.
        delta: output error, [output unit, sample].
    """
    product = jacobian.onto(q)
    eye = torch.eye(len(delta), dtype=delta.dtype, device=delta.device)
    return q @ _solve(product + alpha * eye, delta)


def _solved(gram: Tensor, delta: Tensor) -> Tensor:
    """The pseudoinverse of symmetric matrices [sample, output, output] times delta, [output, sample]."""
    known = torch.isfinite(gram).all(2).all(1)
    inverse = torch.linalg.pinv(torch.where(known[:, None, None], gram, 0), hermitian=True)
    found = torch.einsum("skl,ls->ks", inverse, delta)
    return torch.where(known, found, torch.nan)


def _solve(matrix: Tensor, delta: Tensor) -> Tensor:
    known = torch.isfinite(matrix).all(2).all(1)
    eye = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    solved, failed = torch.linalg.solve_ex(
        torch.where(known[:, None, None], matrix, eye), delta.t().unsqueeze(2)
    )
    return torch.where(known & (failed == 0), solved.squeeze(2).t(), torch.nan)
