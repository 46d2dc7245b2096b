"""The documentation is true: its commands and programs run, its YAML is valid, it names every key.

A page's blocks run in order in a folder of the page's own, beside copies of topologies/ and experiments/. On
the line before a block an HTML comment may say `<!-- not run: reason -->`, or `<!-- file: NAME -->` to keep a
block as a file for those after it. A YAML block with a part of a file is put into the page's last whole
circuit or experiment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from circuitlab.graph.build import build
from circuitlab.spec.circuit import CircuitSpec, load_circuit
from circuitlab.spec.experiment import ExperimentSpec, load_experiment
from circuitlab.spec.kinds import kind_of_data
from circuitlab.spec.manipulations import KINDS
from circuitlab.spec.projections import ConnectSpec
from circuitlab.spec.rules import INITS, RULES

TOP = Path(__file__).resolve().parents[1]
PAGES = [page for page in [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))] if page.exists()]
FENCE = re.compile(
    r"(?:<!-- *(?P<note>.*?) *-->\n)?^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.M | re.S
)
LONGEST_SECONDS = 300


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, its first line's number, and what the comment before it says."""

    line: int
    language: str
    text: str
    file: str | None
    not_run: str | None


def _blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        kind, _, rest = (match["note"] or "").partition(":")
        line = text.count("\n", 0, match.start("text")) + 1
        file, reason = (rest.strip() if kind == word else None for word in ("file", "not run"))
        found.append(Block(line, match["language"], match["text"], file, reason))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A page's own folder, with what pages name and this interpreter's `circuitlab` on the PATH."""
    for name in ("topologies", "experiments"):
        if (TOP / name).is_dir():
            shutil.copytree(TOP / name, tmp_path / name)
    if (TOP / "data").is_dir():
        (tmp_path / "data").symlink_to(TOP / "data")
    (tmp_path / ".bin").mkdir()
    programs = {
        "circuitlab": f'exec "{sys.executable}" -c "from circuitlab.cli.main import entry; entry()" "$@"\n',
        "torchrun": f'exec "{sys.executable}" -m torch.distributed.run "$@"\n',
        "python": f'exec "{sys.executable}" "$@"\n',
    }
    for name, text in programs.items():
        program = tmp_path / ".bin" / name
        program.write_text("#!/bin/sh\n" + text, encoding="utf-8")
        program.chmod(0o755)
    return tmp_path


def _run(command: list[str], folder: Path, where: str) -> None:
    path = os.pathsep.join([str(folder / ".bin"), os.environ["PATH"]])
    python_path = os.pathsep.join([str(TOP), os.environ.get("PYTHONPATH", "")])
    environment = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": python_path,
        "MPLBACKEND": "agg",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{where}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


class _Yaml:
    """Checks a page's YAML blocks, parts of files in the page's last whole file of the kind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.whole: dict[str, Any] = {}

    def check(self, block: Block, where: str) -> None:
        """Load, and build, what a block describes."""
        yaml = YAML(typ="safe", pure=True)
        data = yaml.load(block.text)
        kind = kind_of_data(data)
        assert kind in ("circuit", "experiment"), f"{where}: neither a circuit nor an experiment, nor a part"
        path = self.folder / (block.file or f"line{block.line}.yaml")
        if kind in data and (kind == "experiment" or "populations" in data):
            self.whole[kind] = data
            path.write_text(block.text, encoding="utf-8")
        else:
            assert kind in self.whole, f"{where}: a part of a file, but no whole {kind} stands before it"
            base = dict(self.whole[kind])
            for key, part in data.items():
                base[key] = {**base[key], **part} if isinstance(base.get(key), dict) else part
            yaml.dump(base, path)
        build(load_circuit(path) if kind == "circuit" else load_experiment(path).circuit)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_everything_a_page_shows_works(page: Path, folder: Path) -> None:
    yaml = _Yaml(folder)
    for block in _blocks(page):
        where = f"{page.relative_to(TOP)}:{block.line}"
        if block.not_run is not None:
            assert block.not_run, f"{where}: say why it is not run"
            continue
        if block.language == "yaml":
            yaml.check(block, where)
        if block.file is not None:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "bash":
            _run(["bash", "-euo", "pipefail", "-c", block.text], folder, where)
        elif block.language == "python":
            _run([sys.executable, "-W", "error", "-c", block.text], folder, where)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_most_blocks_are_run(page: Path) -> None:
    programs = [block for block in _blocks(page) if block.language in ("bash", "python")]
    left_out = [block for block in programs if block.not_run is not None]
    assert len(left_out) <= max(2, len(programs) // 3), [
        f"{block.line}: {block.not_run}" for block in left_out
    ]


@pytest.mark.parametrize("page", [*PAGES, TOP / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        target, _, _ = link.partition("#")
        if target and not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name}: {link}"


def _keys(schema: Any) -> Iterator[str]:
    """Every key that a JSON Schema knows, at any depth."""
    if isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            yield from properties
        for part in schema.values():
            yield from _keys(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _keys(part)


@pytest.mark.parametrize(
    ("page", "model"),
    [("circuit-file.md", CircuitSpec), ("experiment-file.md", ExperimentSpec)],
    ids=lambda v: str(v),
)
def test_the_reference_names_every_key_and_no_other(
    page: str, model: type[CircuitSpec] | type[ExperimentSpec]
) -> None:
    text = (TOP / "docs" / page).read_text(encoding="utf-8")
    named = set(re.findall(r"[\w]+", " ".join(re.findall(r"`([^`\n]+)`", text))))
    keys = set(_keys(model.model_json_schema(by_alias=True)))
    if model is CircuitSpec:
        keys -= {"parameters"} & set(ConnectSpec.model_fields)
        keys |= {*RULES, *INITS, *(key for rule in RULES.values() for key in rule.model_fields)}
    else:
        keys |= {key for kind in KINDS.values() for key in kind.model_fields}
    assert not keys - named, f"docs/{page} does not name {sorted(keys - named)}"
    first_columns = set(re.findall(r"^\| `(\w+)` \|", text, re.M))
    types = {"input", "unit", "pyramidal", "interneuron", "output"}
    assert not first_columns - keys - types, (
        f"docs/{page} has keys of its own: {sorted(first_columns - keys - types)}"
    )
