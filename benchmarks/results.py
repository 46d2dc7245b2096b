"""Trains every shipped experiment on three seeds, by least control and by recurrent backprop, and prints the table of
docs/results.md.

    python benchmarks/results.py [--seeds 0 1 2] [--only NAME ...] [--mnist-epochs 1] [--threads 1]

Run files go to runs/results/. On two cores the digits take about ten minutes, one epoch of MNIST about as long.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(experiment: str, rule: str, seed: int, epochs: int | None, threads: int) -> dict:
    """One training run's summary, as `circuitlab run --json` prints it."""
    out = ROOT / "runs" / "results" / f"{experiment}-{rule}-{seed}.h5"
    options = [f"seed={seed}", f"threads={threads}", f"learn.rule={rule}"]
    if epochs is not None:
        options.append(f"learn.epochs={epochs}")
    sets = [word for option in options for word in ("--set", option)]
    code = "import sys; from circuitlab.cli.main import main; sys.exit(main(sys.argv[1:]))"
    file = str(ROOT / "experiments" / f"{experiment}.yaml")
    command = [sys.executable, "-c", code, "run", file, "-o", str(out), "--overwrite", "--json", *sets]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation over seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def main() -> None:
    """Run everything and print a markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--only", nargs="+", default=sorted(p.stem for p in (ROOT / "experiments").glob("*.yaml"))
    )
    parser.add_argument("--mnist-epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    numbers = ("test accuracy, %", "control cost", "unconverged, %", "products", "seconds")
    heads = ("experiment", "rule", "epochs", *numbers)
    print("| " + " | ".join(heads) + " |")
    print("|---" * len(heads) + "|", flush=True)
    for name in given.only:
        epochs = given.mnist_epochs if name.startswith("mnist") else None
        for rule in ("least_control", "recurrent_backprop"):
            found = [run(name, rule, seed, epochs, given.threads) for seed in given.seeds]
            accuracy = spread([100 * f["last"]["test_accuracy"] for f in found], 2)
            cost = spread([f["last"]["control_cost"] for f in found], 4)
            missing = 100 * sum(f["unconverged_samples"] for f in found) / sum(f["samples"] for f in found)
            seconds = spread([f["seconds"] for f in found], 0)
            row = (
                name,
                rule.replace("_", " "),
                found[0]["epochs"],
                accuracy,
                cost,
                f"{missing:.4f}",
                spread([f["last"]["products"] for f in found], 1),
                seconds,
            )
            print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


if __name__ == "__main__":
    main()
