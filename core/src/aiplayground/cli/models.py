"""`aipg models`: what lies on this computer, about one of them, and removing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ._app import App, json_option
from ._group import OpenGroup, other_name
from ._output import print_json, print_table, say, size_text
from ._run import run_with_kernel
from .completion import complete_model

if TYPE_CHECKING:
    from pathlib import Path

    from aiplayground.api import ModelInfo
    from aiplayground.kernel import Kernel
    from aiplayground.models import ModelPaths, ModelProblem

    from ._model_facts import Known
    from ._model_removal import Outcome


class ModelsGroup(OpenGroup):
    """Says which command may have been meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; suggest one where there is none of this name."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            from aiplayground.errors import suggest

            name = f"models {args[0]}"
            hint = other_name(name) or suggest(args[0], [*self.commands, "suggest"])
            ctx.fail(f"There is no command '{name}'.{hint}")
        return super().resolve_command(ctx, args)


@click.group("models", cls=ModelsGroup, invoke_without_command=True)
@json_option
@click.option("--paths", is_flag=True, help="Show the folders that are searched, and each file.")
@click.pass_context
def command(ctx: click.Context, paths: bool) -> None:
    """List the models here, show one, remove one.

    A model that is not listed although its file is there appears below, with the reason.
    """
    if ctx.invoked_subcommand is not None:
        return
    app = ctx.ensure_object(App)
    models, problems, where = run_with_kernel(app, _look)
    models = _with_running(app, models)
    if app.json:
        print_json(as_json(models, problems, list(where.roots())))
        return
    if paths:
        for folder in where.roots():
            say(f"{folder}{'' if folder.is_dir() else '  (not there)'}")
        say()
    _print(models, problems, where, paths=paths)


@command.command("info")
@json_option
@click.argument("name", shell_complete=complete_model)
@click.pass_obj
def info(app: App, name: str) -> None:
    """Show what is known of a model: metadata, files, what can run it."""
    from . import _model_facts

    found: Known = run_with_kernel(app, lambda kernel: _model_facts.look_up(kernel, name))
    (model,) = _with_running(app, [found.model])
    if app.json:
        print_json(_model_facts.as_json(model, found))
        return
    for label, value in _model_facts.lines(model, found):
        say(f"{label:<14} {value}")


@command.command("rm")
@json_option
@click.argument("name", shell_complete=complete_model)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove(app: App, name: str, yes: bool) -> None:
    """Remove a model's files: all its parts, and its projector if no other model uses that.

    Only what lies in our own folders. One that the running kernel has in memory leaves it first.
    """
    from . import _model_removal

    outcome: Outcome = _model_removal.remove(app, name, sure=yes)
    if app.json:
        print_json(outcome.as_json())
        return
    freed = f" {size_text(outcome.freed)} are free again." if outcome.freed else ""
    say(f"{outcome.name} is removed.{freed}" if outcome.done else "Nothing was removed.")


@command.command("paths")
@json_option
@click.pass_obj
def show_paths(app: App) -> None:
    """Show the folder of each kind of model, and those of other programs that are read."""
    from aiplayground.models import KINDS
    from aiplayground.settings import load_layers

    found = model_paths(app)
    if app.json:
        print_json(
            {
                "root": str(found.root),
                "folders": {kind: str(folder) for kind, folder in found.folders.items()},
                "readOnly": [str(folder) for folder in found.read_only],
            }
        )
        return
    layers = load_layers(app.paths)
    rows = [("root", "", found.root, layers.origin("models.root"))]
    rows += [
        (kind, each.title, found.folders[kind], layers.origin(f"models.paths.{kind}"))
        for kind, each in KINDS.items()
    ]
    rows += [("(read only)", "", folder, "") for folder in found.read_only]
    print_table(
        ["kind", "for", "folder", "there", "set by"],
        [[kind, title, folder, _there(folder), origin] for kind, title, folder, origin in rows],
    )


@command.command("plan")
@json_option
@click.argument("name", metavar="MODEL", shell_complete=complete_model)
@click.option("--backend", metavar="NAME", help="The backend that would load it.")
@click.pass_obj
def plan(app: App, name: str, backend: str | None) -> None:
    """Show what loading a model needs, what is free, and what would be unloaded for it.

    Nothing is loaded or unloaded. Asks the running kernel if there is one. Exits with 0 whether or
    not it fits; `--json` has it as `outcome`.
    """
    from . import _model_plan

    found = _model_plan.ask(app, name, backend)
    if app.json:
        print_json(found)
        return
    for line in _model_plan.lines(found):
        say(line)


def model_paths(app: App) -> ModelPaths:
    """Return where models lie, without a kernel. Raises `InvalidSettings`."""
    from aiplayground.models import ModelPaths
    from aiplayground.settings import load_layers

    return ModelPaths.of(app.paths, load_layers(app.paths).kernel().models)


def as_json(
    models: list[ModelInfo], problems: tuple[ModelProblem, ...], folders: list[Path]
) -> dict[str, Any]:
    """Return what `aipg models --json` prints: sizes in bytes, context lengths in tokens.

    `service` is the backend, empty where none can run the model.
    """
    return {
        "models": [
            {**each.model_dump(exclude_none=True), "service": each.backend or ""} for each in models
        ],
        "problems": [
            {"path": str(each.path), "reason": each.reason, "message": each.message}
            for each in problems
        ],
        "folders": [str(folder) for folder in folders],
    }


async def _look(kernel: Kernel) -> tuple[list[ModelInfo], tuple[ModelProblem, ...], ModelPaths]:
    from aiplayground._listing import list_models

    with kernel.library.one_look():
        models, scan = await list_models(kernel), await kernel.library.scan()
    return models, scan.problems, kernel.model_paths


def _with_running(app: App, models: list[ModelInfo]) -> list[ModelInfo]:
    """Say of each whether the running kernel has it in memory; another has none."""
    from ._remote import loaded_models

    loaded = loaded_models(app.paths)
    return [
        each.model_copy(update={"loaded": True, "backend": service})
        if (service := _holder(each, loaded)) is not None
        else each
        for each in models
    ]


def _holder(model: ModelInfo, loaded: set[tuple[str, str]]) -> str | None:
    services = model.backends or ((model.backend,) if model.backend else ())
    return next((each for each in services if (each, model.name) in loaded), None)


def _print(
    models: list[ModelInfo],
    problems: tuple[ModelProblem, ...],
    where: ModelPaths,
    *,
    paths: bool,
) -> None:
    if models:
        headers = ["model", "type", "size", "quantization", "context", "backend", "where"]
        print_table(
            [*headers, "file"] if paths else headers,
            [[*_row(each, where), each.path] if paths else _row(each, where) for each in models],
        )
    else:
        say("There are no models here yet. These fit this computer: aipg models suggest")
        say("You can also put a GGUF file into this folder:")
        say(f"  {where.root}")
        say("or install the tiny one that explains this program: pip install aiplayground-guide")
    if problems:
        say()
        say("Not usable:", bold=True)
    for problem in problems:
        name = problem.path.name
        say(f"  {'' if name in problem.message else f'{name}: '}{problem.message}")


def _row(model: ModelInfo, where: ModelPaths) -> list[object]:
    backend = model.backend or ""
    return [
        model.name,
        model.type,
        size_text(model.size),
        model.quantization,
        model.context_length,
        f"{backend} (loaded)" if model.loaded else backend,
        _place(model.path, where),
    ]


def _place(path: str, where: ModelPaths) -> str:
    """Say where a model lies, in short: the folder below ours, or the whole one."""
    from pathlib import Path

    if not path:
        return "elsewhere"
    folder = Path(path).parent
    if folder == where.root or where.root in folder.parents:
        return f"models/{folder.relative_to(where.root).as_posix()}".removesuffix("/.")
    found = any(root == folder or root in folder.parents for root in where.roots())
    return str(folder) if found else "a package"


def _there(folder: Path) -> str:
    return "yes" if folder.is_dir() else "no"
