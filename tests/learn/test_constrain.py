"""The bounds on the recurrent weights, against numpy's SVD and eigenvalues of the dense matrices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.equations import FreeEquations
from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit
from circuitlab.learn.constrain import Bounds, SingularValueBound, SpectralBound, SymmetricEigenvalueBound
from circuitlab.solve.choose import SolveSettings, find
from tests.oracles.circuits import circuit, edges, population, projection, random_circuit, sparse
from tests.oracles.dense_twin import Twin

GROUPS = (("a", "b"), ("c",))
BOUNDS: list[type[SpectralBound]] = [SingularValueBound, SymmetricEigenvalueBound]


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


def block(compiled: CompiledCircuit, small: Circuit, group: tuple[str, ...]) -> np.ndarray:
    """The group's block of W at the present weights."""
    weights = {name: v.detach().double().numpy() for name, v in compiled.weights.items()}
    now = [replace(p, edges=replace(p.edges, weight=weights[p.name])) for p in small.projections.values()]
    twin = Twin(circuit(list(small.populations.values()), now))
    rows = np.concatenate([np.arange(twin.n)[twin.rows[name]] for name in group])
    return twin.w[np.ix_(rows, rows)]


def largest(
    compiled: CompiledCircuit,
    small: Circuit,
    group: tuple[str, ...],
    kind: type[SpectralBound] = SingularValueBound,
) -> float:
    """By numpy: the group's largest singular value, or the largest eigenvalue of its symmetric part."""
    w = block(compiled, small, group)
    if kind is SymmetricEigenvalueBound:
        return float(np.linalg.eigvalsh((w + w.T) / 2)[-1])
    return float(np.linalg.svd(w, compute_uv=False)[0])


@pytest.mark.parametrize("kind", BOUNDS)
@pytest.mark.parametrize("bound", [0.5, 1.0, 1.5])
@pytest.mark.parametrize(
    "frozen", [(), ("b_a",), ("a_a", "b_a")], ids=["all plastic", "one frozen", "two frozen"]
)
def test_every_group_ends_at_the_bound(
    kind: type[SpectralBound], bound: float, frozen: tuple[str, ...]
) -> None:
    small = two_groups(frozen=frozen)
    compiled = CompiledCircuit(small, torch.float64)
    before = {name: v.detach().clone() for name, v in compiled.weights.items()}
    assert all(largest(compiled, small, group, kind) > bound for group in GROUPS)
    kind(compiled, bound).apply()
    for group in GROUPS:
        assert largest(compiled, small, group, kind) == pytest.approx(bound, rel=1e-3), group
    inside = {"a": ["a_a", "a_b", "b_a"], "c": ["c_c"]}
    for names in inside.values():
        factors = torch.cat([compiled.weights[n].detach() / before[n] for n in names if n not in frozen])
        assert torch.allclose(factors, factors[:1])
        assert 0 < float(factors[0]) < 1
    for name in (*frozen, "x_a", "b_c", "c_y"):
        assert torch.equal(compiled.weights[name], before[name]), name


@pytest.mark.parametrize("kind", BOUNDS)
def test_weights_within_the_bound_stay_as_they_are(kind: type[SpectralBound]) -> None:
    small = two_groups(gain=0.2)
    compiled = CompiledCircuit(small, torch.float64)
    before = {name: v.detach().clone() for name, v in compiled.weights.items()}
    bound = max(largest(compiled, small, group, kind) for group in GROUPS) * 1.001
    kind(compiled, bound).apply()
    for name, values in before.items():
        assert torch.equal(compiled.weights[name], values)


@pytest.mark.parametrize("kind", BOUNDS)
@pytest.mark.parametrize("dale", [False, True], ids=["no signs", "Dale's law"])
def test_the_bound_holds_through_many_small_updates(kind: type[SpectralBound], dale: bool) -> None:
    """Four products with a vector per update are enough while weights move as training moves them; at the end of an
    epoch the number is found to more digits."""
    small = random_circuit(0, hidden=30, p=0.3, gain=1.5, dale=dale)
    compiled = CompiledCircuit(small, torch.float32)
    keeper = kind(compiled, 0.7)
    generator = torch.Generator().manual_seed(0)
    worst, reached = -1.0, 0
    keeper.apply()
    drift = {name: torch.randn(v.shape, generator=generator) for name, v in compiled.weights.items()}
    for update in range(100):
        with torch.no_grad():
            for name, values in compiled.weights.items():
                values += 2e-3 * (drift[name] + torch.randn(values.shape, generator=generator))
        compiled.enforce_sign()
        keeper.apply()
        now = largest(compiled, small, ("e", "i"), kind)
        worst, reached = max(worst, now), reached + (now > 0.7 * 0.999)
        if update % 20 == 19:
            keeper.apply(thorough=True)
            assert largest(compiled, small, ("e", "i"), kind) <= 0.7 * (1 + 1e-4)
    assert worst < 0.7 * 1.01
    assert reached > 50, "the bound is what holds these weights"
    assert all((s * compiled.weights[n] >= 0).all() for n, s in compiled.sign.items())


@pytest.mark.parametrize("kind", BOUNDS)
def test_the_number_of_a_large_matrix_is_found(kind: type[SpectralBound]) -> None:
    """A Gaussian matrix, whose largest singular values and eigenvalues lie close together."""
    rng = np.random.default_rng(3)
    n = 256
    small = circuit(
        [population("x", "input", 2), population("h", "unit", n), population("y", "output", 2)],
        [
            projection("x_h", "x", "h", sparse(rng, n, 2, 0.9, 1.0)),
            projection("h_h", "h", "h", sparse(rng, n, n, 1.1, 1.0)),
            projection("h_y", "h", "y", sparse(rng, 2, n, 0.9, 1.0)),
        ],
    )
    compiled = CompiledCircuit(small, torch.float32)
    kind(compiled, 0.9).apply()
    assert largest(compiled, small, ("h",), kind) == pytest.approx(0.9, rel=1e-3)


def test_a_symmetric_eigenvalue_below_one_leaves_one_free_equilibrium() -> None:
    """Winston and Kolter 2020: descent from anywhere that ends ends in the same free state, though W has
    singular values above one."""
    rng = np.random.default_rng(0)
    skew, plain = (rng.standard_normal((8, 8)) for _ in range(2))
    w = 2 * (skew - skew.T) + plain
    target, source = np.divmod(np.arange(64), 8)
    small = circuit(
        [population("x", "input", 2), population("h", "unit", 8), population("y", "output", 2)],
        [
            projection("x_h", "x", "h", sparse(rng, 8, 2, 0.9, 1.0)),
            projection("h_h", "h", "h", edges(source, target, w.ravel())),
            projection("h_y", "h", "y", sparse(rng, 2, 8, 0.9, 1.0)),
        ],
    )
    compiled = CompiledCircuit(small, torch.float64)
    SymmetricEigenvalueBound(compiled, 0.9).apply()
    assert largest(compiled, small, ("h",)) > 1.5
    system = CircuitSystem(compiled)
    drive = system.drive(torch.as_tensor(rng.standard_normal((2, 1)))).expand(-1, 50).clone()
    begin = torch.as_tensor(3 * rng.standard_normal((system.size, 50)))
    settings = SolveSettings(method="levenberg", tolerance=1e-10, max_iterations=500)
    found = find(FreeEquations(system, drive), settings, begin)
    rest = found.fields.phi[:, found.converged]
    assert rest.shape[1] > 10
    assert torch.allclose(rest, rest[:, :1], atol=1e-7)


def test_several_bounds_hold_together() -> None:
    small = two_groups()
    compiled = CompiledCircuit(small, torch.float64)
    both = Bounds([SingularValueBound(compiled, 1.2), SymmetricEigenvalueBound(compiled, 0.6)])
    both.apply()
    for group in GROUPS:
        assert largest(compiled, small, group) <= 1.2 * (1 + 1e-4)
        assert largest(compiled, small, group, SymmetricEigenvalueBound) <= 0.6 * (1 + 1e-4)
    again = Bounds([SingularValueBound(compiled, 1.2), SymmetricEigenvalueBound(compiled, 0.6)])
    again.restore(both.state())
    for one, two in zip(both.parts, again.parts, strict=True):
        assert all(torch.equal(v, two.state()[name]) for name, v in one.state().items())


@pytest.mark.parametrize("kind", BOUNDS)
def test_groups_that_frozen_weights_push_beyond_the_bound_can_be_left(kind: type[SpectralBound]) -> None:
    small = two_groups(frozen=("a_a", "b_a"), frozen_gain=3.0)
    compiled = CompiledCircuit(small, torch.float64)
    before = {name: v.detach().clone() for name, v in compiled.weights.items()}
    keeper = kind(compiled, 0.5, frozen="leave")
    keeper.apply()
    (line,) = keeper.left
    assert line.startswith(
        f"learn.constrain.{kind.key}: no bound is kept on the recurrent group of the frozen"
    )
    assert "a_a, b_a, which alone exceed 0.5" in line
    assert all(torch.equal(compiled.weights[name], before[name]) for name in ("a_a", "a_b", "b_a"))
    assert largest(compiled, small, ("c",), kind) == pytest.approx(0.5, rel=1e-3), (
        "the other group is bounded"
    )


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
