"""One IPC method: a coroutine function, its parameters and result validated by its annotations."""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.alias_generators import to_camel

from .errors import InvalidParameters, PluginError
from .validation import explain

if TYPE_CHECKING:
    from .kernel import Kernel

Handler = Callable[..., Awaitable[Any]]
Parameters = Sequence[Any] | Mapping[str, Any]

OPEN_ATTRIBUTE = "aiplayground_open"
"""A handler with this attribute set to True needs no token: it lists and changes nothing.

A function in its place is asked, with the kernel and the validated parameters.
"""

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_CONFIG = ConfigDict(
    frozen=True, extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=True
)


@dataclass(frozen=True)
class Method:
    """A method under its outside name; `group` is the section of the reference it belongs to.

    `waits_for` says what has to be installed before it can be answered; None if nothing has.
    """

    name: str
    handler: Handler
    group: str = "Plugins"
    plugin: str | None = None
    waits_for: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether it may be called without the kernel's token, on this computer.

        True as well where the parameters decide, see `opens`.
        """
        return bool(getattr(self.handler, OPEN_ATTRIBUTE, False))

    @property
    def is_partly_open(self) -> bool:
        """Whether its parameters decide if it needs the token."""
        return callable(getattr(self.handler, OPEN_ATTRIBUTE, False))

    def opens(self, kernel: Kernel, given: Parameters) -> bool:
        """Say whether this call needs no token; raises `InvalidParameters`."""
        rule = getattr(self.handler, OPEN_ATTRIBUTE, False)
        return bool(rule(kernel, self.parse(given)) if callable(rule) else rule)

    @property
    def summary(self) -> str:
        """What it does, from the handler's docstring."""
        return inspect.getdoc(self.handler) or ""

    @cached_property
    def parameters(self) -> type[BaseModel]:
        """The parameters in their order; raises `PluginError` for a handler that has none such."""
        fields: dict[str, Any] = {}
        for name, parameter in self._own_parameters().items():
            if parameter.kind not in _NAMED:
                raise self._wrong(f"its parameter '{name}' must be an ordinary one")
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (self._hints.get(name, Any), Field(default=default))
        return create_model(self.name, __config__=_CONFIG, **fields)

    @cached_property
    def result(self) -> TypeAdapter[Any]:
        """What it returns."""
        return TypeAdapter(self.result_type)

    @property
    def result_type(self) -> Any:
        """The annotation of what it returns."""
        return self._hints.get("return", Any)

    @property
    def outside_names(self) -> list[str]:
        """The parameters as they are called outside."""
        return [field.alias or name for name, field in self.parameters.model_fields.items()]

    async def __call__(self, owner: Any, given: Parameters) -> Any:
        """Call it with positional or named parameters; returns plain data, as JSON has it.

        `owner` is what the handler takes first: the kernel, or a store.

        Raises `InvalidParameters`, what the handler raises, and `PluginError` for a result that is
        not what it says.
        """
        values = self.parse(given)
        named = {name: getattr(values, name) for name in type(values).model_fields}
        answer = await self.handler(owner, **named)
        try:
            checked = self.result.validate_python(answer)
        except ValidationError as error:
            raise self._wrong(f"its result is not what it declares: {error}") from error
        return self.result.dump_python(checked, mode="json", by_alias=True, exclude_none=True)

    def parse(self, given: Parameters) -> BaseModel:
        """Return validated parameters; raises `InvalidParameters`."""
        named = given if isinstance(given, Mapping) else self._by_name(given)
        try:
            return self.parameters.model_validate(named)
        except ValidationError as error:
            raise explain(error, self.outside_names) from error

    def _by_name(self, given: Sequence[Any]) -> dict[str, Any]:
        names = self.outside_names
        if len(given) > len(names):
            raise InvalidParameters(
                f"{self.name} takes {len(names)} parameters ({', '.join(names) or 'none'}), "
                f"not {len(given)}.",
                details={"parameters": names},
            )
        return dict(zip(names, given, strict=False))

    def _own_parameters(self) -> dict[str, inspect.Parameter]:
        """Return the parameters after the kernel."""
        every = list(inspect.signature(self.handler).parameters.items())
        if not every or every[0][1].kind is inspect.Parameter.KEYWORD_ONLY:
            raise self._wrong("it must take the kernel first")
        return dict(every[1:])

    @cached_property
    def _hints(self) -> dict[str, Any]:
        """Resolve the annotations, but for the kernel's, which may be there for checkers alone."""
        wanted = {*self._own_parameters(), "return"}
        function = inspect.unwrap(self.handler)
        stub = types.SimpleNamespace(
            __annotations__={
                name: note
                for name, note in getattr(function, "__annotations__", {}).items()
                if name in wanted
            }
        )
        try:
            return get_type_hints(stub, getattr(function, "__globals__", {}), include_extras=True)
        except (NameError, TypeError) as error:
            raise self._wrong(f"an annotation cannot be resolved: {error}") from error

    def _wrong(self, what: str) -> PluginError:
        owner = f"{self.plugin}: " if self.plugin else ""
        return PluginError(f"{owner}method '{self.name}': {what}.", details={"method": self.name})
