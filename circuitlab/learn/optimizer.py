"""Any optimizer and scheduler of torch, by name, with its keyword arguments checked before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from circuitlab.errors import CircuitError, suggestion

UNFIT = {
    "optimizer": "the base class",
    "lbfgs": "it evaluates the loss again and again inside one step",
    "sparseadam": "it wants gradients of sparse layout, and synapses are stored densely",
    "muon": "it wants matrices, and synapses are one flat list per projection",
}
"""Optimizers that cannot work on synapses, and why."""
UNFIT_SCHEDULERS = {
    "",
    "scheduler",
    "lrscheduler",
    "chainedscheduler",
    "sequential",
    "lambda",
    "multiplicative",
    "swa",
}
"""Schedulers that a file cannot describe: base classes, and those made of functions or other schedulers."""


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    name: str,
    options: Mapping[str, Any],
    where: str = "learn.optimizer",
) -> torch.optim.Optimizer:
    """A torch optimizer over the synapses.

    Args:
        where: the section that asks for it, for messages.

    Raises:
        CircuitError: unknown or unfit name, unknown option, or values that torch refuses.
    """
    classes = _classes(torch.optim, torch.optim.Optimizer)
    if name.lower() in UNFIT:
        raise CircuitError(f"{where}.name: {name} cannot be used: {UNFIT[name.lower()]}")
    allowed = sorted(set(classes) - set(UNFIT))
    if name.lower() not in allowed:
        raise CircuitError(
            f"{where}.name: no torch optimizer '{name}'; allowed: {', '.join(allowed)}."
            f"{suggestion(name.lower(), allowed)}"
        )
    chosen = classes[name.lower()]
    _check(chosen, options, where, skip=("params",))
    try:
        return chosen(list(parameters), **options)
    except (ValueError, TypeError, RuntimeError) as error:
        raise CircuitError(f"{where}: torch refuses these options: {_first_line(error)}") from error


def make_scheduler(
    optimizer: torch.optim.Optimizer, name: str, options: Mapping[str, Any], per: str, steps: int, epochs: int
) -> tuple[lr_scheduler.LRScheduler | None, str]:
    """A torch scheduler, and whether it moves per `step` or per `epoch`.

    `constant` is none; `cosine` falls to a tenth of the rate over the whole run.

    Raises:
        CircuitError: unknown name or option, or values that torch refuses.
    """
    if name == "constant":
        if options:
            raise CircuitError(f"learn.scheduler.{next(iter(options))}: a constant rate has no options")
        return None, "epoch"
    classes = _classes(lr_scheduler, lr_scheduler.LRScheduler)
    short = {n.replace("lr", ""): c for n, c in classes.items()}
    classes |= short
    options = dict(options)
    if name == "cosine":
        name = "cosineannealinglr"
        rate = optimizer.param_groups[0]["lr"]
        options = {"T_max": steps if per == "step" else epochs, "eta_min": 0.1 * float(rate), **options}
    plain = name.lower().replace("_", "")
    if plain not in classes or plain.removesuffix("lr") in UNFIT_SCHEDULERS:
        allowed = sorted({"constant", "cosine", *short} - UNFIT_SCHEDULERS)
        raise CircuitError(
            f"learn.scheduler.name: no torch scheduler '{name}'; allowed: {', '.join(allowed)}."
            f"{suggestion(plain, allowed)}"
        )
    chosen = classes[plain]
    if chosen is lr_scheduler.ReduceLROnPlateau and per == "step":
        raise CircuitError(
            "learn.scheduler.per: reducelronplateau watches the validation loss, which is measured once an epoch; "
            "allowed here: epoch"
        )
    _check(chosen, options, "learn.scheduler", skip=("optimizer",))
    try:
        return chosen(optimizer, **options), per
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise CircuitError(f"learn.scheduler: torch refuses these options: {_first_line(error)}") from error


def _classes(module: Any, base: type) -> dict[str, Any]:
    found = inspect.getmembers(module, lambda item: inspect.isclass(item) and issubclass(item, base))
    return {name.lower(): item for name, item in found if not name.startswith("_")}


def _check(chosen: Any, options: Mapping[str, Any], where: str, skip: tuple[str, ...]) -> None:
    parameters = inspect.signature(chosen).parameters
    known = [name for name in parameters if name not in skip]
    for name in options:
        if name not in known:
            raise CircuitError(
                f"{where}.{name}: {chosen.__name__} has no option '{name}'; allowed: {', '.join(known)}."
                f"{suggestion(name, known)}"
            )
    for name in known:
        if parameters[name].default is inspect.Parameter.empty and name not in options:
            raise CircuitError(f"{where}: {chosen.__name__} needs the option '{name}'")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
