"""Puts results of `circuitlab bench ... --json FILE` into their places in docs/benchmarks.md.

python benchmarks/page.py cost.json kernels.json scale.json train.json [--page docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from circuitlab.bench.results import read, renewed, write  # noqa: E402


def main() -> None:
    """Renew the page, one part for each file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="RESULT.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    given = parser.parse_args()
    page = given.page.read_text(encoding="utf-8")
    for file in given.files:
        page = renewed(page, read(file))
    write(given.page, page)


if __name__ == "__main__":
    main()
