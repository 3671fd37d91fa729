"""From the settings that a manifest declares to a pydantic model, like that of any backend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, create_model

from aiplayground.settings import OwnSettings

from ._schema import Manifest, Setting

_TYPES: dict[str, Any] = {
    "text": str,
    "int": int,
    "float": Annotated[float, Field(allow_inf_nan=False)],
    "bool": bool,
    "path": Annotated[Path, AfterValidator(Path.expanduser)],
    "list": tuple[str, ...],
}


def settings_model(manifest: Manifest) -> type[BaseModel]:
    """Make the model; its field descriptions are the manifest's."""
    fields: dict[str, Any] = {each.name: _field(each) for each in manifest.settings}
    return create_model(
        "Settings", __base__=OwnSettings, __doc__=f"Settings of {manifest.name}.", **fields
    )


def _field(setting: Setting) -> tuple[Any, Any]:
    kind = Literal[setting.options] if setting.options else _TYPES[setting.kind]
    bounds = {"ge": setting.least, "le": setting.most}
    given: dict[str, Any] = {name: bound for name, bound in bounds.items() if bound is not None}
    if given:
        kind = Annotated[kind, Field(**given)]
    if setting.default is None:
        kind = kind | None if not setting.options else Literal[*setting.options] | None
    return kind, Field(
        default=setting.default, description=setting.description, validate_default=True
    )
