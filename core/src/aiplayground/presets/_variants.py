"""A variant of a preset, applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from aiplayground.errors import InvalidParameters, suggest

from ._schema import Path, Preset, Variant, fault

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKFLOW = "comfyUiApiWorkflow"


def apply_variant(preset: Preset, name: str | None, *, at: Path = ()) -> Preset:
    """Return the preset in one of its variants; None means the first, if there are any.

    Raises `InvalidParameters` for a variant that there is not; with `at`, the place of the variant
    in its file, a `ValidationError` for one that does not fit its preset.
    """
    if name is None and not preset.variants:
        return preset
    variant = find_variant(preset.variants, name)
    plain = preset.model_dump(mode="json", by_alias=True, exclude_unset=True)
    del plain["variants"]
    _remove(plain, variant, at)
    overrides = dict(variant.overrides)
    if variant.replace_workflow and WORKFLOW in overrides:
        plain[WORKFLOW] = overrides.pop(WORKFLOW)
    plain = _merged(plain, overrides)
    _give_defaults(plain, variant, at)
    if variant.backend is not None:
        plain["backend"] = variant.backend
    return _checked(plain, preset, at)


def find_variant(variants: Sequence[Variant], name: str | None) -> Variant:
    """Return the variant of this name, the first for None; raises `InvalidParameters`."""
    for each in variants:
        if name is None or each.name == name:
            return each
    names = [each.name for each in variants]
    raise InvalidParameters(
        f"There is no variant '{name}'.{suggest(str(name), names)}",
        details={"variant": name, "variants": names},
    )


def _remove(plain: dict[str, Any], variant: Variant, at: Path) -> None:
    settings = plain.get("settings", {})
    for place, key in enumerate(variant.remove_settings):
        if key not in settings:
            reason = f"there is no setting '{key}'{suggest(key, settings)}"
            raise fault((*at, "removeSettings", place), reason, key)
        del settings[key]


def _give_defaults(plain: dict[str, Any], variant: Variant, at: Path) -> None:
    settings = plain.get("settings", {})
    for key, value in variant.settings.items():
        if not isinstance(settings.get(key), dict):
            reason = f"there is no setting '{key}'{suggest(key, settings)}"
            raise fault((*at, "settings", key), reason, value)
        settings[key] = {**settings[key], "default": value}


def _merged(plain: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Merge objects key by key; everything else takes the place of what was there."""
    merged = dict(plain)
    for key, value in overrides.items():
        there = merged.get(key)
        both = isinstance(there, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(there, value) if both else value  # type: ignore[arg-type]  # both are
    return merged


def _checked(plain: dict[str, Any], preset: Preset, at: Path) -> Preset:
    """Return the outcome with all variants of the preset, so that another one can be chosen."""
    try:
        applied = Preset.model_validate(plain)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        inside = ".".join(map(str, found["loc"]))
        raise fault(at, f"with this variant, '{inside}' {found['msg']}", None) from error
    return applied.model_copy(update={"variants": preset.variants})
