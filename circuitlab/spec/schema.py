"""JSON Schema (draft 2020-12) of circuit and experiment files, for editors that complete and check YAML.

Made from the models; what these do in code (shorthands, rules by name, files or lists) is added here.
"""

from __future__ import annotations

from typing import Any, Literal

from circuitlab.spec.base import Model
from circuitlab.spec.circuit import CircuitSpec
from circuitlab.spec.circuit_checks import NAME, RESERVED
from circuitlab.spec.control import ControllerSpec, ControlSpec
from circuitlab.spec.experiment import CircuitFileSpec, ExperimentSpec
from circuitlab.spec.feedback import FeedbackLearningSpec
from circuitlab.spec.learning import EarlyStoppingSpec, LearnSpec
from circuitlab.spec.manipulations import KINDS, ManipulationSpec
from circuitlab.spec.optimizer import OptimizerSpec, SchedulerSpec
from circuitlab.spec.populations import AttributesSpec, BiasSpec, NamesSpec, PositionsSpec
from circuitlab.spec.projections import ConnectSpec, WeightsSpec
from circuitlab.spec.quantities import count_text, time_text
from circuitlab.spec.rules import RULES
from circuitlab.spec.settings import DataSpec, LossSpec, SolveSpec
from circuitlab.spec.settled import CheckEnergySpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SHORTHANDS: tuple[type[Model], ...] = (
    NamesSpec,
    PositionsSpec,
    AttributesSpec,
    BiasSpec,
    WeightsSpec,
    DataSpec,
    LossSpec,
    ControllerSpec,
    ControlSpec,
    SolveSpec,
    LearnSpec,
    FeedbackLearningSpec,
    OptimizerSpec,
    SchedulerSpec,
    EarlyStoppingSpec,
    CheckEnergySpec,
    CircuitFileSpec,
)
OPEN = ("OptimizerSpec", "SchedulerSpec", "Networkx")
"""Models that take further keys, handed on to a library."""


def json_schema(kind: Literal["circuit", "experiment"]) -> dict[str, Any]:
    """The schema of a kind of file, as plain data for `json.dumps`."""
    schema = (CircuitSpec if kind == "circuit" else ExperimentSpec).model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    (_circuit if kind == "circuit" else _experiment)(schema, definitions)
    for model in SHORTHANDS:
        if model.__name__ in definitions:
            definitions[model.__name__] = _with_shorthand(model, definitions[model.__name__])
    for name in OPEN:
        if name in definitions:
            inner = definitions[name]
            (inner["anyOf"][0] if "anyOf" in inner else inner)["additionalProperties"] = True
    _tidy(schema)
    return {"$schema": DIALECT, "$id": f"{kind}.schema.json", **schema, "title": f"circuitlab {kind} file"}


def _tidy(schema: Any) -> None:
    """Leave out what says nothing to a reader, and write defaults as the file would."""
    if isinstance(schema, list):
        for part in schema:
            _tidy(part)
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("title"), str):
        del schema["title"]
    default = schema.get("default")
    if isinstance(default, int | float) and "ms" in str(schema.get("examples")):
        schema["default"] = time_text(default)
    elif isinstance(default, int) and "epoch" in str(schema.get("examples")):
        schema["default"] = count_text(default, "epochs")
    elif isinstance(default, int) and "step" in str(schema.get("examples")):
        schema["default"] = count_text(default, "steps")
    elif "default" in schema and (default is None or isinstance(default, dict)):
        del schema["default"]
    for part in schema.values():
        _tidy(part)


def _with_shorthand(model: type[Model], schema: dict[str, Any]) -> dict[str, Any]:
    """The mapping, or the bare text that stands for it, or the list."""
    assert model.shorthand is not None
    text = {"type": "string"}
    bare = schema["properties"][model.shorthand]
    text |= {key: bare[key] for key in ("enum", "minLength") if key in bare}
    ways: list[dict[str, Any]] = [schema, text]
    if hasattr(model, "listing"):
        values = schema["properties"]["values"]
        ways += [way for way in values.get("anyOf", [values]) if way.get("type") == "array"]
    return {"description": schema.get("description", ""), "anyOf": ways}


def _optional(schema: dict[str, Any], *keys: str) -> None:
    schema["required"] = [key for key in schema.get("required", []) if key not in keys]


def _circuit(schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    population, projection = definitions["PopulationSpec"], definitions["ProjectionSpec"]
    _optional(population, "size")
    population["anyOf"] = [{"required": ["size"]}, {"required": ["shape"]}]
    population["properties"]["bias"]["anyOf"].append({"type": "boolean"})
    _optional(projection, "site", "plastic")
    for key, reserved in (("populations", RESERVED), ("projections", ("step",))):
        names = {"pattern": f"^{NAME.pattern}$", "not": {"enum": list(reserved)}}
        schema["properties"][key]["propertyNames"] = names
        schema["properties"][key]["minProperties"] = 1
    schema["properties"]["layers"]["propertyNames"] = {"pattern": f"^{NAME.pattern}$"}
    rules: list[dict[str, Any]] = []
    for name, rule in RULES.items():
        inner = rule.model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
        definitions.update(inner.pop("$defs", {}))
        _optional(inner, *(("stride",) if name == "pool" else ()))
        what = {"const": name, "description": inner.get("description", "")}
        inner["properties"] = {"rule": what, **inner.get("properties", {})}
        inner["required"] = [*(() if name == "all_to_all" else ("rule",)), *inner.get("required", [])]
        inner["additionalProperties"] = name == "networkx"
        rules.append(inner)
    bare = [rule["properties"]["rule"]["const"] for rule in rules if set(rule["required"]) <= {"rule"}]
    definitions["ConnectSpec"] = {
        "description": ConnectSpec.__doc__,
        "anyOf": [{"type": "string", "enum": bare}, *rules],
    }


def _experiment(schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    schema["required"] = [*schema["required"], "data"]
    schema["properties"]["data"]["anyOf"].remove({"type": "null"})
    loss = schema["properties"]["loss"]
    loss["anyOf"] = loss.pop("oneOf")
    control = definitions["ControlSpec"]
    _optional(control, "feedback")
    feedback = control["properties"]["feedback"]
    file = {
        "type": "object",
        "properties": {"file": {"type": "string", "description": "File with the feedback weights Q."}},
        "required": ["file"],
    }
    names = {"type": feedback.pop("type"), "enum": feedback.pop("enum")}
    feedback["anyOf"] = [names, {**file, "additionalProperties": False}]
    for section in ("record", "manipulations"):
        schema["properties"][section]["propertyNames"] = {"pattern": f"^{NAME.pattern}$"}
    kinds: list[dict[str, Any]] = []
    for name, kind in KINDS.items():
        inner = kind.model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
        definitions.update(inner.pop("$defs", {}))
        inner["properties"]["kind"] = {"const": name, "description": inner.get("description", "")}
        kinds.append(inner)
    definitions["ManipulationSpec"] = {"description": ManipulationSpec.__doc__, "anyOf": kinds}
