"""The shapes of a preset file. Source: the API reference, "Preset Schema (Zod)"."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails, PydanticCustomError

Path = tuple[str | int, ...]

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
Service = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Shape(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True, strict=True
    )


class Setting(_Shape):
    """One setting of a preset; `min` and `max` bound a number, `options` are all that is allowed.

    A `default` of None: it has none, the engine's own holds.
    """

    name: str
    type: Literal["number", "text", "select", "boolean"]
    default: Any = None
    options: tuple[Any, ...] | None = Field(default=None, strict=False)
    min: Finite | None = None
    max: Finite | None = None

    def fault(self, value: Any) -> str | None:
        """Say what is wrong with a value, as the end of a sentence; None if nothing is."""
        wrong = _of_kind(self.type, value)
        if wrong is not None:
            return wrong
        if self.type == "number" and not self._in_range(value):
            return f"must be {self._range()}, not {value:.15g}"
        if self.options is not None and not any(same(value, each) for each in self.options):
            allowed = ", ".join(repr(each) for each in self.options)
            return f"must be one of {allowed}, not {value!r:.80}"
        return None

    def _in_range(self, value: float) -> bool:
        low = -math.inf if self.min is None else self.min
        return low <= value <= (math.inf if self.max is None else self.max)

    def _range(self) -> str:
        if self.min is None:
            return f"at most {self.max:.15g}"
        return (
            f"at least {self.min:.15g}"
            if self.max is None
            else f"{self.min:.15g} to {self.max:.15g}"
        )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise fault(("min",), f"{self.min:.15g} is more than 'max', {self.max:.15g}", self.min)
        if self.type == "select" and not self.options:
            raise fault(("options",), "a setting of type 'select' needs options", self.options)
        wrong = None if self.default is None else self.fault(self.default)
        if wrong is not None:
            raise fault(("default",), wrong, self.default)
        return self


class Variant(_Shape):
    """Another form of a preset.

    `overrides` is merged into it (objects key by key, all else replaced), `settings` gives settings
    other defaults, `remove_settings` takes settings out.
    """

    name: Name
    display_name: str | None = None
    backend: Service | None = None
    requires_service: str | None = None
    overrides: Mapping[str, Any] = {}
    settings: Mapping[str, Any] = {}
    remove_settings: tuple[str, ...] = Field(default=(), strict=False)
    replace_workflow: bool = False


class Preset(_Shape):
    """A preset; `settings` are by their keys."""

    name: Name
    type: Literal["text", "image", "comfy"]
    backend: Service
    settings: Mapping[str, Setting] = {}
    comfy_ui_api_workflow: Mapping[str, Any] | None = None
    description: str | None = None
    tags: tuple[str, ...] = Field(default=(), strict=False)
    variants: tuple[Variant, ...] = Field(default=(), strict=False)

    @model_validator(mode="before")
    @classmethod
    def _of_a_workflow(cls, given: Any) -> Any:
        """Take a workflow file too (the reference's "Workflow JSON Schema"): it names no type."""
        if isinstance(given, dict) and given.get("comfyUiApiWorkflow") and "type" not in given:
            return {"backend": "comfyui-backend", **given, "type": "comfy"}
        return given

    @model_validator(mode="after")
    def _variants_fit(self) -> Self:
        from ._variants import apply_variant

        names = Counter(each.name for each in self.variants)
        for place, variant in enumerate(self.variants):
            if names[variant.name] > 1:
                reason = f"two variants are called '{variant.name}'"
                raise fault(("variants", place, "name"), reason, variant.name)
            apply_variant(self, variant.name, at=("variants", place))
        return self


def fault(path: Path, reason: str, value: Any) -> ValidationError:
    """Return what is wrong with the value at a path below the model that raises it."""
    # The text is an argument: braces in it are not fields of a template.
    kind = PydanticCustomError("preset", "{reason}", {"reason": reason})
    return ValidationError.from_exception_data(
        "preset", [InitErrorDetails(type=kind, loc=path, input=value)]
    )


def same(one: Any, other: Any) -> bool:
    """Say whether two values are the same in JSON, where true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _of_kind(kind: str, value: Any) -> str | None:
    """Say what is wrong with a value of a setting of this type; None if nothing is."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "number" and not (number and math.isfinite(value)):
        return f"must be a number, not {value!r:.80}"
    if kind == "text" and not isinstance(value, str):
        return f"must be a text, not {value!r:.80}"
    if kind == "boolean" and not isinstance(value, bool):
        return f"must be true or false, not {value!r:.80}"
    return None
