"""`circuitlab schema`: the JSON Schema by which editors complete and check a file."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from circuitlab.cli.common import print_json
from circuitlab.errors import CircuitlabError


class Kind(StrEnum):
    """The kinds of file a user writes."""

    circuit = "circuit"
    experiment = "experiment"
    hypothesis = "hypothesis"


def schema(kind: Annotated[Kind, typer.Argument(help="Which kind of file.")]) -> None:
    """Print the JSON Schema of circuit or experiment files, for editors that complete and check YAML.

    Keep it beside your files, named in their first line: # yaml-language-server: $schema=circuit.schema.json
    """
    from circuitlab.spec.schema import json_schema

    if kind is Kind.hypothesis:
        raise CircuitlabError(
            "schema hypothesis: hypothesis files are not built yet; there are circuit, experiment"
        )
    print_json(json_schema(kind.value))
