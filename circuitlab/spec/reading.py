"""From a file to the nodes of its YAML: present, readable, UTF-8, of bearable size, one document."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError, MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.reader import ReaderError

from circuitlab.errors import Problem, SpecError

MAX_BYTES = 10_000_000
MAX_NODES = 100_000
MAX_DEPTH = 64
TAG = "tag:yaml.org,2002:"
NOT_TEXT = (
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip or npz archive"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x89PNG", "a PNG picture"),
    (b"%PDF", "a PDF document"),
)


@dataclass(frozen=True)
class Alias:
    """A node that stands for an anchored one, and where it stands."""

    node: Any
    start_mark: Any


class BoundedComposer(Composer):
    """ruamel's composer with a bound on the number of nodes, and aliases that know where they stand."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self.warn_double_anchors = False
        self.nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.nodes += 1
        mark = self.parser.peek_event().start_mark
        if self.nodes > MAX_NODES:
            raise ComposerError(None, None, f"more than {MAX_NODES} values in one file", mark)
        alias = self.parser.check_event(AliasEvent)
        node = super().compose_node(parent, index)
        return Alias(node, mark) if alias else node


def read_bytes(path: Path, name: str) -> bytes:
    """The file's content, or one clear line why there is none."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SpecError([Problem(name, "", f"no such file{_neighbour(path)}")]) from None
    except IsADirectoryError:
        raise SpecError([Problem(name, "", "a folder; a YAML file is wanted")]) from None
    except PermissionError:
        raise SpecError([Problem(name, "", "permission to read this file is missing")]) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SpecError([Problem(name, "", f"cannot be read ({str(reason).lower()})")]) from None
    if len(raw) > MAX_BYTES:
        raise SpecError(
            [
                Problem(
                    name,
                    "",
                    f"larger than {MAX_BYTES // 1_000_000} MB; put names, positions, edges and"
                    " weights into files of their own",
                )
            ]
        )
    return raw


def _neighbour(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f". Did you mean '{near[0]}'?" if near else ""


def decode(raw: bytes, name: str) -> str:
    """The text of a UTF-8 file; anything else is named for what it is."""
    for start, what in NOT_TEXT:
        if raw.startswith(start):
            raise SpecError([Problem(name, "", f"{what}; a YAML file is wanted")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        byte = raw[error.start]
        raise SpecError(
            [Problem(f"{name}:{line}", "", f"not UTF-8 text (byte 0x{byte:02x}); save the file as UTF-8")]
        ) from None
    if "\0" in text:
        raise SpecError([Problem(name, "", "a binary file; a YAML file is wanted")])
    return text


def compose(text: str, name: str) -> Any:
    """The node graph of the only document, or None for an empty text."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = BoundedComposer
    yaml.max_depth = MAX_DEPTH
    try:
        return yaml.compose(text)
    except MaxDepthExceededError as error:
        message, mark = f"nested more than {MAX_DEPTH} deep", error.problem_mark
    except MarkedYAMLError as error:
        message, mark = _plain(error), error.problem_mark or error.context_mark
    except ReaderError as error:
        line = text[: error.position].count("\n") + 1
        column = error.position - text.rfind("\n", 0, error.position)
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise SpecError(
            [
                Problem(
                    f"{name}:{line}:{column}",
                    "",
                    f"a control character (U+{code:04X}) that YAML does not allow",
                )
            ]
        ) from None
    except (YAMLError, ValueError, OverflowError, AssertionError, IndexError, NotImplementedError) as error:
        raise SpecError([Problem(name, "", f"not valid YAML: {' '.join(str(error).split())}")]) from None
    where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else name
    raise SpecError([Problem(where, "", message)]) from None


def _plain(error: MarkedYAMLError) -> str:
    problem = " ".join(str(error.problem or error.context).split())
    if "'\\t'" in problem:
        return "not valid YAML: a tab; indent with spaces"
    if problem == "but found another document":
        return "a second document; one document per file is allowed, without '---' between"
    if problem.startswith(("more than", "found undefined alias")):
        return problem
    context = f"{' '.join(str(error.context).split())}, " if error.context and error.problem else ""
    return f"not valid YAML: {context}{problem}; check the indentation, colons and brackets here"
