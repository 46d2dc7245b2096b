"""Puts results of `circuitlab bench ... --json FILE` into their places in docs/benchmarks.md, tables and pictures.

    python benchmarks/page.py cost.json kernels.json scale.json train.json [--page docs/benchmarks.md]

Pictures go to images/bench_NAME.png beside the page.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from circuitlab.bench.plots import draw  # noqa: E402
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
    images = given.page.parent / "images"
    images.mkdir(exist_ok=True)
    for file in given.files:
        results = read(file)
        page = renewed(page, results)
        draw(results, images / f"bench_{results.benchmark}.png")
    write(given.page, page)


if __name__ == "__main__":
    main()
