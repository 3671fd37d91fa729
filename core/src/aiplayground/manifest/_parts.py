"""From the tables of a manifest to its values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiplayground.hookspecs import HOOK_API
from aiplayground.specs import Capability

from . import _template
from ._check import Table, shown
from ._declared import read_settings
from ._schema import (
    CAPABILITIES,
    FACTS,
    PARAMETERS,
    PLACES,
    Choice,
    Group,
    Manifest,
    Models,
    NamedModel,
    Part,
    Setting,
    texts_of,
)


def read_manifest(top: Table) -> Manifest | None:
    """Return what a manifest says; None if it has not even a name and a command.

    What is wrong is in `top.problems`.
    """
    _check_api(top)
    name = _name(top)
    settings = read_settings(top)
    command = _command(top)
    manifest = Manifest(
        file=top.file,
        name=name,
        title=top.take("title", str, ""),
        description=top.take("description", str, ""),
        command=command,
        env=_env(top),
        cwd=top.take("cwd", str),
        ready=_url_path(top, "ready") or "/health",
        health=_url_path(top, "health"),
        capabilities=frozenset(map(Capability, _words(top, "capabilities", CAPABILITIES, "chat"))),
        parameters=frozenset(_words(top, "parameters", PARAMETERS)),
        port=_port(top),
        start_timeout=_seconds(top, "start_timeout"),
        models=_models(top),
        settings=settings,
    )
    top.no_others()
    _check_places(top, manifest)
    return manifest if name and command else None


def _check_api(top: Table) -> None:
    wanted = top.take("hook_api", int, HOOK_API)
    if wanted != HOOK_API:
        top.problem(
            f"it is made for version {wanted} of the hooks, and this program has {HOOK_API}. "
            f"Look for {'a newer AI Playground' if wanted > HOOK_API else 'a newer manifest'}.",
            "hook_api",
        )


def _name(top: Table) -> str:
    from aiplayground._hooks import wrong_name

    name = str(top.take("name", str, ""))
    if "name" not in top:
        top.problem('it has no name. Add one: name = "my-backend"')
    elif name and (wrong := wrong_name(name)) is not None:
        top.problem(wrong, "name")
    return name


def _command(top: Table) -> tuple[Part, ...]:
    given = top.take("command", list)
    if not given:
        if given is not None or "command" not in top:
            what = 'it has no command. Add one: command = ["program", "--port", "{port}"]'
            top.problem(what, *(["command"] if "command" in top else []))
        return ()
    parts = [part for part in (_part(top, each) for each in given) if part is not None]
    if parts and not isinstance(parts[0], str):
        top.problem("'command' must begin with the program: text in quotes.", "command")
    return tuple(parts)


def _part(top: Table, given: object) -> Part | None:
    if isinstance(given, str):
        return given
    if isinstance(given, list) and given and all(isinstance(each, str) for each in given):
        return Group(tuple(given))
    if isinstance(given, Mapping):
        return _choice(top.below("command", given))
    top.problem(
        f"'command' holds texts, lists of texts, and tables with 'if' and 'then', "
        f"not {shown(given)}.",
        "command",
        near=None if isinstance(given, list) else given,
    )
    return None


def _choice(table: Table) -> Choice | None:
    condition = table.take("if", str, "")
    branches = [table.take_any(name) for name in ("then", "else")]
    table.no_others()
    texts = [_arguments(each) for each in branches]
    if not condition or not texts[0] or texts[1] is None:
        table.problem(
            'a choice is written { if = "settings.NAME", then = ["--argument"] }, and may have an '
            "'else'.",
            near="if",
        )
        return None
    return Choice(condition, texts[0], texts[1])


def _arguments(given: object) -> tuple[str, ...] | None:
    if given is None:
        return ()
    texts = given if isinstance(given, list) else [given]
    found = tuple(each for each in texts if isinstance(each, str))
    return found if len(found) == len(texts) else None


def _env(top: Table) -> Mapping[str, str]:
    given = top.take("env", dict, {})
    table = top.below("env", given)
    return {name: table.take(name, str, "") for name in given}


def _url_path(top: Table, name: str) -> str | None:
    path: str | None = top.take(name, str)
    if path is not None and (not path.startswith("/") or path.startswith("//")):
        top.problem(f"'{name}' must be a path that begins with '/', not {shown(path)}.", name)
        return None
    return path


def _words(top: Table, name: str, known: Any, *default: str) -> list[str]:
    words = top.take_texts(name)
    if words is None:
        return list(default)
    return [word for word in words if top.is_known(word, known, name)]


def _port(top: Table) -> int | None:
    port: int | None = top.take("port", int)
    if port is not None and not 1 <= port <= 65535:
        top.problem(f"'port' must be from 1 to 65535, not {port}.", "port")
    return port


def _seconds(top: Table, name: str) -> float | None:
    seconds: float | None = top.take(name, float)
    if seconds is not None and not 0 < seconds < float("inf"):
        top.problem(f"'{name}' must be more than 0 seconds, not {seconds:g}.", name)
    return seconds


def _models(top: Table) -> Models:
    given = top.take_any("models")
    if isinstance(given, list):
        named = (_named(top, each) for each in given)
        return Models(named=tuple(each for each in named if each is not None))
    if not isinstance(given, Mapping):
        if given is not None:
            what = "'models' must be a list of models, or a table with a 'folder'"
            top.problem(f"{what}, not {shown(given)}.", "models")
        return Models()
    table = top.below("models", given)
    folder = table.take("folder", str)
    pattern = table.take("pattern", str, "*.gguf")
    table.no_others()
    if folder is None:
        table.problem("'models' has no folder. Add one, or leave 'models' out.")
        return Models()
    return Models(folder=_beside(top.file, folder), pattern=pattern)


def _named(top: Table, given: object) -> NamedModel | None:
    if isinstance(given, str) and given:
        return NamedModel(given)
    if not isinstance(given, Mapping):
        what = '\'models\' holds names, and tables like { name = "x", path = "/models/x.gguf" }'
        top.problem(f"{what}, not {shown(given)}.", "models", near=given)
        return None
    table = top.below("models", given)
    name, path = table.take("name", str, ""), table.take("path", str)
    embedding = table.take("embedding", bool, False)
    table.no_others()
    if not name:
        table.problem("a model has no 'name'.", near=path)
    return NamedModel(name, _beside(top.file, path) if path else None, embedding)


def _beside(file: Path, path: str) -> Path:
    return file.parent / Path(path).expanduser()


def _check_places(top: Table, manifest: Manifest) -> None:
    """Note placeholders that do not exist, those without a value, and a port that is missing."""
    settings = {f"settings.{each.name}": each for each in manifest.settings}
    used: set[str] = set()
    for key, part in _texts(manifest):
        for text in texts_of(part):
            for place in _template.places(text):
                used.add(place)
                _check_place(top, key, text, place, settings, optional=_may_miss(key, part))
        if isinstance(part, Choice):
            used.add(part.condition)
            _check_condition(top, part.condition, settings)
    if manifest.command and "port" not in used:
        top.problem(
            "nothing has the placeholder {port}: the program must listen where it is told. "
            "Add it to 'command', such as \"--port\", \"{port}\", or to 'env'.",
            "command",
        )
    for place in sorted(settings.keys() - used):
        top.problem(
            f"the setting is declared and nothing uses it. Put {{{place}}} into 'command' or "
            f"'env', or leave it out.",
            *place.split("."),
        )


def _texts(manifest: Manifest) -> list[tuple[str, Part]]:
    parts = [("command", part) for part in manifest.command]
    parts += [("env", text) for text in manifest.env.values()]
    return [*parts, ("cwd", manifest.cwd)] if manifest.cwd else parts


def _may_miss(key: str, part: Part) -> bool:
    """Whether a text is left out where a placeholder has no value."""
    return key == "env" or isinstance(part, Group)


def _check_place(
    top: Table, key: str, text: str, place: str, settings: Mapping[str, Setting], *, optional: bool
) -> None:
    if place not in PLACES and place not in settings:
        known = [*PLACES, *settings]
        top.problem(f"there is no placeholder {{{place}}}.{_meant(place, known)}", key, near=text)
        return
    setting = settings.get(place)
    if setting is None and place != "model.projector":
        return
    if not optional and (setting is None or setting.default is None):
        top.problem(
            f"{{{place}}} may have no value. Put it into a list of its own, which is left out "
            f'then: ["--argument", "{{{place}}}"].',
            key,
            near=text,
        )
    if setting is not None and setting.kind == "list" and _template.alone(text) is None:
        top.problem(f"{{{place}}} is a list, so it must be a text of its own.", key, near=text)


def _check_condition(top: Table, condition: str, settings: Mapping[str, Setting]) -> None:
    known = [*settings, *FACTS, "model.projector"]
    if condition not in known:
        what = f"there is no '{condition}' to ask for.{_meant(condition, known)}"
        top.problem(what, "command", near=condition)


def _meant(word: str, known: list[str]) -> str:
    from aiplayground.errors import suggest

    return suggest(word, known) or f" There is: {', '.join(known)}."
