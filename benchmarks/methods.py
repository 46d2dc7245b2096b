"""Trains the MNIST circuits by every pathway and rule, and prints the table of docs/methods.md.

    python benchmarks/methods.py [--epochs 2] [--seeds 0 1 2] [--only WORD ...]
                                 [--circuits feedforward recurrent pyramidal] [--threads 1]

Each row is an experiment file, mnist_feedforward_NAME.yaml or mnist_recurrent_NAME.yaml, run as it is but for its
number of epochs. Backprop (recurrent backprop under the row's own bound on the weights) is trained in the same run, on
the same seeds; `behind` is how much lower the row's test accuracy is, in points. Run files go to runs/methods/, and
`circuitlab diagnose EXPERIMENT --weights RUN.h5` says more of any of them. `--epochs 30` is the papers' length.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass

from ruamel.yaml import YAML
from trainings import ROOT, accuracy, heading, line, run, spread, unconverged


@dataclass(frozen=True)
class Row:
    """A pathway and rule.

    Args:
        title: as the table names it.
        experiment: the part of the files' names after `mnist_CIRCUIT_`; empty for none.
        equations: in the least-control paper, or `DFC` in deep feedback control's.
        test: the file whose tests hold it to its theorem.
        circuits: on which it runs.
    """

    title: str
    experiment: str
    equations: str
    test: str
    circuits: tuple[str, ...] = ("feedforward", "recurrent")

    def file(self, circuit: str) -> str:
        """The experiment on one of the circuits, without its ending."""
        return f"mnist_{circuit}_{self.experiment}".removesuffix("_")


ROWS = (
    Row("least control, dynamic inversion, tied", "", "14, 116, 140", "learn/test_theorems.py"),
    Row("the same, Kolen-Pollack", "kolen_pollack", "150", "learn/test_kolen_pollack.py"),
    Row("the same, random feedback", "random_feedback", "140", "control/test_dynamic_inversion.py"),
    Row("least control, energy-based", "energy_based", "10, 15, 143", "control/test_energy_based.py"),
    Row(
        "least control, lateral inhibition",
        "lateral_inhibition",
        "S6.4.1",
        "control/test_lateral_inhibition.py",
    ),
    Row(
        "least control, linear feedback learned",
        "linear_feedback",
        "121-123, 135-139",
        "learn/test_feedback_theorems.py",
    ),
    Row("DFC", "dfc", "DFC 1-5, 12, 13", "learn/test_deep_feedback_control.py"),
    Row("DFC-SS", "dfc_ss", "DFC 9", "learn/test_deep_feedback_control.py"),
    Row("DFC-SSA", "dfc_ssa", "DFC 6", "learn/test_deep_feedback_control.py"),
    Row("DFC-SS, fixed feedback", "dfc_fixed", "DFC 9", "learn/test_deep_feedback_control.py"),
    Row(
        "least control, multiplexed codes",
        "multiplexed",
        "150, S6.4.1",
        "learn/test_kolen_pollack.py",
        ("pyramidal",),
    ),
    Row("predictive coding, weakly nudged", "predictive_coding", "97-101", "learn/test_nudged.py"),
    Row("equilibrium propagation", "equilibrium_propagation", "S4", "learn/test_nudged.py"),
    Row("feedback alignment", "feedback_alignment", "89 with S", "learn/test_feedback_alignment.py"),
    Row("direct feedback alignment", "direct_feedback_alignment", "-", "learn/test_feedback_alignment.py"),
)


def constraint(experiment: str) -> tuple[str, ...]:
    """The bounds on the weights that an experiment keeps, as options."""
    text = (ROOT / "experiments" / f"{experiment}.yaml").read_text(encoding="utf-8")
    bounds = YAML(typ="safe").load(text)["learn"].get("constrain", {})
    return tuple(f"learn.constrain.{key}={value}" for key, value in bounds.items())


def main() -> None:
    """Run everything and print a markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose title has one of these in it")
    parser.add_argument("--circuits", nargs="+", default=["feedforward", "recurrent", "pyramidal"])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    numbers = ("test accuracy, %", "backprop, %", "behind", "unconverged, %", "seconds", "seeds")
    heading(("circuit", "pathway and rule", "equations", "file", "test", *numbers))
    for circuit in given.circuits:
        for row in ROWS:
            if circuit in row.circuits and any(word in row.title for word in given.only):
                _row(row, circuit, given)


def _row(row: Row, circuit: str, given: argparse.Namespace) -> None:
    file, length = row.file(circuit), f"learn.epochs={given.epochs}"
    rule = "backprop" if circuit == "feedforward" else "recurrent_backprop"
    plain = file if circuit == "pyramidal" else f"mnist_{circuit}"
    plainly = ("control=dynamic_inversion", "learn.feedback=null")
    options = (length, f"learn.rule={rule}", *plainly, *constraint(file))
    theirs = [run("methods", f"{plain}-{rule}", plain, seed, options, given.threads) for seed in given.seeds]
    ours = [run("methods", file, file, seed, (length,), given.threads) for seed in given.seeds]
    behind = [
        100 * (other["last"]["test_accuracy"] - mine["last"]["test_accuracy"])
        for mine, other in zip(ours, theirs, strict=True)
    ]
    seconds = statistics.mean(one["seconds"] for one in ours)
    cells = (
        accuracy(ours),
        accuracy(theirs),
        spread(behind, 2),
        f"{unconverged(ours):.3f}",
        f"{seconds:.0f}",
        ", ".join(map(str, given.seeds)),
    )
    line((circuit, row.title, row.equations, f"{file}.yaml", f"tests/{row.test}", *cells))


if __name__ == "__main__":
    main()
