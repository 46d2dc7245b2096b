"""The circuit's structure: recurrence, order, density."""

from __future__ import annotations

import numpy as np
import pytest

from circuitlab.errors import CircuitError
from circuitlab.graph.circuit import Circuit, Population, Projection
from circuitlab.graph.edges import coalesce

TYPES = {"x": "input", "a": "unit", "b": "unit", "c": "unit", "y": "output"}


def circuit(*links: tuple[str, str] | tuple[str, str, str]) -> Circuit:
    """Populations x, a, b, c, y of two neurons each, one edge for each link (carrying rates unless told)."""
    projections = {}
    for source, target, *rest in links:
        edges = coalesce(np.array([0]), np.array([1]), np.ones(1))
        name = f"{source}{target}"
        carries = rest[0] if rest else "rate"
        projections[name] = Projection(name, source, target, "soma", carries, True, "auto", edges)
    populations = {name: Population(name, kind, 2) for name, kind in TYPES.items()}
    return Circuit("c", "", 0, populations, projections)


def test_names_by_type() -> None:
    c = circuit()
    assert (c.inputs, c.outputs, c.units) == (("x",), ("y",), ("a", "b", "c", "y"))


def test_a_feedforward_circuit_is_acyclic_and_has_an_order() -> None:
    c = circuit(("b", "a"), ("x", "b"), ("a", "y"), ("c", "b"))
    assert c.is_acyclic
    assert c.strongly_connected() == []
    assert c.topological_order() == ("x", "c", "b", "a", "y")


def test_recurrent_groups() -> None:
    c = circuit(("x", "a"), ("a", "b"), ("b", "a"), ("c", "c"), ("b", "y"))
    assert c.strongly_connected() == [("a", "b"), ("c",)]
    assert not c.is_acyclic
    with pytest.raises(CircuitError, match=r"circuit 'c' is recurrent \(a, b\)"):
        c.topological_order()


def test_burst_projections_and_empty_ones_make_no_recurrence() -> None:
    c = circuit(("a", "b"), ("b", "a", "burst"))
    assert c.is_acyclic
    empty = Projection(
        "e", "b", "a", "soma", "rate", True, "auto", coalesce(np.array([]), np.array([]), np.array([]))
    )
    assert Circuit("c", "", 0, c.populations, {**c.projections, "e": empty}).is_acyclic


def test_density_counts_pairs_once() -> None:
    edges = coalesce(np.array([0, 0, 1]), np.array([1, 1, 2]), np.ones(3))
    populations = {"a": Population("a", "unit", 4), "b": Population("b", "unit", 5)}
    p = Projection("p", "a", "b", "soma", "rate", True, "auto", edges)
    c = Circuit("c", "", 0, populations, {"p": p})
    assert c.density("p") == 2 / 20
    assert c.synapses == 2


def test_equality_sees_every_difference() -> None:
    def one(weight: float = 1.0, size: int = 2, site: str = "soma", name: str = "c") -> Circuit:
        edges = coalesce(np.array([0]), np.array([1]), np.array([weight]))
        populations = {"a": Population("a", "unit", size, bias=np.zeros(size))}
        return Circuit(
            name, "", 0, populations, {"p": Projection("p", "a", "a", site, "rate", True, "auto", edges)}
        )

    assert one().equals(one())
    for other in (one(weight=2.0), one(size=3), one(site="basal"), one(name="d")):
        assert not one().equals(other)
