"""Choose the family by what stands in the chat template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import functionary, gemma, gemma4, harmony, hermes, llama3, marked, mistral, sections
from .forced import ForcedReader
from .parts import PlainReader, Reader
from .think import TAGS, ThinkReader

Family = Literal[
    "hermes",
    "mistral",
    "llama3",
    "gemma",
    "gemma4",
    "harmony",
    "marked",
    "deepseek",
    "kimi",
    "functionary",
    "recipients",
    "generic",
]

# In this order: later models' templates also hold what earlier ones' did.
_SIGNS: tuple[tuple[Family, tuple[str, ...]], ...] = (
    ("harmony", ("<|channel|>",)),
    ("mistral", ("[TOOL_CALLS]", "[AVAILABLE_TOOLS]")),
    ("gemma4", ("<|tool_call>call:",)),
    ("deepseek", (sections.DEEPSEEK[0],)),
    ("kimi", (sections.KIMI[0],)),
    ("hermes", (hermes.OPEN, hermes.SEED_OPEN)),
    ("recipients", (functionary.MARK + functionary.EVERYONE,)),
    ("functionary", (functionary.OPEN,)),
    ("marked", tuple(marked.MARKS)),
    ("llama3", ("<|python_tag|>", "Environment: ipython", "<|start_header_id|>")),
    ("gemma", ("<start_of_turn>",)),
)
_MARKERS: Mapping[Family, tuple[str, ...]] = {
    "gemma4": gemma4.MARKS,
    "harmony": harmony.MARKS,
    "mistral": (mistral.OPEN, "[ARGS]", "[CALL_ID]"),
    "hermes": (hermes.OPEN, hermes.CLOSE, hermes.SEED_OPEN, hermes.SEED_CLOSE),
    "llama3": (llama3.OPEN,),
    "deepseek": sections.DEEPSEEK,
    "kimi": sections.KIMI,
    "marked": (*marked.MARKS, *marked.MARKS.values()),
}


_READERS: Mapping[Family, Callable[[Mapping[str, Mapping[str, Any]]], Reader]] = {
    "llama3": llama3.reader,
    "gemma": gemma.reader,
    "marked": marked.reader,
    "deepseek": sections.deepseek_reader,
    "kimi": sections.kimi_reader,
    "functionary": functionary.reader,
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a model marks reasoning and calls.

    `markers` are texts that the engine must let through although they may be control tokens of
    the model's. `tools_in_template`: the template has a place for tools; without one they have to
    be described in a message (`serving.describe`).
    """

    family: Family
    think: tuple[str, str] | None
    tools_in_template: bool

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts that a reader needs to see."""
        return _MARKERS.get(self.family, ()) + (self.think or ())

    def opened(self, prompt: str) -> bool:
        """Say whether the prompt ends within reasoning, which the answer then goes on with."""
        return self.think is not None and prompt.rstrip().endswith(self.think[0])

    def call_id(self, key: str) -> str:
        """Return the id of a call, from 32 random hexadecimal digits."""
        # Mistral's templates refuse any that has not nine characters.
        return key[:9] if self.family == "mistral" else f"call_{key[:24]}"

    def reader(
        self,
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        opened: bool = False,
        forced: bool = False,
    ) -> Reader:
        """Return a reader for one answer.

        Without tools no calls are looked for. `opened`: see `opened`. `forced`: a schema made the
        whole answer a call.
        """
        if forced:
            return ForcedReader()
        if self.family == "harmony":
            return harmony.HarmonyReader(calls=bool(tools))
        if self.family == "recipients":
            return functionary.RecipientReader(parameters_of(tools))
        inner = self._call_reader(parameters_of(tools)) if tools else PlainReader()
        if self.think is None:
            return inner
        return ThinkReader(self.think, inner, opened=opened)

    def _call_reader(self, tools: Mapping[str, Mapping[str, Any]]) -> Reader:
        if self.family in ("mistral", "gemma4"):
            return mistral.reader() if self.family == "mistral" else gemma4.reader()
        return _READERS.get(self.family, hermes.reader)(tools)


def detect(template: str) -> Dialect:
    """Return the dialect of a model with this chat template; "" if it has none."""
    found = (name for name, signs in _SIGNS if any(sign in template for sign in signs))
    think = next((tags for tags in TAGS if tags[1] in template), None)
    return Dialect(next(found, "generic"), think, "tools" in template)


def parameters_of(tools: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the schemas of each tool's parameters, by the names of tool and parameter."""
    found: dict[str, Mapping[str, Any]] = {}
    for tool in tools:
        function = tool.get("function") or {}
        properties = (function.get("parameters") or {}).get("properties")
        found[str(function.get("name"))] = properties if isinstance(properties, dict) else {}
    return found
