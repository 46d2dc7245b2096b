"""A first pass over a GraphML file: what networkx would misread in silence is refused with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn
from xml.parsers import expat

from circuitlab.errors import FormatError
from circuitlab.graph.memory import available_memory, gigabytes

BYTES_PER_BYTE = 20
"""Memory that a byte of GraphML takes as a graph, about."""
UNSUPPORTED = {"hyperedge": "edges that join more than two nodes", "port": "ports of nodes"}


class Scan:
    """Looks at the elements of a GraphML file, one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parser = expat.ParserCreate()
        self.parser.StartDoctypeDeclHandler = self._refuse_doctype
        self.parser.EntityDeclHandler = self._refuse_doctype
        self.parser.StartElementHandler = self._element
        self.graphs = 0
        self.nodes: dict[str, int] = {}
        self.edges: list[tuple[str, str, int]] = []

    def run(self) -> None:
        """Scan the file.

        Raises:
            FormatError: missing, too large, no XML, with a DOCTYPE, or not one plain graph.
        """
        try:
            size = self.path.stat().st_size
            if BYTES_PER_BYTE * size > available_memory():
                raise FormatError(
                    f"{self.path}: has {gigabytes(size)}, and reading takes {BYTES_PER_BYTE} times that; "
                    f"{gigabytes(available_memory())} are available"
                )
            with self.path.open("rb") as file:
                self.parser.ParseFile(file)
        except OSError as error:
            raise FormatError(f"{self.path}: cannot be read: {error.strerror}") from error
        except expat.ExpatError as error:
            reason = expat.ErrorString(error.code)
            raise FormatError(f"{self.path}:{error.lineno}: is not XML: {reason}") from error
        if not self.graphs:
            raise FormatError(f"{self.path}: is not a GraphML file: it has no graph")
        for source, target, line in self.edges:
            for end in (source, target):
                if end not in self.nodes:
                    raise FormatError(
                        f"{self.path}:{line}: the edge {source!r} - {target!r}: no node has the id {end!r}"
                    )

    def _refuse(self, what: str) -> NoReturn:
        raise FormatError(f"{self.path}:{self.parser.CurrentLineNumber}: {what}")

    def _refuse_doctype(self, *_: Any) -> None:
        raise FormatError(
            f"{self.path}: has a DOCTYPE or ENTITY, which GraphML files do not need and which are not read"
        )

    def _element(self, name: str, attributes: dict[str, str]) -> None:
        tag = name.rpartition(":")[2]
        if tag == "graph":
            self.graphs += 1
            if self.graphs > 1:
                self._refuse("a second graph, or one inside another; one graph a file is read")
        elif tag == "node":
            node = attributes.get("id")
            if node is None:
                self._refuse("a node has no id")
            if node in self.nodes:
                self._refuse(f"the node {node!r} stands twice, first in line {self.nodes[node]}; ids differ")
            self.nodes[node] = self.parser.CurrentLineNumber
        elif tag == "edge":
            if not {"source", "target"} <= attributes.keys():
                self._refuse("an edge has no source or no target")
            self.edges.append((attributes["source"], attributes["target"], self.parser.CurrentLineNumber))
        elif tag in UNSUPPORTED:
            self._refuse(f"<{tag}>: {UNSUPPORTED[tag]} are not supported; allowed: edges between two nodes")
