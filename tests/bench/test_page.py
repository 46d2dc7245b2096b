"""benchmarks/page.py puts results into docs/benchmarks.md, which has a part for each of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from circuitlab.bench.machine import describe
from circuitlab.bench.results import Results, Table, as_json, renewed

TOP = Path(__file__).resolve().parents[2]
PAGE = TOP / "docs" / "benchmarks.md"


@pytest.mark.parametrize("name", ["cost", "kernels", "scale", "train"])
def test_the_page_has_a_part_for_every_benchmark(name: str) -> None:
    machine = describe(1, f"circuitlab bench {name}")
    page = PAGE.read_text(encoding="utf-8")
    new = renewed(page, Results(name, {}, machine, [Table("T", ("a",), [[1]])], {}))
    assert new != page
    assert f"<!-- bench: {name} -->\n\n`circuitlab bench" in page


def test_the_script_renews_the_page_it_is_given(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    shutil.copy(PAGE, page)
    point = {"axis": "batch", "value": 2, "seconds": [1.0]}
    numbers = {"slopes": {"batch": 1.0}, "points": [point, {**point, "value": 4, "seconds": [2.0]}]}
    results = Results(
        "scale", {}, describe(1, "circuitlab bench scale"), [Table("New", ("a",), [[7]])], numbers
    )
    (tmp_path / "scale.json").write_text(as_json(results), encoding="utf-8")
    command = [
        sys.executable,
        str(TOP / "benchmarks" / "page.py"),
        str(tmp_path / "scale.json"),
        "--page",
        str(page),
    ]
    subprocess.run(command, check=True, cwd=TOP)
    assert "**New**" in page.read_text(encoding="utf-8")
    assert (tmp_path / "images" / "bench_scale.png").read_bytes().startswith(b"\x89PNG")
