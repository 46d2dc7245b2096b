"""Tables and arrays from files: CSV with a header, .npy and .npz, every damage told with file and line."""

from __future__ import annotations

import csv
import json
import re
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitlab.errors import FormatError, suggestion
from circuitlab.graph.memory import available_memory, gigabytes

TYPED = re.compile(r"(.+):(str|bool|u?int(?:8|16|32|64)|float(?:32|64))")
"""A column's name that says its type, `id:str`, where the values alone would say another."""

_DAMAGE = (
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    SyntaxError,
    TypeError,
    OverflowError,
    MemoryError,
)
"""What numpy raises on broken bytes."""


@dataclass(frozen=True)
class Table:
    """A CSV file: columns of text by name, each of the same length, and the line of each row.

    Args:
        path: the file, for messages. columns: name -> values. lines: line of each row in the file, from 1.
        types: type of the columns whose header names one, `id:str`.
    """

    path: Path
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]
    types: Mapping[str, str] = field(default_factory=dict)

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
        """A column of the type its header names, else as integers, else as numbers, else as text, shape [row]."""
        column = self.columns[name]
        if name in self.types:
            return self._typed(name, self.types[name])
        for kind in (np.int64, np.float64):
            try:
                return np.array(column, dtype=kind)
            except (ValueError, OverflowError):
                continue
        return np.array(column, dtype=np.str_)

    def _typed(self, name: str, kind: str) -> NDArray:
        column = self.columns[name]
        if kind == "str":
            return np.array(column, dtype=np.str_)
        read = {"True": True, "False": False}.__getitem__ if kind == "bool" else np.dtype(kind).type
        array = np.empty(len(column), dtype=kind)
        for row, text in enumerate(column):
            try:
                array[row] = read(text)
            except (ValueError, OverflowError, KeyError):
                raise FormatError(
                    f"{self.path}:{self.lines[row]}: {name} is '{text}', not of type {kind}"
                ) from None
        return array

    def where(self, conditions: Mapping[str, Any]) -> Table:
        """The rows whose columns have the given values; a list of values allows any of them."""
        keep = np.ones(len(self), dtype=bool)
        for name, wanted in conditions.items():
            allowed = wanted if isinstance(wanted, list | tuple) else [wanted]
            keep &= np.isin(np.array(self.column(name), dtype=np.str_), [str(value) for value in allowed])
        rows = np.flatnonzero(keep).tolist()
        columns = {name: [values[i] for i in rows] for name, values in self.columns.items()}
        return Table(self.path, columns, [self.lines[i] for i in rows], self.types)


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
    typed = [TYPED.fullmatch(name) for name in header]
    types = {match[1]: match[2] for match in typed if match}
    header = [match[1] if match else name for match, name in zip(typed, header, strict=True)]
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise FormatError(f"{path}:1: the column '{twice}' appears twice")
    columns = (
        dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
        if rows
        else {n: [] for n in header}
    )
    stripped = {
        name: values if types.get(name) == "str" else [value.strip() for value in values]
        for name, values in columns.items()
    }
    return Table(path, stripped, lines, types)


def write_table(path: Path, columns: Mapping[str, NDArray | Sequence[str]]) -> None:
    """Write a CSV file that `read_table` reads back exactly; headers name a type where values alone don't say it.

    Args:
        columns: name -> values of shape [row]: numbers, booleans or text.
    """
    header, texts = [], []
    for name, values in columns.items():
        array = np.asarray(values)
        text = array.tolist() if array.dtype.kind == "U" else [repr(value) for value in array.tolist()]
        plain = name if TYPED.fullmatch(name) is None else None
        if plain is None or not _says_its_type(array, text):
            name = f"{name}:{'str' if array.dtype.kind == 'U' else array.dtype.name}"
        header.append(name)
        texts.append(text)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(zip(*texts, strict=True))


def _says_its_type(array: NDArray, text: Sequence[str]) -> bool:
    """Whether `Table.values` finds the array's own type in the values alone."""
    if array.dtype.kind == "U":
        stripped = all(value == value.strip() for value in text)
        return stripped and bool(text) and not all(_is_number(value) for value in text)
    if array.dtype == np.float64:
        return not all(re.fullmatch(r"-?\d+", value) for value in text)
    return array.dtype == np.int64


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; keys that stand twice are refused.

    Raises:
        FormatError: missing, not JSON (with the line), or no object.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise FormatError(f"{path}: the key '{twice}' stands twice in one object")
        return found

    try:
        size = path.stat().st_size
        if 10 * size > available_memory():
            raise FormatError(f"{path}: has {gigabytes(size)}; {gigabytes(available_memory())} are available")
        value = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is not a text file in utf-8") from error
    except json.JSONDecodeError as error:
        raise FormatError(f"{path}:{error.lineno}: is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise FormatError(f"{path}: is nested too deeply") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path}: holds no object {{...}}")
    return value


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
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = np.load(file, allow_pickle=False)
            return (
                {"array": loaded}
                if isinstance(loaded, np.ndarray)
                else {name: loaded[name] for name in loaded.files}
            )
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or 'damaged'}") from error
    except (*_DAMAGE, zipfile.BadZipFile, tokenize.TokenError, zlib.error, UserWarning) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FormatError(f"{path}: is not a {path.suffix} file of plain numeric arrays: {reason}") from error
