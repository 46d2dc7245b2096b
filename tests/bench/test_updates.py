"""Differences of updates without outer products, against outer products written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.bench.updates import outer_difference, update_errors
from circuitlab.dynamics.equations import Fields
from tests.oracles.circuits import random_circuit
from tests.oracles.tasks import batch, task


def _vectors(seed: int, rows: int, samples: int = 4) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(seed).standard_normal((rows, samples)))


def test_the_norm_of_a_difference_of_outer_products() -> None:
    a, b, c, d = _vectors(0, 6), _vectors(1, 3), _vectors(2, 6), _vectors(3, 3)
    written_out = [
        (torch.outer(a[:, k], b[:, k]) - torch.outer(c[:, k], d[:, k])).square().sum() for k in range(4)
    ]
    torch.testing.assert_close(outer_difference(a, b, c, d), torch.stack(written_out))
    by_norms = a.square().sum(0) * b.square().sum(0) + c.square().sum(0) * d.square().sum(0)
    by_norms -= 2 * (a * c).sum(0) * (b * d).sum(0)
    torch.testing.assert_close(outer_difference(a, b, c, d), by_norms)


def test_nearly_equal_products_keep_their_digits() -> None:
    a, b = _vectors(0, 50), _vectors(1, 40)
    apart = 1e-9 * _vectors(2, 50)
    # a b^T - (a + e) b^T = -e b^T exactly
    expected = apart.square().sum(0) * b.square().sum(0)
    torch.testing.assert_close(outer_difference(a, b, a + apart, b), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("p", [1.0, 0.5])
def test_the_error_of_an_update_is_that_of_the_rule_itself(p: float) -> None:
    """Sample by sample against `System.update`, for full projections and for sparse ones, frozen parts left out."""
    circuit = random_circuit(1, p=p, outputs=(3, 2))
    frozen = {
        name: replace(q, plastic=False) if name == "x_e" else q for name, q in circuit.projections.items()
    }
    one = task(replace(circuit, projections=frozen))
    system, samples = one.system, batch(one, 3)
    found, true = (
        Fields(_vectors(s, system.size, 3), _vectors(s + 1, system.size, 3), torch.zeros(5, 3))
        for s in (5, 7)
    )
    apart, size = update_errors(system, found, true, samples.x)  # type: ignore[arg-type]
    for k in range(3):
        column = slice(k, k + 1)
        x = samples.x[:, column]
        updates = [system.update(f.phi[:, column], f.psi[:, column], x) for f in (found, true)]
        assert "x_e" not in updates[0]
        assert apart[k] ** 2 == pytest.approx(
            sum(float((updates[0][n] - u).square().sum()) for n, u in updates[1].items())
        )
        assert size[k] ** 2 == pytest.approx(sum(float(u.square().sum()) for u in updates[1].values()))
