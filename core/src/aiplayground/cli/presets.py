"""`aipg presets`: what there is, one in full, and whether a file is right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._app import App, json_option
from ._output import print_json, print_table, say, warn
from .completion import complete_preset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiplayground.presets import LoadedPreset, PresetProblem, PresetScan, Setting
    from aiplayground.presets._choices import Choice


@click.group("presets", invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context) -> None:
    """List the presets: named settings for a kind of work.

    \b
    aipg presets show Summarise
    aipg presets check my.json
    aipg chat --preset Summarise "..."

    Yours lie in the folder that the last line names, one JSON file each; one of the same name takes
    the place of another.
    """
    if ctx.invoked_subcommand is not None:
        return
    app = ctx.ensure_object(App)
    found, services = _look(app)
    if app.json:
        print_json(
            {
                "presets": [_as_json(each, services) for each in found.presets],
                "problems": [_problem(each) for each in found.problems],
                "folder": str(app.paths.presets),
            }
        )
        return
    rows = [_row(each, services) for each in found.presets]
    print_table(["preset", "type", "backend", "variants", "from", "description"], rows)
    for problem in found.problems:
        warn(f"{problem}.")
    say(f"Your own: {app.paths.presets}", dim=True)


@command.command("show")
@json_option
@click.argument("name", shell_complete=complete_preset)
@click.option("--variant", metavar="NAME", help="In this variant, not the one that is chosen.")
@click.pass_obj
def show(app: App, name: str, variant: str | None) -> None:
    """Show a preset with its settings."""
    from aiplayground.presets import apply_variant, find_preset

    from ._presets import chosen_in

    found, services = _look(app)
    preset = find_preset([each.preset for each in found.presets], name)
    loaded = next(each for each in found.presets if each.preset is preset)
    choice = chosen_in(app, preset)
    applied = apply_variant(preset, variant or choice.variant)
    if app.json:
        values = {"variant": choice.variant, "values": dict(choice.values)}
        shown = {**_as_json(loaded, services), "preset": _plain(applied), "chosen": values}
        print_json(shown)
        return
    say(preset.name, bold=True)
    for line in (preset.description, f"{preset.type}, for {applied.backend}", str(loaded.file)):
        say(line or "")
    if preset.variants:
        say(f"Variants: {', '.join(each.name for each in preset.variants)}")
    if applied.settings:
        say()
        rows = [
            [key, each.name, _value(each), _limits(each)] for key, each in applied.settings.items()
        ]
        print_table(["setting", "name", "default", "takes"], rows)
    if choice.variant or choice.values:
        say()
        say(f"Chosen in a user interface: {_chosen(choice)}")
    _say_notes([loaded])


@command.command("check")
@json_option
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.pass_context
def check(ctx: click.Context, files: Sequence[Path]) -> None:
    """Say whether preset files are right; exits with 1 if one is not."""
    from aiplayground.presets import PresetProblem, check_file

    app = ctx.ensure_object(App)
    found = [check_file(each) for each in files]
    wrong = [each for each in found if isinstance(each, PresetProblem)]
    right = [each for each in found if not isinstance(each, PresetProblem)]
    if app.json:
        shown = [{"file": str(e.file), "name": e.preset.name, "notes": e.notes} for e in right]
        print_json({"presets": shown, "problems": [_problem(each) for each in wrong]})
    else:
        for each in right:
            say(f"{each.file}: '{each.preset.name}' is right")
        _say_notes(right)
        for problem in wrong:
            say(str(problem), fg="red")
    ctx.exit(1 if wrong else 0)


def _look(app: App) -> tuple[PresetScan, set[str]]:
    """Return what lies in all folders, and the services that there are."""
    from ._discovery import discover
    from ._presets import scan

    plugins = discover(app)
    services = {spec.name for each in plugins.loaded for spec in each.backends}
    found, failures = scan(app.paths, plugins)
    for failure in failures:
        warn(failure)
    return found, services


def _as_json(each: LoadedPreset, services: set[str]) -> dict[str, Any]:
    return {
        "preset": _plain(each.preset),
        "origin": each.origin,
        "file": str(each.file),
        "available": _available(each, services),
        "notes": list(each.notes),
    }


def _plain(preset: Any) -> dict[str, Any]:
    plain: dict[str, Any] = preset.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return plain


def _available(each: LoadedPreset, services: set[str]) -> bool:
    """Say whether its backend is there; of a text preset ai-backend means any."""
    preset = each.preset
    anybody = preset.type == "text" and preset.backend == "ai-backend" and bool(services)
    return anybody or preset.backend in services


def _problem(each: PresetProblem) -> dict[str, Any]:
    return {"file": str(each.file), "line": each.line or None, "reason": each.reason}


def _row(each: LoadedPreset, services: set[str]) -> list[object]:
    preset = each.preset
    backend = preset.backend if _available(each, services) else f"{preset.backend} (not here)"
    variants = ", ".join(variant.name for variant in preset.variants)
    return [preset.name, preset.type, backend, variants, each.origin, preset.description]


def _value(setting: Setting) -> str:
    return "" if setting.default is None else str(setting.default)


def _chosen(choice: Choice) -> str:
    variant = [f"variant {choice.variant}"] if choice.variant else []
    return ", ".join([*variant, *(f"{key} = {value}" for key, value in choice.values.items())])


def _limits(setting: Setting) -> str:
    if setting.options is not None:
        return ", ".join(map(str, setting.options))
    low = "" if setting.min is None else f" from {setting.min:.15g}"
    high = "" if setting.max is None else f" to {setting.max:.15g}"
    return f"{setting.type}{low}{high}"


def _say_notes(found: Sequence[LoadedPreset]) -> None:
    for each in found:
        for note in each.notes:
            say(f"{each.file.name}: {note}", dim=True)
