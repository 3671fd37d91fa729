"""A call's arguments as chat templates want them, which do not agree on what they are."""

from __future__ import annotations

import json
from typing import Any


class Arguments(dict[str, Any]):
    """A mapping that is its own JSON text where a template writes or joins it.

    OpenAI's API has a text here, and some templates write it out; most take a mapping, as Hugging
    Face's transformers does, and would write a text with quotes around it.
    """

    def __str__(self) -> str:
        """Return the JSON text."""
        return json.dumps(self, ensure_ascii=False)

    def __add__(self, other: str) -> str:
        """Join it as text."""
        return str(self) + other

    def __radd__(self, other: str) -> str:
        """Join it as text."""
        return other + str(self)
