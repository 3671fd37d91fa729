"""What the tables of the kernel's settings are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# Not strict: a TOML array is a list, and a path in TOML is text.
Names = Annotated[tuple[str, ...], Field(strict=False)]
Folder = Annotated[Path, Field(strict=False), AfterValidator(Path.expanduser)]


class Section(BaseModel):
    """A table of the kernel's settings: immutable, strict, unknown keys refused."""

    # Without the input, which may be a secret, in pydantic's own message: a traceback shows it.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)
