"""SONATA's type tables: CSV files, separated by spaces, with one row of attributes for every node or edge type."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import FormatError

MISSING = "NULL"


@dataclass(frozen=True)
class TypeTable:
    """A table of node or edge types; texts as they stand in the file.

    Args:
        path: the file, for messages. key: node_type_id or edge_type_id.
        columns: name -> texts, the key's column among them. lines: line of each row, from 1.
    """

    path: Path
    key: str
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]

    @property
    def attributes(self) -> list[str]:
        """Names of the columns but the key."""
        return [name for name in self.columns if name != self.key]

    def rows(self, ids: NDArray[np.int64], where: str) -> NDArray[np.int64]:
        """Which row of the table each type id stands in, shape [id].

        Args:
            where: file and dataset of the ids, for messages.

        Raises:
            FormatError: an id that the table does not have.
        """
        known = [int(text) for text in self.columns[self.key]]
        place = {number: row for row, number in enumerate(known)}
        unique, inverse = np.unique(ids, return_inverse=True)
        for number in unique.tolist():
            if number not in place:
                row = int(np.argmax(ids == number))
                raise FormatError(
                    f"{where} is {number} in row {row}, and {self.path.name} has no such type; "
                    f"it has {', '.join(map(str, known)) or 'none'}"
                )
        return np.array([place[number] for number in unique.tolist()], dtype=np.int64)[inverse]

    def values(self, name: str) -> NDArray:
        """A column as integers, else as numbers (NULL is not a number), else as text (NULL is empty), shape [type]."""
        texts = self.columns[name]
        given = [text for text in texts if text != MISSING]
        for kind in (int, float):
            try:
                numbers = [kind(text) for text in given]
            except ValueError:
                continue
            if kind is int and (len(given) < len(texts) or any(abs(number) >= 2**63 for number in numbers)):
                continue
            if given:
                found = iter(numbers)
                return np.array([np.nan if text == MISSING else next(found) for text in texts])
        return np.array(["" if text == MISSING else text for text in texts], dtype=np.str_)

    def plain(self) -> dict[str, Any]:
        """The whole table as plain data."""
        rows = [list(row) for row in zip(*self.columns.values(), strict=True)]
        return {"columns": list(self.columns), "rows": rows}

    @classmethod
    def of_plain(cls, path: Path, key: str, data: Mapping[str, Any]) -> TypeTable:
        """The table of `plain`."""
        return cls(path, key, *_transposed(path, data["columns"], data["rows"]))

    def write(self, path: Path) -> None:
        """Write the table as SONATA wants it."""
        rows = [list(self.columns), *zip(*self.columns.values(), strict=True)]
        text = "".join(" ".join(map(_quoted, row)) + "\n" for row in rows)
        path.write_text(text, encoding="utf-8")


def _quoted(text: str) -> str:
    plain = text and not any(character.isspace() or character == '"' for character in text)
    return text if plain else '"' + text.replace('"', '""') + '"'


def _transposed(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[dict[str, list[str]], list[int]]:
    columns = {name: [row[index] for row in rows] for index, name in enumerate(header)}
    return columns, list(range(2, 2 + len(rows)))


def read_types(path: Path, key: str) -> TypeTable:
    """Read a type table.

    Args:
        key: node_type_id or edge_type_id.

    Raises:
        FormatError: missing file, another separator, no such column, a row of another length, a type twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=" ", skipinitialspace=True, strict=True)
            header, rows, lines = _rows(path, reader)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is not a text file in utf-8") from error
    except csv.Error as error:
        raise FormatError(f"{path}: is not a type table: {error}") from error
    if key not in header:
        separated = " (separated by commas; SONATA's type tables are separated by spaces)"
        comma = separated if len(header) == 1 and "," in header[0] else ""
        raise FormatError(f"{path}:1: no column '{key}'; there are {', '.join(header) or 'none'}{comma}")
    columns, _ = _transposed(path, header, rows)
    first: dict[str, int] = {}
    for text, line in zip(columns[key], lines, strict=True):
        if not text.isdecimal():
            raise FormatError(f"{path}:{line}: {key} is '{text}'; it is a whole number from 0")
        number = str(int(text))
        if number in first:
            raise FormatError(f"{path}:{line}: the type {text} stands twice, first in line {first[number]}")
        first[number] = line
    return TypeTable(path, key, columns, lines)


def _rows(path: Path, reader: Any) -> tuple[list[str], list[list[str]], list[int]]:
    header = _without_end(next(reader, []))
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise FormatError(f"{path}:1: the column '{twice}' appears twice")
    rows: list[list[str]] = []
    lines: list[int] = []
    for row in reader:
        if len(row) > len(header):
            row = _without_end(row)
        if not any(row):
            continue
        if len(row) != len(header):
            raise FormatError(
                f"{path}:{reader.line_num}: {len(row)} values, but the header has {len(header)}"
            )
        rows.append(row)
        lines.append(reader.line_num)
    return header, rows, lines


def _without_end(row: list[str]) -> list[str]:
    """A row without the empty value that a space at the end of a line makes."""
    return row[:-1] if row and not row[-1] else row
