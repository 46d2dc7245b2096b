"""Warm starts: what is remembered, for whom, that it changes no result, and that a bad one costs no sample."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from circuitlab.errors import CircuitError
from circuitlab.learn import base
from circuitlab.learn.backprop import RecurrentBackprop
from circuitlab.learn.base import Batch, LearningRule, Outcome
from circuitlab.learn.least_control import LeastControl
from circuitlab.learn.starts import CREDIT, DECAY, FREE, STORED, Classes, Starts
from circuitlab.learn.train import Observer, Trainer
from circuitlab.solve import choose
from tests.learn.test_train import SAMPLES, same, trainer, weights

KINDS = ("class_mean", "last")
RULES: dict[str, type[LearningRule]] = {
    "least control": LeastControl,
    "recurrent backprop": RecurrentBackprop,
}


def warm(kind: str, rule: LearningRule | None = None, samples: int = SAMPLES, **options: Any) -> Trainer:
    """A trainer as in the tests of training, with warm starts that hold so many samples."""
    made, _ = trainer(rule=rule, **options)
    size = made.compiled.size
    rows = {FREE: size, CREDIT: made.task.controlled_rows() if made.rule.controls else size}
    labels = made.splits["train"].target.argmax(1)
    memory = samples * sum(rows.values()) * STORED.itemsize
    made.starts = Starts(kind, rows, SAMPLES, Classes(labels, 3), memory, torch.float32, torch.device("cpu"))
    return made


def test_a_controlled_state_has_rows_for_all_that_the_pathway_adds() -> None:
    made, _ = trainer()
    assert made.task.controlled_rows() == 2 * made.compiled.size + made.compiled.output_size


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_each_sample_begins_where_it_ended(rule: type[LearningRule], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the weights as they were, own start + |dL/dy| d is the equilibrium that was found, to d's precision.

    A controlled state's own start is the free one, which must be exact to be the same again."""
    made = warm("last", rule(), bound=0.4)
    made.task = replace(made.task, settings=replace(made.task.settings, free_tolerance=1e-5))
    made._apply = lambda updates: None  # type: ignore[method-assign]
    ended: dict[int, list[torch.Tensor]] = {}

    class Watch(Observer):
        def step(self, trainer: Trainer, sample_ids: np.ndarray, batch: Batch, outcome: Outcome) -> None:
            for column, sample in enumerate(sample_ids):
                ended[int(sample)] = [s.state[:, column] for s in (outcome.free, outcome.credit)]

    made.observers = (Watch(),)
    made._step(np.array([3, 5]))
    made._step(np.array([17]))
    begun: list[torch.Tensor] = []

    def noted(honest: Any) -> Any:
        def solver(equations: Any, settings: Any, start: Any = None, *more: Any) -> Any:
            begun.append(start)
            return honest(equations, settings, start, *more)

        return solver

    for name in ("find", "approach"):
        monkeypatch.setattr(base, name, noted(getattr(choose, name)))
    ids = np.array([17, 3, 5])
    wanted = [torch.stack([ended[i][phase] for i in ids], 1) for phase in (0, 1)]
    made._step(ids)
    precision = torch.finfo(STORED).eps
    for start, want in zip(begun, wanted, strict=True):
        worst = (start - want).abs().amax(0) / want.abs().amax(0)
        assert (worst < precision + 1e-4).all(), (
            "d is rounded, and the solver ended within 1e-5 of its answers"
        )


def test_class_means_are_the_stated_running_means() -> None:
    """Classes 0, 1, 0, 2 of four samples, the third left out at first."""
    labels = Classes(torch.tensor([0, 1, 0, 2]), 3)
    starts = Starts("class_mean", {FREE: 1, CREDIT: 1}, 4, labels, 0, torch.float32, torch.device("cpu"))
    everybody = torch.arange(4)
    starts.keep(CREDIT, torch.tensor([0, 1]), torch.tensor([[4.0, 6.0]]))
    d, known = starts.recall(CREDIT, everybody)
    assert d.tolist() == [[4, 6, 4, 0]]
    assert known.tolist() == [True, True, True, False]
    starts.keep(CREDIT, torch.tensor([0, 2]), torch.tensor([[1.0, 3.0]]))
    d, _ = starts.recall(CREDIT, everybody)
    assert d[0].tolist() == pytest.approx([DECAY * 4 + (1 - DECAY) * 2, 6, DECAY * 4 + (1 - DECAY) * 2, 0])
    # the free phase knows no classes: a label must not lead a circuit to its answer
    starts.keep(FREE, everybody, torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    d, known = starts.recall(FREE, everybody)
    assert d.tolist() == [[0, 0, 0, 0]]
    assert not known.any()


def test_samples_beyond_the_memory_start_from_their_class() -> None:
    rows, device = {FREE: 2, CREDIT: 3}, torch.device("cpu")
    labels = Classes(torch.tensor([0, 1, 0, 1]), 2)
    memory = 2 * (2 + 3) * STORED.itemsize + 1
    starts = Starts("last", rows, 4, labels, memory, torch.float32, device)
    assert sum(d.nbytes for d in starts.last.values()) <= memory
    everybody = torch.arange(4)
    d = torch.tensor([[10.0, 20.0, 30.0, 40.0]] * 3)
    starts.keep(CREDIT, everybody, d)
    found, known = starts.recall(CREDIT, everybody)
    assert found[0].tolist() == [10, 20, 20, 30], "own, own, mean of 10 and 30, mean of 20 and 40"
    assert known.all()
    starts.keep(FREE, everybody, torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2))
    found, known = starts.recall(FREE, everybody)
    assert found[0].tolist() == [1, 2, 0, 0]
    assert known.tolist() == [True, True, False, False]
    nameless = Starts("last", rows, 4, None, memory, torch.float32, device)
    nameless.keep(CREDIT, everybody, d)
    found, known = nameless.recall(CREDIT, everybody)
    assert found[0].tolist() == [10, 20, 0, 0]
    assert known.tolist() == [True, True, False, False]


def test_samples_that_did_not_converge_leave_no_trace() -> None:
    made = warm("last", bound=0.4)
    made.task = replace(made.task, settings=choose.SolveSettings(max_iterations=1))
    made._step(np.arange(6))
    assert made.starts is not None
    assert not made.starts.met.any()
    assert not any(bool(seen.any()) for seen in made.starts.seen.values())


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_contracting_circuit_learns_the_same_from_any_start(kind: str, rule: type[LearningRule]) -> None:
    """Below a largest singular value of 0.4 there is one equilibrium of each kind; starts must not matter to it."""
    plain, cold = trainer(rule=rule(), bound=0.4)
    plain.run()
    made = warm(kind, rule(), bound=0.4)
    made.run()
    for name, value in weights(made).items():
        assert torch.allclose(value, weights(plain)[name], atol=2e-4), name
    assert made.at.unconverged == 0
    assert cold.epochs[-1]["unconverged"] == 0


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_circuit_that_stands_still_finds_its_last_states_at_once(rule: type[LearningRule]) -> None:
    """With weights that hardly move, the second pass begins within the rounding of what is remembered."""
    made = warm("last", rule(), rate=1e-9, bound=0.4)
    per_epoch: list[float] = []
    for epoch in (1, 2):
        before = made.at.sums.products
        for ids in made.schedule.order(epoch):
            made._step(ids)
        per_epoch.append(made.at.sums.products - before)
    assert per_epoch[1] < 0.8 * per_epoch[0]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_sample_lost_from_its_warm_start_is_found_from_the_free_state(
    rule: type[LearningRule], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = warm("last", rule(), bound=0.4)
    made._step(np.arange(6))
    assert made.starts is not None
    for states in made.starts.last.values():
        states.fill_(float("nan"))
    attempts: list[int] = []
    honest = choose.solve

    def counted(equations: Any, *rest: Any, **more: Any) -> Any:
        attempts.append(equations.start().shape[1])
        return honest(equations, *rest, **more)

    monkeypatch.setattr(choose, "solve", counted)
    seen: list[Any] = []
    made.rule = type(  # type: ignore[assignment]
        "Watched", (rule,), {"outcome": lambda self, t, b: seen.append(rule.outcome(self, t, b)) or seen[-1]}
    )()
    made._step(np.arange(6))
    assert bool(seen[0].used.all())
    assert len(attempts) >= 4, "each phase is tried warm, then from its own start"


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_knows_of_no_start(kind: str) -> None:
    made = warm(kind)
    made.run()
    before = made.evaluate()
    assert made.starts is not None
    assert made.task.starts is None
    made.starts.means.fill_(1e3)
    for states in made.starts.last.values():
        states.fill_(1e3)
    assert made.evaluate() == before


@pytest.mark.parametrize("samples", [SAMPLES, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_taken_up_anywhere_ends_in_the_same_bits(kind: str, samples: int) -> None:
    whole = warm(kind, samples=samples)
    whole.run()
    diary = whole.observers[0]
    for number in (0, 2, 11):
        again = warm(kind, samples=samples)
        again.restore(copy.deepcopy(diary.states[number]))  # type: ignore[attr-defined]
        again.run()
        assert same(weights(whole), weights(again)), number
        assert again.starts is not None
        assert whole.starts is not None
        assert torch.equal(again.starts.means, whole.starts.means)
        for phase in (FREE, CREDIT):
            assert torch.equal(again.starts.last[phase], whole.starts.last[phase])


def test_what_cannot_be_remembered_is_refused() -> None:
    rows, device = {FREE: 100, CREDIT: 210}, torch.device("cpu")
    with pytest.raises(
        CircuitError, match=r"^solve.start_memory: 600 bytes hold no sample: one takes 620 bytes$"
    ):
        Starts("last", rows, 10, None, 600, torch.float32, device)
    with pytest.raises(
        CircuitError, match=r"^solve.start: class_mean needs class labels; allowed here: free, zero"
    ):
        Starts("class_mean", rows, 10, None, 600, torch.float32, device)
