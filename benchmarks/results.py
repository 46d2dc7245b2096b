"""Trains the digits experiments and the two of MNIST on three seeds, by least control and by recurrent backprop, and
prints the table of docs/results.md.

    python benchmarks/results.py [--seeds 0 1 2] [--only NAME ...] [--mnist-epochs 1] [--threads 1]

Run files go to runs/results/. On two cores the digits take about ten minutes, one epoch of MNIST about as long.
"""

from __future__ import annotations

import argparse

from trainings import accuracy, heading, line, run, spread, unconverged

EXPERIMENTS = (
    "cortical_digits",
    "feedforward_digits",
    "lateral_digits",
    "recurrent_digits",
    "mnist_feedforward",
    "mnist_recurrent",
)
"""Those whose table this is; benchmarks/methods.py has the table of pathways and rules."""


def main() -> None:
    """Run everything and print a markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=EXPERIMENTS, choices=EXPERIMENTS)
    parser.add_argument("--mnist-epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    numbers = ("test accuracy, %", "control cost", "unconverged, %", "products", "seconds")
    heading(("experiment", "rule", "epochs", *numbers))
    for name in given.only:
        length = (f"learn.epochs={given.mnist_epochs}",) if name.startswith("mnist") else ()
        for rule in ("least_control", "recurrent_backprop"):
            options = (f"learn.rule={rule}", *length)
            found = [
                run("results", f"{name}-{rule}", name, seed, options, given.threads) for seed in given.seeds
            ]
            line(
                (
                    name,
                    rule.replace("_", " "),
                    found[0]["epochs"],
                    accuracy(found),
                    spread([f["last"]["control_cost"] for f in found], 4),
                    f"{unconverged(found):.4f}",
                    spread([f["last"]["products"] for f in found], 1),
                    spread([f["seconds"] for f in found], 0),
                )
            )


if __name__ == "__main__":
    main()
