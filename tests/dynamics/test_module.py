"""A torch module as a system: its Jacobian, its time and its samples; and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import circuitlab
from circuitlab.control.dynamic_inversion import DynamicInversion, OwnFeedback
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.dynamics.module import ModuleSystem
from circuitlab.errors import CircuitError, DataError
from circuitlab.experiment.module import History, samples, task, trainer
from circuitlab.learn.backprop import Backprop
from circuitlab.learn.base import Batch
from circuitlab.learn.least_control import LeastControl
from circuitlab.solve.choose import SolveSettings
from tests.oracles.modules import module_batch, small_model, tight


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize("form", ["fixed_point", "flow"])
def test_transported_is_the_transposed_jacobian(form: str) -> None:
    system = small_model(form=form)
    x, phi, psi = double(16, 2), double(system.size, 2, seed=1), double(system.size, 2, seed=2)
    drive = system.drive(x)
    found = system.linearise(phi, drive).transported(psi)
    for sample in range(2):

        def prediction(state: Tensor, sample: int = sample) -> Tensor:
            inner = state[: system.hidden].reshape(1, *system.state_shape)
            image, y = system.model("predict", inner, drive.t()[sample].reshape(1, *system.encoding_shape))
            return torch.cat([image.flatten(), y.flatten()])

        jacobian = torch.autograd.functional.jacobian(prediction, phi[:, sample])
        assert isinstance(jacobian, Tensor)
        assert torch.allclose(found[:, sample], jacobian.t() @ psi[:, sample], atol=1e-12)


def test_a_flow_and_its_fixed_point_are_one_system() -> None:
    one, other = small_model(form="fixed_point"), small_model(form="flow")
    b = module_batch(one)
    first, second = (LeastControl().outcome(tight(s, control=0.5), b).updates for s in (one, other))
    for name, update in first.items():
        assert torch.allclose(update, second[name], atol=1e-9), name


def test_the_entry_and_parameters_by_name() -> None:
    assert circuitlab.module is ModuleSystem
    with pytest.raises(AttributeError, match="nothing"):
        circuitlab.nothing  # noqa: B018
    system = small_model()
    system.model.implicit.c1.requires_grad_(False)
    names = set(LeastControl().outcome(tight(system), module_batch(system)).updates)
    assert names == {n for n, _ in system.model.named_parameters()} - {
        "implicit.c1.weight",
        "implicit.c1.bias",
    }


def test_running_statistics_follow_and_equilibria_do_not_depend_on_the_batch() -> None:
    system = small_model(batch_norm=True)
    encoder, decoder = system.model.encoder, system.model.decoder
    assert system.follows and not small_model().follows
    system.model.train()  # whoever holds the modules may do so
    b = module_batch(system)
    alone = system.drive(b.x[:, :1])
    assert torch.allclose(system.drive(b.x)[:, :1], alone, atol=1e-12)
    assert not any(part.training for part in system.model.modules())
    phi = double(system.size, 4)
    before = encoder[0](b.x.t().reshape(4, 1, 4, 4))
    system.follow(phi, b.x)
    assert torch.allclose(encoder[1].running_mean, 0.1 * before.mean((0, 2, 3)), atol=1e-12)
    state = phi[: system.hidden].t().reshape(4, *system.state_shape)
    assert torch.allclose(decoder[0].running_mean, 0.1 * state.mean((0, 2, 3)), atol=1e-12)
    system.follow(phi[:, :1], b.x[:, :1])
    assert int(encoder[1].num_batches_tracked) == 1, "one sample has no statistics"


def test_a_trainer_goes_on_from_its_checkpoint_with_running_statistics() -> None:
    def made(epochs: int):
        system = small_model(batch_norm=True)
        x, labels = double(6, 16), torch.arange(6) % 3
        return trainer(
            task(system, control=1.0), samples(system, x, labels), epochs=epochs, batch_size=3, lr=1e-2
        )

    whole, first, second = made(2), made(1), made(2)
    whole.run()
    first.run()
    second.restore(first.state())
    second.run()
    expected, found = whole.compiled.state_by_name(), second.compiled.state_by_name()
    assert "encoder.1.running_mean" in expected
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


RULES = {
    "least control": (LeastControl(presynaptic="free"), "state"),
    "least control, the decoder in the loss": (LeastControl(presynaptic="free"), "loss"),
    "recurrent backprop": ("recurrent_backprop", "state"),
}


@pytest.mark.parametrize(("rule", "decoder_in"), RULES.values(), ids=RULES)
def test_training_learns_a_small_task(rule, decoder_in: str) -> None:
    """Three patterns under noise: chance is a third."""
    system = small_model(decoder_in=decoder_in, dtype=torch.float32, channels=2)
    rng = np.random.default_rng(0)
    patterns, labels = rng.standard_normal((3, 16)), np.arange(45) % 3
    x = patterns[labels] + 0.3 * rng.standard_normal((45, 16))
    history, solve = History(), SolveSettings(tolerance=1e-4, max_iterations=60)
    split = {"train": samples(system, x[:30], labels[:30]), "test": samples(system, x[30:], labels[30:])}
    learning = trainer(
        task(system, control=1.0, solve=solve),
        split,
        rule=rule,
        epochs=5,
        batch_size=10,
        lr=1e-2,
        observers=(history,),
    )
    learning.run()
    first, last = history.epochs[0], history.epochs[-1]
    assert last["test_accuracy"] >= 0.8
    assert last["train_loss"] < 0.7 * first["train_loss"]
    assert last["control_cost"] < first["control_cost"]


def test_soft_targets_and_shapes_of_samples() -> None:
    system = small_model()
    split = samples(system, double(4, 1, 4, 4), np.array([0, 1, 2, 0]), soft_targets=0.1)
    assert split.x.shape == (4, 16) and split.x.dtype == torch.float64
    assert torch.allclose(split.target[1], torch.tensor([0.05, 0.9, 0.05]).double())
    assert split.classes == (slice(0, 3),)
    assert samples(system, double(4, 16), double(4, 3)).classes == ()
    for x, target, soft, message in (
        (double(4, 15), [0, 1, 2, 0], 0.0, "x: has the shape"),
        (double(4, 16), [0, 1, 3, 0], 0.0, "labels from 0 to 3"),
        (double(4, 16), double(4, 2), 0.0, "target: has the shape"),
        (double(4, 16), double(4, 3), 0.1, "soft_targets"),
    ):
        with pytest.raises(DataError, match=message):
            samples(system, x, target, soft)


class Given(nn.Module):
    """A module made of a function, with one parameter."""

    def __init__(self, function) -> None:
        super().__init__()
        self.scale, self.function = nn.Parameter(torch.tensor(0.5)), function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self.scale, *inputs)


def good_implicit(s: Tensor, phi: Tensor, e: Tensor) -> Tensor:
    return s * torch.tanh(phi) + e


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, phi: Tensor, e: Tensor) -> Tensor:
        return self.norm(phi) + e


READ = Given(lambda s, phi: s * phi[:, :2])
BAD = {
    "wrong state": (
        Given(lambda s, phi, e: phi[:, :3]),
        READ,
        None,
        "implicit: gives (3,) for a state of (4,)",
    ),
    "wrong encoding": (
        Given(good_implicit),
        READ,
        nn.Linear(4, 3),
        "implicit module or decoder: cannot be evaluated",
    ),
    "wrong input": (Given(good_implicit), READ, nn.Linear(5, 4), "encoder: cannot be evaluated"),
    "decoder of images": (
        Given(good_implicit),
        Given(lambda s, phi: phi[:, :, None]),
        None,
        "decoder: gives (4, 1)",
    ),
    "mixed samples": (
        Given(lambda s, phi, e: s * (phi - phi.mean(0)) + e),
        READ,
        None,
        "implicit: mixes the samples of a batch",
    ),
    "chance": (
        Given(lambda s, phi, e: phi + torch.randn_like(phi)),
        READ,
        None,
        "implicit: gives another answer",
    ),
    "not finite": (
        Given(lambda s, phi, e: torch.log(-phi.abs())),
        READ,
        None,
        "implicit: gives numbers that are not",
    ),
    "batch norm within": (
        Normalised(),
        READ,
        None,
        "implicit.norm: batch normalisation within the implicit module",
    ),
    "batch statistics": (
        Given(good_implicit),
        READ,
        nn.BatchNorm1d(4, track_running_stats=False),
        "encoder: normalises by the statistics of each batch",
    ),
    "dropout": (Given(good_implicit), nn.Sequential(nn.Dropout(0.1), READ), None, "decoder.0: dropout"),
    "two precisions": (
        Given(good_implicit),
        READ,
        nn.Linear(4, 4, dtype=torch.float64),
        "all float32 or all float64",
    ),
    "nothing to learn": (
        nn.Bilinear(4, 4, 4).requires_grad_(False),
        nn.Flatten(),
        None,
        "no parameter requires",
    ),
    "no tensor": (Given(lambda s, phi, e: (phi, e)), READ, None, "implicit: must give a tensor"),
}


@pytest.mark.parametrize(("implicit", "decoder", "encoder", "message"), BAD.values(), ids=BAD)
def test_modules_without_an_equilibrium_for_each_sample_are_refused(
    implicit, decoder, encoder, message: str
) -> None:
    with pytest.raises(CircuitError) as error:
        ModuleSystem(implicit, decoder, encoder, state_shape=(4,), input_shape=(4,))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_options_that_are_none_are_refused() -> None:
    parts = (Given(good_implicit), READ)
    shapes = dict(state_shape=(4,), input_shape=(4,))
    for options, message in (
        (shapes | dict(form="jump"), "form: no 'jump'; allowed: fixed_point, flow"),
        (shapes | dict(decoder_in="brain"), "decoder_in: no 'brain'; allowed: state, loss"),
        (shapes | dict(tau_ms=0), "tau_ms"),
        (shapes | dict(state_shape=()), "state_shape"),
    ):
        with pytest.raises(CircuitError, match=message):
            ModuleSystem(*parts, **options)


def test_what_does_not_go_with_modules_is_refused() -> None:
    system, b = small_model(), module_batch(small_model())
    t = tight(system)
    with pytest.raises(CircuitError, match="least_control_gated needs the slope"):
        LeastControl(gated=True).outcome(t, b)
    with pytest.raises(CircuitError, match="recurrent_backprop"):
        Backprop().outcome(t, b)
    with pytest.raises(CircuitError, match="'backprop' cannot learn torch modules; allowed: least_control"):
        trainer(t, samples(system, b.x.t(), b.target.t()), rule="backprop")
    with pytest.raises(CircuitError, match="loss: no 'hinge'"):
        task(system, loss="hinge")
    with pytest.raises(CircuitError, match="allowed: tied"):
        task(system, pathway=DynamicInversion(OwnFeedback.__new__(OwnFeedback)))
    with pytest.raises(CircuitError, match="levenberg"):
        LeastControl().outcome(task(system, solve=SolveSettings("levenberg")), b)
    inside = small_model(decoder_in="loss")
    with pytest.raises(CircuitError, match="part of the loss"):
        tight(inside, pathway=LinearFeedback(inside, torch.eye(inside.size, 3).double()))  # type: ignore[arg-type]


def test_a_function_serves_as_the_loss_of_a_module() -> None:
    def squared(y: Tensor, target: Tensor) -> Tensor:
        return 0.5 * (y - target).square().sum()

    for decoder_in in ("state", "loss"):
        system = small_model(decoder_in=decoder_in)
        b = module_batch(system)
        given, built_in = (
            LeastControl().outcome(tight(system, loss=loss), b) for loss in (squared, "squared_error")
        )
        assert bool(given.used.all())
        for name, update in built_in.updates.items():
            assert torch.allclose(given.updates[name], update, atol=1e-8), name


def test_samples_are_problems_of_their_own() -> None:
    system = small_model()
    b = module_batch(system)
    whole = LeastControl().outcome(tight(system), b).credit.fields.psi
    one = LeastControl().outcome(tight(system), Batch(b.x[:, 2:3], b.target[:, 2:3])).credit.fields.psi
    assert torch.allclose(whole[:, 2:3], one, atol=1e-10)
