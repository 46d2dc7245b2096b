"""Networks that other programs wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.oracles.sonata import GENERATED, example, odd_network, plain_network


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The plain generated network's folder."""
    return plain_network(tmp_path / "plain")


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """The odd generated network's folder."""
    return odd_network(tmp_path / "odd")


@pytest.fixture
def network(tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
    """What to import of a network, generated or published, and the folder of its files."""

    def find(name: str) -> tuple[Path, Path]:
        if name in GENERATED:
            folder = GENERATED[name](tmp_path / name)
            return folder, folder
        folder = example(name)
        assert folder is not None
        config = folder / "circuit_config.json"
        return (config if config.is_file() else folder), folder / "network"

    return find
