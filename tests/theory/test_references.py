"""Reference updates held against autograd, finite differences, and numpy's pseudoinverse of an explicit Jacobian."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.output import integral, leaky_integral
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.graph.build import build
from circuitlab.learn.base import Batch
from circuitlab.spec.circuit import load_circuit
from circuitlab.theory import references
from circuitlab.theory.jacobian import output_jacobian
from tests.oracles.circuits import random_circuit
from tests.oracles.equations import MANY, forward
from tests.oracles.tasks import batch, energy, finite_differences, task

CIRCUITS = {name: MANY[name] for name in ("two populations", "dale", "two outputs", "chain", "acyclic")}

SHARED = """
circuit: shared
populations:
  x: {type: input, shape: [1, 4, 4]}
  conv: {type: unit, shape: [2, 2, 2], activation: tanh}
  h: {type: unit, size: 3, activation: tanh, bias: false}
  y: {type: output, size: 2}
projections:
  x_conv: {source: x, target: conv, connect: {rule: convolution, kernel: [3, 3]}}
  conv_h: {source: conv, target: h, rank: 2}
  h_h: {source: h, target: h, weights: {scale: 0.3}, plastic: false}
  h_y: {source: h, target: y}
"""


def parameter_jacobian(t, x: torch.Tensor, step: float = 1e-6) -> np.ndarray:
    """dy/dtheta of one sample by central differences of the free equilibrium, [output unit, plastic parameter]."""
    columns = []
    plastic = t.system.compiled.plastic()
    for name in sorted(plastic):
        for index in range(plastic[name].numel()):
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    plastic[name].view(-1)[index] += sign * step
                    ends.append(t.outputs(t.free(t.system.drive(x)).fields.phi)[:, 0].numpy().copy())
                    plastic[name].view(-1)[index] -= sign * step
            columns.append((ends[0] - ends[1]) / (2 * step))
    return np.stack(columns, axis=1)


@pytest.fixture
def shared(tmp_path):
    """A circuit with a convolution and with a projection of low rank."""
    (tmp_path / "c.yaml").write_text(SHARED, encoding="utf-8")
    circuit = build(load_circuit(tmp_path / "c.yaml"), 0)
    return task(circuit)


def check_newton_and_norm(t) -> None:
    b = batch(t, samples=2)
    system, x = t.system, b.x
    drive = system.drive(x)
    free = t.free(drive)
    phi = free.fields.phi
    delta = -t.loss.gradient(t.outputs(phi), b.target)
    j = output_jacobian(system, phi, drive)
    newton = references.gauss_newton(system, j, phi, x, delta)
    shares = references.shares_weights(system)
    power = None if shares else references.presynaptic_power(system, phi, x)
    least = references.minimum_norm(j, phi, delta, power)
    for sample in range(2):
        explicit = parameter_jacobian(t, x[:, sample : sample + 1])
        e = delta[:, sample].numpy()
        expected = np.linalg.pinv(explicit) @ e
        found = newton.update(system, x, sample).numpy()
        assert found == pytest.approx(expected, abs=1e-5 * np.abs(expected).max())
        if power is None:
            continue
        # eq. 10: the least sum of p_i |dW_i|^2 that moves the outputs by delta
        weight = per_parameter(t, power[:, sample]) ** 0.5
        expected = np.linalg.pinv(explicit / weight) @ e / weight
        found = least.update(system, x, sample).numpy()
        assert found == pytest.approx(expected, abs=1e-5 * np.abs(expected).max())
        assert explicit @ found == pytest.approx(e, abs=1e-5)


def per_parameter(t, power: torch.Tensor) -> np.ndarray:
    """p of the neuron that each plastic parameter acts on, [parameter]."""
    compiled, found = t.system.compiled, {}
    for name in compiled.plastic():
        if name.endswith("_bias"):
            found[name] = power[compiled.units[name.removesuffix("_bias")]]
        else:
            link = compiled.links[name]
            found[name] = power[link.target][torch.as_tensor(link.projection.edges.target.astype(int))]
    return torch.cat([found[name] for name in sorted(found)]).numpy()


@pytest.mark.parametrize("make", CIRCUITS.values(), ids=CIRCUITS)
def test_gauss_newton_and_minimum_norm_are_pseudoinverses(make) -> None:
    check_newton_and_norm(task(make()))


def test_gauss_newton_with_shared_and_factored_weights(shared) -> None:
    assert references.shares_weights(shared.system)
    check_newton_and_norm(shared)


def test_frozen_weights_have_no_power() -> None:
    """Only plastic synapses count; where everything is plastic, p is |r|^2 + 1 by hand."""
    t = task(forward())
    b = batch(t)
    phi = t.free(t.system.drive(b.x)).fields.phi
    compiled = t.system.compiled  # type: ignore[attr-defined]
    power = references.presynaptic_power(t.system, phi, b.x)  # type: ignore[arg-type]
    link = compiled.links["x_a"]
    mask = np.zeros((5, 4))
    mask[link.projection.edges.target, link.projection.edges.source] = 1
    assert power[compiled.units["a"]].numpy() == pytest.approx(mask @ b.x.numpy() ** 2 + 1, abs=1e-12)
    for parameter in compiled.parameters():
        parameter.requires_grad_(False)
    circuit = compiled.circuit
    frozen = {
        name: type(p)(p.name, p.source, p.target, p.site, p.carries, False, p.kernel, p.edges)
        for name, p in circuit.projections.items()
    }
    still = CompiledCircuit(type(circuit)("still", "", 0, circuit.populations, frozen), torch.float64)
    for bias in still.biases.values():
        bias.requires_grad_(False)
    none = references.presynaptic_power(CircuitSystem(still), phi, b.x)
    assert not bool(none.any())


def test_the_loss_gradient_is_autograds() -> None:
    """On an acyclic circuit, written anew in torch from the graph's edges alone."""
    circuit = forward()
    t = task(circuit)
    b = batch(t, samples=3)
    system = t.system
    drive = system.drive(b.x)
    found = references.loss_gradient(t, b, t.free(drive))
    sigma = {"tanh": torch.tanh, "softplus": torch.nn.functional.softplus, "linear": lambda v: v}
    for sample in range(3):
        weights, rates = {}, {"x": b.x[:, sample]}
        for name, p in circuit.projections.items():
            weights[name] = torch.tensor(p.edges.weight, requires_grad=True)
        biases = {
            name: torch.tensor(np.array(p.bias), requires_grad=True)
            for name, p in circuit.populations.items()
            if p.bias is not None
        }
        for name in ("a", "b", "y0"):
            total = biases.get(name, torch.zeros(circuit.populations[name].size, dtype=torch.float64))
            for p in circuit.projections.values():
                if p.target == name:
                    matrix = torch.zeros(len(total), len(rates[p.source]), dtype=torch.float64)
                    at = (
                        torch.as_tensor(p.edges.target.astype(int)),
                        torch.as_tensor(p.edges.source.astype(int)),
                    )
                    total = total + matrix.index_put(at, weights[p.name]) @ rates[p.source]
            rates[name] = sigma[circuit.populations[name].activation](total)
        target = b.target[:, sample]
        loss = -(target * torch.log_softmax(rates["y0"], 0)).sum()
        loss.backward()
        own = {name: -w.grad for name, w in weights.items()}  # type: ignore[operator]
        own |= {f"{name}_bias": -v.grad for name, v in biases.items()}  # type: ignore[operator]
        expected = torch.cat([own[name] for name in sorted(system.compiled.plastic())])  # type: ignore[attr-defined]
        assert found.update(system, b.x, sample).numpy() == pytest.approx(expected.numpy(), abs=1e-9)


@pytest.mark.parametrize("alpha", [0.5, 0.0])
def test_the_control_gradient_is_that_of_h_plus_loss_over_alpha(alpha: float) -> None:
    """And of H alone without a leak; the experiment's own controller does not matter."""
    t = task(random_circuit(3), losses=("squared_error",), controller=leaky_integral(7.0, 100), thorough=True)
    b = batch(t, samples=3)
    free = t.free(t.system.drive(b.x))
    best = references.optimal_control(t, b, free, alpha)
    assert bool(best.converged.all())
    credit = references.Credit(best.fields.phi, best.fields.psi)
    total = sum(credit.update(t.system, b.x, sample) for sample in range(3))
    same = task(
        random_circuit(3),
        losses=("squared_error",),
        controller=leaky_integral(alpha, 100) if alpha else integral(100),
        thorough=True,
    )
    plastic = sorted(t.system.compiled.plastic())  # type: ignore[attr-defined]
    sizes = [t.system.compiled.plastic()[name].numel() for name in plastic]  # type: ignore[attr-defined]
    parts = dict(zip(plastic, torch.split(total, sizes), strict=True))
    for name, entries in finite_differences(same, energy(same, b, best.state)).items():
        for index, difference in entries:
            assert -float(parts[name][index]) == pytest.approx(difference, abs=1e-6), name


def test_a_descent_gives_the_same_equilibrium_where_there_is_one() -> None:
    t = task(random_circuit(0))
    b = batch(t, samples=2)
    free = t.free(t.system.drive(b.x))
    one, other = (references.optimal_control(t, b, free, 1.0, descend=d) for d in (False, True))
    assert "levenberg" in other.method
    assert "levenberg" not in one.method
    assert one.fields.psi.numpy() == pytest.approx(other.fields.psi.numpy(), abs=1e-8)


def test_gradients_of_unconverged_samples_are_not_numbers() -> None:
    t = task(MANY["two populations"](), max_iterations=1, method="anderson")
    b = Batch(*(v[:, :2] for v in (batch(t).x, batch(t).target)))
    found = references.loss_gradient(t, b, t.free(t.system.drive(b.x)))
    assert bool(torch.isnan(found.psi).all())
