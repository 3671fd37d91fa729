"""What a text preset means for a chat."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiplayground.errors import InvalidParameters

from ._schema import Preset
from ._values import resolve_values

ANY = "ai-backend"
"""The backend that stands for whichever has the model."""

SYSTEM, MODEL = "system_prompt", "model"

_OTHER_NAMES = {"max_new_tokens": "max_tokens", "system": SYSTEM}
_WHOLE = frozenset({"max_tokens", "top_k", "seed"})
FIELDS = frozenset(
    {
        *("max_tokens", "temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty"),
        *("frequency_penalty", "presence_penalty", "seed", "stop"),
    }
)
"""The fields of `types.Sampling` that a preset can give."""


@dataclass(frozen=True, slots=True)
class ChatParameters:
    """Instructions, a model, and fields of `ChatRequest`; `unused` are settings that are none.

    `backend` is the service that the preset is for; `ai-backend` means any.
    """

    system: str | None = None
    model: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    backend: str = ANY

    def under(
        self, system: str | None, sampling: Mapping[str, Any]
    ) -> tuple[str | None, dict[str, Any]]:
        """Return instructions and sampling fields: those given, and for the rest the preset's."""
        return self.system if system is None else system, {**self.sampling, **sampling}


def chat_parameters(preset: Preset, given: Mapping[str, Any] | None = None) -> ChatParameters:
    """Return what a text preset asks for; `given` are values in the place of its defaults.

    The keys of settings are those of the OpenAI API in camelCase or snake_case (`maxTokens`,
    `top_p`), and `systemPrompt` and `model`. An empty text or a seed below 0 asks for nothing.
    Raises `InvalidParameters` for another kind of preset, and for wrong values.
    """
    if preset.type != "text":
        raise InvalidParameters(
            f"The preset '{preset.name}' is of type '{preset.type}'; a chat takes those of type "
            f"'text'.",
            details={"preset": preset.name, "type": preset.type},
        )
    found: dict[str, Any] = {}
    unused: list[str] = []
    for key, value in resolve_values(preset, given or {}).items():
        name = chat_field(key)
        if name is None:
            unused.append(key)
        elif not (value == "" or (name == "seed" and value < 0)):
            found[name] = _whole(preset, key, value) if name in _WHOLE else value
    system, model = found.pop(SYSTEM, None), found.pop(MODEL, None)
    return ChatParameters(system, model, found, tuple(unused), preset.backend)


def chat_field(key: str) -> str | None:
    """Return what a setting is in a chat; None if it is nothing there."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()
    name = _OTHER_NAMES.get(name, name)
    return name if name in FIELDS or name in (SYSTEM, MODEL) else None


def _whole(preset: Preset, key: str, value: Any) -> Any:
    if isinstance(value, float) and not value.is_integer():
        raise InvalidParameters(
            f"'{preset.settings[key].name}' must be a whole number, not {value:.15g}.",
            details={"preset": preset.name, "setting": key},
        )
    return int(value) if isinstance(value, float) else value
