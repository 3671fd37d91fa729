"""`aipg models`: what can be used here, and which files cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ._app import App, json_option
from ._output import count_text, print_json, print_table, say, size_text
from ._run import run_with_kernel

if TYPE_CHECKING:
    from pathlib import Path

    from aiplayground.kernel import Kernel
    from aiplayground.models import ModelProblem
    from aiplayground.types import ModelInfo


@click.command("models")
@json_option
@click.option("--paths", is_flag=True, help="Show the folders that are searched, and each file.")
@click.pass_obj
def command(app: App, paths: bool) -> None:
    """List the models on this computer.

    A model that is not listed although its file is there appears below, with the reason.
    """

    async def look(
        kernel: Kernel,
    ) -> tuple[list[ModelInfo], tuple[ModelProblem, ...], list[Path]]:
        folders = [kernel.paths.models, *kernel.settings.models.folders]
        return await kernel.models(), await kernel.model_problems(), folders

    models, problems, folders = run_with_kernel(app, look)
    if app.json:
        print_json(as_json(models, problems, folders))
        return
    if paths:
        for folder in folders:
            say(f"{folder}{'' if folder.is_dir() else '  (not there)'}")
        say()
    _print(models, problems, folders, paths=paths)


def as_json(
    models: list[ModelInfo], problems: tuple[ModelProblem, ...], folders: list[Path]
) -> dict[str, Any]:
    """Return what `aipg models --json` prints: sizes in bytes, context lengths in tokens."""
    return {
        "models": [each.model_dump(exclude_none=True) for each in models],
        "problems": [
            {"path": str(each.path), "reason": each.reason, "message": each.message}
            for each in problems
        ],
        "folders": [str(folder) for folder in folders],
    }


def _print(
    models: list[ModelInfo],
    problems: tuple[ModelProblem, ...],
    folders: list[Path],
    *,
    paths: bool,
) -> None:
    if models:
        headers = ["model", "type", "size", "quantization", "context", "parameters", "backend"]
        print_table(
            [*headers, "file"] if paths else headers,
            [[*_row(each), each.path] if paths else _row(each) for each in models],
        )
    else:
        say("There are no models here yet. Put a GGUF file into this folder:")
        say(f"  {folders[0]}")
        say("or install the tiny one that explains this program: pip install aiplayground-guide")
    if problems:
        say()
        say("Not usable:", bold=True)
    for problem in problems:
        name = problem.path.name
        say(f"  {'' if name in problem.message else f'{name}: '}{problem.message}")


def _row(model: ModelInfo) -> list[object]:
    return [
        model.name,
        model.type,
        size_text(model.size),
        model.quantization,
        model.context_length,
        count_text(model.parameters),
        model.service,
    ]
