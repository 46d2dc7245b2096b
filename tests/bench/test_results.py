"""Results as JSON and as a page's tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitlab.bench.machine import describe
from circuitlab.bench.results import Results, Table, as_json, read, renewed, rounded, text
from circuitlab.errors import FormatError


@pytest.fixture
def results() -> Results:
    table = Table("Times", ("what", "ms"), [["a|b", 1.23456], ["c", None], ["d", float("nan")]], "A note.")
    return Results(
        "scale", {"seed": 3}, describe(1, "circuitlab bench scale"), [table], {"raw": [1.0, float("inf")]}
    )


def test_what_is_written_is_read(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "scale.json"
    path.write_text(as_json(results), encoding="utf-8")
    again = read(path)
    assert (again.benchmark, again.options, again.machine) == ("scale", {"seed": 3}, results.machine)
    assert again.tables[0].rows == [["a|b", 1.23456], ["c", None], ["d", None]]
    assert again.numbers == {"raw": [1.0, None]}


def test_the_machine_is_told(results: Results) -> None:
    machine = json.loads(as_json(results))["machine"]
    for key in (
        "processor",
        "cores",
        "threads",
        "torch_version",
        "numpy_version",
        "python_version",
        "created",
        "command",
    ):
        assert machine[key], key
    assert "load_average" in machine


@pytest.mark.parametrize("content", ["", "[]", '{"format": "circuitlab-bench", "format_version": 0}', "{"])
def test_what_is_no_result_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(FormatError, match=r"x\.json: is"):
        read(path)
    with pytest.raises(FormatError, match="no such file"):
        read(tmp_path / "y.json")


def test_a_page_gets_the_new_tables_and_keeps_the_rest(results: Results) -> None:
    page = "above\n<!-- bench: scale -->\nold\n<!-- end of scale -->\nbelow\n"
    new = renewed(page, results)
    assert new.startswith("above\n<!-- bench: scale -->\n\n`circuitlab bench scale` on ")
    assert new.endswith("<!-- end of scale -->\nbelow\n")
    assert "| a\\|b | 1.23 |" in new
    assert "| d | - |" in new
    assert "A note." in new
    assert "old" not in new
    assert renewed(new, results) == new
    with pytest.raises(FormatError, match="`scale`"):
        renewed("nothing here", results)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.00"),
        (1.0, "1.00"),
        (0.98765, "0.988"),
        (12.345, "12.3"),
        (1234.5, "1,234"),
        (1.2e-6, "1.2e-06"),
    ],
)
def test_three_digits_are_enough_for_a_reader(value: float, shown: str) -> None:
    assert rounded(value) == shown


def test_cells_of_every_kind() -> None:
    assert [text(cell) for cell in (None, True, False, 12345, "x")] == ["-", "yes", "no", "12,345", "x"]
