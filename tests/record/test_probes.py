"""Probes: the right neurons of the right samples at the right steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from circuitlab.errors import CircuitError, RunFileError
from circuitlab.graph.circuit import Circuit
from circuitlab.record.plan import plan_probes
from circuitlab.record.probes import Probe
from circuitlab.record.run_file import RunWriter
from circuitlab.record.space import estimate_bytes, require_space
from circuitlab.spec.probes import ProbeSpec

SIZES = {"train": 10, "validation": 2, "test": 4}


def plan(circuit: Circuit, **settings: Any) -> Probe:
    spec = ProbeSpec.model_validate({"population": "cells", "variable": "apical", **settings})
    return plan_probes({"p": spec}, circuit, batch_size=4, sizes=SIZES, steps=9, epochs=3)[0]


def test_frames_hold_what_was_asked_for(
    create: Callable[..., RunWriter], circuit: Circuit, tmp_path: Path
) -> None:
    probe = plan(circuit, units=[2, "0:1"], every="2 steps", variable="soma", phase="free")
    state = np.random.default_rng(0).standard_normal((9, 4, 3)).astype(np.float32)  # [step, sample, unit]
    with create(tmp_path / "run.h5") as writer:
        probe.start(writer)
        for step in range(9):
            count = 3 if step == 8 else 4
            if probe.due(step, None):
                probe.record(
                    writer, step, state[step, :count][:, probe.unit_ids], np.arange(count) + 10 * step
                )
    with h5py.File(tmp_path / "run.h5", "r") as file:
        group: Any = file["activity/p"]
        assert group["step"][:].tolist() == [0, 2, 4, 6, 8]
        assert group["unit_ids"][:].tolist() == [2, 0]
        assert group["unit_names"].asstr()[:].tolist() == ["right", "left"]
        assert group["data"].dtype == np.float32
        assert dict(group["data"].attrs) == {
            "variable": "soma",
            "symbol": "phi",
            "units": "dimensionless",
            "population": "cells",
            "phase": "free",
            "description": "[frame, sample, unit] somatic potential at the free equilibrium",
        }
        np.testing.assert_array_equal(group["data"][:4], state[:8:2][:, :, [2, 0]])
        np.testing.assert_array_equal(group["data"][4, :3], state[8, :3][:, [2, 0]])
        assert np.isnan(group["data"][4, 3]).all()
        assert group["sample_ids"][1].tolist() == [20, 21, 22, 23]
        assert group["sample_ids"][4].tolist() == [80, 81, 82, -1]


def test_when_and_how_many(circuit: Circuit) -> None:
    by_steps, by_epochs = plan(circuit, every="4 steps"), plan(circuit, every="2 epochs")
    assert [step for step in range(9) if by_steps.due(step, None)] == [0, 4, 8]
    assert by_steps.frames(9, 3) == 3
    assert [epoch for epoch in range(1, 4) if by_epochs.due(3 * epoch - 1, epoch)] == [2]
    assert not by_epochs.due(4, None)
    assert by_epochs.frames(9, 3) == 1


def test_chosen_samples_and_names(circuit: Circuit) -> None:
    probe = plan(circuit, names=["middle", "left", "middle"], samples=[3, 0], of="test")
    assert probe.unit_ids.tolist() == [1, 0]
    assert probe.sample_ids is not None
    assert probe.sample_ids.tolist() == [3, 0]
    assert probe.samples == 2
    assert plan(circuit).sample_ids is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"units": [3]}, "record.p.units: no neuron 3; 'cells' has 3, counted from 0"),
        ({"units": ["1:1"]}, "record.p.units: no neuron is selected; 'cells' has 3"),
        ({"names": ["lefd"]}, "record.p.names: no neuron 'lefd' in 'cells'. Did you mean 'left'?"),
        (
            {"population": "answer", "variable": "soma", "names": ["a"]},
            "record.p.names: the neurons of 'answer' have no names; select them by units",
        ),
        ({"population": "answer"}, "record.p.variable: 'answer' is of type output and has no apical"),
        (
            {"population": "eye", "variable": "soma"},
            "record.p.variable: 'eye' is of type input and has no soma",
        ),
        (
            {"population": "cell"},
            "record.p.population: no population 'cell'; there are eye, cells, answer. Did you mean 'cells'?",
        ),
        (
            {"samples": [4], "of": "test"},
            "record.p.samples: no sample 4; there are 4 test samples, counted from 0",
        ),
        (
            {"every": "4 epochs"},
            "record.p.every: every 4 epochs, but the run has 3 epochs of 9 updates in all",
        ),
    ],
)
def test_probes_that_select_nothing(circuit: Circuit, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CircuitError) as refused:
        plan(circuit, **settings)
    assert str(refused.value) == message


def test_size_is_estimated_and_refused(circuit: Circuit, tmp_path: Path) -> None:
    probe = plan(circuit, units=[0, 1], every="1 steps")
    assert estimate_bytes([probe], steps=9, epochs=3) == 9 * (4 * 2 * 4 + 4 * 8 + 8)
    require_space(tmp_path / "none" / "run.h5", 1000)
    with pytest.raises(RunFileError, match=r"run\.h5: recording needs about 2,000 PB while it is written"):
        require_space(tmp_path / "none" / "run.h5", 10**18)


def test_a_frame_larger_than_memory_is_refused(circuit: Circuit) -> None:
    way = plan(circuit, samples=[0] * 100, along={"real_time": "1 s", "every": "1 us"})
    with pytest.raises(
        CircuitError, match=r"record\.p: one frame takes 1\.2 GB, at most 1\.1 GB are put together"
    ):
        estimate_bytes([way], steps=9, epochs=3)


CONDITIONS = {
    "index < 2": [0, 1],
    "index >= 1 and not name == 'right'": [1],
    'name in ["left", "right"]': [0, 2],
    "name not in ('left',) or index == 0": [0, 1, 2],
    "0 < index <= 1": [1],
    "(type == 'pyramidal') and (population == 'cells')": [0, 1, 2],
    "index == -1 or index in [2, 7]": [2],
}


@pytest.mark.parametrize("text", CONDITIONS)
def test_conditions_select(circuit: Circuit, text: str) -> None:
    assert plan(circuit, where=text).unit_ids.tolist() == CONDITIONS[text]


@pytest.mark.parametrize(
    "text",
    ["", "index", "index +", "index + 1 == 2", "f(index)", "index[0] == 1", "index if 1 else 2", "1", "'a'",
     "name.upper == 1", "[i for i in index]", "lambda: 1", "index is 1", "name in 'left'", "name in []",
     "(" * 300 + "1" + ")" * 300, "not " * 5000 + "index", "index == 1\0", "a := 1", "{index}", "index == 1; 1",
     "index == 9**9**9", "f'{index}' == '1'", "name == b'left'", "index == 1j", "index == None", "...", "*index"],
)  # fmt: skip
def test_what_is_no_condition_is_refused(circuit: Circuit, text: str) -> None:
    with pytest.raises((CircuitError, ValueError)):
        plan(circuit, where=text)
