"""Gap junctions compiled: one conductance for each pair, both ways, against dense numpy."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.compile.kernels.electrical import Electrical
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.junctions import Junctions
from circuitlab.errors import CircuitError
from circuitlab.graph.junctions import conductances
from tests.oracles.circuits import circuit, edges, random_circuit, with_junctions
from tests.oracles.dense_twin import Twin

PAIRS = [("e", "e"), ("e", "i"), ("y0", "i")]


@pytest.mark.parametrize("both", [False, True], ids=["listed once", "listed both ways"])
@pytest.mark.parametrize("kernel", ["auto", "csr", "dense"])
def test_currents_and_loads_are_numpys(kernel: str, both: bool) -> None:
    small = with_junctions(random_circuit(0), PAIRS if not both else [("e", "e")], both=both)
    made = [replace(p, kernel=kernel) if p.kind == "electrical" else p for p in small.projections.values()]
    compiled = CompiledCircuit(circuit(list(small.populations.values()), made), torch.float64)
    twin, junctions = Twin(small), Junctions(compiled)
    assert np.abs(conductances(small).toarray() - twin.g).max() < 1e-12, (
        "hidden units then outputs, as in the file"
    )
    x = np.random.default_rng(1).standard_normal((twin.n, 3))
    out = torch.ones(twin.n, 3, dtype=torch.float64)
    junctions.add(torch.tensor(x), out)
    assert out.numpy() == pytest.approx(1 + twin.l @ x, abs=1e-12)
    assert junctions.loads()[:, 0].numpy() == pytest.approx(twin.g.sum(1), abs=1e-12)
    assert kernel == "auto" or all(link.kernel.name == kernel for link in compiled.electrical)


def test_changed_conductances_count_at_once_and_copies_keep_their_own() -> None:
    small = with_junctions(random_circuit(0), [("e", "i")])
    compiled = CompiledCircuit(small, torch.float64)
    other = copy.deepcopy(compiled)
    x, before, after, kept = (
        torch.ones(compiled.size, 1, dtype=torch.float64),
        *(torch.zeros(14, 1).double() for _ in "abc"),
    )
    x[:3] = 2.0
    Junctions(compiled).add(x, before)
    with torch.no_grad():
        compiled.weights["e_i_gap"].mul_(3)
    Junctions(compiled).add(x, after)
    Junctions(other).add(x, kept)
    assert float(before.abs().max()) > 0
    assert torch.allclose(after, 3 * before)
    assert torch.equal(kept, before)


def test_a_kernel_knows_outer_products_of_every_edge() -> None:
    small = with_junctions(random_circuit(0), [("e", "e")], both=True)
    kernel = CompiledCircuit(small, torch.float64).links["e_e_gap"].kernel
    assert isinstance(kernel, Electrical)
    e, rng = small.projections["e_e_gap"].edges, np.random.default_rng(2)
    assert (e.source == e.target).any(), "a neuron's junction with itself is kept, and carries nothing"
    post, pre = rng.standard_normal((2, 7, 4))
    found = kernel.outer(torch.tensor(post), torch.tensor(pre)).numpy()
    expected = np.where(e.source == e.target, 0, (post[e.target] * pre[e.source]).sum(1))
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_graph_with_what_is_no_gap_junction_is_refused() -> None:
    small = with_junctions(random_circuit(0), [("e", "e")])
    gap = small.projections["e_e_gap"]
    for wrong, said in (
        (replace(gap, edges=edges([0, 1], [1, 0], [0.5, 0.6])), "in one direction"),
        (replace(gap, edges=edges([0], [1], [-0.5])), "at least 0"),
        (replace(gap, site="apical"), "join somata"),
        (replace(gap, source="x"), "'x' is an input"),
        (replace(gap, delay_ms=1.0), "no delay"),
    ):
        broken = replace(small, projections={**small.projections, "e_e_gap": wrong})
        with pytest.raises(CircuitError, match=rf"projections\.e_e_gap: .*{said}"):
            CompiledCircuit(broken)


@pytest.mark.parametrize("wrong", [dict(gain=0.0), dict(gain=-1.0), dict(threshold=float("nan"))])
def test_a_gain_is_above_zero(wrong: dict[str, float]) -> None:
    small = random_circuit(0)
    broken = {**small.populations, "e": replace(small.populations["e"], **wrong)}
    with pytest.raises(CircuitError, match=r"populations\.e: gain"):
        CompiledCircuit(replace(small, populations=broken))


def test_plain_circuits_have_no_junctions() -> None:
    assert CircuitSystem(CompiledCircuit(random_circuit(0))).junctions is None
