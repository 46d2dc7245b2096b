"""What learning from noise brings Q to on one sample: Proposition S10 and DFC's Theorem 6."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuitlab.control.deep_feedback_control import DeepFeedbackControl
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import leaky_integral, proportional_integral
from circuitlab.learn.base import Batch, Task
from circuitlab.learn.feedback.noisy import Alternating, AntiHebbian, Noise, NoisyFeedback
from circuitlab.learn.least_control import LeastControl
from circuitlab.theory.conditions import column_space_share
from circuitlab.theory.jacobian import OutputJacobian
from tests.oracles.circuits import random_circuit
from tests.oracles.dense_twin import Twin
from tests.oracles.tasks import batch, task


def repeated(b: Batch, count: int) -> Batch:
    return Batch(b.x.repeat(1, count), b.target.repeat(1, count))


def learn(t: Task, b: Batch, rule: NoisyFeedback, rate: float, updates: int, controlled: bool) -> None:
    """Plain gradient steps of Q on one batch."""
    for step in range(updates):
        outcome = LeastControl().outcome(t, b) if controlled else None
        for name, change in rule.updates(t, b, outcome, step).items():
            with torch.no_grad():
                t.pathway.parameters()[name].add_(change, alpha=rate)


def share(t: Task, phi: torch.Tensor) -> float:
    """|P Q| / |Q| at the first sample's state, with the row space of D (1 - W sigma')^-1 by numpy."""
    twin = Twin(t.system.compiled.circuit)  # type: ignore[attr-defined]
    rows = twin.d @ np.linalg.inv(-twin.jacobian(phi[:, 0].numpy()))
    q, basis = t.pathway.q.numpy(), np.linalg.qr(rows.T)[0]  # type: ignore[attr-defined]
    found = float(np.linalg.norm(basis.T @ q) / np.linalg.norm(q))
    measured = column_space_share(OutputJacobian(torch.tensor(rows)[None]), torch.tensor(q))
    assert float(measured) == pytest.approx(found, rel=1e-12)
    return found


@pytest.mark.parametrize(
    ("loss", "rate", "steps", "dale"),
    [("squared_error", 2.0, 100, True), ("cross_entropy", 4.0, 200, False)],
    ids=["squared error, Dale's law", "cross-entropy, tanh"],
)
def test_proposition_s10(loss: str, rate: float, steps: int, dale: bool) -> None:
    """On one sample the single phase brings Q from a random start into the row space of D (1 - W sigma')^-1 at its
    controlled equilibrium: the share of its norm there ends above 0.95."""
    t = task(
        random_circuit(0, dale=dale, gain=0.6),
        losses=(loss,),
        controller=leaky_integral(1.0, 250.0),
        pathway=lambda s: LinearFeedback.random(s, 0),
        tolerance=1e-8,
    )
    b = repeated(batch(t, 1), 32)
    before = share(t, LeastControl().outcome(t, b).credit.fields.phi)
    learn(t, b, AntiHebbian(Noise(steps=steps)), rate, 90, controlled=True)
    after = share(t, LeastControl().outcome(t, b).credit.fields.phi)
    assert before < 0.6 < 0.95 < after


def test_theorem_6() -> None:
    """Phases of its own bring Q on one sample towards J^T (J J^T + gamma)^-1: Condition 2 above 0.95, J Q with
    eigenvalues of positive real part (Condition 3 without a leak), and the angle to the damped pseudoinverse small."""
    small = random_circuit(1)
    t = task(small, pathway=lambda s: DeepFeedbackControl.random(s, 1))
    b = repeated(batch(t, 1), 32)
    free = t.free(t.system.drive(b.x)).fields.phi
    twin = Twin(small)
    j = twin.d @ np.linalg.inv(-twin.jacobian(free[:, 0].numpy()))
    assert share(t, free) < 0.6
    rule = Alternating(Noise(steps=100), proportional_integral(2.0, 0.0, 250.0))
    learn(t, b, rule, 1.0, 60, controlled=False)
    assert share(t, free) > 0.95
    q = t.pathway.q.numpy()  # type: ignore[attr-defined]
    assert np.linalg.eigvals(j @ q).real.min() > 0

    def angle(gamma: float) -> float:
        wanted = j.T @ np.linalg.inv(j @ j.T + gamma * np.eye(3))
        return float((q * wanted).sum() / np.linalg.norm(q) / np.linalg.norm(wanted))

    assert max(angle(gamma) for gamma in (0.1, 1.0, 10.0)) > 0.95
