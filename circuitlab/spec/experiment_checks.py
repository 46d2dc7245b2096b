"""What must hold in an experiment beyond the types of its keys: sections and circuit that agree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitlab.spec.base import Model, refuse
from circuitlab.spec.control_checks import check_control
from circuitlab.spec.entries import Finding, entry_of, publish
from circuitlab.spec.feedback_checks import check_feedback
from circuitlab.spec.files import file_problem
from circuitlab.spec.learn_checks import check_settled, cycle
from circuitlab.spec.manipulations import ManipulationSpec, check_clamps, check_manipulation
from circuitlab.spec.nudge_checks import check_descent, check_nudged
from circuitlab.spec.probe_checks import check_probe
from circuitlab.spec.probes import ProbeSpec
from circuitlab.spec.solve_checks import check_preconditioner
from circuitlab.spec.source import Source
from circuitlab.spec.users_code import function_problem

if TYPE_CHECKING:
    from circuitlab.spec.circuit import CircuitSpec
    from circuitlab.spec.experiment import ExperimentSpec

FLOAT32_LIMIT = 2e-7
FUNCTION = "write {name: function, file: my_losses.py, function: huber}"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def check_experiment(
    source: Source,
    model: type[Model],
    circuit: CircuitSpec | None,
    folder: Path,
    allow_outside: bool,
    code: Mapping[str, str] | None = None,
) -> None:
    """Report everything that is wrong with an experiment's meaning to the source.

    Args:
        model: ExperimentSpec.
        circuit: the experiment's circuit, None where it could not be read: what rests on it is passed over.
        code: texts of Python files by their names, in place of those in the folder.
    """
    for kind, names in (
        (("input", circuit.inputs), ("output", circuit.outputs)) if circuit is not None else ()
    ):
        if not names:
            source.report(
                ("circuit",),
                f"no {kind} population in the circuit; data needs at least one of type '{kind}' (an import gives one "
                f"by {'--type POP=input' if kind == 'input' else '--readout N or --output POP'})",
            )
            circuit = None
    rest = {key: value for key, value in source.data.items() if key not in ("record", "manipulations")}
    entry = entry_of(model, {"experiment": "unnamed", "circuit": "unnamed", **rest})
    named = {
        "record": (ProbeSpec, partial(check_probe, experiment=entry.spec)),
        "manipulations": (ManipulationSpec, check_manipulation),
    }
    if entry.spec is not None:
        publish(source, (), entry, check_clamps(entry.spec, source.data.get("manipulations")))
        checks = (
            _data,
            _loss,
            check_control,
            _solve,
            _learn,
            check_feedback,
            check_settled,
            check_preconditioner,
        )
        for check in (*checks, check_nudged, check_descent):
            publish(source, (), entry, check(entry.spec, circuit))
        code = code or {}
        for path, file in _files(rest):
            problem = None if file in code else file_problem(folder, file, allow_outside)
            if problem:
                source.report(path, problem)
        for path, file, function in _functions(rest):
            if file in code or file_problem(folder, file, allow_outside) is None:
                problem = function_problem(folder / file, file, function, code.get(file))
                if problem:
                    source.report((*path, "function"), problem)
    for section, (part, check) in named.items():
        entries = source.data.get(section)
        for name, raw in entries.items() if isinstance(entries, dict) else ():
            if not NAME.fullmatch(name):
                message = f"'{name}' is not a name; allowed: letters, digits, _ and -, a letter or _ first"
                source.report((section, name), message, at_key=True)
            entry = entry_of(part, raw)
            publish(source, (section, name), entry, check(entry, circuit))


def _files(data: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    for path, file, _ in _functions(data):
        yield (*path, "file"), file
    sections: dict[str, Any] = {key: data.get(key) for key in ("data", "control")}
    for section, keys in (("data", ("train", "test")), ("control", ("file",))):
        if isinstance(sections[section], dict):
            for key in keys:
                if isinstance(sections[section].get(key), str):
                    yield (section, key), sections[section][key]
    feedback = sections["control"].get("feedback") if isinstance(sections["control"], dict) else None
    if isinstance(feedback, dict) and isinstance(feedback.get("file"), str):
        yield ("control", "feedback", "file"), feedback["file"]


def _functions(data: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Functions in Python files: the path of the section, the file and the function's name."""
    loss = data.get("loss")
    parts = {(): loss, **{(name,): part for name, part in loss.items()}} if isinstance(loss, dict) else {}
    for place, part in parts.items():
        if isinstance(part, dict) and all(isinstance(part.get(key), str) for key in ("file", "function")):
            yield ("loss", *place), part["file"], part["function"]


def _data(spec: ExperimentSpec, circuit: CircuitSpec | None) -> Iterator[Finding]:
    data = spec.data
    if data is None:
        return
    if data.name == "file" and data.train is None:
        yield ("data",), "the data set 'file' needs 'train'", ()
    for key in ("train", "test"):
        if data.name != "file" and getattr(data, key) is not None:
            yield (
                ("data", key),
                f"the data set '{data.name}' takes no '{key}'; write 'name: file' for arrays of your own",
                (),
            )
    if circuit is None:
        return
    for key, names, kind in (("inputs", circuit.inputs, "input"), ("targets", circuit.outputs, "output")):
        for name in getattr(data, key):
            if name not in names:
                yield ("data", key, name), f"no {kind} population '{name}'{refuse(names, name)}", ()


def _loss(spec: ExperimentSpec, circuit: CircuitSpec | None) -> Iterator[Finding]:
    losses = spec.loss if isinstance(spec.loss, dict) else {"": spec.loss}
    if isinstance(spec.loss, dict) and circuit is not None:
        for name in spec.loss:
            if name not in circuit.outputs:
                yield ("loss", name), f"no output population '{name}'{refuse(circuit.outputs, name)}", ()
        for name in circuit.outputs:
            if name not in spec.loss:
                yield ("loss",), f"no loss for the output population '{name}'; every output needs one", ()
    for name, loss in losses.items():
        path = ("loss", name) if name else ("loss",)
        for key in ("file", "function"):
            if loss.name == "function" and getattr(loss, key) is None:
                yield path, f"a loss of your own needs '{key}'; {FUNCTION}", ()
            elif loss.name != "function" and getattr(loss, key) is not None:
                yield (*path, key), f"{loss.name} takes no '{key}'; {FUNCTION}", ()
        if loss.name == "squared_error" and loss.soft_targets > 0:
            yield (*path, "soft_targets"), "squared_error takes no soft targets; allowed: 0", ()
        if (
            loss.name == "cross_entropy"
            and loss.soft_targets == 0
            and spec.control.controller.type == "integral"
            and spec.control.pathway != "deep_feedback_control"
        ):
            yield (
                path,
                (
                    "outputs clamped by predictive_coding never settle on cross_entropy with hard targets; give"
                    " 'soft_targets' above 0, or a number as learn.beta"
                    if spec.learn.rule == "predictive_coding"
                    else "an integral controller never settles on cross_entropy with hard targets; give"
                    " 'soft_targets' above 0, or a leaky_integral controller"
                ),
                ("control",),
            )


def _solve(spec: ExperimentSpec, circuit: CircuitSpec | None) -> Iterator[Finding]:
    solve = spec.solve
    if spec.dtype == "float32" and solve.tolerance is not None and solve.tolerance < FLOAT32_LIMIT:
        yield (
            ("solve", "tolerance"),
            f"{solve.tolerance:g} is beyond the precision of float32; at least {FLOAT32_LIMIT:g}, or"
            " 'dtype: float64'",
            ("dtype",),
        )
    if solve.start != "last" and "start_memory" in solve.model_fields_set:
        yield (
            ("solve", "start_memory"),
            f"start '{solve.start}' remembers no sample's states; allowed with 'start: last'",
            ("solve", "start"),
        )
    if solve.max_time_ms < solve.dt_ms:
        yield (
            ("solve", "max_time"),
            f"{solve.max_time_ms:g} ms is shorter than the time step, {solve.dt_ms:g} ms",
            (),
        )
    if circuit is not None and solve.method == "euler":
        taus = {name: p.tau_ms for name, p in circuit.populations.items() if p.type != "input"}
        if spec.control.controller.tau_ms > 0:
            taus["the controller"] = spec.control.controller.tau_ms
        name = min(taus, key=lambda key: taus[key])
        if solve.dt_ms > taus[name]:
            who = name if name == "the controller" else f"'{name}'"
            yield (
                ("solve", "dt"),
                f"a time step of {solve.dt_ms:g} ms is longer than the time constant of {who},"
                f" {taus[name]:g} ms;"
                f" at most {taus[name]:g} ms",
                ("control",),
            )


def _learn(spec: ExperimentSpec, circuit: CircuitSpec | None) -> Iterator[Finding]:
    learn = spec.learn
    if learn.early_stopping is not None and spec.data is not None and spec.data.validation == 0:
        yield (
            ("learn", "early_stopping"),
            "early stopping watches validation samples, but data.validation is 0; give it a share",
            ("data",),
        )
    for key, options in (("optimizer", learn.optimizer.options), ("scheduler", learn.scheduler.options)):
        for name, value in options.items():
            values = value if isinstance(value, list) else [value]
            if any(isinstance(part, dict | list) or part is None for part in values):
                yield ("learn", key, name), "a number, text, true or false, or a list of these is wanted", ()
    if circuit is not None and learn.rule == "backprop":
        loop = cycle(circuit)
        if loop:
            yield (
                ("learn", "rule"),
                f"backprop needs a circuit without loops, but there is {' -> '.join(loop)}; allowed:"
                " recurrent_backprop",
                ("circuit",),
            )
