"""A trainer refuses what makes no sense under its pathway, with what does, whoever made its parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuitlab.control.base import Pathway
from circuitlab.control.deep_feedback_control import DeepFeedbackControl
from circuitlab.control.dynamic_inversion import DynamicInversion
from circuitlab.control.energy_based import EnergyBased
from circuitlab.control.feedback import feedback
from circuitlab.control.interneurons import Interneurons
from circuitlab.control.lateral_inhibition import LateralInhibition
from circuitlab.control.linear_feedback import LinearFeedback
from circuitlab.control.output import proportional_integral
from circuitlab.dynamics.circuit import CircuitSystem
from circuitlab.errors import CircuitError
from circuitlab.learn.base import Task
from circuitlab.learn.evaluate import Split
from circuitlab.learn.feedback.base import FeedbackLearning, FeedbackRule
from circuitlab.learn.feedback.kolen_pollack import KolenPollack
from circuitlab.learn.feedback.noisy import Alternating, AntiHebbian, Noise
from circuitlab.learn.feedback.tracking import Tracking
from circuitlab.learn.rules import RULES
from circuitlab.learn.train import Schedule, Trainer
from circuitlab.spec import combinations
from tests.oracles.circuits import random_circuit
from tests.oracles.tasks import task

NOISE = Noise(0.01, 50.0, 10.0, 5, 0.001, 0)
WORDS = [
    (pathway, name)
    for pathway, names in combinations.PATHWAYS.items()
    for name in names
    if name not in ("apical", "file")
]


def made(system: CircuitSystem, name: str, among: str) -> Pathway:
    """A pathway by its words."""
    if name in combinations.LINEAR:
        kind = LinearFeedback if name == "linear_feedback" else DeepFeedbackControl
        return kind.jacobian(system) if among == "jacobian" else kind.random(system, 0)
    s = feedback(among, system, 0, {})
    if name == "lateral_inhibition":
        return LateralInhibition(system, s, Interneurons(system))
    return DynamicInversion(s) if name == "dynamic_inversion" else EnergyBased(s)


def trained(t: Task, rule: str, taught: tuple[FeedbackRule, ...] = ()) -> Trainer:
    compiled = t.system.compiled  # type: ignore[attr-defined]
    split = Split(torch.zeros(1, compiled.input_size), torch.zeros(1, compiled.output_size))
    order = lambda epoch: [np.zeros(1, np.int64)]  # noqa: E731
    optimizer = torch.optim.SGD(compiled.plastic().values(), 0.1)
    learning = [FeedbackLearning(one) for one in taught]
    return Trainer(
        compiled, t, RULES[rule], {"train": split}, Schedule(1, order), optimizer, feedback=learning
    )


@pytest.mark.parametrize(("name", "among"), WORDS)
def test_rules_that_make_no_sense_are_refused(name: str, among: str) -> None:
    t = task(random_circuit(0), pathway=lambda system: made(system, name, among))
    for rule, allowed in combinations.RULES.items():
        if among in allowed.get(name, ()):
            assert trained(t, rule).rule is RULES[rule]
        else:
            with pytest.raises(
                CircuitError, match=f"{rule} makes no sense under {name}.*; allowed: "
            ) as error:
                trained(t, rule)
            assert all(pathway in str(error.value) for pathway in allowed)


@pytest.mark.parametrize(("name", "among"), WORDS)
def test_feedback_rules_that_teach_nothing_are_refused(name: str, among: str) -> None:
    t = task(random_circuit(0), pathway=lambda system: made(system, name, among))
    noisy = {
        "anti_hebbian": AntiHebbian(NOISE),
        "alternating": Alternating(NOISE, proportional_integral(0.6, 0.15, 100.0), 1, 1),
    }
    for rule, taught in noisy.items():
        if name in combinations.LINEAR:
            assert trained(t, "least_control", (taught,)).feedback
        else:
            with pytest.raises(
                CircuitError, match=f"{rule} does not teach .* {name} .*; allowed: linear_feedback"
            ):
                trained(t, "least_control", (taught,))
    if among == "kolen_pollack":
        assert trained(t, "least_control", (KolenPollack(t.pathway, 0.1),)).feedback
    else:
        with pytest.raises(CircuitError, match=r"kolen_pollack teaches S of its own; allowed"):
            KolenPollack(t.pathway, 0.1)
    if name == "lateral_inhibition":
        assert trained(t, "least_control", (Tracking(),)).feedback
    else:
        with pytest.raises(CircuitError, match=f"{name} has no interneurons of its own; allowed"):
            trained(t, "least_control", (Tracking(),))
