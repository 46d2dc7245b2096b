"""YAML 1.2 with positions: what values mean, where they stand, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitlab.errors import SpecError
from circuitlab.spec.reading import MAX_BYTES
from circuitlab.spec.source import dotted, parse_value, read


def problems(text: str) -> list[str]:
    """What reading a text complains of."""
    try:
        return [str(problem) for problem in read("f.yaml", text).problems]
    except SpecError as error:
        return [str(problem) for problem in error.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.", 1.0),
        ("-.5", -0.5),
        ("12", 12),
        ("0x1F", 31),
        ("0o17", 15),
        ("010", 10),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("10:20", "10:20"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("'12'", "12"),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("[1, a, 2:5]", [1, "a", "2:5"]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    found = parse_value(text, "x")
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number() -> None:
    assert np.isnan(parse_value(".nan", "x"))


def test_every_key_and_value_knows_its_line_and_column() -> None:
    source = read("f.yaml", "a: 1\nb:\n  c: [x, yy]\n  'd e': {f: 2}\n")
    assert source.keys == {
        ("a",): (1, 1),
        ("b",): (2, 1),
        ("b", "c"): (3, 3),
        ("b", "d e"): (4, 3),
        ("b", "d e", "f"): (4, 11),
    }
    assert source.values[("a",)] == (1, 4)
    assert source.values[("b",)] == (3, 3)
    assert source.values[("b", "c", 1)] == (3, 10)
    assert source.values[("b", "d e", "f")] == (4, 14)
    assert dotted(("b", "c", 1)) == "b.c[1]"


def test_aliases_stand_where_they_are_written() -> None:
    source = read("f.yaml", "a: &x {k: 1}\nb: *x\nc: {<<: *x, m: 2}\n")
    assert source.data == {"a": {"k": 1}, "b": {"k": 1}, "c": {"k": 1, "m": 2}}
    assert source.values[("b",)] == (2, 4)
    assert source.values[("b", "k")] == (1, 11)


def test_a_merge_gives_way_to_the_mapping_and_the_first_merge_to_none() -> None:
    text = "a: &a {k: 1, l: 1}\nb: &b {k: 2, m: 2}\nc: {k: 3, <<: [*a, *b]}\nd: {<<: [*a, *b]}\n"
    data = read("f.yaml", text).data
    assert data["c"] == {"k": 3, "l": 1, "m": 2}
    assert data["d"] == {"k": 1, "l": 1, "m": 2}


def test_every_duplicate_key_is_reported() -> None:
    assert problems("a: 1\na: 2\nb: {c: 1, c: 2, c: 3}\n") == [
        "f.yaml:2:1: a: the key stands twice (first in line 1); once is allowed",
        "f.yaml:3:11: b.c: the key stands twice (first in line 3); once is allowed",
        "f.yaml:3:17: b.c: the key stands twice (first in line 3); once is allowed",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "a: b: c\n",
            "f.yaml:1:5: not valid YAML: mapping values are not allowed here;"
            " check the indentation, colons and brackets here",
        ),
        ("a: \x01\n", "f.yaml:1:4: a control character (U+0001) that YAML does not allow"),
        ('a: "\\0"\n', "f.yaml:1:4: a: a character that no text holds (NUL or half a surrogate pair)"),
        ("a: !mine 3\n", "f.yaml:1:4: a: tag '!mine'; tags are not allowed in this file"),
        ("a: !!set {x}\n", "f.yaml:1:4: a: tag '!!set'; tags are not allowed in this file"),
        ("~: 1\n", "f.yaml:1:1: ~: a key that is empty; keys are text (put it in quotes)"),
        ("? [a]\n: 1\n", "f.yaml:1:3: ?: a key that is a list or mapping; keys are text (put it in quotes)"),
        ("a: " + "9" * 5000 + "\n", "f.yaml:1:4: a: a number that cannot be read"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(text: str, line: str) -> None:
    assert problems(text) == [line]


def test_files_that_are_no_yaml_are_named_for_what_they_are(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "run.yaml", "w"):
        pass
    (tmp_path / "zip.yaml").write_bytes(gzip.compress(b"circuit: x"))
    np.savez(tmp_path / "a.npz", a=np.zeros(2))
    (tmp_path / "a.yaml").write_bytes((tmp_path / "a.npz").read_bytes())
    (tmp_path / "latin.yaml").write_bytes("circuit: a\ndescription: Übung\n".encode("latin-1"))
    (tmp_path / "nul.yaml").write_bytes(b"circuit: a\0b\n")
    (tmp_path / "large.yaml").write_bytes(b"# " + b"x" * MAX_BYTES)
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfcircuit: a\n")
    expected = {
        "run": "run.yaml: an HDF5 file; a YAML file is wanted",
        "zip": "zip.yaml: a gzip archive; a YAML file is wanted",
        "a": "a.yaml: a zip or npz archive; a YAML file is wanted",
        "latin": "latin.yaml:2: not UTF-8 text (byte 0xdc); save the file as UTF-8",
        "nul": "nul.yaml: a binary file; a YAML file is wanted",
        "large": "large.yaml: larger than 10 MB; put names, positions, edges and weights into"
        " files of their own",
    }
    for name, line in expected.items():
        with pytest.raises(SpecError) as caught:
            read(tmp_path / f"{name}.yaml")
        assert str(caught.value) == f"{tmp_path}/{line}"
    assert read(tmp_path / "bom.yaml").data == {"circuit": "a"}


FRAGMENTS = st.sampled_from(
    [
        "\t",
        "{",
        "}",
        "[",
        "]",
        ":",
        "- ",
        "\n",
        "'",
        '"',
        "&a ",
        "*a ",
        "<<: *a",
        "!!x ",
        "%YAML 1.1\n",
        "---\n",
        "...\n",
        "?",
        "|",
        ">",
        "#",
        "\x00",
        "\x85",
        '"\\UFFFFFFFF"',
        "~",
        ".nan",
        "9" * 5000,
        "{a: 1}",
        "\u2028",
        "!!binary x ",
        "@",
        "`",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 80), FRAGMENTS), min_size=1, max_size=5))
def test_whatever_is_written_gives_data_or_single_lines(edits: list[tuple[int, str]]) -> None:
    text = "circuit: c\npopulations:\n  x: &a {type: input, size: 4}\n  y: [1, 2, 'three', 4.0]\n"
    for position, fragment in edits:
        text = text[:position] + fragment + text[position:]
    assert all(len(line.splitlines()) == 1 for line in problems(text))
