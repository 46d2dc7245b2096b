"""Tables and arrays from files: CSV with a header, .npy and .npz, every damage told with file and line."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import FormatError, suggestion
from circuitlab.graph.memory import available_memory, gigabytes


@dataclass(frozen=True)
class Table:
    """A CSV file: columns of text by name, each of the same length, and the line of each row.

    Args:
        path: the file, for messages. columns: name -> values. lines: line of each row in the file, from 1.
    """

    path: Path
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, *names: str) -> Sequence[str]:
        """The first of the named columns that exists.

        Raises:
            FormatError: there is none.
        """
        for name in names:
            if name in self.columns:
                return self.columns[name]
        wanted, found = " or ".join(f"'{name}'" for name in names), ", ".join(self.columns)
        raise FormatError(
            f"{self.path}:1: no column {wanted}; there are {found}.{suggestion(names[0], self.columns)}"
        )

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column as finite numbers, shape [row]."""
        values = self.column(name)
        try:
            numbers = np.array(values, dtype=np.float64)
        except ValueError:
            bad = next(i for i, text in enumerate(values) if not _is_number(text))
            raise FormatError(
                f"{self.path}:{self.lines[bad]}: {name} is '{values[bad]}', not a number"
            ) from None
        wrong = ~np.isfinite(numbers)
        if wrong.any():
            bad = int(np.argmax(wrong))
            raise FormatError(
                f"{self.path}:{self.lines[bad]}: {name} is {values[bad]}; it must be a finite number"
            )
        return numbers

    def values(self, name: str) -> NDArray:
        """A column as integers, else as numbers, else as text, shape [row]."""
        column = self.columns[name]
        for kind in (np.int64, np.float64):
            try:
                return np.array(column, dtype=kind)
            except (ValueError, OverflowError):
                continue
        return np.array(column, dtype=np.str_)

    def where(self, conditions: Mapping[str, Any]) -> Table:
        """The rows whose columns have the given values; a list of values allows any of them."""
        keep = np.ones(len(self), dtype=bool)
        for name, wanted in conditions.items():
            allowed = wanted if isinstance(wanted, list | tuple) else [wanted]
            keep &= np.isin(np.array(self.column(name), dtype=np.str_), [str(value) for value in allowed])
        rows = np.flatnonzero(keep).tolist()
        columns = {name: [values[i] for i in rows] for name, values in self.columns.items()}
        return Table(self.path, columns, [self.lines[i] for i in rows])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_table(path: Path) -> Table:
    """Read a CSV file with a header, utf-8; empty lines are skipped.

    Raises:
        FormatError: missing file, no header, a column twice, a row of another length, not text.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows: list[list[str]] = []
            lines: list[int] = []
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise FormatError(
                        f"{path}:{reader.line_num}: {len(row)} columns, but the header has {len(header)}"
                    )
                rows.append(row)
                lines.append(reader.line_num)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is not a text file in utf-8") from error
    except csv.Error as error:
        raise FormatError(f"{path}: is not a CSV file: {error}") from error
    if not header or not all(header):
        raise FormatError(f"{path}:1: the first line must name every column, such as 'source,target,weight'")
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise FormatError(f"{path}:1: the column '{twice}' appears twice")
    columns = (
        dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
        if rows
        else {n: [] for n in header}
    )
    stripped = {name: [value.strip() for value in values] for name, values in columns.items()}
    return Table(path, stripped, lines)


def read_arrays(path: Path) -> dict[str, NDArray]:
    """The arrays of an .npz file, or the one of an .npy file under the name `array`; pickled objects are
    refused.

    Raises:
        FormatError: missing, damaged, pickled, or larger than the memory available.
    """
    try:
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > available_memory():
                raise FormatError(
                    f"{path}: unpacks to {gigabytes(size)}; {gigabytes(available_memory())} are available"
                )
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return (
                {"array": loaded}
                if isinstance(loaded, np.ndarray)
                else {name: loaded[name] for name in loaded.files}
            )
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or 'damaged'}") from error
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError, NotImplementedError) as error:
        raise FormatError(f"{path}: is not a {path.suffix} file of plain numeric arrays: {error}") from error
