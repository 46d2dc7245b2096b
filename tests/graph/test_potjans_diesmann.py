"""The microcircuit's file against the published tables, and what the builder draws from it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from circuitlab.graph.build import build
from circuitlab.spec.circuit import load_circuit

TOP = Path(__file__).resolve().parents[2]
FILE = TOP / "topologies" / "potjans_diesmann.yaml"
NAMES = ("L23E", "L23I", "L4E", "L4I", "L5E", "L5I", "L6E", "L6I")
N = np.array([20683, 5834, 21915, 5479, 4850, 1065, 14395, 2948])
P = np.array(
    [
        [0.1009, 0.1689, 0.0437, 0.0818, 0.0323, 0.0, 0.0076, 0.0],
        [0.1346, 0.1371, 0.0316, 0.0515, 0.0755, 0.0, 0.0042, 0.0],
        [0.0077, 0.0059, 0.0497, 0.135, 0.0067, 0.0003, 0.0453, 0.0],
        [0.0691, 0.0029, 0.0794, 0.1597, 0.0033, 0.0, 0.1057, 0.0],
        [0.1004, 0.0622, 0.0505, 0.0057, 0.0831, 0.3726, 0.0204, 0.0],
        [0.0548, 0.0269, 0.0257, 0.0022, 0.06, 0.3158, 0.0086, 0.0],
        [0.0156, 0.0066, 0.0211, 0.0166, 0.0572, 0.0197, 0.0396, 0.2252],
        [0.0364, 0.001, 0.0034, 0.0005, 0.0277, 0.008, 0.0658, 0.1443],
    ]
)
"""Potjans and Diesmann (2014), table 5: target populations as rows, sources as columns."""
PAIRS = np.outer(N, N).astype(float)
K = np.log(1 - P) / np.log(1 - 1 / PAIRS)
THALAMUS = {"L4E": 0.0983, "L4I": 0.0619, "L6E": 0.0512, "L6I": 0.0196}
FACTORS = np.where([name[-1] == "I" for name in NAMES], 4.0, 1.0)


def inner(name: str) -> tuple[int, int] | None:
    """Row and column of a projection among the eight populations."""
    source, _, target = name.partition("_")
    return (NAMES.index(target), NAMES.index(source)) if source in NAMES and target in NAMES else None


def test_the_file_holds_the_published_numbers() -> None:
    spec = load_circuit(FILE, scale=1.0)
    assert [spec.populations[name].size for name in NAMES] == N.tolist()
    assert (sum(N), spec.populations["thalamus"].size) == (77_169, 902)
    assert all(spec.populations[name].tau_ms == 10 for name in NAMES)
    found = np.zeros((8, 8), dtype=np.int64)
    for name, p in spec.projections.items():
        if (place := inner(name)) is not None:
            assert p.connect.rule == "fixed_total_number"
            assert p.connect.parameters["allow_multapses"]
            assert p.connect.parameters["allow_autapses"]
            found[place] = p.connect.parameters["N"]
            assert p.delay_ms == (1.5 if name.split("_")[0][-1] == "E" else 0.75)
    assert np.array_equal(found > 0, P > 0)
    assert (found > 0).sum() == 55
    assert np.abs(found - K).max() < 1
    assert found.sum() == pytest.approx(2.99e8, rel=1e-3)
    thalamic = {name: spec.projections[f"thalamus_{name}"].connect.parameters["N"] for name in THALAMUS}
    for name, p in THALAMUS.items():
        pairs = 902.0 * N[NAMES.index(name)]
        assert thalamic[name] == pytest.approx(np.log(1 - p) / np.log(1 - 1 / pairs), abs=1)


def test_single_synapses_have_the_published_ratios() -> None:
    """gain / (2 sqrt(indegree)) is the mean weight at scale 1: 1 to 4 to 2 (L4E onto L23E)."""
    spec = load_circuit(FILE, scale=1.0)
    mean = np.full((8, 8), np.nan)
    for name, p in spec.projections.items():
        if (place := inner(name)) is not None:
            mean[place] = p.weights.gain / (2 * np.sqrt(K[place] / N[place[0]]))
    wanted = np.where(P > 0, FACTORS, np.nan)
    wanted[0, 2] = 2.0
    np.testing.assert_allclose(mean / mean[0, 0], wanted, rtol=1e-3)


def test_the_mean_field_of_the_full_size_is_stable() -> None:
    """The populations' mean weights at scale 1, W = (mean weight) K / N_target: no eigenvalue reaches 1."""
    spec = load_circuit(FILE, scale=1.0)
    field = np.zeros((8, 8))
    for name, p in spec.projections.items():
        if (place := inner(name)) is not None:
            sign = 1 if name.split("_")[0][-1] == "E" else -1
            field[place] = sign * p.weights.gain / 2 * np.sqrt(K[place] / N[place[0]])
    assert np.linalg.eigvals(field).real.max() < 1


@pytest.mark.parametrize("scale", [0.02, 0.05])
def test_the_builder_draws_them(scale: float) -> None:
    """At a scale s, s^2 of the synapses within the rounding of sizes and numbers; every weight under Dale's law."""
    circuit = build(load_circuit(FILE, scale=scale))
    sizes = np.maximum(1, np.floor(N * scale + 0.5))
    assert [circuit.populations[name].size for name in NAMES] == sizes.tolist()
    ratio = sizes / N
    total = 0
    for name, p in circuit.projections.items():
        if (place := inner(name)) is None:
            continue
        count = int(p.edges.multiplicity.sum())
        expected = K[place] * ratio[place[0]] * ratio[place[1]]
        assert abs(count - expected) <= 1
        total += count
        pairs = sizes[place[0]] * sizes[place[1]]
        # occupancy: each pair is missed by every synapse with probability (1 - 1/pairs)^count
        joined = pairs * (1 - (1 - 1 / pairs) ** count)
        assert abs(len(p.edges) - joined) < 6 * np.sqrt(joined) + 1
        sign = 1 if name.split("_")[0][-1] == "E" else -1
        assert (sign * p.edges.weight >= 0).all()
        if count > 1000:
            factor = 2.0 if name == "L4E_L23E" else FACTORS[place[1]]
            mean = abs(p.edges.weight.sum()) / count
            assert mean == pytest.approx(1e-3 * factor / np.sqrt(scale), rel=0.12)
    assert total == pytest.approx(2.99e8 * scale**2, rel=0.02)


def test_the_file_is_what_the_script_writes() -> None:
    found = importlib.util.spec_from_file_location("written", FILE.with_suffix(".py"))
    assert found is not None
    assert found.loader is not None
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    assert script.text() == FILE.read_text(encoding="utf-8")
