"""What all parts of a specification share: a strict, frozen model, its mistakes told in the user's words."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from circuitlab.errors import suggestion
from circuitlab.spec.source import Source, lookup

MAX_INT = 2**31 - 1


class Model(BaseModel):
    """One mapping of a file: no unknown keys, no silent conversions, never changed once read."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    shorthand: ClassVar[str | None] = None
    """The key that a bare text stands for: `connect: one_to_one` is `connect: {rule: one_to_one}`."""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        if cls.shorthand is not None and isinstance(data, str):
            data = {cls.shorthand: data}
        return cls.normalise(data) if isinstance(data, dict) else data

    @classmethod
    def normalise(cls, data: dict[str, Any]) -> dict[str, Any]:
        """The mapping with other ways of writing it, and defaults that hang on other keys, written out."""
        return data

    @classmethod
    def at(cls, data: Any) -> type[Model]:
        """The model that knows the keys of this mapping; another one where it hangs on what is written."""
        return cls

    @classmethod
    def keys(cls) -> dict[str, FieldInfo]:
        """The keys of this mapping as the user writes them."""
        return {info.alias or name: info for name, info in cls.model_fields.items()}


def listed(names: Iterable[object]) -> str:
    """`a, b, c` for a message; a long list is cut."""
    texts = [str(name).lower() if isinstance(name, bool) else str(name) for name in names]
    return ", ".join(texts[:20]) + (f" and {len(texts) - 20} more" if len(texts) > 20 else "")


def described(value: Any) -> str:
    """A value as a message names it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = str(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"'{text}'" if isinstance(value, str) else text


def parse(model: type[Model], data: Any, source: Source, path: Sequence[str | int] = ()) -> Any:
    """The model read from plain data, or None with every mistake reported to the source."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        report(error, model, data, source, path)
        return None


def report(
    error: ValidationError, model: type[Model], data: Any, source: Source, path: Sequence[str | int]
) -> None:
    """Report every mistake pydantic found, in the user's words and at its place."""
    entries = [(entry, _location(entry)) for entry in error.errors(include_url=False)]
    misspelt = {
        (*place[:-1], near)
        for entry, place in entries
        if entry["type"] == "extra_forbidden"
        for near in _near(_owner(model, place, data)[0], place[-1])
    }
    for entry, location in entries:
        if entry["type"] == "missing" and location in misspelt:
            continue
        message, at_key, location = _message(entry, location, model, data)
        source.report((*path, *_written(location, source, path, at_key)), message, at_key=at_key)


def _location(entry: Any) -> tuple[Any, ...]:
    """Where pydantic found a mistake, without the marks of alternatives (`@each`)."""
    return tuple(part for part in entry["loc"] if not (isinstance(part, str) and part.startswith("@")))


def _near(owner: type[Model] | None, key: Any) -> list[str]:
    return difflib.get_close_matches(str(key), list(owner.keys()), n=1, cutoff=0.6) if owner else []


def _written(
    location: tuple[Any, ...], source: Source, path: Sequence[str | int], at_key: bool
) -> tuple[Any, ...]:
    """The part of a location that the file itself has: what shorthands stand for is left out."""
    written: tuple[Any, ...] = ()
    for index, part in enumerate(location):
        if source.knows((*path, *written, part)) or (at_key and index == len(location) - 1):
            written = (*written, part)
    return written


def failing(error: ValidationError) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Where wrong values are (for a missing key, the mapping it is missing from), and unknown keys."""
    entries = [(entry["type"], _location(entry)) for entry in error.errors(include_url=False)]
    unknown = [place for kind, place in entries if kind == "extra_forbidden"]
    wrong = [
        place[:-1] if kind == "missing" else place for kind, place in entries if kind != "extra_forbidden"
    ]
    return wrong, unknown


def _message(
    entry: Any, location: tuple[Any, ...], model: type[Model], data: Any
) -> tuple[str, bool, tuple[Any, ...]]:
    """What is wrong and what is allowed; whether it is the key that is wrong; the place to show."""
    kind, value, context = entry["type"], entry.get("input"), entry.get("ctx", {})
    owner, annotation = _owner(model, location, data)
    if kind == "extra_forbidden":
        allowed = sorted(owner.keys()) if owner else []
        listing = f"; allowed: {listed(owner.keys())}." if owner and allowed else "; none is allowed here."
        return f"unknown key{listing}{suggestion(location[-1], allowed)}".removesuffix("."), True, location
    if kind == "missing":
        return f"the key '{location[-1]}' is missing{_allowed(annotation)}", True, location[:-1]
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", entry["msg"])), False, location
    if kind in ("literal_error", "enum"):
        names = _choices(annotation) or [
            part.strip(" '") for part in str(context["expected"]).replace(" or ", ",").split(",")
        ]
        near = suggestion(value, names) if isinstance(value, str) else ""
        return (
            f"{described(value)} is not allowed; allowed: {listed(names)}{'.' if near else ''}{near}",
            False,
            location,
        )
    wanted = {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "bool_type": "true or false",
        "string_type": "text",
        "dict_type": "a mapping (key: value)",
        "model_type": "a mapping (key: value)",
        "model_attributes_type": "a mapping (key: value)",
        "tuple_type": "a list",
        "list_type": "a list",
        "finite_number": "a finite number",
    }.get(kind)
    if wanted is not None:
        models = [
            option
            for option in _options(annotation)
            if isinstance(option, type) and issubclass(option, Model)
        ]
        if kind in ("model_type", "model_attributes_type") and models and models[0].shorthand:
            wanted = f"text or {wanted}"
        quoted = f" text {described(value)}" if isinstance(value, str) else f" {described(value)}"
        return f"{wanted} is wanted, not{quoted}", False, location
    bound = {
        "greater_than": ("greater than", "gt"),
        "greater_than_equal": ("at least", "ge"),
        "less_than": ("less than", "lt"),
        "less_than_equal": ("at most", "le"),
    }.get(kind)
    if bound is not None:
        limit = context[bound[1]]
        return f"{described(value)} is out of range; it must be {bound[0]} {_number(limit)}", False, location
    if kind in ("too_short", "too_long"):
        least, most = context.get("min_length"), context.get("max_length")
        return (
            f"{context['actual_length']} entries;"
            f" {f'at least {least}' if least is not None else f'at most {most}'}"
            " are wanted",
            False,
            location,
        )
    return str(entry["msg"]), False, location


def _number(limit: Any) -> str:
    return str(int(limit)) if float(limit) == int(limit) else str(limit)


def _owner(model: type[Model], location: tuple[Any, ...], data: Any) -> tuple[type[Model] | None, Any]:
    """The model whose key the location's last part is, and that key's annotation."""
    owner: type[Model] | None = None
    annotation: Any = model
    for depth, part in enumerate(location):
        inner = _model_in(annotation, part)
        if inner is not None:
            inner = inner.at(lookup(data, location[:depth]))
            owner, info = inner, inner.keys().get(part) if isinstance(part, str) else None
            annotation = _annotation(info) if info is not None else None
        else:
            owner, annotation = None, _element(annotation)
    return owner, annotation


def _annotation(info: FieldInfo) -> Any:
    return info.annotation


def _options(annotation: Any) -> tuple[Any, ...]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _options(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(option for part in typing.get_args(annotation) for option in _options(part))
    return (annotation,)


def _model_in(annotation: Any, key: Any) -> type[Model] | None:
    found = [
        option for option in _options(annotation) if isinstance(option, type) and issubclass(option, Model)
    ]
    mapping = any(typing.get_origin(option) is dict for option in _options(annotation))
    known = set(found[0].keys()) if found else set()
    return found[0] if found and (key in known or not mapping) else None


def _element(annotation: Any) -> Any:
    for option in _options(annotation):
        arguments = typing.get_args(option)
        if typing.get_origin(option) is dict:
            return arguments[1]
        if typing.get_origin(option) in (list, tuple):
            return arguments[0]
    return None


def _choices(annotation: Any) -> list[Any]:
    return [
        name
        for option in _options(annotation)
        if typing.get_origin(option) is typing.Literal
        for name in typing.get_args(option)
    ]


def _allowed(annotation: Any) -> str:
    names = _choices(annotation)
    return f"; allowed: {listed(names)}" if names else ""


def refuse(names: Iterable[str], name: str) -> str:
    """`; there are a, b. Did you mean 'a'?` for a name that points nowhere."""
    known = list(names)
    if not known:
        return "; there are none"
    near = suggestion(name, known) if len(known) <= 2000 else ""
    return f"; there are {listed(known)}{'.' if near else ''}{near}"


def without_none(data: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping without its empty entries, at every depth."""
    return {
        key: without_none(value) if isinstance(value, Mapping) else value
        for key, value in data.items()
        if value is not None
    }
