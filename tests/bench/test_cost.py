"""The comparison of costs: what is counted, for whom, and against which oracle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from circuitlab.bench import cost
from circuitlab.bench.circuits import balanced_circuit, random_batch, random_circuit, task_of
from circuitlab.bench.cost import FAST, PLAIN, Net, Readings, contenders, control_name, mark_changed, measure
from circuitlab.bench.nets import experiment, learn
from circuitlab.bench.oracle import Oracle, check, descend
from circuitlab.bench.sparse import Case
from circuitlab.bench.updates import update_errors
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError
from circuitlab.learn.base import Task
from circuitlab.learn.rules import RULES
from circuitlab.report.spectrum import rate_weights, spectral_radius


@pytest.fixture
def task() -> Task:
    return task_of(random_circuit(10, 1.0, 0.6, 3, 0), 1.0, torch.float64)


def test_plain_backprop_takes_plain_steps_and_the_other_what_control_takes(task: Task) -> None:
    found = contenders(task, [6.4, 0.1])
    assert list(found) == [control_name(6.4), control_name(0.1), PLAIN, FAST]
    assert [found[name].task.controller.alpha for name in list(found)[:2]] == [6.4, 0.1]
    assert found[PLAIN].task.settings == replace(task.settings, method="fixed_point")
    assert found[FAST].task.settings == task.settings
    assert {c.task.settings.at(torch.float64) for c in found.values()} == {1e-6}
    batch = random_batch(task, 5, 1.0, 0)
    plain = found[PLAIN].rule.outcome(found[PLAIN].task, batch)
    assert (plain.free.method, plain.credit.method) == ("fixed_point", "fixed_point")


def test_counts_are_those_of_the_solutions_and_both_phases_count(task: Task) -> None:
    batches = [random_batch(task, 5, 1.0, seed) for seed in (0, 1)]
    found = measure(contenders(task, [1.0]), batches, repeats=2)
    for name, contender in contenders(task, [1.0]).items():
        readings = found[name]
        assert len(readings.products) == 2
        assert len(readings.solve) == len(readings.whole) == 4
        for k, batch in enumerate(batches):
            outcome = contender.rule.outcome(contender.task, batch)
            both = outcome.free.products + outcome.credit.products
            assert readings.products[k] == pytest.approx(float(both.double().mean()))
            assert readings.credit[k] == pytest.approx(float(outcome.credit.iterations.double().mean()))
            assert readings.unconverged[k] == 0
        assert all(0 < solve < whole for solve, whole in zip(readings.solve, readings.whole, strict=True))


def test_weights_marked_as_changed_keep_their_values_but_not_their_version(task: Task) -> None:
    parameters = task.system.compiled.parameters_by_name()  # type: ignore[attr-defined]
    before = {name: (value.detach().clone(), value._version) for name, value in parameters.items()}
    mark_changed(task)
    for name, value in parameters.items():
        assert torch.equal(value, before[name][0])
        assert value._version > before[name][1]


def test_a_row_of_products_by_hand() -> None:
    def readings(products: list[float], missed: int) -> Readings:
        return Readings(products, [1.0], [2.0], [missed], [1.0], [1.0])

    by_name = {
        control_name(0.1): readings([10, 20, 60], 1), PLAIN: readings([10, 10, 20], 0), FAST: readings([5, 5, 5], 2),
    }  # fmt: skip
    cells = cost._products_row(Net("recurrent backprop", 300), 0.1, by_name)
    # medians 20, 10, 5; ratios per batch 1, 2, 3 and 2, 4, 12
    assert cells == ["300 by RBP", 0.1, 20, 10, 5, 2, 4, "1 / 0 / 2"]


def test_a_row_of_times_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "REPEATS", 2)

    def readings(solve: list[float], whole: list[float]) -> Readings:
        return Readings([], [], [], [], solve, whole)

    by_name = {
        control_name(1): readings([0.03, 0.02, 0.08, 0.09], [0.05, 0.04, 0.1, 0.1]),
        PLAIN: readings([0.01, 0.04, 0.02, 0.03], [0.02, 0.05, 0.05, 0.05]),
        FAST: readings([0.04, 0.05, 0.08, 0.09], [1.0, 1.0, 1.0, 1.0]),
    }
    cells = cost._times_row(Net("", 0), 1, by_name)
    # the least of each batch: 20, 80 and 10, 20 and 40, 80 ms; ratios 2, 4 and 1/2, 1; with updates 40/20, 100/50
    assert cells[:2] == ["start", 1]
    assert cells[2:] == pytest.approx([50, 15, 60, 3, 0.75, 100 * 1.0 / 3, 2])


def test_nets_of_one_leak_are_not_shown_under_another() -> None:
    assert Net("", 0).shows(0.1)
    assert Net("recurrent backprop", 5).shows(0.1)
    assert Net(control_name(0.1), 5).shows(0.1)
    assert not Net(control_name(6.4), 5).shows(0.1)


def test_the_oracle_agrees_with_itself_and_not_with_another_state(task: Task) -> None:
    batch = random_batch(task, 6, 1.0, 0)
    truth = descend(task, batch)
    [part] = truth.portions
    assert bool(part.solved.all())
    system = task.system
    assert isinstance(system, CircuitSystem)
    found = check(
        RULES["least_control"], replace(task, settings=replace(task.settings, tolerance=1e-9)), truth, system
    )
    assert len(found.errors) == 6
    assert max(found.relative) < 1e-6
    free = task.free(system.drive(batch.x))
    apart, size = update_errors(system, free.fields, part.fields, batch.x)
    # without control there is no update: the whole of the oracle's is missing
    torch.testing.assert_close(apart, size)


def test_shares_of_an_oracle_by_hand() -> None:
    # own errors 1e-4, 1e-3, 1e-2 and an unconverged sample; the typical norm is sqrt(1 + 1 + 100 + 1)/2 = 5.07
    found = Oracle([1e-4, 1e-3, 1e-1, float("inf")], [1.0, 1.0, 10.0, 1.0], unsolved=1, missed=1)
    assert found.typical == pytest.approx((103 / 4) ** 0.5)
    cells = found.cells()
    assert cells[:5] == [4, 1, 1, 50.0, 50.0]
    assert cells[5:] == [pytest.approx(1e-3), None]
    assert Oracle([], [], 3, 0).cells() == [0, 3, 0, None, None, None, None]
    assert len(cells) + 3 == len(Oracle.table([]).columns)


def test_an_epoch_of_training_is_watched_whole(small: Path) -> None:
    trained = learn(experiment(small, [], 1), epochs=1, moments=(2,), every=4)
    assert (trained.last, sorted(trained.weights)) == (6, [0, 2, 6])
    assert (trained.watch.samples, trained.watch.unconverged) == (24, 0)
    assert [look[0] for look in trained.watch.curve] == [0, 4, 6]
    assert trained.accuracy == trained.watch.curve[-1][2]
    assert not torch.equal(trained.weights[0]["cells_cells"], trained.weights[2]["cells_cells"])
    # the same as the program's own training: the benchmark changes nothing of it
    from circuitlab.experiment.training import prepare

    own = prepare(experiment(small, ["learn.epochs=3"], 1)).trainer
    own.schedule = replace(own.schedule, epochs=1)
    own.run()
    for name, value in own.compiled.parameters_by_name().items():
        assert torch.equal(value, trained.weights[6][name])


def test_a_circuit_of_excitation_and_inhibition_obeys_dale_and_its_radius() -> None:
    circuit = balanced_circuit(200, 0.1, 1.3, 4, 0)
    assert spectral_radius(circuit) == pytest.approx(1.3, rel=1e-6)
    weights = rate_weights(circuit).toarray()
    assert (weights[:, :160] >= 0).all()
    assert (weights[:, 160:200] <= 0).all()
    # every neuron hears a tenth of each population
    assert ((weights[:200, :160] != 0).sum(1) == 16).all()
    assert ((weights[:200, 160:200] != 0).sum(1) == 4).all()


def test_the_ratio_on_sparse_circuits_counts_what_both_solved() -> None:
    control = control_name(0.1)
    case = Case(
        0.9, 0.5, 0.1,
        {control: [10, 20, 99], PLAIN: [5, 15, 99], FAST: [9, 10, 10]},
        {control: [True, True, False], PLAIN: [True, True, True], FAST: [False, True, True]},
        {},
    )  # fmt: skip
    assert case.ratio(control, PLAIN) == pytest.approx(30 / 20)
    assert case.ratio(control, FAST) == pytest.approx(20 / 10)
    row = case.row()
    assert row[:3] == [0.9, 0.5, 0.1]
    assert row[3:] == [15, pytest.approx(119 / 3), 10, 2, pytest.approx(1.5), 2, "1 / 0 / 1"]
    none = replace(case, converged={**case.converged, control: [False] * 3})
    assert none.row()[3] is None
    assert none.ratio(control, PLAIN) is None


def test_a_circuit_too_large_for_descent_is_told_what_to_leave_out() -> None:
    large = task_of(random_circuit(1100, 0.01, 0.5, 3, 0), 1.0, torch.float64)
    with pytest.raises(CircuitError, match=r"at most 1024 units.*--oracle 0"):
        cost._descended(large, random_batch(large, 2, 1.0, 0))
