"""The store `presets`: what is active, what was set, and that both outlive a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import kernel

from aiplayground.errors import FileOperationError, InvalidParameters
from aiplayground.hookspecs import hookimpl
from aiplayground.stores.presets import PresetsStore

ONE: dict[str, Any] = {
    "name": "One",
    "type": "text",
    "backend": "ai-backend",
    "settings": {
        "temperature": {
            "name": "Temperature", "type": "number", "default": 0.5, "min": 0, "max": 2
        },
        "systemPrompt": {"name": "Instructions", "type": "text", "default": "A"},
    },
    "variants": [{"name": "usual"}, {"name": "hot", "settings": {"temperature": 1.5}}],
}  # fmt: skip


class Brings:
    """A plugin with presets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @hookimpl
    def preset_folders(self) -> Sequence[Path]:
        return [self.folder]


def put(home: Path, file: str, preset: dict[str, Any]) -> Path:
    path = home / "config" / "presets" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(preset))
    return path


async def test_presets_of_the_kernel_of_plugins_and_the_users(tmp_path: Path) -> None:
    brought = tmp_path / "brought"
    brought.mkdir()
    (brought / "a.json").write_text(json.dumps(ONE))
    (brought / "b.json").write_text(json.dumps(ONE | {"name": "Two"}))
    put(tmp_path, "mine.json", ONE | {"description": "mine"})
    bad = put(tmp_path, "bad.json", ONE | {"type": "chat"})
    async with kernel(tmp_path, Brings(brought)) as running:
        presets: PresetsStore = await running.store("presets")
        state = presets.state
        assert state.active_preset is state.presets[0]
        origins = {name: each.origin for name, each in state.origins.items()}
        assert origins["Chat"] == "built-in"
        assert (origins["One"], origins["Two"]) == ("user", "brings")
        one = next(each for each in state.presets if each.name == "One")
        assert one.description == "mine"
        [problem] = state.problems
        assert (problem.file, problem.line) == (str(bad), 1)
        assert "'type': input should be" in problem.reason


async def test_an_index_that_there_is_not_changes_nothing(tmp_path: Path) -> None:
    async with kernel(tmp_path) as running:
        presets: PresetsStore = await running.store("presets")
        before = presets.version, presets.state
        for index in (-1, len(presets.state.presets)):
            with pytest.raises(InvalidParameters, match="numbered from 0 to"):
                await presets.set_active_preset(index)
        with pytest.raises(InvalidParameters, match="'index'"):
            await presets.call("setActivePreset", ["1"])
        assert (presets.version, presets.state) == before


async def test_variants_and_settings_of_the_active_preset(tmp_path: Path) -> None:
    put(tmp_path, "one.json", ONE)
    async with kernel(tmp_path) as running:
        presets: PresetsStore = await running.store("presets")
        names = [each.name for each in presets.state.presets]
        await presets.set_active_preset(names.index("One"))
        assert presets.state.active_settings == {"temperature": 0.5, "systemPrompt": "A"}
        await presets.set_active_variant("hot")
        applied = presets.state.active_preset_with_variant
        assert applied is not None
        assert applied.settings["temperature"].default == 1.5
        await presets.set_setting("systemPrompt", "B")
        assert presets.state.active_settings == {"temperature": 1.5, "systemPrompt": "B"}
        with pytest.raises(InvalidParameters, match="must be 0 to 2"):
            await presets.set_setting("temperature", 3)
        with pytest.raises(InvalidParameters, match="no variant 'cold'"):
            await presets.set_active_variant("cold")
        assert presets.state.active_settings == {"temperature": 1.5, "systemPrompt": "B"}
        await presets.set_setting("systemPrompt", None)
        assert presets.state.active_settings["systemPrompt"] == "A"
        await presets.set_setting("temperature", 1)
        await presets.reset_settings()
        assert presets.state.setting_values == {}


async def test_the_choice_outlives_a_restart_and_a_changed_file(tmp_path: Path) -> None:
    file = put(tmp_path, "one.json", ONE)
    async with kernel(tmp_path) as running:
        presets: PresetsStore = await running.store("presets")
        index = [each.name for each in presets.state.presets].index("One")
        await presets.set_active_preset(index)
        await presets.set_active_variant("hot")
        await presets.set_setting("temperature", 1.2)
        await presets.set_setting("systemPrompt", "B")
    async with kernel(tmp_path) as running:
        presets = await running.store("presets")
        assert presets.state.active_preset is not None
        assert presets.state.active_preset.name == "One"
        assert presets.state.active_variant == "hot"
        assert presets.state.setting_values == {"temperature": 1.2, "systemPrompt": "B"}
        # What does not fit any more is as if it had not been chosen.
        changed = json.loads(json.dumps(ONE))
        changed["settings"]["temperature"]["max"] = 1
        changed["variants"] = [{"name": "usual"}]
        file.write_text(json.dumps(changed))
        put(tmp_path, "0.json", ONE | {"name": "Another"})
        await presets.load_presets()
        assert presets.state.active_preset.name == "One"
        assert presets.state.active_variant is None
        assert presets.state.setting_values == {"systemPrompt": "B"}
        file.unlink()
        await presets.load_presets()
        assert presets.state.active_preset_index == 0
        assert presets.state.setting_values == {}


async def test_a_damaged_note_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "presets.json").write_text("[1]")
    async with kernel(tmp_path) as running:
        presets: PresetsStore = await running.store("presets")
        assert presets.state.active_preset_index == 0
        await presets.set_active_preset(1)
        assert json.loads((tmp_path / "state" / "presets.json").read_text())["active"]


async def test_a_choice_that_cannot_be_kept_is_not_made(tmp_path: Path) -> None:
    async with kernel(tmp_path) as running:
        presets: PresetsStore = await running.store("presets")
        (tmp_path / "state" / "presets.part").mkdir()
        with pytest.raises(FileOperationError):
            await presets.set_active_preset(1)
        assert presets.state.active_preset_index == 0


async def test_simultaneous_choices_end_with_one_of_them_everywhere(tmp_path: Path) -> None:
    async with kernel(tmp_path) as running:
        presets: PresetsStore = await running.store("presets")
        count = len(presets.state.presets)
        await asyncio.gather(*(presets.set_active_preset(each % count) for each in range(20)))
        active = presets.state.active_preset
        assert active is not None
        kept = json.loads((tmp_path / "state" / "presets.json").read_text())["active"]
        assert kept == active.name
