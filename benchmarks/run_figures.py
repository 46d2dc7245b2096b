"""Makes the pictures of docs/figures.md by running the page's own commands.

Use: python benchmarks/run_figures.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pictures import fit

ROOT = Path(__file__).resolve().parents[1]
PAGE, FOLDER = ROOT / "docs" / "figures.md", ROOT / "docs" / "images" / "figures"
BLOCK = re.compile(r"(?:<!-- file: (\S+) -->\n)?^```(\w+)\n(.*?)^```$", re.M | re.S)
PROGRAM = f'exec "{sys.executable}" -c "from circuitlab.cli.main import entry; entry()" "$@"\n'


def main() -> None:
    """Run the page's blocks in a folder of its own, and keep the pictures that it shows."""
    text = PAGE.read_text(encoding="utf-8")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for given in ("topologies", "experiments"):
            shutil.copytree(ROOT / given, folder / given)
        program = folder / "bin" / "circuitlab"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n" + PROGRAM, encoding="utf-8")
        program.chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        for file, language, block in BLOCK.findall(text):
            if file:
                (folder / file).write_text(block, encoding="utf-8")
            elif language == "bash":
                subprocess.run(["bash", "-ec", block], cwd=folder, env=environment, check=True)
        for picture in re.findall(r"images/figures/(\w+\.png)", text):
            fit(folder / picture)
            shutil.copyfile(folder / picture, FOLDER / picture)
            print((FOLDER / picture).relative_to(ROOT), (FOLDER / picture).stat().st_size)


if __name__ == "__main__":
    main()
