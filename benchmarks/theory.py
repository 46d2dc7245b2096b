"""The theory's figures: each command prints its table, and draws (--plot FILE) and writes (--json FILE) what it found.

    python benchmarks/theory.py lcp-figure-s1     gradient error against equilibrium error, feedforward 3x300, MNIST
    python benchmarks/theory.py lcp-figure-2      loss and control after learning, by width of a recurrent layer, MNIST
    python benchmarks/theory.py lcp-figure-s3     alignment of learned feedback with -dH while it learns, MNIST
    python benchmarks/theory.py lcp-table-s1      test accuracy by leak of the controller, feedforward, MNIST
    python benchmarks/theory.py dfc-figure-3      deep feedback control's conditions and angles, student and teacher
    python benchmarks/theory.py dfc-figure-4      angle with the minimum-norm updates by lambda and alpha

LCP is the least-control paper, DFC the one on deep feedback control. Each command's --help says what it takes; nothing
is run longer than it says. docs/theory.md shows what they print, and how near the papers it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from circuitlab.errors import CircuitError, CircuitlabError
from circuitlab.experiment.training import prepare
from circuitlab.learn.evaluate import evaluate
from circuitlab.learn.rules import rule_of
from circuitlab.learn.train import Observer, Trainer
from circuitlab.report.plots import STYLE, save
from circuitlab.spec.circuit import CircuitSpec, load_circuit
from circuitlab.spec.experiment import ExperimentSpec, load_experiment
from circuitlab.theory.diagnosis import measures
from circuitlab.theory.examine import examine
from circuitlab.theory.known import one_sample
from circuitlab.theory.references import flat, optimal_control
from circuitlab.theory.updates import angle, cosine

ROOT = Path(__file__).resolve().parents[1]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
SOFT = "loss={name: cross_entropy, soft_targets: 0.01}"

NEVER = 10**9
"""Updates between measurements where only the first and the last are wanted."""

DEEP = """
circuit: three_hidden_layers
populations:
  retina: {type: input, size: 784}
  first: {type: unit, size: 300, activation: tanh}
  second: {type: unit, size: 300, activation: tanh}
  third: {type: unit, size: 300, activation: tanh}
  readout: {type: output, size: 10}
projections:
  retina_first: {source: retina, target: first}
  first_second: {source: first, target: second}
  second_third: {source: second, target: third}
  third_readout: {source: third, target: readout}
"""
STUDENT = """
circuit: student_teacher
populations:
  stimulus: {type: input, size: 15}
  first: {type: unit, size: 10, activation: tanh}
  second: {type: unit, size: 10, activation: tanh}
  answer: {type: output, size: 5}
projections:
  stimulus_first: {source: stimulus, target: first}
  first_second: {source: first, target: second}
  second_answer: {source: second, target: answer}
"""
STUDENT_EXPERIMENT = """
experiment: student_teacher
circuit: student_teacher.yaml
data: {name: file, train: teacher.npz, test: 0.2, validation: 0}
loss: squared_error
learn: {rule: least_control, optimizer: {name: adam, lr: 1e-3}, batch_size: 1}
dtype: float64
"""


# ------------------------------------------------------------------------------------------------------------ tables


def show(columns: list[str], rows: list[list[Any]]) -> None:
    """Print a markdown table."""
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for row in rows:
        cells = [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row]
        print("| " + " | ".join(cells) + " |", flush=True)


def strict(value: Any) -> Any:
    """As strict JSON has it: a number that is not finite becomes null."""
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def panels(count: int, width: float = 4.6) -> tuple[Figure, list[Any]]:
    """A figure with panels side by side."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width * count + 0.6, 4.2), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        return figure, list(np.atleast_1d(figure.subplots(1, count)))


def experiment(name: str, *overrides: str, circuit: CircuitSpec | None = None) -> ExperimentSpec:
    """An experiment file of this project, with changes."""
    return load_experiment(ROOT / "experiments" / f"{name}.yaml", ["record={}", *overrides], circuit=circuit)


# ------------------------------------------------------------------------------------- LCP figure S1: gradient errors


def gradient_errors(
    samples: int, draws: int, steps: int, seed: int, circuit_text: str = DEEP
) -> dict[str, Any]:
    """Errors of equilibrium and of gradient, as shares of the exact ones: along energy-based dynamics without a leak
    [LCP eq. 15] (panel A), and for states perturbed at random (panel B)."""
    circuit = load_circuit(ROOT / "topologies" / "figure_s1.yaml", text=circuit_text)
    limit = f"data.limit={samples}"
    prepared = prepare(
        experiment("mnist_feedforward", SOFT, limit, "dtype=float64", f"seed={seed}", circuit=circuit)
    )
    task, system = prepared.trainer.task, prepared.assembled.system
    batch = prepared.splits["train"].batch(np.arange(samples))
    drive = system.drive(batch.x)
    free = task.free(drive)
    task = dataclasses.replace(
        task, settings=dataclasses.replace(task.settings, tolerance=1e-9, max_iterations=5000)
    )
    best = optimal_control(task, batch, free, 0.0)
    if not bool(best.converged.all()):
        missing = int((~best.converged).sum())
        raise CircuitError(
            f"{missing} of {samples} samples have no equilibrium without a leak; try another --seed"
        )
    exact = best.fields.phi

    def update(phi: torch.Tensor) -> torch.Tensor:
        return flat(system.update(phi, phi - system.linearise(phi, drive).prediction, batch.x)) / samples

    goal = update(exact)

    def errors(phi: torch.Tensor) -> tuple[float, float]:
        wrong = torch.linalg.vector_norm(update(phi) - goal) / torch.linalg.vector_norm(goal)
        away = torch.linalg.vector_norm(phi - exact) / torch.linalg.vector_norm(exact)
        return float(away), float(wrong)

    flow, phi, u = [], free.fields.phi.clone(), torch.zeros_like(batch.target)
    for step in range(steps):
        point = system.linearise(phi, drive)
        psi = phi - point.prediction
        change = point.transported(psi) - psi
        change[system.output] += u
        u = u - task.loss.gradient(phi[system.output], batch.target) / 50
        phi = phi + change / 50
        if step % max(1, steps // 200) == 0:
            flow.append(errors(phi))
    rng = np.random.default_rng(seed)
    noisy = []
    for _ in range(draws):
        noise = rng.uniform() * 0.5 * rng.standard_normal(tuple(exact.shape))
        noisy.append(errors(exact + torch.as_tensor(noise)))
    return {"dynamics": flow, "noise": noisy}


def figure_s1(given: argparse.Namespace) -> dict[str, Any]:
    """LCP figure S1."""
    found = gradient_errors(given.samples, given.draws, given.steps, given.seed)
    rows = []
    for name, points in found.items():
        away, wrong = np.array(points).T
        near = away < 0.3
        slope = np.polyfit(np.log(away[near]), np.log(wrong[near]), 1)[0] if near.sum() > 2 else np.nan
        rows.append(
            [
                name,
                len(points),
                float(slope),
                float(np.corrcoef(away, wrong)[0, 1]),
                float((wrong / away).max()),
            ]
        )
    show(["approximation", "points", "slope on log axes below 0.3", "correlation", "largest ratio M"], rows)
    figure, axes = panels(2)
    for axis, (name, points), colour in zip(axes, found.items(), COLOURS, strict=False):
        away, wrong = np.array(points).T
        axis.plot(away, wrong, ".", color=colour, markersize=5)
        axis.set(xlabel="equilibrium error", ylabel="gradient error", title=name)
    return {**found, "rows": rows, "figure": figure}


# ------------------------------------------------------------------------------------------- LCP figure 2, table S1


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


# ------------------------------------------------------------------------------------------ measures during learning


class Watch(Observer):
    """Measures the circuit before learning, every so many updates, and after the last.

    Args:
        every: updates. samples: training samples looked at.
        steady: also the angle with the updates of this rule, by name.
    """

    def __init__(self, every: int, samples: int, steady: str | None = None) -> None:
        self.every, self.samples, self.steady = every, samples, steady
        self.rows: list[dict[str, float]] = []

    def epoch(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        last = trainer.at.epoch == trainer.schedule.epochs
        if trainer.at.step == 0 or (last and self.rows[-1]["step"] != trainer.at.step):
            self._measure(trainer)

    def step(self, trainer: Trainer, sample_ids: Any, batch: Any, outcome: Any) -> None:
        if trainer.at.step % self.every == 0:
            self._measure(trainer)

    def _measure(self, trainer: Trainer) -> None:
        train = trainer.splits["train"]
        batch = train.batch(np.arange(min(self.samples, len(train))))
        found = examine(trainer.task, trainer.rule, batch)
        row: dict[str, float] = {"step": trainer.at.step}
        for measure in measures(found):
            if not measure.inapplicable:
                row[measure.key], row[f"{measure.key}_error"] = measure.mean, measure.error
        for name, cosines in found.rule_updates.cosines.items():
            angles = angle(np.array(cosines))
            row[f"angle_{name}"] = float(np.nanmean(angles)) if np.isfinite(angles).any() else float("nan")
        if self.steady is not None:
            row["angle_steady"] = self._angle_with_steady(trainer, batch)
        self.rows.append(row)

    def _angle_with_steady(self, trainer: Trainer, batch: Any) -> float:
        other, angles = rule_of(str(self.steady)), []
        for sample in range(batch.x.shape[1]):
            one = one_sample(batch, sample)
            pair = [rule.outcome(trainer.task, one) for rule in (trainer.rule, other)]
            if all(bool(outcome.used.all()) for outcome in pair):
                angles.append(float(angle(cosine(*(flat(outcome.updates) for outcome in pair)))))
        return statistics.mean(angles) if angles else float("nan")


def follow(
    spec: ExperimentSpec, every: int, samples: int, steady: str | None = None
) -> list[dict[str, float]]:
    """Train, and measure on the way."""
    trainer, watch = prepare(spec).trainer, Watch(every, samples, steady)
    trainer.observers = (watch,)
    trainer.run()
    return watch.rows


def compare(
    rows: dict[str, Callable[[], ExperimentSpec]],
    keys: dict[str, str],
    given: argparse.Namespace,
    steady: str | None = None,
) -> dict[str, Any]:
    """Follow several experiments, and show some of the measures at the beginning, halfway and at the end."""
    found: dict[str, list[dict[str, float]]] = {}
    for name, make in rows.items():
        found[name] = follow(make(), given.every, given.samples, steady)
        print(f"{name}: done", file=sys.stderr, flush=True)
    table = []
    for name, steps in found.items():
        for row in (steps[0], steps[len(steps) // 2], steps[-1]):
            table.append([name, int(row["step"]), *(row.get(key, float("nan")) for key in keys)])
    columns = ["", "updates", *keys.values()]
    show(columns, table)
    figure, axes = panels(len(keys), width=3.6)
    for axis, (key, title) in zip(axes, keys.items(), strict=True):
        for (name, steps), colour in zip(found.items(), COLOURS, strict=False):
            values = [row.get(key, float("nan")) for row in steps]
            axis.plot([row["step"] for row in steps], values, color=colour, label=name)
        axis.set(xlabel="updates", title=title)
    axes[0].legend()
    return {"columns": columns, "rows": table, "steps": found, "figure": figure}


def figure_s3(given: argparse.Namespace) -> dict[str, Any]:
    """LCP figure S3."""
    common = [f"data.limit={given.limit}", f"learn.epochs={given.epochs}", f"control.controller.alpha={given.alpha}",
              f"seed={given.seed}", f"threads={given.threads}"]  # fmt: skip
    own = {
        "linear feedback, learned": ["control.pathway=linear_feedback", "control.feedback=random",
                                     "learn.rule=least_control_gated", "learn.feedback=anti_hebbian"],
        "Kolen-Pollack": ["control.feedback=kolen_pollack", "learn.feedback=kolen_pollack"],
        "linear feedback, random": ["control.pathway=linear_feedback", "control.feedback=random"],
    }  # fmt: skip
    for word in given.only:
        if not any(word in name for name in own):
            raise CircuitError(f"--only: no row '{word}'; there are {', '.join(own)}")
    rows = {
        name: (lambda sets=sets: experiment("mnist_recurrent", *common, *sets))
        for name, sets in own.items()
        if not given.only or any(word in name for word in given.only)
    }
    keys = {
        "cosine_control_gradient": "cosine with -d(H + L/alpha)",
        "cosine_control_gradient_mean": "cosine of the means",
        "control_share": "control in row space of J",
        "distance": "distance from the optimum",
    }
    return compare(rows, keys, given)


# ------------------------------------------------------------------------------------------------------ DFC figures


def student_teacher(folder: Path, samples: int, seed: int) -> Path:
    """The experiment file of DFC's regression, 15-10-10-5 tanh with a linear output: a teacher with random weights
    answers normal inputs, and a student of the same form learns from it."""
    shipped = ROOT / "topologies" / "student_teacher.yaml"
    text = shipped.read_text(encoding="utf-8") if shipped.exists() else STUDENT
    (folder / "student_teacher.yaml").write_text(text, encoding="utf-8")
    rng = np.random.default_rng(seed + 1000)
    rate = x = rng.standard_normal((samples, 15))
    for number, (before, after) in enumerate(((15, 10), (10, 10), (10, 5))):
        potential = rate @ rng.standard_normal((before, after)) / np.sqrt(before)
        rate = potential if number == 2 else np.tanh(potential)
    circuit = load_circuit(folder / "student_teacher.yaml")
    arrays = {next(iter(circuit.inputs)): x, next(iter(circuit.outputs)): rate}
    np.savez(folder / "teacher.npz", **arrays)  # type: ignore[arg-type]
    path = folder / "student_teacher_experiment.yaml"
    path.write_text(STUDENT_EXPERIMENT, encoding="utf-8")
    return path


def deep(nudge: float, alpha: float, k_p: float, feedback: str = "jacobian") -> str:
    """The section `control` of deep feedback control."""
    parts = f"pathway: deep_feedback_control, feedback: {feedback}, nudge: {nudge:g}"
    return f"control={{{parts}, controller: {{type: pi, alpha: {alpha:g}, k_p: {k_p:g}}}}}"


LEARNED = "learn.feedback=alternating"
VARIANTS: dict[str, tuple[str, bool, str]] = {
    "DFC": ("deep_feedback_control", True, "jacobian"),
    "DFC-SS": ("deep_feedback_control_ss", True, "jacobian"),
    "DFC-SSA": ("deep_feedback_control_ssa", True, "jacobian"),
    "DFC (fixed)": ("deep_feedback_control", False, "jacobian"),
    "DFC-SS (fixed)": ("deep_feedback_control_ss", False, "jacobian"),
    "DFC-SSA (fixed)": ("deep_feedback_control_ssa", False, "jacobian"),
    "DFC-SS (random)": ("deep_feedback_control_ss", False, "random"),
    "eq. 9": ("least_control", True, "jacobian"),
    "eq. 9 (fixed)": ("least_control", False, "jacobian"),
}
"""Rule, whether Q learns, and its beginning. Eq. 9 is DFC-SS without the nonlinearity, psi r^T, as in the theorems."""


def variants(only: list[str]) -> Iterator[tuple[str, str, bool, str]]:
    """The variants that were asked for."""
    unknown = [name for name in only if name not in VARIANTS]
    if unknown:
        raise CircuitError(f"--only: no variant '{unknown[0]}'; allowed: {', '.join(VARIANTS)}")
    for name, (rule, learned, start) in VARIANTS.items():
        if not only or name in only:
            yield name, rule, learned, start


def dfc_3(given: argparse.Namespace) -> dict[str, Any]:
    """DFC figure 3."""
    keys = {
        "column_space_free": "A: Q in row space of J",
        "angle_minimum_norm": "B: angle with minimum norm",
        "norm_spread": "C: spread of layer norms",
        "angle_gauss_newton": "D: angle with Gauss-Newton",
        "largest_real_part": "E: largest real part, 1/ms",
        "angle_steady": "F: angle with DFC-SSA",
    }
    with tempfile.TemporaryDirectory() as folder:
        path = student_teacher(Path(folder), given.limit, given.seed)
        rows = {}
        for name, rule, learned, start in variants(given.only):
            sets = [deep(0.05, 0.0015, 1.5, start), f"learn.rule={rule}", f"learn.epochs={given.epochs}",
                    f"seed={given.seed}", f"threads={given.threads}", *([LEARNED] if learned else [])]  # fmt: skip
            rows[name] = lambda sets=sets: load_experiment(path, sets)
        return compare(rows, keys, given, steady="deep_feedback_control_ssa")


def dfc_4(given: argparse.Namespace) -> dict[str, Any]:
    """DFC figure 4."""
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = student_teacher(Path(folder), given.limit, given.seed)
        for nudge in given.nudges:
            for alpha in given.alphas:
                sets = [deep(nudge, alpha, 1.5), "learn.rule=deep_feedback_control_ss", f"learn.epochs={given.epochs}",
                        f"seed={given.seed}", f"threads={given.threads}", LEARNED]  # fmt: skip
                first, *_, last = follow(load_experiment(path, sets), NEVER, given.samples)
                angles = (first["angle_minimum_norm"], last["angle_minimum_norm"])
                rows.append([f"{nudge:g}", f"{alpha:g}", *angles])
                print(f"lambda {nudge:g}, alpha {alpha:g}: {rows[-1][-1]:.3g}", file=sys.stderr, flush=True)
    columns = ["lambda", "alpha", "angle with minimum norm, before", "after learning"]
    show(columns, rows)
    figure, (axis,) = panels(1)
    for alpha, colour in zip(given.alphas, COLOURS, strict=False):
        some = [row for row in rows if row[1] == f"{alpha:g}"]
        axis.semilogx(
            [float(row[0]) for row in some],
            [row[3] for row in some],
            "o-",
            color=colour,
            label=f"alpha {alpha:g}",
        )
    axis.set(xlabel="lambda", ylabel="degrees", title="angle with minimum norm", ylim=(0, 90))
    axis.legend()
    return {"columns": columns, "rows": rows, "figure": figure}


# ---------------------------------------------------------------------------------------------------------- commands


Options = dict[str, tuple[Any, str]]
"""Default and meaning of each option; a list takes any number of values."""
WATCHED: Options = {"epochs": (2, "passes over them"), "samples": (20, "samples measured on")}
COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], dict[str, Any]], Options]] = {
    "lcp-figure-s1": (
        figure_s1,
        {
            "samples": (100, "MNIST images"),
            "draws": (200, "random perturbations"),
            "steps": (10_000, "steps of the dynamics"),
        },
    ),
    "lcp-figure-2": (
        figure_2,
        {
            "widths": ([23, 32, 45, 64, 91, 128, 181, 256], "widths"),
            "samples": (2000, "training images"),
            "epochs": (20, "passes over them"),
            "alpha": (0.1, "leak of the controller"),
        },
    ),
    "lcp-figure-s3": (
        figure_s3,
        {
            **WATCHED,
            "limit": (5000, "training images"),
            "every": (25, "updates between two measurements"),
            "alpha": (0.1, "leak of the controller"),
            "only": ([], "rows whose name has one of these words in it"),
        },
    ),
    "lcp-table-s1": (
        table_s1,
        {
            "alphas": ([0.0, 0.01, 0.1, 0.64, 1.0, 6.4, 64.0], "leaks"),
            "samples": (4000, "training images, 0 for all"),
            "epochs": (4, "passes over them"),
            "seeds": ([0], "seeds"),
        },
    ),
    "dfc-figure-3": (
        dfc_3,
        {
            **WATCHED,
            "limit": (1000, "samples of the teacher"),
            "every": (200, "updates between two measurements"),
            "only": ([], "variants, all unless given"),
        },
    ),
    "dfc-figure-4": (
        dfc_4,
        {
            **WATCHED,
            "nudges": ([1e-3, 1e-2, 0.05, 0.1, 0.5], "lambda"),
            "alphas": ([1e-4, 1e-3, 1e-2, 1e-1], "alpha"),
            "limit": (500, "samples of the teacher"),
        },
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = parser.add_subparsers(dest="command", required=True)
    for name, (run, options) in COMMANDS.items():
        command = choices.add_parser(name, help=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("--plot", type=Path, help="draw into this file (.png, .svg, .pdf)")
        command.add_argument("--json", type=Path, help="write all numbers into this file")
        command.add_argument("--threads", type=int, default=1)
        if "seeds" not in options:
            command.add_argument("--seed", type=int, default=0)
        for key, (value, words) in options.items():
            many = isinstance(value, list)
            kind = (type(value[0]) if value else str) if many else type(value)
            extra: dict[str, Any] = {"nargs": "*"} if many else {}
            command.add_argument(f"--{key}", type=kind, default=value, help=f"{words} ({value})", **extra)
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    try:
        found = given.run(given)
        figure = found.pop("figure")
        if given.plot is not None:
            given.plot.parent.mkdir(parents=True, exist_ok=True)
            save(figure, given.plot)
        if given.json is not None:
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(
                json.dumps(strict({"command": given.command, **found}), indent=1, allow_nan=False),
                encoding="utf-8",
            )
    except CircuitlabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
