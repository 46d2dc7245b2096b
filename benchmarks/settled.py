"""Compares what keeps strong control (alpha 0.1) settled while a recurrent circuit learns, and prints one table.

    python benchmarks/settled.py [--short] [--seeds 0 1 2] [--only WORD ...] [--alpha 0.1] [--threads 1]

MNIST, 300 updates of 64 samples, on topologies/mnist_recurrent.yaml; with --short digits, 15 epochs (315 updates) on
topologies/recurrent.yaml. Beside each row of least control stands recurrent backprop under the same bound, penalty,
optimizer and scheduler. Run files go to runs/settled/. On one core a row takes about two minutes a seed (MNIST) or one
(--short).
"""

from __future__ import annotations

import argparse

from trainings import accuracy, heading, line, run, spread, unconverged

BOUND = "learn.constrain.largest_singular_value"
EIGENVALUE = "learn.constrain.largest_symmetric_eigenvalue"
FREE = ("learn.presynaptic=free",)
ERROR = (*FREE, "learn.weighting=error")
COSINE = "learn.scheduler=cosine"
DECAY = "learn.optimizer={name: adamw, lr: 1e-3, weight_decay: 1}"

ROWS: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    ("no bound", (f"{BOUND}=none",), ()),
    ("singular value 1", (f"{BOUND}=1",), ()),
    ("singular value 0.9", (f"{BOUND}=0.9",), ()),
    ("singular value 0.7", (f"{BOUND}=0.7",), ()),
    ("singular value 0.5 (default)", (f"{BOUND}=0.5",), ()),
    ("singular value 0.3", (f"{BOUND}=0.3",), ()),
    ("symmetric eigenvalue 0.9", (f"{EIGENVALUE}=0.9",), ()),
    ("symmetric eigenvalue 0.7", (f"{EIGENVALUE}=0.7",), ()),
    ("symmetric eigenvalue 0.5", (f"{EIGENVALUE}=0.5",), ()),
    ("no bound, jacobian penalty 1e-3", (f"{BOUND}=none", "learn.penalty.jacobian=1e-3"), ()),
    ("no bound, jacobian penalty 1e-2", (f"{BOUND}=none", "learn.penalty.jacobian=1e-2"), ()),
    ("no bound, weight decay", (f"{BOUND}=none", DECAY), ()),
    ("default, cosine", (COSINE,), ()),
    ("default, alpha 6.4 to ALPHA", (), ("control.controller.alpha={from: 6.4, to: ALPHA}",)),
    ("default, presynaptic free", (), FREE),
    ("default, presynaptic free, weighting error", (), ERROR),
    ("default, presynaptic free, weighting error, cosine", (COSINE,), ERROR),
    ("singular value 1, presynaptic free", (f"{BOUND}=1",), FREE),
    ("singular value 1, presynaptic free, weighting error, cosine", (f"{BOUND}=1", COSINE), ERROR),
    (
        "symmetric eigenvalue 0.9, presynaptic free, weighting error, cosine",
        (f"{EIGENVALUE}=0.9", COSINE),
        ERROR,
    ),
    ("default, energy checked", (), ("solve.check_energy={every: 10 steps, samples: 4}",)),
    ("default, start from zero", (), ("solve.start=zero",)),
]
"""Name, what holds for both rules, and what is of least control alone."""


def train(short: bool, rule: str, seed: int, options: tuple[str, ...], threads: int) -> dict:
    """One training run's summary."""
    experiment = "recurrent_digits" if short else "mnist_recurrent"
    length = ("learn.epochs=15",) if short else ("learn.epochs=1", f"data.limit={300 * 64}")
    common = (f"learn.rule={rule}", "learn.clip=10", "record={}", *length)
    fresh = ("learn.constrain={}", "learn.scheduler=constant", "learn.optimizer={name: adam, lr: 1e-3}")
    return run("settled", f"{experiment}-{rule}", experiment, seed, (*common, *fresh, *options), threads)


def cells(found: list[dict]) -> list[str]:
    """Test accuracy, share of unconverged samples, and products per sample in the last epoch, over seeds."""
    products = spread([one["last"]["products"] for one in found], 1)
    return [accuracy(found), f"{unconverged(found):.3f}", products]


def main() -> None:
    """Run everything and print a markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="digits in place of MNIST")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name has one of these in it")
    parser.add_argument("--alpha", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    names = ("accuracy, %", "unconverged, %", "products")
    heads = [f"{rule}: {name}" for rule in ("least control", "recurrent backprop") for name in names]
    heading([f"alpha {given.alpha:g}", *heads, "energies lowered of checked"])
    for name, both, own in ROWS:
        if not any(word in name for word in given.only):
            continue
        mine = (f"control.controller.alpha={given.alpha}", *both, *own)
        mine = tuple(option.replace("ALPHA", str(given.alpha)) for option in mine)
        ours = [train(given.short, "least_control", seed, mine, given.threads) for seed in given.seeds]
        theirs = [train(given.short, "recurrent_backprop", seed, both, given.threads) for seed in given.seeds]
        last = [one["last"] for one in ours]
        lowered = ""
        if "energy_checked" in last[0]:
            counts = [sum(one[f"energy_{key}"] for one in last) for key in ("lowered", "checked")]
            lowered = f"{counts[0]:.0f} of {counts[1]:.0f} (last epoch)"
        row = [name.replace("ALPHA", f"{given.alpha:g}"), *cells(ours), *cells(theirs), lowered]
        line(row)


if __name__ == "__main__":
    main()
