"""Where presets lie: those of the kernel, of plugins, and the user's own, in this order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._load import BUILT_IN, PresetFolder

if TYPE_CHECKING:
    from aiplayground.paths import Paths

USER, KERNEL = "user", "built-in"


def preset_folders(paths: Paths, brought: Iterable[tuple[str, Any]]) -> list[PresetFolder]:
    """Return all folders; `brought` is what each plugin answered to the hook `preset_folders`.

    Raises nothing: a plugin whose answer is no list of paths has a folder that is not there.
    """
    folders = [PresetFolder(BUILT_IN, KERNEL)]
    for plugin, given in brought:
        several = isinstance(given, Sequence) and not isinstance(given, str)
        for each in given if several else [given]:
            folders.append(PresetFolder(Path(str(each)), plugin))  # noqa: PERF401  # clearer so
    return [*folders, PresetFolder(paths.presets, USER)]
