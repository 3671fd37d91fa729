"""Conversations at the terminal are kept: gone on with, listed, searched, exported, deleted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.cli_fakes import Cli
from tests.integration.test_cli_conversation import (
    ANSWERING,
    CTRL_C,
    PROMPT,
    Conversation,
)
from tests.unit.test_files import PNG, TEXT

from aiplayground.cli._app import App
from aiplayground.cli.root import root
from aiplayground.conversations import Archive, Draft, MessageStatus, Progress
from aiplayground.errors import InvalidParameters

needs_terminal = pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")


def aipg(home: Path, *args: str) -> Result:
    return CliRunner().invoke(root, ["--home", str(home), *args], obj=App())


def exported(home: Path, id_: str = "last") -> dict[str, Any]:
    done = aipg(home, "chats", "export", id_, "--format", "json")
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@needs_terminal
def test_a_conversation_is_kept_and_gone_on_with(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    chat = Conversation(cli)
    chat.sees(PROMPT)
    chat.says("Tell me of tigers")
    chat.sees("Tell me of tigers <u>")
    chat.says("begin wait never")
    chat.sees(ANSWERING)  # what was typed is shown as well
    chat.sees("begin")
    chat.types(CTRL_C)
    chat.sees("(stopped)")
    chat.says("smoke explode")
    chat.sees("smoke")
    chat.sees("boom")
    assert chat.leaves() == 0
    again = Conversation(cli, "--continue")
    again.sees("Going on with: Tell me of tigers (6 messages)")
    again.sees("(the last answer is not whole: failed)")
    again.sees(PROMPT)
    again.says("more")
    again.sees("more <uauauau>")
    assert again.leaves() == 0
    once = cli.run("chat", "-c", "once")
    assert (once.returncode, once.stderr) == (0, "")
    assert "once <uauauauau>" in once.stdout
    kept = exported(cli.home)
    assert [each["status"] for each in kept["messages"][1::2]] == [
        "complete",
        "stopped",
        "failed",
        "complete",
        "complete",
    ]
    assert kept["messages"][5]["error"]["code"] == -1
    assert kept["messages"][5]["content"] == "smoke "
    assert cli.run("chat", "hello").returncode == 0
    page = json.loads(aipg(cli.home, "chats", "--json").stdout)
    assert len(page["items"]) == 1, "a single answer is not kept"


def answers(cli: Cli) -> list[tuple[str, str]]:
    """Return the answers on the disk, while another program writes them."""
    file = cli.home / "data" / "conversations" / "conversations.db"
    query = "SELECT content, status FROM messages WHERE role = 'assistant' ORDER BY seq"
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []  # it is not there yet


def until_kept(cli: Cli, kept: list[tuple[str, str]]) -> None:
    """Wait until these answers are on the disk."""
    deadline = time.monotonic() + 20
    while answers(cli) != kept:
        assert time.monotonic() < deadline, answers(cli)
        time.sleep(0.05)


@needs_terminal
def test_of_an_answer_that_the_program_does_not_outlive_all_is_kept(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    chat = Conversation(cli)
    chat.sees(PROMPT)
    chat.says("begin wait never")
    until_kept(cli, [("begin ", "streaming")])
    chat.terminal.kill(signal.SIGKILL)
    chat.terminal.close(force=True)
    with subprocess.Popen(
        [*cli.argv, "chat", "--continue", "more wait"],
        env=cli.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    ) as once:
        until_kept(cli, [("begin ", "interrupted"), ("more ", "streaming")])
        once.terminate()
        assert once.wait(20) == 143
    again = Conversation(cli, "--continue")
    again.sees("Going on with: begin wait never (4 messages)")
    again.sees("(the last answer is not whole: interrupted)")
    again.sees(PROMPT)
    again.says("and")
    again.sees("and <uauau>")
    assert again.leaves() == 0
    until_kept(
        cli, [("begin ", "interrupted"), ("more ", "interrupted"), ("and <uauau>", "complete")]
    )


@needs_terminal
def test_a_file_that_cannot_be_used_does_not_keep_one_from_talking(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    (cli.home / "data").mkdir()
    (cli.home / "data" / "conversations").write_text("in the way")
    chat = Conversation(cli)
    chat.sees(PROMPT)
    chat.says("hello")
    chat.sees("hello <u>")
    chat.sees("This conversation is not kept.")
    chat.says("again")
    chat.sees("again <uau>")
    assert chat.leaves() == 0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    async def fill() -> None:
        archive = Archive(tmp_path / "data" / "conversations")
        new = await archive.create(title="Of \x1b[31mtigers", model="m", system_prompt="Be brief.")
        question = Draft(id="q", role="user", content="Tigers?", timestamp=1, images=(PNG,))
        streaming = MessageStatus.STREAMING
        answer = Draft(id="a", role="assistant", parent="q", timestamp=2, status=streaming)
        await archive.add(new.id, [question, answer])
        stopped = Progress(content="In\x1b[31m Asia", status=MessageStatus.STOPPED)
        await archive.finish("a", stopped)
        await archive.close()

    asyncio.run(fill())
    return tmp_path


def test_list_search_and_delete(home: Path) -> None:
    listed = aipg(home, "chats")
    assert "Of [31mtigers" in listed.stdout, "without what would steer the terminal"
    assert "Asia" in aipg(home, "chats", "search", "asia").stdout
    assert "Nothing was found" in aipg(home, "chats", "search", "lions").stdout
    hits = json.loads(aipg(home, "chats", "search", "tigers", "--json").stdout)["items"]
    assert [each.get("messageId") for each in hits] == [None, "q"]
    assert "Deleted: Of" in aipg(home, "chats", "rm", "last").stdout
    assert "no conversations yet" in aipg(home, "chats").stdout


def test_show_and_export(home: Path) -> None:
    shown = aipg(home, "chats", "show", "last").stdout
    known = aipg(home, "chats", "export", "last", "-f", "json").stdout
    assert json.loads(aipg(home, "chats", "show", "last", "--json").stdout) == json.loads(known)
    assert shown.startswith("# Of [31mtigers\n")
    assert "\x1b" not in shown
    assert "## Instructions\n\nBe brief.\n\n## You\n\n![image](data:image/png;base64," in shown
    assert shown.rstrip().endswith("## Assistant\n\nIn[31m Asia\n\n*(stopped)*")
    target = home / "chat.md"
    assert aipg(home, "chats", "export", "last", "-o", str(target)).exit_code == 0
    assert "In\x1b[31m Asia" in target.read_text(), "a file has it as it is"
    refused = aipg(home, "chats", "export", "last", "-o", str(home / "no" / "chat.md"))
    assert "no/chat.md" in str(refused.exception)
    document = exported(home)
    assert document["systemPrompt"] == "Be brief."
    assert document["messages"][0]["images"] == [f"data:image/png;base64,{TEXT}"]
    assert exported(home, document["id"][:8]) == document


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    for args in (["show", "last"], ["rm", "last"], ["export", "last"]):
        done = aipg(tmp_path, "chats", *args)
        assert isinstance(done.exception, InvalidParameters)
        assert "There is no conversation yet" in str(done.exception)
    done = aipg(tmp_path, "chats", "show", "abc")
    assert "There is no conversation 'abc'" in str(done.exception)
