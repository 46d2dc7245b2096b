"""A look through a run file in a process of its own, before this one opens it.

HDF5 may spin, crash or fill the memory on broken bytes: a child does so in this one's place, within limits of time and
memory. It also refuses whatever points out of the file, and what claims absurd sizes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np

from circuitlab.errors import RunFileError

_LOW: Any = h5py
"""HDF5's own functions, of which h5py has no types."""
FORMAT = "circuitlab-run"
FORMAT_VERSION = 2
STATUSES = ("running", "complete", "interrupted", "failed")
DAMAGE = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    UnicodeError,
    AttributeError,
    OverflowError,
    IndexError,
    MemoryError,
    AssertionError,
    struct.error,
)
"""What h5py raises on broken bytes."""

MOST_OBJECTS = 50_000
DEEPEST = 32
LARGEST_CHUNK = 64 * 1024 * 1024
LARGEST_ATTRIBUTE = 1024 * 1024
MOST_ATTRIBUTES = 256
LARGEST_TEXT = 32 * 1024 * 1024
SPARE = 64 * 1024 * 1024
"""Bytes that a dataset may claim beyond what is stored of it: rows that are on their way to the disk."""
_PACKED = 1100
"""How many times its stored size a compressed dataset has at most."""
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_FIRST_TEXTS = 1000
_SECONDS, _BYTES_PER_SECOND = 0.3, 1e9
"""CPU time for a step: so much, and more in a large file, whose chunks are many."""
_MEMORY = 160 * 1024 * 1024


def examine(path: Path) -> list[str]:
    """The paths of every dataset of a sound run file, sorted.

    Raises:
        RunFileError: one line: damaged, of another program, pointing outside itself, or of absurd size.
    """
    answer = _apart(path, lambda: _looked_through(path))
    if answer is None:
        raise RunFileError(f"{path}: is damaged: HDF5 cannot read it")
    return answer


def is_marked(path: Path) -> bool:
    """Whether an HDF5 file says that it is a run file; one that HDF5 cannot read says nothing, and may be one.

    Raises:
        RunFileError: HDF5 finds no end in it.
    """

    def look() -> bool:
        try:
            with h5py.File(path, "r", locking=False) as file:
                return file.attrs.get("format") == FORMAT
        except DAMAGE:
            return True

    return _apart(path, look) is not False


def _apart(path: Path, work: Callable[[], Any]) -> Any:
    """What work gives (as JSON) in a process of its own; None where that died."""
    try:
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child touches HDF5 alone
            child = os.fork()
    except OSError:
        return work()
    if child == 0:
        _in_child(path, work, reader, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        answer = json.loads(said)
        if isinstance(answer, str):
            raise RunFileError(answer)
        return answer
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
        raise RunFileError(f"{path}: is damaged: HDF5 finds no end in it")
    return None


def _in_child(path: Path, work: Callable[[], Any], reader: int, writer: int) -> NoReturn:
    code = 1
    try:
        os.close(reader)
        _limit(path)
        try:
            answer: Any = work()
        except RunFileError as error:
            answer = str(error)
        data = json.dumps(answer).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        while data:
            data = data[os.write(writer, data) :]
        code = 0
    except BaseException:  # noqa: BLE001 (whatever it is, the exit code tells of it)
        pass
    finally:
        os._exit(code)


def _limit(path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + _MEMORY
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))
    _breathe(path)


def _breathe(path: Path) -> None:
    """Gives the child time for its next step."""
    signal.setitimer(signal.ITIMER_PROF, _SECONDS + path.stat().st_size / _BYTES_PER_SECOND)


def _looked_through(path: Path) -> list[str]:
    try:
        # a file object of its own: HDF5 shares what it knows of a file that this process has open by its name
        with path.open("rb") as raw, h5py.File(raw, "r") as file:
            check_root(path, file)
            return _Look(path, file).datasets()
    except RunFileError:
        raise
    except (*DAMAGE, RecursionError) as error:
        raise RunFileError(f"{path}: is damaged: its contents cannot be listed") from error


def check_root(path: Path, file: h5py.File) -> None:
    """Refuses a file that is not marked as a run file, or of a newer form.

    Raises:
        RunFileError: one line.
    """
    for name in ("format", "format_version", "status"):
        if name in file.attrs and file.attrs.get_id(name).get_storage_size() > LARGEST_ATTRIBUTE:
            raise RunFileError(f"{path}: is damaged: attribute {name} is too large")
    kind, version, status = (file.attrs.get(name) for name in ("format", "format_version", "status"))
    if not isinstance(kind, str) or kind != FORMAT:
        raise RunFileError(f"{path}: is an HDF5 file of another program, not a run file (format '{FORMAT}')")
    if not isinstance(version, int | np.integer) or version < 1:
        raise RunFileError(f"{path}: is damaged: format version {_shown(version)}")
    if version > FORMAT_VERSION:
        raise RunFileError(
            f"{path}: has format version {version}, this circuitlab reads up to {FORMAT_VERSION}; "
            "install a newer circuitlab"
        )
    if not isinstance(status, str) or status not in STATUSES:
        raise RunFileError(f"{path}: is damaged: status {_shown(status)}")


def _shown(value: Any) -> str:
    """A value in one short line."""
    text = " ".join(ascii(value).split())
    return text if len(text) <= 60 else f"{text[:60]}..."


class _Look:
    """One walk through an open file."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path, self.file = path, file
        self.size = path.stat().st_size
        self.where = ""

    def refuse(self, why: str) -> NoReturn:
        where = f"{_shown(self.where)[1:-1]}: " if self.where else ""
        raise RunFileError(f"{self.path}: {where}{why}")

    def datasets(self) -> list[str]:
        """Paths of the datasets, after a look at everything."""
        self.attributes(self.file)
        found = []
        for name in self.names():
            _breathe_in_child(self.path)
            self.where = name
            with self.naming():
                item = _LOW.h5o.open(self.file.id, name.encode())
                if isinstance(item, h5py.h5g.GroupID):
                    self.attributes(h5py.Group(item))
                elif isinstance(item, h5py.h5d.DatasetID):
                    dataset = h5py.Dataset(item)
                    self.dataset(dataset)
                    self.attributes(dataset)
                    found.append(name)
                else:
                    self.refuse("is neither group nor dataset; a run file holds everything itself")
        self.where = ""
        for name in ("spec/circuit", "spec/experiment"):
            if name not in found:
                self.refuse(f"is damaged: /{name} is missing")
            if not _is_text(h5py.Dataset(_LOW.h5o.open(self.file.id, name.encode()))):
                self.refuse(f"is damaged: /{name} is no text")
        return sorted(found)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Lets what HDF5 raises say where it was."""
        try:
            yield
        except RunFileError:
            raise
        except (*DAMAGE, RecursionError) as error:
            self.refuse(f"is damaged and cannot be read ({type(error).__name__})")

    def names(self) -> list[str]:
        """Every object's path; links that are anything but an object's only name are refused."""
        names: list[str] = []
        seen = {_LOW.h5o.get_info(self.file.id).addr}
        problem: list[tuple[str, str]] = []

        def link(name: bytes, info: Any) -> bool | None:
            why = ""
            if info.type != _LOW.h5l.TYPE_HARD:
                why = "is a link to another place; a run file holds everything itself"
            elif info.u in seen:
                why = "is a second name of another object; a run file holds everything itself"
            elif name.count(b"/") >= DEEPEST:
                why = f"is damaged: groups lie more than {DEEPEST} deep"
            elif len(names) >= MOST_OBJECTS:
                why = f"is damaged: it holds more than {MOST_OBJECTS} groups and datasets"
            text = name.decode("utf-8", "surrogateescape")
            if not why and (not text.isprintable() or len(name) > 4096):
                why = "is damaged: a name that is no text"
            if why:
                problem.append((text if "more than" not in why else "", why))
                return True
            seen.add(info.u)
            names.append(text)
            return None

        self.file.id.links.visit(link, info=True)
        if problem:
            self.where, why = problem[0]
            self.refuse(why)
        return sorted(names)

    def attributes(self, item: h5py.Group | h5py.Dataset) -> None:
        """Reads every attribute: text and numbers of bearable size."""
        where = self.where
        count = h5py.h5a.get_num_attrs(item.id)
        if count > MOST_ATTRIBUTES:
            self.refuse(f"is damaged: it has {count} attributes; at most {MOST_ATTRIBUTES} are read")
        for index in range(count):
            attribute = h5py.h5a.open(item.id, index=index)
            name = attribute.name.decode("utf-8", "surrogateescape")
            self.where = f"{where}: attribute {name}" if where else f"attribute {name}"
            if not name.isprintable():
                self.refuse("is damaged: a name that is no text")
            if not _plain(attribute.dtype) or attribute.get_storage_size() > LARGEST_ATTRIBUTE:
                self.refuse("is damaged: neither text nor numbers, or too large")
            if (
                h5py.check_string_dtype(attribute.dtype) is None
                and np.prod(attribute.shape) > LARGEST_ATTRIBUTE
            ):
                self.refuse("is damaged: too large")
            value: Any = item.attrs[name]
            for text in [value] if isinstance(value, str) else np.ravel(np.asarray(value)).tolist():
                if isinstance(text, str):
                    self.text(text, LARGEST_ATTRIBUTE)
        self.where = where

    def text(self, text: str, longest: int) -> None:
        """Refuses text that is not UTF-8, or too long."""
        if len(text) > longest:
            self.refuse(f"is damaged: a text of {len(text)} characters")
        try:
            text.encode()
        except UnicodeEncodeError:
            self.refuse("is damaged: its text is not UTF-8")

    def dataset(self, item: h5py.Dataset) -> None:
        """Refuses data elsewhere, of a kind that run files do not have, or of absurd size."""
        properties = item.id.get_create_plist()
        if properties.get_external_count() or properties.get_layout() == h5py.h5d.VIRTUAL:
            self.refuse("keeps its data in another file; a run file holds everything itself")
        if not _plain(item.dtype):
            self.refuse("is damaged: it holds values of a kind that run files do not have")
        filters = {properties.get_filter(number)[0] for number in range(properties.get_nfilters())}
        if filters - _FILTERS:
            self.refuse("is damaged: it is packed in a way that run files are not")
        if item.shape is None:
            self.refuse("is damaged: it has no values")
        stored, claimed = item.id.get_storage_size(), 1
        for side in (*item.shape, item.dtype.itemsize):
            claimed *= side
        packed = h5py.h5z.FILTER_DEFLATE in filters
        if stored > self.size or claimed > stored * (_PACKED if packed else 1) + SPARE:
            self.refuse(f"is damaged: it claims {claimed:.3g} bytes in a file of {self.size}")
        if item.chunks is not None:
            self.chunks(item, stored)
        if _is_text(item):
            self.texts(item)

    def chunks(self, item: h5py.Dataset, stored: int) -> None:
        """Refuses chunks that are too large, or larger than what they hold."""
        whole = item.dtype.itemsize
        for side in item.chunks or ():
            whole *= side
        if whole > LARGEST_CHUNK:
            self.refuse(f"is damaged: its chunks have {whole:.3g} bytes")
        most = whole + whole // 64 + 1024
        if stored <= most:
            return
        count = 0

        def look(chunk: h5py.h5d.StoreInfo) -> bool | None:
            nonlocal count
            count += 1
            if count % 10_000 == 0:
                _breathe_in_child(self.path)
            return True if chunk.size > most else None

        if item.id.chunk_iter(look):
            self.refuse("is damaged: a chunk is larger than what it holds")

    def texts(self, item: h5py.Dataset) -> None:
        """Reads the texts of a dataset, of a long one the first."""
        if item.ndim == 0:
            values: list[Any] = [item.asstr()[()]]
        elif item.ndim == 1:
            values = np.asarray(item.asstr()[:_FIRST_TEXTS]).tolist()
        else:
            self.refuse("is damaged: texts in a table")
        for text in values:
            self.text(text, LARGEST_TEXT)


def _breathe_in_child(path: Path) -> None:
    if signal.getitimer(signal.ITIMER_PROF)[0] > 0:
        _breathe(path)


def _is_text(item: h5py.Dataset) -> bool:
    return h5py.check_string_dtype(item.dtype) is not None and item.dtype.kind == "O"


def _plain(kind: np.dtype) -> bool:
    """Numbers, text, or bytes."""
    if kind.kind == "O":
        return h5py.check_string_dtype(kind) is not None
    return kind.kind in "biufcS" and (kind.kind == "S" or kind.itemsize <= 32) and kind.subdtype is None
