"""Many processes make the update of one: groups of threads stand in for processes, against one trainer."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from circuitlab.compile.compiled import CompiledCircuit
from circuitlab.control.dynamic_inversion import DynamicInversion, Feedback
from circuitlab.control.output import leaky_integral
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.dynamics.loss import LOSSES, OutputLoss
from circuitlab.errors import CircuitError
from circuitlab.learn.backprop import RecurrentBackprop
from circuitlab.learn.base import LearningRule, Task
from circuitlab.learn.constrain import SingularValueBound
from circuitlab.learn.evaluate import Split
from circuitlab.learn.least_control import LeastControl
from circuitlab.learn.optimizer import make_optimizer, make_scheduler
from circuitlab.learn.parallel import ALONE, Group, Processes, joined
from circuitlab.learn.train import Observer, Schedule, Stopped, Trainer
from circuitlab.solve.choose import SolveSettings
from tests.oracles.circuits import random_circuit

SAMPLES, BATCH, EPOCHS = 22, 7, 3


class Threads(Group):
    """One of several threads that meet where processes would exchange data."""

    def __init__(self, rank: int, size: int, table: list[Any], meeting: threading.Barrier) -> None:
        self.rank, self.size, self.table, self.meeting = rank, size, table, meeting

    def _all(self, value: Any) -> list[Any]:
        self.table[self.rank] = value
        self.meeting.wait(30)
        values = list(self.table)
        self.meeting.wait(30)
        return values

    def sum(self, values: np.ndarray) -> np.ndarray:
        return np.sum(self._all(values.astype(np.float64)), axis=0)

    def add(self, tensors) -> None:
        for tensor in tensors:
            total = torch.stack(self._all(tensor.clone())).sum(0)
            tensor.copy_(total)

    def gather(self, columns: torch.Tensor, count: int) -> torch.Tensor | None:
        share = self.share(count)
        found = torch.cat(self._all(columns[:, : share.stop - share.start]), 1)
        return found if self.leads else None

    def verify(self, tensors, what: str) -> None:
        for values in self._all({name: tensor.clone() for name, tensor in tensors.items()}):
            assert all(torch.equal(values[name], tensor) for name, tensor in tensors.items())


PRODUCTS = (5, 9)


class Diary(Observer):
    """Numbers of every step (products at `PRODUCTS`), and the activity of every second one."""

    def __init__(self) -> None:
        self.numbers: list[list[torch.Tensor]] = []
        self.activity: list[torch.Tensor] = []
        self.epochs: list[dict[str, float]] = []

    def wants_activity(self, trainer: Trainer) -> bool:
        return trainer.at.step % 2 == 0

    def step(self, trainer, sample_ids, batch, outcome) -> None:
        assert batch.x.shape[1] == len(sample_ids) == len(outcome.loss)
        solutions = [(s.converged, s.iterations, s.products, s.kinks) for s in (outcome.free, outcome.credit)]
        self.numbers.append(
            [outcome.loss, outcome.control_cost, outcome.used, *(part for s in solutions for part in s)]
        )
        if trainer.at.step % 2:
            fields = [(s.fields.phi, s.fields.psi, s.fields.u) for s in (outcome.free, outcome.credit)]
            self.activity.append(torch.cat([part for f in fields for part in f]))

    def epoch(self, trainer, metrics) -> None:
        self.epochs.append(metrics)


def split(seed: int, samples: int) -> Split:
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=samples)
    x = rng.standard_normal((samples, 4)) + labels[:, None]
    return Split(torch.tensor(x), torch.tensor(np.eye(3)[labels]), (slice(0, 3),))


def make(group: Group, rule: LearningRule, batch: int, settings: SolveSettings) -> tuple[Trainer, Diary]:
    compiled = CompiledCircuit(random_circuit(0, dale=True, gain=0.5), torch.float64)
    loss = OutputLoss([(LOSSES["cross_entropy"], slice(0, 3))])
    task = Task(
        CircuitSystem(compiled), loss, DynamicInversion(Feedback()), leaky_integral(1.0, 10.0), settings
    )
    optimizer = make_optimizer(compiled.plastic().values(), "adam", {"lr": 0.02})
    steps = -(-SAMPLES // batch)

    def order(epoch: int) -> list[np.ndarray]:
        ids = np.random.default_rng(epoch).permutation(SAMPLES)
        return [ids[i : i + batch] for i in range(0, SAMPLES, batch)]

    diary = Diary()
    trainer = Trainer(
        compiled,
        task,
        rule,
        {"train": split(0, SAMPLES), "validation": split(1, 2)},
        Schedule(EPOCHS, order, clip=0.1),
        optimizer,
        make_scheduler(optimizer, "cosine", {}, "step", EPOCHS * steps, EPOCHS),
        SingularValueBound(compiled, 0.6),
        [diary] if group.leads else [],
        group=group,
    )
    return trainer, diary


def together(size: int, run: Callable[[Group], Any]) -> list[Any]:
    """What a function gives in each of several threads."""
    table: list[Any] = [None] * size
    meeting, results, errors = threading.Barrier(size), [None] * size, []

    def work(rank: int) -> None:
        try:
            results[rank] = run(Threads(rank, size, table, meeting))
        except (Exception, Stopped) as error:  # noqa: BLE001 (raised again below)
            errors.append(error)
            meeting.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


TIGHT = SolveSettings(method="anderson", tolerance=1e-9)
FEW_STEPS = SolveSettings(method="anderson", tolerance=1e-9, max_iterations=9)
PRECONDITIONED = SolveSettings(method="anderson", tolerance=1e-5, preconditioner="mean_response")


@pytest.mark.parametrize(
    ("size", "batch", "rule", "settings"),
    [
        (2, 7, LeastControl(), TIGHT),
        (3, 5, LeastControl(), FEW_STEPS),
        (5, 3, LeastControl(gated=True), TIGHT),
        (4, 7, RecurrentBackprop(), TIGHT),
        (2, 7, LeastControl(), PRECONDITIONED),
        (5, 3, LeastControl(), PRECONDITIONED),
        (3, 7, RecurrentBackprop(), PRECONDITIONED),
    ],
    ids=[
        "two",
        "some unconverged",
        "fewer samples than processes",
        "backprop",
        "preconditioned",
        "preconditioned, fewer samples than processes",
        "preconditioned backprop",
    ],
)
def test_many_learn_what_one_learns(
    size: int, batch: int, rule: LearningRule, settings: SolveSettings
) -> None:
    """With clip, cosine rate, Dale's law and the bound, and a last batch smaller than the others.

    The mean response is that of all shares, so that a loose tolerance makes no difference. What its build costs is
    spent by each process, and only there products differ."""
    alone, diary = make(ALONE, rule, batch, settings)
    alone.run()
    used = torch.cat([numbers[2] for numbers in diary.numbers])
    assert used.any()
    assert bool(used.all()) == (settings is not FEW_STEPS)

    def run(group: Group) -> tuple[Trainer, Diary]:
        trainer, diary = make(group, rule, batch, settings)
        trainer.run()
        return trainer, diary

    found = together(size, run)
    for trainer, _ in found:
        for name, value in alone.compiled.parameters_by_name().items():
            other = trainer.compiled.parameters_by_name()[name]
            assert torch.allclose(other, value, rtol=0, atol=1e-11), name
        assert trainer.at.step == alone.at.step
    many = found[0][1]
    assert [sorted(metrics) for metrics in many.epochs] == [sorted(metrics) for metrics in diary.epochs]
    for one, other in zip(diary.epochs, many.epochs, strict=True):
        if settings is PRECONDITIONED and "products" in one:
            assert other.pop("products") > one.pop("products")
        if settings is PRECONDITIONED:  # an evaluation's portions are each solved on their own
            assert other.pop("control_cost") == pytest.approx(one.pop("control_cost"), rel=1e-5)
        assert other == pytest.approx(one, rel=1e-9, abs=1e-11, nan_ok=True)
    for one, other in zip(diary.numbers, many.numbers, strict=True):
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert a.dtype == b.dtype
            if settings is PRECONDITIONED and index in PRODUCTS:
                continue
            assert torch.allclose(a.double(), b.double(), rtol=0, atol=1e-10)
    for one, other in zip(diary.activity, many.activity, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, rtol=0, atol=1e-9)


def test_shares_cover_the_samples_once_and_evenly() -> None:
    for count in (0, 1, 4, 7, 100):
        for size in (1, 2, 3, 8):
            shares = together(size, lambda group, count=count: group.share(count))
            assert np.concatenate([np.arange(count)[s] for s in shares]).tolist() == list(range(count))
            widths = [s.stop - s.start for s in shares]
            assert max(widths) - min(widths) <= 1


def test_a_stop_asked_of_one_stops_all_after_the_same_step() -> None:
    class Asks(LeastControl):
        """Like Ctrl-C in the middle of the fifth step of the last process."""

        def outcome(self, task, batch):
            if mine.trainer.at.step == 4 and mine.trainer.group.rank == 2:
                mine.trainer.stop_requested = True
            return super().outcome(task, batch)

    mine = threading.local()

    def run(group: Group) -> tuple[int, dict[str, Any]]:
        mine.trainer, _ = make(group, Asks(), BATCH, TIGHT)
        with pytest.raises(Stopped):
            mine.trainer.run()
        return mine.trainer.at.step, mine.trainer.state()

    found = together(3, run)
    assert [step for step, _ in found] == [5, 5, 5]

    def rest(group: Group) -> Trainer:
        trainer, _ = make(group, LeastControl(), BATCH, TIGHT)
        trainer.restore(copy.deepcopy(found[0][1]))
        trainer.run()
        return trainer

    alone, _ = make(ALONE, LeastControl(), BATCH, TIGHT)
    alone.run()
    for trainer in [rest(ALONE), *together(2, rest)]:
        for name, value in alone.compiled.parameters_by_name().items():
            assert torch.allclose(trainer.compiled.parameters_by_name()[name], value, rtol=0, atol=1e-11), (
                name
            )


def test_fields_that_nobody_asked_for_hold_no_units() -> None:
    class Reads(Diary):
        def wants_activity(self, trainer: Trainer) -> bool:
            return False

        def step(self, trainer, sample_ids, batch, outcome) -> None:
            assert outcome.free.fields.phi.shape == (0, len(sample_ids))

    def run(group: Group) -> None:
        trainer, _ = make(group, LeastControl(), BATCH, replace(TIGHT, tolerance=1e-4))
        trainer.observers = (Reads(),) if group.leads else ()
        trainer.run()

    together(2, run)


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "", "1"):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        if value is not None:
            monkeypatch.setenv("WORLD_SIZE", value)
        with joined() as group:
            assert type(group) is Group
            assert group.leads
            assert group.from_first(lambda: 3) == 3
            assert group.device("cuda:1") == "cuda:1"
    assert not torch.distributed.is_initialized()


def test_an_environment_that_describes_no_group_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CircuitError, match="RANK, MASTER_ADDR, MASTER_PORT is not set"), joined():
        pass


@pytest.mark.parametrize("name", ["mps", "cuda:1"])
def test_a_single_device_is_refused_for_many_processes(name: str) -> None:
    group = Processes.__new__(Processes)
    group.size, group.local_rank = 2, 0
    with pytest.raises(CircuitError, match=f"device: {name} is one device, and the run has 2 processes"):
        group.device(name)
    assert group.device("cpu") == "cpu"


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    group = Processes.__new__(Processes)
    group.size, group.local_rank = 3, 1
    assert group.device("cuda") == "cuda:1"
    group.local_rank = 2
    with pytest.raises(CircuitError, match="this machine has 2 GPUs"):
        group.device("cuda")
