"""`aipg chats`: the conversations that are kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from ._app import App, json_option
from ._output import note, print_json, print_table, say, warn, without_controls
from ._run import run

if TYPE_CHECKING:
    from aiplayground.conversations import Archive

T = TypeVar("T")

ID_SHOWN = 8
"""Characters of an id in a table: enough to name it by."""


@click.group("chats", invoke_without_command=True)
@json_option
@click.option("-n", "--number", type=click.IntRange(1, 500), default=20, show_default=True)
@click.pass_context
def command(ctx: click.Context, number: int) -> None:
    """List, search, show and export kept conversations.

    Conversations at the terminal (`aipg chat`) are kept, and those of user interfaces. ID is the
    beginning of an id, or `last`. `aipg chat --continue` goes on with one.
    """
    if ctx.invoked_subcommand is not None:
        return
    app = ctx.ensure_object(App)
    page = with_archive(app, lambda archive: archive.page(number))
    if app.json:
        print_json(page.model_dump(mode="json", by_alias=True, exclude_none=True))
        return
    if not page.items:
        say("There are no conversations yet. Begin one: aipg chat")
        return
    print_table(
        ["id", "changed", "model", "title"],
        [
            [each.id[:ID_SHOWN], _time(each.updated), each.model, without_controls(each.title)]
            for each in page.items
        ],
    )
    if page.next:
        note(f"(the newest {number}; more with --number)")


@command.command("search")
@json_option
@click.argument("words", nargs=-1, required=True)
@click.option("-n", "--number", type=click.IntRange(1, 500), default=20, show_default=True)
@click.pass_obj
def search(app: App, words: Sequence[str], number: int) -> None:
    """Find messages that have every word."""
    found = with_archive(app, lambda archive: archive.search(" ".join(words), number))
    if app.json:
        print_json(found.model_dump(mode="json", by_alias=True, exclude_none=True))
        return
    for hit in found.items:
        say(f"{hit.conversation_id[:ID_SHOWN]}  {without_controls(hit.title)}", bold=True)
        say(f"  {' '.join(without_controls(hit.snippet).split())}")
    if not found.items:
        say("Nothing was found.")


@command.command("show")
@json_option
@click.argument("id_", metavar="ID")
@click.pass_obj
def show(app: App, id_: str) -> None:
    """Show a conversation."""
    if app.json:
        click.echo(_exported(app, id_, "json"))
        return
    say(without_controls(_exported(app, id_, "markdown")))


@command.command("export")
@click.argument("id_", metavar="ID")
@click.option("-f", "--format", "kind", type=click.Choice(["markdown", "json"]), default="markdown")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@click.pass_obj
def export(app: App, id_: str, kind: str, output: Path | None) -> None:
    """Write a conversation as Markdown or JSON, images and all."""
    text = _exported(app, id_, kind)
    if output is None:
        click.echo(text)
        return
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        from aiplayground.paths import file_error

        raise file_error("write", output, error) from error
    say(f"Written: {output}")


@command.command("rm")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.pass_obj
def remove(app: App, ids: Sequence[str]) -> None:
    """Delete conversations; they cannot be got back."""

    async def work(archive: Archive) -> None:
        for each in ids:
            found = await archive.match(each)
            await archive.delete(found.id)
            say(f"Deleted: {without_controls(found.title) or found.id}")

    with_archive(app, work)


def with_archive(app: App, work: Callable[[Archive], Awaitable[T]]) -> T:
    """Do something with the conversations of this home."""

    async def main() -> T:
        from aiplayground.conversations import Archive

        archive = Archive(app.paths.conversations)
        try:
            report = await archive.open()
            if report is not None:
                warn(report)
            return await work(archive)
        finally:
            await archive.close()

    return run(app, main)


def _exported(app: App, id_: str, kind: str) -> str:
    async def work(archive: Archive) -> str:
        from aiplayground.conversations import as_json, as_markdown

        branch = await archive.branch((await archive.match(id_)).id)
        return as_json(branch) if kind == "json" else as_markdown(branch)

    return with_archive(app, work)


def _time(milliseconds: int) -> str:
    from datetime import datetime

    moment = datetime.fromtimestamp(milliseconds / 1000).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M")
