"""Presets from folders: what is good in them, and what is wrong with the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from aiplayground.errors import InvalidParameters, suggest
from aiplayground.validation import explain

from ._chat import chat_field
from ._json import NotJson, line_of, parse, position
from ._schema import Preset, Setting

BUILT_IN = Path(__file__).parent / "builtin"
"""The presets that ship with the kernel."""

SUFFIX = ".json"

MAX_FILE = 16 * 2**20
"""Bytes of a preset file at most."""


@dataclass(frozen=True, slots=True)
class PresetFolder:
    """A folder with presets; `origin` is `built-in`, a plugin's name, or `user`."""

    path: Path
    origin: str


@dataclass(frozen=True, slots=True)
class LoadedPreset:
    """A preset, its file, and who brought it; `notes` name what is kept but not understood."""

    preset: Preset
    file: Path
    origin: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PresetProblem:
    """A file that holds no preset; `line` counts from 1, 0 where no line is meant."""

    file: Path
    line: int
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        return f"{place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class PresetScan:
    """What was found, the presets in the order of their files."""

    presets: tuple[LoadedPreset, ...]
    problems: tuple[PresetProblem, ...]


class _Bad(Exception):
    """A file that holds no preset."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line, self.reason = line, reason


def load_presets(folders: Iterable[PresetFolder]) -> PresetScan:
    """Read every preset; one of a later folder takes the place of an earlier of its name.

    A file that is wrong is reported and keeps none of the others out. Folders that are not there
    count as empty. Blocks.
    """
    found: dict[str, LoadedPreset] = {}
    problems: list[PresetProblem] = []
    for folder in folders:
        own: dict[str, Path] = {}
        for file in _files(folder, problems):
            loaded = _load(file, folder.origin, problems)
            if loaded is None:
                continue
            name = loaded.preset.name
            if name in own:
                reason = f"'{name}' is the name of {own[name].name} already"
                problems.append(PresetProblem(file, _line_of_name(file), reason))
                continue
            own[name] = file
            found[name] = loaded
    return PresetScan(tuple(found.values()), tuple(problems))


def check_file(file: Path) -> LoadedPreset | PresetProblem:
    """Read one file; returns the preset in it, or what is wrong. Blocks."""
    problems: list[PresetProblem] = []
    return _load(file, "file", problems) or problems[0]


def find_preset(presets: Sequence[Preset], name: str) -> Preset:
    """Return the preset of this name, in any case of letters; raises `InvalidParameters`."""
    for each in presets:
        if each.name == name:
            return each
    for each in presets:
        if each.name.casefold() == name.casefold():
            return each
    names = [each.name for each in presets]
    raise InvalidParameters(
        f"There is no preset '{name}'.{suggest(name, names)} `aipg presets` lists them.",
        details={"preset": name, "presets": names},
    )


def _files(folder: PresetFolder, problems: list[PresetProblem]) -> list[Path]:
    try:
        return sorted(
            (each for each in folder.path.iterdir() if each.suffix.lower() == SUFFIX),
            key=lambda each: each.name,
        )
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(PresetProblem(folder.path, 0, f"cannot be read: {error.strerror}"))
        return []


def _load(file: Path, origin: str, problems: list[PresetProblem]) -> LoadedPreset | None:
    try:
        preset = _preset(_text(file))
    except _Bad as bad:
        problems.append(PresetProblem(file, bad.line, bad.reason))
        return None
    return LoadedPreset(preset, file, origin, tuple(_notes(preset)))


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise _Bad(0, f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE:
        raise _Bad(0, f"is larger than {MAX_FILE // 2**20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Bad(data.count(b"\n", 0, error.start) + 1, "is not UTF-8 text") from error


def _preset(text: str) -> Preset:
    try:
        given = parse(text)
    except NotJson as error:
        raise _Bad(error.line, f"{error.reason} (column {error.column})") from error
    if not isinstance(given, dict):
        raise _Bad(position(text, 0)[0], "a preset is a JSON object")
    try:
        return Preset.model_validate(given)
    except ValidationError as error:
        where = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _Bad(line_of(text, where["loc"]), explain(error).message.rstrip(".")) from error


def _line_of_name(file: Path) -> int:
    return line_of(_text(file), ("name",))


def _notes(preset: Preset) -> Iterator[str]:
    """Name what is kept but means nothing to this program."""
    for key in preset.model_extra or {}:
        yield f"'{key}' is no key of a preset that is known here; it is kept"
    for key, setting in preset.settings.items():
        yield from _notes_on(preset, key, setting)


def _notes_on(preset: Preset, key: str, setting: Setting) -> Iterator[str]:
    for other in setting.model_extra or {}:
        yield f"'settings.{key}.{other}' is no key of a setting that is known here; it is kept"
    if setting.type != "number" and not (setting.min is None and setting.max is None):
        yield f"'settings.{key}' is of type '{setting.type}': 'min' and 'max' mean nothing"
    if preset.type == "text" and chat_field(key) is None:
        yield f"'settings.{key}' means nothing to a chat"
