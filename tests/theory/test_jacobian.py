"""J held against finite differences of the settled outputs, and its condition against numpy's projections."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.graph.circuit import Circuit
from circuitlab.theory import conditions, jacobian
from circuitlab.theory.jacobian import OutputJacobian, output_jacobian
from tests.oracles.circuits import random_circuit
from tests.oracles.dense_twin import Twin
from tests.oracles.equations import MANY, dense
from tests.oracles.tasks import batch, task

SMOOTH = {name: make for name, make in MANY.items() if name != "relu"}


def settled_differences(circuit: Circuit, x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences of the settled outputs with respect to a current into each unit, [output unit, unit]."""
    twin = Twin(circuit)
    bias, columns = twin.b.copy(), []
    for unit in range(twin.n):
        ends = []
        for sign in (1, -1):
            twin.b = bias.copy()
            twin.b[unit] += sign * step
            ends.append(twin.free(x)[-twin.k :])
        columns.append((ends[0] - ends[1]) / (2 * step))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("make", SMOOTH.values(), ids=SMOOTH)
@pytest.mark.parametrize("dense_up_to", [640, 0], ids=["dense", "iterative"])
def test_j_is_the_response_of_the_settled_outputs(make, dense_up_to: int, monkeypatch) -> None:
    monkeypatch.setattr(jacobian, "DENSE", dense_up_to)
    monkeypatch.setattr(jacobian, "WIDE", 100)  # a few samples at a time
    circuit = make()
    t = task(circuit)
    b = batch(t, samples=3)
    drive = t.system.drive(b.x)
    found = output_jacobian(t.system, t.free(drive).fields.phi, drive).rows.numpy()
    for sample in range(3):
        expected = settled_differences(circuit, b.x[:, sample].numpy())
        assert found[sample] == pytest.approx(expected, abs=1e-7)


def test_j_of_an_unsettled_problem_is_not_a_number(monkeypatch) -> None:
    """Rows that no solver finds are told apart, not guessed: the free state of a circuit without one."""
    monkeypatch.setattr(jacobian, "DENSE", 0)
    t = task(dense(gain=0.5))
    b = batch(t, samples=2)
    drive = t.system.drive(b.x)
    phi = t.free(drive).fields.phi
    phi[0, 1] = torch.nan
    found = output_jacobian(t.system, phi, drive).rows
    assert bool(torch.isfinite(found[0]).all())
    assert bool(torch.isnan(found[1]).all())
    assert bool(torch.isnan(conditions.row_space(OutputJacobian(found))[1]).all())


def test_the_shares_are_those_of_a_projection() -> None:
    rng = np.random.default_rng(0)
    rows, q, psi = (rng.standard_normal(shape) for shape in ((4, 3, 9), (9, 3), (9, 4)))
    rows[3, 2] = 2 * rows[3, 1]  # rank two
    j = OutputJacobian(torch.as_tensor(rows))
    shares = conditions.column_space_share(j, torch.as_tensor(q))
    controls = conditions.control_share(j, torch.as_tensor(psi))
    for sample in range(4):
        onto = np.linalg.pinv(rows[sample]) @ rows[sample]
        assert float(shares[sample]) == pytest.approx(np.linalg.norm(onto @ q) / np.linalg.norm(q), abs=1e-12)
        one = psi[:, sample]
        assert float(controls[sample]) == pytest.approx(
            np.linalg.norm(onto @ one) / np.linalg.norm(one), abs=1e-12
        )
    smallest = [np.linalg.eigvals(rows[sample] @ q).real.min() for sample in range(4)]
    assert conditions.controllability(j, torch.as_tensor(q)).numpy() == pytest.approx(smallest, abs=1e-12)


def test_optimal_control_lies_in_the_row_space() -> None:
    """Exact dynamic inversion gives psi = J^T u with J at the controlled state; random Q does not."""
    t = task(random_circuit(1))
    b = batch(t)
    drive = t.system.drive(b.x)
    found = t.controlled(drive, b.target, t.free(drive)).fields
    j = output_jacobian(t.system, found.phi, drive)
    assert j.credit(found.u).numpy() == pytest.approx(found.psi.numpy(), abs=1e-9)
    assert conditions.control_share(j, found.psi).numpy() == pytest.approx(1, abs=1e-12)
    q = LinearFeedback.random(t.system, 0).q  # type: ignore[arg-type]
    assert float(conditions.column_space_share(j, q).max()) < 0.9
    assert conditions.column_space_share(j, j.rows[0].t())[0].item() == pytest.approx(1, abs=1e-12)


def test_the_spread_of_layer_norms_counts_inputs_and_not_outputs() -> None:
    t = task(random_circuit(0))
    b = batch(t)
    system = t.system
    phi = t.free(system.drive(b.x)).fields.phi
    e, i = (torch.tanh(phi[system.compiled.units[name]]) for name in ("e", "i"))  # type: ignore[attr-defined]
    norms = np.stack([np.linalg.norm(a.numpy(), axis=0) for a in (b.x, e, i)])
    spread = conditions.norm_spread(system, phi, b.x)  # type: ignore[arg-type]
    assert spread.numpy() == pytest.approx(norms.std(0) / norms.mean(0), abs=1e-14)
