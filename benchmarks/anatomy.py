"""Trains the circuits from anatomy on three seeds, by least control as their experiments say and by recurrent backprop,
and prints the table of docs/topologies.md.

    python benchmarks/anatomy.py [--seeds 0 1 2] [--only NAME ...] [--rules RULE ...] [--threads 1]

The worm's outputs are its motor neurons; there a sample counts as right when its motor pattern lies nearest to that of
the behaviour asked for. Run files go to runs/anatomy/.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from trainings import ROOT, heading, line, run, spread, unconverged

sys.path.insert(0, str(ROOT))

EXPERIMENTS = (
    "cortical_column_digits",
    "cortical_column_clamped",
    "celegans",
    "celegans_null",
    "mushroom_body",
    "small_world_digits",
    "ei_balanced_digits",
    "potjans_diesmann_digits",
)
RULES = ("least_control", "recurrent_backprop")
PLAIN = ("control=dynamic_inversion", "learn.presynaptic=controlled", "learn.weighting=equal")
"""What turns an experiment into one by recurrent backprop, with its own bound on the weights."""


def main() -> None:
    """Run everything and print a markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=EXPERIMENTS, choices=EXPERIMENTS)
    parser.add_argument("--rules", nargs="+", default=RULES, choices=RULES)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    numbers = ("right in the test, %", "test loss", "unconverged, %", "seconds")
    heading(("experiment", "rule", "epochs", *numbers))
    for name in given.only:
        for rule in given.rules:
            if rule == "recurrent_backprop" and name == "cortical_column_clamped":
                continue  # its credit does not come by apical dendrites
            options = () if rule == "least_control" else (f"learn.rule={rule}", *PLAIN)
            found = [
                run("anatomy", f"{name}-{rule}", name, seed, options, given.threads) for seed in given.seeds
            ]
            right = [
                100
                * (
                    one["last"]["test_accuracy"]
                    if "test_accuracy" in one["last"]
                    else nearest(name, seed, rule)
                )
                for one, seed in zip(found, given.seeds, strict=True)
            ]
            line(
                (
                    name,
                    rule.replace("_", " "),
                    found[0]["epochs"],
                    spread(right, 2),
                    spread([one["last"]["test_loss"] for one in found], 3),
                    f"{unconverged(found):.3f}",
                    spread([one["seconds"] for one in found], 0),
                )
            )


def nearest(name: str, seed: int, rule: str) -> float:
    """Share of test samples whose free outputs are nearest to their own target among all targets."""
    from circuitlab.experiment.diagnose import load_weights
    from circuitlab.experiment.training import prepare
    from circuitlab.spec.experiment import load_experiment

    prepared = prepare(load_experiment(ROOT / "experiments" / f"{name}.yaml", [f"seed={seed}"]))
    path = ROOT / "runs" / "anatomy" / f"{name}-{rule}-{seed}.h5"
    load_weights(prepared.assembled, prepared.trainer.task.pathway, path, None)
    task, split = prepared.trainer.testing, prepared.splits["test"]
    batch = split.batch(np.arange(len(split)))
    y = task.outputs(task.free(task.system.drive(batch.x)).fields.phi).t().numpy()
    wanted = batch.target.t().numpy()
    patterns, own = np.unique(wanted, axis=0, return_inverse=True)
    distance = ((y[:, None] - patterns[None]) ** 2).sum(-1)
    return float((distance.argmin(1) == own.reshape(-1)).mean())


if __name__ == "__main__":
    main()
