"""LCP figure 2, loss and control by width of a recurrent layer, and table S1, accuracy by leak of the controller."""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from circuitlab.experiment.training import prepare
from circuitlab.learn.evaluate import evaluate
from circuitlab.learn.train import Trainer
from circuitlab.spec.circuit import load_circuit
from circuitlab.spec.experiment import ExperimentSpec
from figures.drawing import COLOURS, ROOT, SOFT, experiment, panels, show


def trained(spec: ExperimentSpec) -> Trainer:
    """An experiment's trainer after its last epoch, without a run file."""
    trainer = prepare(spec).trainer
    trainer.run()
    return trainer


def left_over(trainer: Trainer, samples: int) -> tuple[float, float, float]:
    """Free loss on the training samples, the mean of |psi| = sqrt(2 H), and the share of unconverged samples."""
    train = trainer.splits["train"]
    batch = train.batch(np.arange(min(samples, len(train))))
    drive = trainer.task.system.drive(batch.x)
    found = trainer.task.controlled(drive, batch.target, trainer.task.free(drive))
    control = torch.linalg.vector_norm(found.fields.psi[:, found.converged], dim=0).mean()
    return evaluate(trainer.task, train).loss, float(control), float((~found.converged).double().mean())


def figure_2(given: argparse.Namespace) -> dict[str, Any]:
    """LCP figure 2."""
    columns = [
        "width",
        "training loss",
        "norm of the control",
        "training loss before",
        "control before",
        "unconverged",
    ]
    rows: list[list[Any]] = []
    text = (ROOT / "topologies" / "mnist_recurrent.yaml").read_text(encoding="utf-8")
    for width in given.widths:
        changed = text.replace(
            "recurrent: {type: unit, size: 256,", f"recurrent: {{type: unit, size: {width},"
        )
        circuit = load_circuit(ROOT / "topologies" / "mnist_recurrent.yaml", text=changed)
        sets = [
            f"data.limit={given.samples}",
            f"learn.epochs={given.epochs}",
            f"seed={given.seed}",
            f"threads={given.threads}",
        ]
        sets += [f"control.controller.alpha={given.alpha}", SOFT]
        spec = experiment("mnist_recurrent", *sets, circuit=circuit)
        before = left_over(prepare(spec).trainer, 500)
        after = left_over(trained(spec), 500)
        rows.append([width, after[0], after[1], before[0], before[1], after[2]])
        print(f"width {width}: loss {after[0]:.4g}, control {after[1]:.4g}", file=sys.stderr, flush=True)
    show(columns, rows)
    floor = -(0.99 * np.log(0.99) + 0.01 * np.log(0.01 / 9))
    print(f"\nthe least cross-entropy of these soft targets is {floor:.4f}")
    figure, axes = panels(2)
    for axis, column, title in ((axes[0], 1, "training loss"), (axes[1], 2, "norm of the control")):
        axis.plot(
            [row[0] for row in rows],
            [row[column] for row in rows],
            "o-",
            color=COLOURS[0],
            label="after learning",
        )
        axis.plot(
            [row[0] for row in rows], [row[column + 2] for row in rows], "o:", color="#6b6b6b", label="before"
        )
        axis.set(xlabel="width of the recurrent layer", title=title, ylim=(0, None))
        axis.legend()
    axes[0].axhline(floor, color="#6b6b6b", linewidth=0.8)
    return {"columns": columns, "rows": rows, "floor": float(floor), "figure": figure}


def draw_table_s1(rows: list[list[Any]]) -> Figure:
    """Accuracy by leak, with the standard deviation over seeds."""
    figure, (axis,) = panels(1)
    places, bars = range(len(rows)), [np.nan_to_num(row[2]) for row in rows]
    axis.errorbar(places, [row[1] for row in rows], bars, fmt="o", color=COLOURS[0])
    axis.set_xticks(places, [row[0] for row in rows])
    axis.set(xlabel="alpha", ylabel="test accuracy, %")
    return figure


def table_s1(given: argparse.Namespace) -> dict[str, Any]:
    """LCP table S1."""
    rows: list[list[Any]] = []
    sets = [f"data.limit={given.samples}"] if given.samples else []
    for alpha in given.alphas:
        controller = "integral" if alpha == 0 else f"{{type: leaky_integral, alpha: {alpha:g}}}"
        found, missing = [], []
        for seed in given.seeds:
            spec = experiment(
                "mnist_feedforward", SOFT, f"control.controller={controller}", f"learn.epochs={given.epochs}",
                f"seed={seed}", f"threads={given.threads}", *sets,
            )  # fmt: skip
            trainer = trained(spec)
            accuracy = evaluate(trainer.task, trainer.splits["test"]).accuracy
            assert accuracy is not None
            found.append(100 * accuracy)
            missing.append(left_over(trainer, 500)[2])
        spread = statistics.stdev(found) if len(found) > 1 else float("nan")
        rows.append([f"{alpha:g}", statistics.mean(found), spread, 100 * statistics.mean(missing)])
        print(f"alpha {alpha:g}: {rows[-1][1]:.2f}%", file=sys.stderr, flush=True)
    columns = ["alpha", "test accuracy, %", "standard deviation over seeds", "unconverged at the end, %"]
    show(columns, rows)
    figure = draw_table_s1(rows)
    return {"columns": columns, "rows": rows, "figure": figure}
