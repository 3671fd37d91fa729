"""What a model's text means: answer, reasoning and tool calls, by the family of its template.

Models write a call to a tool as text, each family in its own way. `detect` chooses the family by
the chat template; its `Reader` takes the text as it comes and gives parts of an answer. A reader
never lets a piece of a marker out as text, gives the same parts however the text is cut, and
gives back as text what looked like a call and was none. Everything here is pure.
"""

from __future__ import annotations

from .detect import Dialect, detect
from .parts import Part, Reader

__all__ = ["Dialect", "Part", "Reader", "detect"]
