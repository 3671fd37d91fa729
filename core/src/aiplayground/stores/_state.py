"""The state of a store: a frozen model, its getters, and both as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from aiplayground.errors import InvalidParameters, suggest
from aiplayground.validation import explain

if TYPE_CHECKING:
    from builtins import property as getter
else:

    class getter(property):  # noqa: N801  # used as a decorator, in the place of `property`
        """A property of a state that programs outside see as well: what follows from its fields."""


__all__ = [
    "StoreState",
    "changed",
    "checked_field",
    "getter",
    "plain_fields",
    "plain_getters",
    "read_changes",
    "read_state",
]

T = TypeVar("T", bound="StoreState")


class StoreState(BaseModel):
    """Base of all states: immutable, camelCase outside.

    Use immutable values (tuples, frozen models): what is changed in place is not seen. A mirror
    keeps fields that a newer kernel has and it does not know.
    """

    model_config = ConfigDict(
        frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True
    )

    @classmethod
    def getters(cls) -> tuple[str, ...]:
        """Return the names of the getters."""
        return _getters(cls)


def changed(state: T, fields: Mapping[str, Any]) -> tuple[dict[str, Any], T]:
    """Return those of the fields that really change, validated, and the state with them.

    Raises `InvalidParameters` for a field that there is not, or a value that is none of its.
    """
    checked = {name: checked_field(type(state), name, value) for name, value in fields.items()}
    changes = {name: value for name, value in checked.items() if value != getattr(state, name)}
    return changes, state.model_copy(update=changes) if changes else state


def checked_field(kind: type[StoreState], name: str, value: Any) -> Any:
    """Return the value of a field, validated; raises `InvalidParameters`."""
    adapter = _adapters(kind).get(name)
    if adapter is None:
        known = suggest(name, _adapters(kind))
        raise InvalidParameters(f"{kind.__name__} has no field '{name}'.{known}")
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        found = explain(error)
        raise InvalidParameters(f"{kind.__name__}.{name}: {found.message}") from error


def plain_fields(state: StoreState, names: Iterable[str]) -> dict[str, Any]:
    """Return these fields as JSON has them, in camelCase.

    None is written: a field that was emptied differs from one that did not change.
    """
    kind = type(state)
    return {outside(kind, name): plain_field(kind, name, getattr(state, name)) for name in names}


def plain_field(kind: type[StoreState], name: str, value: Any) -> Any:
    """Return a value of a field, or a part of one that `has_parts`, as JSON has it."""
    return _adapters(kind)[name].dump_python(value, mode="json", by_alias=True, exclude_none=True)


@cache
def has_parts(kind: type[StoreState], name: str) -> bool:
    """Say whether a field is a tuple of any length, of which each part is one as well."""
    hint = kind.model_fields[name].annotation
    return get_origin(hint) is tuple and get_args(hint)[-1] is Ellipsis


def plain_getters(state: StoreState, names: Iterable[str]) -> dict[str, Any]:
    """Return these getters as JSON has them, in camelCase."""
    return {
        to_camel(name): _ANY.dump_python(
            getattr(state, name), mode="json", by_alias=True, exclude_none=True
        )
        for name in names
    }


def outside(kind: type[StoreState], name: str) -> str:
    """Return what a field is called outside."""
    return kind.model_fields[name].alias or name


def read_state(kind: type[T], plain: Mapping[str, Any]) -> T:
    """Return a state from plain data; what is not known of it is kept."""
    return kind.model_validate(plain)


def read_changes(state: T, plain: Mapping[str, Any]) -> tuple[dict[str, Any], T]:
    """Return changes by the names of their fields, and the state with them."""
    kind = type(state)
    inside = {outside(kind, name): name for name in kind.model_fields}
    changes = {
        inside[name]: checked_field(kind, inside[name], value)
        for name, value in plain.items()
        if name in inside
    }
    unknown = {name: value for name, value in plain.items() if name not in inside}
    return changes, state.model_copy(update=changes | unknown)


_ANY: TypeAdapter[Any] = TypeAdapter(Any)


@cache
def _getters(kind: type[StoreState]) -> tuple[str, ...]:
    found: dict[str, bool] = {}
    for each in reversed(kind.__mro__):
        found |= {name: isinstance(value, getter) for name, value in vars(each).items()}
    return tuple(name for name, is_getter in found.items() if is_getter)


@cache
def _adapters(kind: type[StoreState]) -> dict[str, TypeAdapter[Any]]:
    """Return what validates each field alone: the others were, and may be long."""
    found: dict[str, TypeAdapter[Any]] = {}
    for name, info in kind.model_fields.items():
        hint: Any = info.annotation
        found[name] = TypeAdapter(Annotated[(hint, *info.metadata)] if info.metadata else hint)
    return found
