"""Checking settings against a pydantic model, and saying in plain words what is wrong where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from aiplayground.errors import InvalidSettings, suggest

from ._sources import Source, merge
from ._text import Key, dotted

Model = TypeVar("Model", bound=BaseModel)

_SHOWN = 60
_EXPECTED = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text in quotes",
    "path_type": "a path in quotes",
    "list_type": 'a list such as ["a", "b"]',
    "tuple_type": 'a list such as ["a", "b"]',
    "set_type": 'a list such as ["a", "b"]',
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def validate(
    model: type[Model],
    values: dict[str, Any],
    sources: Sequence[Source],
    prefix: Key = (),
    *,
    first: bool = True,
) -> Model:
    """Make an instance of `model`; `prefix` is where `values` stand in the whole.

    Raises `InvalidSettings` that names every problem, each with the place where it stands.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        reread = _reread(error, sources, prefix) if first else {}
        if reread:
            return validate(model, merge(values, reread), sources, prefix, first=False)
        raise _explain(error, model, values, sources, prefix) from error


def unknown_keys(model: type[BaseModel], values: dict[str, Any]) -> list[str]:
    """Return the keys that a model would ignore without a word."""
    if model.model_config.get("extra") == "allow":
        return []
    return [key for key in values if key not in field_names(model)]


def field_names(model: type[BaseModel]) -> list[str]:
    """Return the keys that a model knows: names, and aliases where it has them."""
    aliases = [field.alias for field in model.model_fields.values() if field.alias]
    return [*model.model_fields, *aliases]


def problem(source: Source | None, key: Key, what: str) -> dict[str, str]:
    """Describe one problem: `key`, `origin` (where it stands) and `problem`."""
    return {
        "key": dotted(key),
        "origin": source.where(key) if source else "default",
        "problem": what,
    }


def refuse(problems: Sequence[dict[str, str]]) -> InvalidSettings:
    """Make one error of all problems."""
    message = "\n".join(f"{one['origin']}: {one['problem']}" for one in problems)
    return InvalidSettings(message, details={"problems": list(problems)})


def no_such_key(names: Sequence[str], key: Key, source: Source | None) -> str:
    """Say that there is no such key, and which of the table's `names` may have been meant."""
    close = suggest(key[-1], names)
    if close and source:
        meant = close.split("'")[1]
        close = f" Did you mean {source.spell((*key[:-1], meant))}?"
    known = ", ".join(sorted(names)) or "none"
    return f"there is no setting '{dotted(key)}'.{close or f' There is: {known}.'}"


def giver(sources: Sequence[Source], key: Key) -> tuple[Source | None, Key]:
    """Return the highest source that gives a key (or the nearest table above it), and that key."""
    for depth in range(len(key), 0, -1):
        for source in reversed(sources):
            if source.has(key[:depth]):
                return source, key[:depth]
    return None, key


def model_at(model: type[BaseModel] | None, key: Key) -> type[BaseModel] | None:
    """Return the model of the table at a key; None where there is none."""
    kind: Any = model
    for part in key:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
            continue
        field = kind.model_fields.get(part) if _is_model(kind) else None
        kind = field.annotation if field else None
    return kind if _is_model(kind) else None


def is_secret(model: type[BaseModel], key: Key) -> bool:
    """Whether a setting's value must not be shown."""
    table = model_at(model, key[:-1])
    field = table.model_fields.get(key[-1]) if table else None
    return field is not None and "SecretStr" in str(field.annotation)


def _touches_secret(model: type[BaseModel], key: Key) -> bool:
    """Whether a value is a secret, or stands where a table with a secret should."""
    table = model_at(model, key)
    names = [key] if table is None else [(*key, name) for name in table.model_fields]
    return any(bool(name) and is_secret(model, name) for name in names)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _explain(
    error: ValidationError,
    model: type[BaseModel],
    values: dict[str, Any],
    sources: Sequence[Source],
    prefix: Key,
) -> InvalidSettings:
    problems = []
    for detail in error.errors(include_url=False):
        local, rest = _place(detail["loc"], values)
        source, key = giver(sources, (*prefix, *local))
        if detail["type"] == "extra_forbidden":
            table = model_at(model, local[:-1]) or model
            what = no_such_key(field_names(table), (*prefix, *local), source)
        else:
            name = dotted((*prefix, *local)) + "".join(f"[{part}]" for part in rest)
            what = f"'{name}' {_sentence(detail, secret=_touches_secret(model, local))}."
        problems.append(problem(source, key, what))
    return refuse(problems)


def _sentence(detail: ErrorDetails, *, secret: bool) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return "is needed and has no default"
    if kind == "value_error":
        return f"is not accepted: {context.get('error')}"
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        must = f"must be {words} {_number(context[bound])}"
    elif kind in ("literal_error", "enum"):
        must = f"must be {context.get('expected')}"
    elif kind in _EXPECTED:
        must = f"must be {_EXPECTED[kind]}"
    else:
        must = f"is wrong ({detail['msg']})"
    if secret or isinstance(detail["input"], dict | list):
        return must  # a table, too, may have a secret in it
    return f"{must}, not {_shown(detail['input'])}"


def _number(bound: Any) -> Any:
    # pydantic gives the bound of a float field as a float: 0.0 for what was written as 0.
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _place(loc: tuple[int | str, ...], values: dict[str, Any]) -> tuple[Key, tuple[int, ...]]:
    # pydantic adds the names of union members and functions to the location: keep what is ours.
    key: list[str] = []
    current: Any = values
    for index, part in enumerate(loc):
        known = isinstance(current, dict) and (part in current or index == len(loc) - 1)
        if not known or not isinstance(part, str):
            return tuple(key), tuple(part for part in loc[index:] if isinstance(part, int))
        key.append(part)
        current = current.get(part)
    return tuple(key), ()


def _reread(error: ValidationError, sources: Sequence[Source], prefix: Key) -> dict[str, Any]:
    """Read typed values anew where the model wants text, or a list, and they read as another."""
    found: dict[str, Any] = {}
    for detail in error.errors(include_url=False, include_input=False):
        local = tuple(str(part) for part in detail["loc"])
        source, key = giver(sources, (*prefix, *local))
        typed = source.typed.get(key) if source and key == (*prefix, *local) else None
        value = reread_as(detail["type"], typed)
        if value is not None:
            found = merge(found, _nested(local, value))
    return found


def reread_as(kind: str, typed: str | None) -> Any:
    """Return typed text as what pydantic's error `kind` asks for, or None if it cannot be."""
    if typed is None:
        return None
    if kind == "string_type":
        return typed
    if kind in ("list_type", "tuple_type") and not typed.lstrip().startswith(("[", "{")):
        return [part.strip() for part in typed.split(",") if part.strip()]
    return None


def _nested(key: Key, value: Any) -> dict[str, Any]:
    table = {key[-1]: value}
    for part in reversed(key[:-1]):
        table = {part: table}
    return table
