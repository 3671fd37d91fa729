"""The store `presets`: every preset, which one is active, and what was set in it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from aiplayground.api import Answer
from aiplayground.errors import InvalidParameters
from aiplayground.presets import (
    ChatParameters,
    Preset,
    PresetScan,
    apply_variant,
    check_value,
    load_presets,
    preset_folders,
    resolve_values,
)
from aiplayground.presets._choices import (
    FILE,
    Choice,
    fitting,
    preset_for_chat,
    read_choices,
    write_choices,
)
from aiplayground.presets._variants import find_variant

from ._state import StoreState, getter
from ._store import Store, action

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel

__all__ = ["PresetFault", "PresetOrigin", "PresetsState", "PresetsStore"]

Text = Annotated[str, Field(min_length=1, max_length=200)]


class PresetFault(Answer):
    """A file that holds no preset; `line` counts from 1, 0 where no line is meant."""

    file: str
    line: int
    reason: str


class PresetOrigin(Answer):
    """Where a preset comes from: `built-in`, a plugin's name, or `user`."""

    origin: str
    file: str
    notes: tuple[str, ...] = ()


class PresetsState(StoreState):
    """`active_variant` and `setting_values` are those of the active preset.

    None as the variant means the first; `setting_values` has what was set to something else than
    the default. `problems` are files that hold no preset, `origins` are by the names of presets.
    """

    presets: tuple[Preset, ...] = ()
    active_preset_index: int = 0
    active_variant: str | None = None
    setting_values: Mapping[str, Any] = {}
    problems: tuple[PresetFault, ...] = ()
    origins: Mapping[str, PresetOrigin] = {}

    @getter
    def active_preset(self) -> Preset | None:
        """The active preset; None if there are no presets."""
        if 0 <= self.active_preset_index < len(self.presets):
            return self.presets[self.active_preset_index]
        return None

    @getter
    def active_preset_with_variant(self) -> Preset | None:
        """The active preset in its variant, the first if none was chosen."""
        preset = self.active_preset
        return None if preset is None else apply_variant(preset, self.active_variant)

    @getter
    def active_settings(self) -> dict[str, Any]:
        """The value of each setting of the active preset: what was set, else the default."""
        preset = self.active_preset_with_variant
        return {} if preset is None else resolve_values(preset, self.setting_values)


class PresetsStore(Store[PresetsState]):
    """Every preset, which one is active, and what was set in it."""

    name = "presets"

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self._file = kernel.paths.state / FILE
        self._choices: dict[str, Choice] = {}
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Read the presets, and what was chosen before."""
        active, self._choices = await asyncio.to_thread(read_choices, self._file)
        await self._load(active)

    @action
    async def set_active_preset(self, index: int) -> None:
        """Make a preset the active one; raises `InvalidParameters` for a wrong index."""
        async with self._turn:
            count = len(self.state.presets)
            if not 0 <= index < count:
                raise InvalidParameters(
                    f"There is no preset {index}: they are numbered from 0 to {count - 1}."
                    if count
                    else "There are no presets.",
                    details={"index": index, "presets": count},
                )
            await self._choose(index, self._choice(self.state.presets[index]))

    @action
    async def set_active_variant(self, name: Text | None = None) -> None:
        """Choose a variant of the active preset; None means the first."""
        async with self._turn:
            preset = self._active()
            if name is not None:
                find_variant(preset.variants, name)
            kept = fitting(preset, Choice(name, self.state.setting_values))
            await self._choose(self.state.active_preset_index, kept)

    @action
    async def set_setting(self, key: Text, value: Any = None) -> None:
        """Set a setting of the active preset; None brings its default back.

        Raises `InvalidParameters` for a value that the setting does not take.
        """
        async with self._turn:
            applied = apply_variant(self._active(), self.state.active_variant)
            values = {name: old for name, old in self.state.setting_values.items() if name != key}
            if value is not None:
                values[key] = check_value(applied, key, value)
            choice = Choice(self.state.active_variant, values)
            await self._choose(self.state.active_preset_index, choice)

    @action
    async def reset_settings(self) -> None:
        """Bring the defaults of all settings of the active preset back."""
        async with self._turn:
            self._active()
            choice = Choice(self.state.active_variant, {})
            await self._choose(self.state.active_preset_index, choice)

    @action
    async def load_presets(self) -> None:
        """Read every preset anew; the active one stays so if it is still there."""
        async with self._turn:
            active = self.state.active_preset
            await self._load(active.name if active else None)

    def for_chat(self, name: str) -> ChatParameters:
        """Return what a preset means to a chat: `NAME` as it was chosen here, or `NAME/VARIANT`.

        Raises `InvalidParameters` if there is none of the name, or it is of another type.
        """
        try:
            return preset_for_chat(self.state.presets, name, self._choices)
        except InvalidParameters as error:
            if not self.state.problems:
                raise
            files = ", ".join(f"{each.file}:{each.line}" for each in self.state.problems)
            raise InvalidParameters(
                f"{error.message} Files that hold no preset: {files}.", details=error.details
            ) from error

    # Inside -------------------------------------------------------------------------------

    def _active(self) -> Preset:
        preset = self.state.active_preset
        if preset is None:
            raise InvalidParameters("There are no presets.", details={"presets": 0})
        return preset

    async def _load(self, active: str | None) -> None:
        folders = preset_folders(self.kernel.paths, self.kernel.brought("preset_folders"))
        found = await asyncio.to_thread(load_presets, folders)
        for problem in found.problems:
            self.kernel.log().logger.warning("Preset left out: %s", problem)
        names = [each.preset.name for each in found.presets]
        index = names.index(active) if active in names else 0
        choice = self._choice(found.presets[index].preset) if names else Choice()
        self._set(
            active_preset_index=index,
            active_variant=choice.variant,
            setting_values=choice.values,
            **_shown(found),
        )

    def _choice(self, preset: Preset) -> Choice:
        return fitting(preset, self._choices.get(preset.name, Choice()))

    async def _choose(self, index: int, choice: Choice) -> None:
        """Write down what was chosen, then show it: an error leaves both as they were."""
        name = self.state.presets[index].name
        choices = {**self._choices, name: choice}
        await asyncio.to_thread(write_choices, self._file, name, choices)
        self._choices = choices
        self._set(
            active_preset_index=index, active_variant=choice.variant, setting_values=choice.values
        )


def _shown(found: PresetScan) -> dict[str, Any]:
    return {
        "presets": tuple(each.preset for each in found.presets),
        "problems": tuple(
            PresetFault(file=str(each.file), line=each.line, reason=each.reason)
            for each in found.problems
        ),
        "origins": {
            each.preset.name: PresetOrigin(
                origin=each.origin, file=str(each.file), notes=each.notes
            )
            for each in found.presets
        },
    }
