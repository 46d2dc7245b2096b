"""Optimizers and schedulers by name: torch's own behaviour, and what is refused before anything runs."""

from __future__ import annotations

import inspect

import pytest
import torch

from circuitlab.errors import CircuitError
from circuitlab.learn.optimizer import UNFIT, make_optimizer, make_scheduler

NAMES = sorted(
    name
    for name, item in vars(torch.optim).items()
    if inspect.isclass(item) and issubclass(item, torch.optim.Optimizer) and name.lower() not in UNFIT
)


def synapses() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.linspace(-1, 1, n)) for n in (5, 1, 3)]


@pytest.mark.parametrize("name", NAMES)
def test_every_torch_optimizer_that_fits_steps(name: str) -> None:
    ours, theirs = synapses(), synapses()
    options = {"lr": 0.01}
    optimizer = make_optimizer(iter(ours), name.lower(), options)
    reference = getattr(torch.optim, name)(theirs, **options)
    assert type(optimizer) is type(reference)
    for _ in range(3):
        for values in (ours, theirs):
            for parameter in values:
                parameter.grad = parameter.detach().sign() + 0.1
        optimizer.step()
        reference.step()
    for a, b, start in zip(ours, theirs, synapses(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, start)


@pytest.mark.parametrize("name", list(UNFIT))
def test_unfit_optimizers_say_why(name: str) -> None:
    with pytest.raises(CircuitError) as error:
        make_optimizer(synapses(), name, {"lr": 0.1})
    assert str(error.value) == f"learn.optimizer.name: {name} cannot be used: {UNFIT[name]}"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamm", {}, r"learn\.optimizer\.name: no torch optimizer 'adamm'; allowed: .*Did you mean 'adam"),
        (
            "adam",
            {"betes": [0.9, 0.9]},
            r"learn\.optimizer\.betes: Adam has no option 'betes'.*Did you mean 'betas'",
        ),
        ("adam", {"params": []}, r"learn\.optimizer\.params: Adam has no option 'params'"),
        ("sgd", {"lr": -1.0}, r"learn\.optimizer: .*Invalid learning rate: -1\.0"),
        ("sgd", {"lr": 0.1, "momentum": -1.0}, r"learn\.optimizer: .*Invalid momentum value"),
        ("adam", {"betas": 0.9}, r"learn\.optimizer: "),
    ],
)
def test_optimizer_refusals(name: str, options: dict, message: str) -> None:
    with pytest.raises(CircuitError, match=message) as error:
        make_optimizer(synapses(), name, options)
    assert "\n" not in str(error.value)


def sgd(rate: float = 0.5) -> torch.optim.Optimizer:
    return make_optimizer(synapses(), "sgd", {"lr": rate})


def rates(optimizer, scheduler, moves: int) -> list[float]:
    found = []
    for _ in range(moves):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*found, optimizer.param_groups[0]["lr"]]


@pytest.mark.parametrize(("per", "moves"), [("step", 12), ("epoch", 4)])
def test_cosine_ends_at_a_tenth(per: str, moves: int) -> None:
    """rate(t) = eta (0.1 + 0.45 (1 + cos(pi t / T))) over the whole run."""
    optimizer = sgd()
    scheduler, unit = make_scheduler(optimizer, "cosine", {}, per, steps=12, epochs=4)
    assert unit == per
    found = rates(optimizer, scheduler, moves)
    expected = [
        0.5 * (0.1 + 0.45 * (1 + torch.tensor(t / moves * torch.pi).cos().item())) for t in range(moves + 1)
    ]
    assert found == pytest.approx(expected, rel=1e-6)
    assert found[-1] == pytest.approx(0.05)


def test_cosine_takes_its_own_end() -> None:
    optimizer = sgd()
    scheduler, _ = make_scheduler(optimizer, "cosine", {"eta_min": 0.25}, "epoch", steps=12, epochs=4)
    assert rates(optimizer, scheduler, 4)[-1] == pytest.approx(0.25)


@pytest.mark.parametrize("name", ["StepLR", "step", "steplr", "step_lr"])
def test_schedulers_have_torchs_names(name: str) -> None:
    optimizer = sgd()
    scheduler, _ = make_scheduler(optimizer, name, {"step_size": 2, "gamma": 0.1}, "epoch", 12, 4)
    assert rates(optimizer, scheduler, 4) == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005])


def test_plateaus_are_seen_once_an_epoch() -> None:
    assert make_scheduler(sgd(), "ReduceLROnPlateau", {"patience": 1}, "epoch", 12, 4)[1] == "epoch"
    with pytest.raises(CircuitError, match=r"learn\.scheduler\.per: .* allowed here: epoch"):
        make_scheduler(sgd(), "ReduceLROnPlateau", {"patience": 1}, "step", 12, 4)


def test_constant_is_no_scheduler() -> None:
    assert make_scheduler(sgd(), "constant", {}, "step", 1, 1) == (None, "epoch")
    with pytest.raises(CircuitError, match=r"learn\.scheduler\.gamma: a constant rate has no options"):
        make_scheduler(sgd(), "constant", {"gamma": 0.1}, "step", 1, 1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "cosin",
            {},
            r"learn\.scheduler\.name: no torch scheduler 'cosin'; allowed: .*Did you mean 'cosine'",
        ),
        ("sequential", {}, r"learn\.scheduler\.name: no torch scheduler"),
        ("chained_scheduler", {}, r"learn\.scheduler\.name: no torch scheduler"),
        (
            "step",
            {"step_sice": 2},
            r"learn\.scheduler\.step_sice: StepLR has no option 'step_sice'.*'step_size'",
        ),
        ("step", {}, r"learn\.scheduler: .*step_size"),
        ("cosine", {"optimizer": 1}, r"learn\.scheduler\.optimizer: CosineAnnealingLR has no option"),
    ],
)
def test_scheduler_refusals(name: str, options: dict, message: str) -> None:
    with pytest.raises(CircuitError, match=message) as error:
        make_scheduler(sgd(), name, options, "epoch", 12, 4)
    assert "\n" not in str(error.value)
