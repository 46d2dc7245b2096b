"""Memory: what is available, and circuits that are refused before they are drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitlab.errors import CircuitError
from circuitlab.graph.build import build
from circuitlab.graph.memory import available_memory, control_group_memory, gigabytes
from circuitlab.spec.circuit import load_circuit

BIG = """
circuit: big
populations:
  a: {type: input, size: 40000}
  b: {type: output, size: 25000}
projections:
  big: {source: a, target: b, connect: RULE}
"""


def refused(rule: str) -> str:
    with pytest.raises(CircuitError) as refusal:
        build(load_circuit("big.yaml", text=BIG.replace("RULE", rule)))
    return str(refusal.value)


def test_a_billion_synapses_are_refused_on_a_small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUITLAB_MEMORY_LIMIT", "8 GB")
    assert refused("all_to_all") == (
        "big.yaml:7:8: projections.big: all_to_all makes 1,000,000,000 synapses, about 32 GB; 8 GB are available; "
        "use a sparse rule such as {rule: fixed_indegree, indegree: 100}"
    )
    assert refused("{rule: fixed_indegree, indegree: 20000}") == (
        "big.yaml:7:8: projections.big: fixed_indegree makes 500,000,000 synapses, about 16 GB; 8 GB are available; "
        "use fewer synapses"
    )


def test_the_whole_circuit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUITLAB_MEMORY_LIMIT", "32 MB")
    text = """
circuit: two
populations:
  a: {type: input, size: 1000}
  b: {type: output, size: 1000}
projections:
  first: {source: a, target: b, connect: {rule: pairwise_bernoulli, p: 0.9}}
  second: {source: b, target: b, connect: {rule: fixed_indegree, indegree: 500}}
"""
    with pytest.raises(CircuitError) as refusal:
        build(load_circuit("two.yaml", text=text))
    assert str(refusal.value) == (
        "two.yaml:7:10: projections.first: pairwise_bernoulli makes 900,000 synapses, about 0.029 GB; "
        "the whole circuit has 1,400,000, about 0.035 GB; 0.032 GB are available; "
        "use a sparse rule such as {rule: fixed_indegree, indegree: 100}"
    )


@pytest.mark.parametrize(
    ("text", "amount"),
    [("8 GB", 8e9), ("8GB", 8e9), ("0.5 GiB", 2**29), ("100 MB", 1e8), ("1000", 1000.0), ("2 tb", 2e12)],
)
def test_the_limit_is_read(monkeypatch: pytest.MonkeyPatch, text: str, amount: float) -> None:
    monkeypatch.setenv("CIRCUITLAB_MEMORY_LIMIT", text)
    assert available_memory() == amount


def test_a_limit_that_is_no_amount_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUITLAB_MEMORY_LIMIT", "plenty")
    with pytest.raises(
        CircuitError, match="CIRCUITLAB_MEMORY_LIMIT is 'plenty'; write an amount such as '8 GB'"
    ):
        available_memory()


def test_the_machine_has_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CIRCUITLAB_MEMORY_LIMIT", raising=False)
    assert 1e7 < available_memory() < 1e15


def test_control_groups_limit_each_other(tmp_path: Path) -> None:
    job = tmp_path / "slurm" / "job"
    job.mkdir(parents=True)
    for folder, limit, used, cache in (
        (tmp_path, "max", 900, 0),
        (job.parent, "1000", 800, 300),
        (job, "400", 100, 0),
    ):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cache}\n")
    # The job may take 400 - 100, its parent leaves 1000 - 800 and 300 of cache that can be dropped.
    assert control_group_memory(tmp_path, "0::/slurm/job\n") == 300
    assert control_group_memory(tmp_path, "0::/slurm\n") == 500
    assert control_group_memory(tmp_path, "0::/\n") == float("inf")


def test_version_1_control_groups(tmp_path: Path) -> None:
    folder = tmp_path / "memory" / "box"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("1000\n")
    (folder / "memory.usage_in_bytes").write_text("600\n")
    (folder / "memory.stat").write_text("total_inactive_file 50\n")
    assert control_group_memory(tmp_path, "7:memory:/box\n3:cpu:/other\n") == 450


def test_amounts_in_messages() -> None:
    assert [gigabytes(amount) for amount in (52e9, 8e9, 1.5e9, 5e8, 2.5e12)] == [
        "52 GB",
        "8 GB",
        "1.5 GB",
        "0.5 GB",
        "2,500 GB",
    ]
