"""The compiled circuit as a torch module: its rows, its parameters, and that nothing is recorded or kept."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError
from circuitlab.learn.least_control import LeastControl
from tests.oracles.circuits import circuit, edges, population, projection, random_circuit, sparse
from tests.oracles.dense_twin import Twin
from tests.oracles.tasks import batch, task


def mixed():
    """Two inputs, outputs listed between hidden populations, a burst projection, sparse and diagonal kernels."""
    rng = np.random.default_rng(4)
    pops = [
        population("y", "output", 2, bias=rng.standard_normal(2)),
        population("x2", "input", 3),
        population("h", "pyramidal", 6, bias=rng.standard_normal(6), tau_ms=5.0),
        population("z", "output", 3, tau_ms=20.0),
        population("x1", "input", 2),
        population(
            "g", "unit", 6, activation="sigmoid", controlled=False, bias=np.ones(6), bias_plastic=False
        ),
    ]
    diagonal = edges(range(6), range(6), rng.standard_normal(6))
    projs = [
        projection("h_y", "h", "y", sparse(rng, 2, 6, 0.9, 1.0)),
        projection("x1_h", "x1", "h", sparse(rng, 6, 2, 0.9, 1.0), site="basal"),
        projection("h_g", "h", "g", diagonal),
        projection("x2_g", "x2", "g", sparse(rng, 6, 3, 0.1, 1.0), plastic=False),
        projection("g_h", "g", "h", sparse(rng, 6, 6, 0.1, 1.0), site="apical"),
        projection("g_z", "g", "z", sparse(rng, 3, 6, 0.9, 1.0), plastic=False),
        projection("z_h", "z", "h", sparse(rng, 6, 3, 0.9, 1.0), site="apical", carries="burst"),
    ]
    return circuit(pops, projs)


def test_rows_put_outputs_last_and_keep_the_order_of_the_file() -> None:
    compiled = CompiledCircuit(mixed(), torch.float64)
    assert compiled.units == {"h": slice(0, 6), "g": slice(6, 12), "y": slice(12, 14), "z": slice(14, 17)}
    assert compiled.inputs == {"x2": slice(0, 3), "x1": slice(3, 5)}
    assert compiled.outputs == {"y": slice(0, 2), "z": slice(2, 5)}
    assert (compiled.size, compiled.input_size, compiled.output_size) == (17, 5, 5)
    assert compiled.output_rows == slice(12, 17)
    assert compiled.tau.flatten().tolist() == [5.0] * 6 + [10.0] * 6 + [10.0] * 2 + [20.0] * 3
    assert compiled.controlled.flatten().tolist() == [1.0] * 6 + [0.0] * 6 + [1.0] * 5
    assert not compiled.all_controlled


def test_products_of_the_whole_circuit_equal_its_dense_twin() -> None:
    for small in (mixed(), random_circuit(1), random_circuit(2, dale=True, outputs=(2, 3))):
        twin, system = Twin(small), CircuitSystem(CompiledCircuit(small, torch.float64))
        rng = np.random.default_rng(0)
        x = rng.standard_normal((twin.u_in.shape[1], 3))
        phi, psi = rng.standard_normal((2, twin.n, 3))
        drive = system.drive(torch.tensor(x))
        assert drive.numpy() == pytest.approx(twin.u_in @ x + twin.b[:, None], abs=1e-12)
        point = system.linearise(torch.tensor(phi), drive)
        expected = np.stack([twin.prediction(phi[:, i], x[:, i]) for i in range(3)], axis=1)
        assert point.prediction.numpy() == pytest.approx(expected, abs=1e-12)
        assert point.feedback_input(torch.tensor(psi)).numpy() == pytest.approx(twin.w.T @ psi, abs=1e-12)


def test_names_of_parameters_and_kernels() -> None:
    compiled = CompiledCircuit(mixed())
    names = ["h_y", "x1_h", "h_g", "x2_g", "g_h", "g_z", "z_h"]
    assert list(compiled.weights) == names
    assert set(compiled.parameters_by_name()) == {*names, "h_bias", "g_bias", "y_bias"}
    assert compiled.weights["z_h"].requires_grad, (
        "bursts are feedback weights, which a pathway's own rule teaches"
    )
    assert set(compiled.plastic()) == {"h_y", "x1_h", "h_g", "g_h", "h_bias", "y_bias"}
    used = compiled.kernels_used()
    assert (used["h_g"], used["x2_g"], used["h_y"]) == ("diagonal", "csr", "dense")
    assert {id(p) for p in compiled.parameters()} == {id(p) for p in compiled.parameters_by_name().values()}


def test_state_dict_holds_the_synapses_and_comes_back() -> None:
    first, second = CompiledCircuit(mixed()), CompiledCircuit(mixed())
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(2))
    before = CircuitSystem(second).linearise(torch.ones(17, 2), second.drive(x))
    second.load_state_dict(first.state_dict())
    for name, parameter in first.parameters_by_name().items():
        assert torch.equal(parameter, second.parameters_by_name()[name])
    here, there = (CircuitSystem(c).linearise(torch.ones(17, 2), c.drive(x)) for c in (first, second))
    assert torch.equal(here.prediction, there.prediction)
    assert torch.equal(here.feedback_input(x[:1].expand(17, 2)), there.feedback_input(x[:1].expand(17, 2)))
    assert not torch.allclose(before.prediction, there.prediction)
    assert len(first.state_dict()) == len(list(first.parameters()))


def test_changes_of_precision_reach_every_part() -> None:
    compiled = CompiledCircuit(mixed()).to(torch.float64)
    assert compiled.dtype == torch.float64
    twin = Twin(mixed())
    drive = compiled.drive(torch.ones(5, 1, dtype=torch.float64))
    assert drive.dtype == torch.float64
    assert drive[:, 0].numpy() == pytest.approx(twin.u_in.sum(1) + twin.b, abs=1e-6)


def test_nothing_records_a_graph_for_autograd() -> None:
    t = task(random_circuit(0), tolerance=1e-6)
    b = batch(t)
    assert all(p.requires_grad for p in t.system.compiled.parameters())  # type: ignore[attr-defined]
    outcome = LeastControl().outcome(t, b)
    drive = t.system.drive(b.x)
    point = t.system.linearise(outcome.free.fields.phi, drive)
    found = [drive, point.prediction, point.transported(drive), outcome.loss, outcome.control_cost]
    found += [outcome.credit.state, outcome.free.state, outcome.credit.residual, *outcome.updates.values()]
    for tensor in found:
        assert not tensor.requires_grad
        assert tensor.grad_fn is None


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "adam, fused": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.1),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.1),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_any_optimizer_moves_plastic_parameters_only(make) -> None:
    """All parameters are handed over, as `module.parameters()` does; those that are frozen have no gradient."""
    compiled = CompiledCircuit(mixed(), torch.float64)
    before = {name: p.detach().clone() for name, p in compiled.parameters_by_name().items()}
    optimizer = make(compiled.parameters())
    system = CircuitSystem(compiled)
    phi, x = torch.ones(17, 2, dtype=torch.float64), torch.ones(5, 2, dtype=torch.float64)
    updates = system.update(phi, phi, x)
    for _ in range(2):
        for name, parameter in compiled.plastic().items():
            parameter.grad = -updates.get(name, torch.zeros_like(parameter)) - 0.1
        optimizer.step()
    for name, parameter in compiled.parameters_by_name().items():
        moved = not torch.equal(parameter, before[name])
        assert moved == (name in compiled.plastic()), name
    weights = {name: p.detach().numpy() for name, p in compiled.parameters_by_name().items()}
    now = mixed()
    now = circuit(
        [replace(p, bias=weights.get(f"{p.name}_bias", p.bias)) for p in now.populations.values()],
        [replace(p, edges=replace(p.edges, weight=weights[p.name])) for p in now.projections.values()],
    )
    twin = Twin(now)
    point = system.linearise(phi, system.drive(x))
    assert point.prediction[:, 0].numpy() == pytest.approx(
        twin.prediction(np.ones(17), np.ones(5)), abs=1e-12
    )
    assert point.feedback_input(phi)[:, 0].numpy() == pytest.approx(twin.w.T @ np.ones(17), abs=1e-12)


def test_memory_does_not_grow_over_solver_calls() -> None:
    t = task(random_circuit(3, dale=True), tolerance=1e-4)
    b = batch(t, samples=2)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects())

    for _ in range(5):
        LeastControl().outcome(t, b)
    tracemalloc.start()
    many, (size, _) = tensors(), tracemalloc.get_traced_memory()
    for _ in range(100):  # a free and a controlled state each
        LeastControl().outcome(t, b)
    assert tensors() <= many
    assert tracemalloc.get_traced_memory()[0] - size < 200_000
    tracemalloc.stop()


def test_signs_are_enforced_on_every_kernel_and_nowhere_else() -> None:
    rng = np.random.default_rng(0)
    pops = [
        population("x", "input", 5, sign="inhibitory"),
        population("e", "pyramidal", 5, sign="excitatory", bias=-np.ones(5)),
        population("i", "interneuron", 5, sign="inhibitory", bias=np.ones(5)),
        population("f", "unit", 5),
        population("y", "output", 2),
    ]
    diagonal = edges(range(5), range(5), np.ones(5))
    projs = [
        projection("x_e", "x", "e", sparse(rng, 5, 5, 0.5, 1.0)),
        projection("e_i", "e", "i", sparse(rng, 5, 5, 0.2, 1.0), kernel="csr"),
        projection("i_e", "i", "e", sparse(rng, 5, 5, 0.9, 1.0)),
        projection("i_f", "i", "f", diagonal),
        projection("f_y", "f", "y", sparse(rng, 2, 5, 0.9, 1.0)),
    ]
    compiled = CompiledCircuit(circuit(pops, projs), torch.float64)
    with torch.no_grad():
        for parameter in compiled.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(3))
    before = {name: p.detach().clone() for name, p in compiled.parameters_by_name().items()}
    compiled.enforce_sign()
    for name, parameter in compiled.parameters_by_name().items():
        expected = before[name]
        if name in ("x_e", "i_e", "i_f"):
            expected = expected.clamp(max=0)
        if name == "e_i":
            expected = expected.clamp(min=0)
        assert torch.equal(parameter, expected), name
    assert compiled.sign == {"x_e": -1, "e_i": 1, "i_e": -1, "i_f": -1, "f_y": 0}
    phi = torch.ones(17, 1, dtype=torch.float64)
    raw = CircuitSystem(compiled).linearise(phi, torch.zeros_like(phi)).feedback_input(phi)
    assert (raw[compiled.units["e"]] >= 0).all()
    assert (raw[compiled.units["i"]] <= 0).all()


def test_a_circuit_without_output_is_refused() -> None:
    with pytest.raises(CircuitError, match="there is no output population"):
        CompiledCircuit(circuit([population("x", "input", 2), population("h", "unit", 2)], []))
