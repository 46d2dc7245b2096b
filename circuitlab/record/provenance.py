"""What a run file says about how it came to be."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def git_commit(folder: Path) -> str:
    """The commit checked out in a folder, empty where there is no repository or no git."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def provenance(folder: Path | None = None) -> dict[str, str]:
    """Command, time, versions and platform, as the root attributes of a run file.

    Args:
        folder: where the experiment file lies, for its git commit.
    """
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "circuitlab_version": _version("circuitlab"),
        "torch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "python_version": platform.python_version(),
        "platform": platform.platform(),
        "git_commit": git_commit(folder) if folder is not None else "",
    }
