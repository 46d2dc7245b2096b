"""The bound on the recurrent weights' largest singular value, against numpy's SVD of the dense matrices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.constrain import SingularValueBound
from tests.oracles.circuits import circuit, population, projection, random_circuit, sparse
from tests.oracles.dense_twin import Twin

GROUPS = (("a", "b"), ("c",))


def two_groups(gain: float = 3.0, frozen: tuple[str, ...] = (), frozen_gain: float = 0.1) -> Circuit:
    """a <-> b with a -> a, and c -> c behind them: two recurrent groups, and feedforward weights between."""
    rng = np.random.default_rng(0)
    sizes = {"a": 6, "b": 4, "c": 5}
    pops = [population("x", "input", 3, activation="linear"), population("y", "output", 2)]
    pops[1:1] = [population(n, "unit", k, sign="inhibitory" if n == "b" else None) for n, k in sizes.items()]
    projs = [
        projection("x_a", "x", "a", sparse(rng, 6, 3, 0.9, 5.0)),
        projection("b_c", "b", "c", sparse(rng, 5, 4, 0.9, 5.0, -1)),
        projection("c_y", "c", "y", sparse(rng, 2, 5, 0.9, 5.0)),
    ]
    for name, p in (("a_a", 0.5), ("a_b", 0.9), ("b_a", 0.2), ("c_c", 0.9)):
        s, t = name.split("_")
        scale = frozen_gain if name in frozen else gain
        e = sparse(rng, sizes[t], sizes[s], p, scale, -1 if s == "b" else 0)
        projs.append(projection(name, s, t, e, plastic=name not in frozen))
    return circuit(pops, projs)


def largest(compiled: CompiledCircuit, small: Circuit, group: tuple[str, ...]) -> float:
    """By numpy: the largest singular value of the group's block of W at the present weights."""
    weights = {name: v.detach().double().numpy() for name, v in compiled.weights.items()}
    now = [replace(p, edges=replace(p.edges, weight=weights[p.name])) for p in small.projections.values()]
    twin = Twin(circuit(list(small.populations.values()), now))
    rows = np.concatenate([np.arange(twin.n)[twin.rows[name]] for name in group])
    return float(np.linalg.svd(twin.w[np.ix_(rows, rows)], compute_uv=False)[0])


@pytest.mark.parametrize("bound", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    "frozen", [(), ("b_a",), ("a_a", "b_a")], ids=["all plastic", "one frozen", "two frozen"]
)
def test_every_group_ends_at_the_bound(bound: float, frozen: tuple[str, ...]) -> None:
    small = two_groups(frozen=frozen)
    compiled = CompiledCircuit(small, torch.float64)
    before = {name: v.detach().clone() for name, v in compiled.weights.items()}
    assert all(largest(compiled, small, group) > bound for group in GROUPS)
    SingularValueBound(compiled, bound).apply()
    for group in GROUPS:
        assert largest(compiled, small, group) == pytest.approx(bound, rel=2e-3), group
    inside = {"a": ["a_a", "a_b", "b_a"], "c": ["c_c"]}
    for names in inside.values():
        factors = torch.cat([compiled.weights[n].detach() / before[n] for n in names if n not in frozen])
        assert torch.allclose(factors, factors[:1])
        assert 0 < float(factors[0]) < 1
    for name in (*frozen, "x_a", "b_c", "c_y"):
        assert torch.equal(compiled.weights[name], before[name]), name


def test_weights_within_the_bound_stay_as_they_are() -> None:
    small = two_groups(gain=0.2)
    compiled = CompiledCircuit(small, torch.float64)
    before = {name: v.detach().clone() for name, v in compiled.weights.items()}
    bound = max(largest(compiled, small, group) for group in GROUPS) * 1.001
    SingularValueBound(compiled, bound).apply()
    for name, values in before.items():
        assert torch.equal(compiled.weights[name], values)


def test_the_bound_holds_through_many_small_updates() -> None:
    """Three warm power iterations per update are enough while weights move as training moves them."""
    small = random_circuit(0, hidden=30, p=0.3, gain=1.5)
    compiled = CompiledCircuit(small, torch.float32)
    keeper = SingularValueBound(compiled, 1.0)
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    keeper.apply()
    drift = {name: torch.randn(v.shape, generator=generator) for name, v in compiled.weights.items()}
    for _ in range(100):
        with torch.no_grad():
            for name, values in compiled.weights.items():
                values += 1e-3 * (drift[name] + torch.randn(values.shape, generator=generator))
        keeper.apply()
        worst = max(worst, largest(compiled, small, ("e", "i")))
    assert 0.99 < worst < 1.01


def test_frozen_weights_that_alone_exceed_the_bound_are_named() -> None:
    compiled = CompiledCircuit(two_groups(frozen=("a_a", "b_a"), frozen_gain=3.0), torch.float64)
    with pytest.raises(CircuitError, match=r"the frozen projections a_a, b_a alone exceed 0\.5"):
        SingularValueBound(compiled, 0.5).apply()


def test_acyclic_circuits_and_silent_weights_have_nothing_to_bound() -> None:
    rng = np.random.default_rng(0)
    chain = circuit(
        [population("x", "input", 2), population("h", "unit", 3), population("y", "output", 2)],
        [
            projection("x_h", "x", "h", sparse(rng, 3, 2, 0.9, 9.0)),
            projection("h_y", "h", "y", sparse(rng, 2, 3, 0.9, 9.0)),
        ],
    )
    keeper = SingularValueBound(CompiledCircuit(chain), 0.1)
    assert keeper.groups == []
    keeper.apply()
    silent = CompiledCircuit(two_groups(gain=0.0))
    SingularValueBound(silent, 1.0).apply()
    assert (silent.weights["a_a"] == 0).all()


def test_its_memory_can_be_saved() -> None:
    small = two_groups()
    first, second = (CompiledCircuit(small, torch.float64) for _ in range(2))
    kept, copy = SingularValueBound(first, 1.0), SingularValueBound(second, 1.0)
    assert kept.state() == {}
    kept.apply()
    second.load_state_dict(first.state_dict())
    copy.restore({name: v.clone() for name, v in kept.state().items()})
    for compiled, keeper in ((first, kept), (second, copy)):
        with torch.no_grad():
            compiled.weights["a_a"].mul_(1.3)
        keeper.apply()
    for name, values in first.weights.items():
        assert torch.equal(values, second.weights[name])
