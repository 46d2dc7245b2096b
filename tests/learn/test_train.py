"""The training loop: what one step does, when it stops, and that it can be taken up where it was left."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.dynamic_inversion import DynamicInversion, Feedback
from circuitlab.control.output import leaky_integral
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.loss import LOSSES, OutputLoss
from circuitlab.learn.backprop import RecurrentBackprop
from circuitlab.learn.base import LearningRule, Outcome, Task
from circuitlab.learn.constrain import Bounds, SingularValueBound, SymmetricEigenvalueBound
from circuitlab.learn.evaluate import Split
from circuitlab.learn.least_control import LeastControl
from circuitlab.learn.optimizer import make_optimizer, make_scheduler
from circuitlab.learn.penalty import JacobianPenalty
from circuitlab.learn.schedule import AlphaSchedule, EnergyCheck
from circuitlab.learn.train import EarlyStopping, Observer, Schedule, Stopped, Trainer
from circuitlab.solve.choose import SolveSettings
from tests.oracles.circuits import random_circuit
from tests.oracles.dense_twin import Twin

SAMPLES, BATCH = 20, 6


def order(epoch: int) -> list[np.ndarray]:
    """Four batches of an epoch, the last one smaller."""
    ids = np.random.default_rng(epoch).permutation(SAMPLES)
    return [ids[i : i + BATCH] for i in range(0, SAMPLES, BATCH)]


def split(seed: int, samples: int = SAMPLES) -> Split:
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=samples)
    x = rng.standard_normal((samples, 4)) + labels[:, None]
    return Split(torch.tensor(x).float(), torch.tensor(np.eye(3)[labels]).float(), (slice(0, 3),))


class Diary(Observer):
    """Everything an observer is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[np.ndarray, Outcome]] = []
        self.epochs: list[dict[str, float]] = []
        self.states: list[dict[str, Any]] = []

    def step(self, trainer, sample_ids, batch, outcome) -> None:
        assert batch.x.shape[1] == len(sample_ids) == len(outcome.loss)
        self.steps.append((sample_ids, outcome))

    def epoch(self, trainer, metrics) -> None:
        self.epochs.append(metrics)

    def checkpoint(self, trainer) -> None:
        self.states.append(trainer.state())


def trainer(
    *,
    optimizer: str = "adam",
    rate: float = 0.01,
    scheduler: tuple[str, str, dict] = ("constant", "epoch", {}),
    rule: LearningRule | None = None,
    epochs: int = 3,
    bound: float | None = None,
    eigenvalue: float | None = None,
    penalty: float | None = None,
    dale: bool = True,
    **schedule,
) -> tuple[Trainer, Diary]:
    compiled = CompiledCircuit(random_circuit(0, dale=dale, gain=0.5), torch.float32)
    loss = OutputLoss([(LOSSES["cross_entropy"], slice(0, 3))])
    settings = SolveSettings()
    pathway = DynamicInversion(Feedback())
    system = CircuitSystem(compiled)
    task = Task(system, loss, pathway, leaky_integral(1.0, 10.0), settings)
    chosen = make_optimizer(compiled.plastic().values(), optimizer, {"lr": rate})
    moving = make_scheduler(chosen, scheduler[0], scheduler[2], scheduler[1], 4 * epochs, epochs)
    diary = Diary()
    bounds = [SingularValueBound(compiled, bound)] if bound else []
    both = [*bounds, SymmetricEigenvalueBound(compiled, eigenvalue)] if eigenvalue else []
    made = Trainer(
        compiled,
        task,
        rule or LeastControl(),
        {"train": split(0), "validation": split(1, 9)},
        Schedule(epochs, order, **schedule),
        chosen,
        moving,
        Bounds(both) if both else bounds[0] if bounds else None,
        [diary],
        JacobianPenalty(system, penalty) if penalty else None,
    )
    return made, diary


def weights(of: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in of.compiled.parameters_by_name().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_step_of_plain_descent_adds_the_update() -> None:
    made, diary = trainer(optimizer="sgd", rate=0.1, epochs=1, dale=False)
    before = weights(made)
    made._step(np.arange(5))
    updates = diary.steps[0][1].updates
    for name, value in weights(made).items():
        assert torch.allclose(value, before[name] + 0.1 * updates[name], atol=1e-7), name


def test_clipping_is_of_all_updates_together() -> None:
    """w + clip / |updates| updates where the norm over all parameters exceeds the clip, unchanged otherwise."""
    for clip in (1e-3, 1e3):
        made, diary = trainer(optimizer="sgd", rate=1.0, epochs=1, clip=clip, dale=False)
        before = weights(made)
        made._step(np.arange(5))
        updates = diary.steps[0][1].updates
        norm = torch.cat([u.flatten() for u in updates.values()]).norm()
        factor = min(1.0, clip / float(norm))
        assert (factor < 1) == (clip < 1)
        for name, value in weights(made).items():
            assert torch.allclose(value, before[name] + factor * updates[name], atol=1e-7), name


def test_dales_law_and_the_bound_hold_after_every_step() -> None:
    made, _ = trainer(optimizer="sgd", rate=3.0, bound=0.4, epochs=2)
    small = made.compiled.circuit
    seen = []

    class Watch(Observer):
        def step(self, trainer, sample_ids, batch, outcome) -> None:
            now = weights(trainer)
            for name, sign in trainer.compiled.sign.items():
                assert (sign * now[name] >= 0).all() or not sign, name
            twin = Twin(small)
            w = np.zeros_like(twin.w)
            for p in small.projections.values():
                if p.source != "x" and p.target != "y0":
                    rows, columns = twin.rows[p.target].start, twin.rows[p.source].start
                    np.add.at(w, (rows + p.edges.target, columns + p.edges.source), now[p.name].numpy())
            seen.append(float(np.linalg.svd(w, compute_uv=False)[0]))

    made.observers += (Watch(),)
    made.run()
    assert len(seen) == 8
    assert max(seen) < 0.4 * 1.05
    clamped = [(weights(made)[name] == 0).any() for name in ("e_e", "i_e")]
    assert any(clamped), "the rate is high enough for some synapses to end at zero"


def test_epochs_and_steps_are_told_in_order() -> None:
    made, diary = trainer(epochs=2)
    made.run()
    assert [ids.tolist() for ids, _ in diary.steps] == [ids.tolist() for e in (1, 2) for ids in order(e)]
    assert len(diary.epochs) == 3
    assert len(diary.states) == 1 + 3 + 1 + 3 + 1, "before learning, between steps, and after each epoch"
    assert [s["progress"]["epoch"] for s in diary.states] == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert [s["progress"]["step_in_epoch"] for s in diary.states] == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert made.at.step == 8
    last = diary.steps[4:]
    train = made.splits["train"].batch(np.arange(SAMPLES))
    now = LeastControl().outcome(made.task, train)
    assert diary.epochs[2]["control_cost"] == pytest.approx(
        float(now.control_cost[now.used].mean()), rel=1e-4
    )
    residual = max(float(o.credit.residual[o.used].max()) for _, o in last)
    assert diary.epochs[2]["residual"] == pytest.approx(residual)
    iterations = torch.cat([o.credit.iterations for _, o in last]).double().mean()
    assert diary.epochs[2]["iterations"] == pytest.approx(float(iterations))
    assert diary.epochs[2]["unconverged"] == 1 - float(torch.cat([o.used for _, o in last]).double().mean())
    assert {"train_loss", "train_accuracy", "validation_loss", "validation_accuracy"} <= set(diary.epochs[0])


def test_learning_lowers_the_loss() -> None:
    for rule in (LeastControl(), RecurrentBackprop()):
        made, diary = trainer(epochs=15, rate=0.02, rule=rule)
        made.run()
        assert diary.epochs[-1]["train_loss"] < 0.6 * diary.epochs[0]["train_loss"]


@pytest.mark.parametrize("per", ["step", "epoch"])
def test_cosine_runs_over_the_whole_schedule(per: str) -> None:
    made, diary = trainer(scheduler=("cosine", per, {}), epochs=3)
    made.run()
    assert made.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)
    assert (
        diary.epochs[2]["learning_rate"]
        == pytest.approx(0.01 * (0.1 + 0.45 * (1 + np.cos(np.pi * 2 / 3))), rel=1e-6)
        or per == "epoch"
    )


CONFIGURATIONS = {
    "adam, cosine per step": dict(scheduler=("cosine", "step", {})),
    "adam, cosine per epoch, bound, clip": dict(scheduler=("cosine", "epoch", {}), bound=0.5, clip=0.1),
    "sgd, plateau": dict(
        optimizer="sgd", rate=0.3, scheduler=("reducelronplateau", "epoch", {"patience": 0})
    ),
    "asgd, early stopping": dict(optimizer="asgd", stopping=EarlyStopping("validation_loss", 5)),
    "rprop": dict(optimizer="rprop"),
    "alpha falls, energy checked, two bounds, penalty, two-phase": dict(
        alpha=AlphaSchedule(6.4, 0.1, 12, 0.7),
        check=EnergyCheck(2, 3),
        bound=0.6,
        eigenvalue=0.3,
        penalty=0.01,
        rule=LeastControl(presynaptic="free", weighting="error"),
    ),
}


@pytest.mark.parametrize("options", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_run_taken_up_anywhere_ends_in_the_same_bits(options: dict) -> None:
    """States are handed over as they were when they were asked for, while the first run went on."""
    whole, diary = trainer(**options)
    whole.run()
    for number in (0, 2, 3, 4, 6, 11):
        again, later = trainer(**options)
        with torch.no_grad():
            for parameter in again.compiled.parameters():
                parameter.fill_(0.3)
        again.restore(copy.deepcopy(diary.states[number]))
        again.run()
        assert same(weights(whole), weights(again)), number
        missed = len(diary.epochs) - len(later.epochs)
        assert missed in (number // 4 + 1, number // 4)
        assert later.epochs == diary.epochs[missed:], number
        assert again.at.step == whole.at.step


def test_stopping_between_steps_leaves_a_whole_state() -> None:
    whole, _ = trainer()
    whole.run()
    made, _ = trainer()

    class Impatient(Observer):
        def step(self, trainer, sample_ids, batch, outcome) -> None:
            trainer.stop_requested = trainer.at.step == 6

    made.observers += (Impatient(),)
    with pytest.raises(Stopped):
        made.run()
    assert made.at.step == 6
    again, _ = trainer()
    again.restore(made.state())
    again.run()
    assert same(weights(whole), weights(again))


def scripted(values: list[float], stopping: EarlyStopping) -> tuple[int, Trainer]:
    """How many epochs a trainer runs when its evaluations say these values (the first before learning)."""
    made, diary = trainer(epochs=len(values) - 1, stopping=stopping)
    said = iter(values)
    made.evaluate = lambda: {stopping.metric: next(said)}  # type: ignore[method-assign]
    made._step = lambda sample_ids: setattr(made.at, "step_in_epoch", made.at.step_in_epoch + 1)  # type: ignore[method-assign]
    made.run()
    return len(diary.epochs) - 1, made


@pytest.mark.parametrize(
    ("metric", "patience", "change", "values", "epochs"),
    [
        ("validation_loss", 2, 0.0, [9, 5, 4, 4.5, 4.1, 1, 1], 4),
        ("validation_loss", 2, 0.0, [9, 5, 4, 4.5, 3.9, 4, 4], 6),
        ("validation_loss", 1, 0.0, [9, 5, 5, 1], 2),
        ("validation_accuracy", 2, 0.0, [0, 0.5, 0.6, 0.6, 0.55, 0.9], 4),
        ("validation_accuracy", 2, 0.05, [0, 0.5, 0.54, 0.549, 0.9], 3),
        ("validation_accuracy", 2, 0.05, [0, 0.5, 0.54, 0.56, 0.57, 0.58, 0.9], 5),
        ("validation_accuracy", 3, 0.0, [0, 0.1, 0.2, 0.3], 3),
    ],
)
def test_early_stopping(metric: str, patience: int, change: float, values: list[float], epochs: int) -> None:
    """Stops after `patience` epochs in a row none of which betters the best by more than `minimum_change`."""
    ran, _ = scripted(values, EarlyStopping(metric, patience, change))
    assert ran == epochs


def test_a_finished_run_does_nothing_more() -> None:
    made, diary = trainer(epochs=1)
    made.run()
    before = weights(made)
    made.run()
    assert same(before, weights(made))
    assert len(diary.epochs) == 2


def test_nothing_moves_when_no_sample_is_usable() -> None:
    made, diary = trainer(epochs=1, optimizer="adamw")
    made.task = Task(**{**vars(made.task), "settings": SolveSettings(max_iterations=1)})
    before = weights(made)
    made.run()
    assert same(before, weights(made))
    assert diary.epochs[1]["unconverged"] == 1.0
    assert np.isnan(diary.epochs[1]["control_cost"])
    assert diary.epochs[1]["residual"] == 0


@pytest.mark.parametrize("geometric", [True, False])
def test_a_leak_that_changes(geometric: bool) -> None:
    """alpha of update t of T: from 6.4 to 0.1 over the first 70% of them, by equal factors or equal amounts."""
    schedule = AlphaSchedule(6.4, 0.1, 100, 0.7, geometric)
    assert (schedule.at(0), schedule.at(70), schedule.at(99)) == (6.4, 0.1, 0.1)
    assert schedule.at(35) == pytest.approx(0.8 if geometric else 3.25)
    assert all(schedule.at(t) > schedule.at(t + 1) for t in range(70))


def test_every_update_is_made_at_its_own_leak() -> None:
    """alpha u + dL/dy = 0 holds with the scheduled leak, which is measured once an epoch and used to evaluate."""
    schedule = AlphaSchedule(6.4, 0.1, 8, 0.5)
    made, diary = trainer(epochs=2, alpha=schedule, optimizer="sgd")
    leaks = []

    class Watch(Observer):
        def step(self, trainer, sample_ids, batch, outcome) -> None:
            fields = outcome.credit.fields
            gradient = torch.softmax(fields.phi[-3:], 0) - batch.target
            leaks.append(float((-gradient * fields.u).sum() / fields.u.square().sum()))

    made.observers += (Watch(),)
    made.run()
    assert leaks == pytest.approx([schedule.at(t) for t in range(8)], rel=1e-3)
    assert "alpha" not in diary.epochs[0]
    assert [m["alpha"] for m in diary.epochs[1:]] == pytest.approx([schedule.at(3), schedule.at(7)])
    assert made.task.controller.alpha == 0.1


def test_energy_is_checked_when_it_is_due() -> None:
    made, diary = trainer(epochs=2, check=EnergyCheck(3, 2))
    made.run()
    checked = [outcome.energy_checked for _, outcome in diary.steps]
    assert checked == [0, 0, 2, 0, 0, 2, 0, 0], "the third and the sixth of eight updates"
    assert [m["energy_checked"] for m in diary.epochs[1:]] == [2, 2]
    assert [m["energy_lowered"] for m in diary.epochs[1:]] == [
        sum(outcome.energy_lowered for _, outcome in diary.steps[:4]),
        sum(outcome.energy_lowered for _, outcome in diary.steps[4:]),
    ]


def test_the_penalty_is_part_of_the_update() -> None:
    """Beside the rule's own update; where no sample is used nothing moves."""
    plain, _ = trainer(optimizer="sgd", rate=0.1, dale=False)
    made, _ = trainer(optimizer="sgd", rate=0.1, penalty=0.5, dale=False)
    before = weights(made)
    phi = LeastControl().outcome(made.task, made.splits["train"].batch(np.arange(5))).credit.fields.phi
    for one in (plain, made):
        one._step(np.arange(5))
    slope = (1 - torch.tanh(phi[:7]) ** 2).square().mean(1)
    source = torch.as_tensor(made.compiled.links["e_e"].projection.edges.source).long()
    expected = weights(plain)["e_e"] - 0.1 * 0.5 * before["e_e"] * slope[source]
    assert torch.allclose(weights(made)["e_e"], expected, atol=1e-6)
    assert torch.equal(weights(made)["x_e"], weights(plain)["x_e"])


def test_after_an_epoch_the_bound_holds_to_many_digits() -> None:
    made, _ = trainer(optimizer="sgd", rate=3.0, bound=0.4, epochs=2)

    class Watch(Observer):
        def epoch(self, trainer, metrics) -> None:
            twin, now = Twin(made.compiled.circuit), weights(trainer)
            w = np.zeros_like(twin.w)
            for p in made.compiled.circuit.projections.values():
                if p.source != "x" and p.target != "y0":
                    rows, columns = twin.rows[p.target].start, twin.rows[p.source].start
                    np.add.at(w, (rows + p.edges.target, columns + p.edges.source), now[p.name].numpy())
            assert float(np.linalg.svd(w, compute_uv=False)[0]) <= 0.4 * (1 + 1e-4)

    made.observers += (Watch(),)
    made.run()
