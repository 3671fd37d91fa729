from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.cli_fakes import Cli

pexpect = pytest.importorskip("pexpect")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")

CTRL_C, CTRL_D = "\x03", "\x04"
PROMPT = "\x1b[?2004h"
"""Bracketed paste is turned on (xterm's DECSET 2004): the program waits for a line."""
ANSWERING = "Thinking …"


class Conversation:
    """`aipg chat` in a terminal."""

    def __init__(self, cli: Cli, *args: str, **more: str) -> None:
        self.cli = cli
        self.terminal: Any = pexpect.spawn(
            sys.executable,
            ["-m", "aiplayground.cli", "chat", *args],
            env={**cli.environment(**more), "TERM": "xterm"},
            encoding="utf-8",
            timeout=20,
            dimensions=(40, 120),
        )

    def sees(self, text: str) -> None:
        self.terminal.expect_exact(text)

    def types(self, text: str) -> None:
        self.terminal.send(text)

    def says(self, line: str) -> None:
        self.terminal.send(line + "\r")

    def leaves(self) -> int:
        """Leave at the next prompt: what is typed before it may be lost."""
        self.sees(PROMPT)
        self.types(CTRL_D)
        return self.ends()

    def ends(self) -> int:
        self.terminal.expect(pexpect.EOF)
        self.terminal.close()
        code: int = self.terminal.exitstatus
        return code


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def chat(cli: Cli) -> Iterator[Conversation]:
    conversation = Conversation(cli)
    conversation.sees("Starting Fake")
    conversation.sees("parrot on Fake.")
    conversation.sees(PROMPT)
    yield conversation
    conversation.terminal.close(force=True)


def test_a_conversation_remembers_what_was_said(chat: Conversation) -> None:
    chat.says("hello")
    chat.sees("hello <u>")
    chat.sees(PROMPT)
    chat.says("again")
    chat.sees("again <uau>")
    chat.says("/clear")
    chat.sees("A new conversation.")
    chat.says("afresh")
    chat.sees("afresh <u>")
    chat.says("/system be brief")
    chat.sees("Instructions: be brief")
    chat.says("more")
    chat.sees("more <suau>")
    chat.says("/preset Sumarise")
    chat.sees("Did you mean 'Summarise'?")
    chat.says("/preset Summarise/points")
    chat.sees("Preset: Summarise/points; model: parrot")
    assert chat.leaves() == 0
    assert not psutil.pid_exists(chat.cli.worker())


def test_ctrl_c_stops_the_answer_and_not_the_program(chat: Conversation) -> None:
    chat.says("begin wait never")
    chat.sees("begin")
    chat.types(CTRL_C)
    chat.sees("(stopped)")
    assert (chat.cli.home / "cancelled").exists()
    chat.sees(PROMPT)
    chat.says("next")
    chat.sees("next <uau>")  # the part that came is remembered
    chat.says("wait")
    chat.sees(ANSWERING)
    chat.types(CTRL_C)
    chat.sees("(stopped)")
    chat.says("last")
    chat.sees("last <uauau>")  # what got no answer is not
    chat.says("/exit")
    assert chat.ends() == 0


def test_ctrl_c_at_the_prompt_says_how_to_leave(chat: Conversation) -> None:
    chat.types(CTRL_C)
    chat.sees("Ctrl-D or /exit leaves")
    chat.says("still here")
    chat.sees("still here <u>")
    assert chat.leaves() == 0


def test_errors_do_not_end_the_conversation(chat: Conversation) -> None:
    chat.says("explode")
    chat.sees("Error: ")
    chat.sees("boom")
    chat.says("/modle parrot")
    chat.sees("Did you mean '/model'?")
    chat.says("/model parot")
    chat.sees("Did you mean 'parrot'?")
    chat.says("/model giant")
    chat.sees("Model: giant")
    chat.says("fine")
    chat.sees("fine <u>")
    assert chat.leaves() == 0


def test_sigterm_at_the_prompt_ends_the_worker(chat: Conversation) -> None:
    worker = chat.cli.worker()
    assert psutil.pid_exists(worker)
    chat.terminal.kill(signal.SIGTERM)
    assert chat.ends() == 143
    assert not psutil.pid_exists(worker)


def test_the_history_outlives_the_program(chat: Conversation) -> None:
    chat.says("remember me")
    chat.sees("remember me <u>")
    assert chat.leaves() == 0
    assert "+remember me" in (chat.cli.home / "state" / "chat_history").read_text()
    second = Conversation(chat.cli)
    second.sees(PROMPT)
    second.types("\x1b[A")
    second.sees("remember me")
    second.types("\r")
    second.sees("remember me <u>")
    assert second.leaves() == 0


def test_a_failed_start_ends_it_with_the_cause(cli: Cli) -> None:
    chat = Conversation(cli, FAKE_FAILS="1")
    chat.sees("no luck today")
    assert chat.ends() == 1


def test_one_answer_in_a_terminal_clears_its_status_line(cli: Cli) -> None:
    chat = Conversation(cli, "hello")
    chat.sees("Starting Fake …")
    chat.sees("\r\x1b[K")
    chat.sees("hello <u>\r\n")
    assert chat.ends() == 0


def test_ctrl_c_in_one_answer_ends_everything(cli: Cli) -> None:
    chat = Conversation(cli, "begin", "wait")
    chat.sees("begin")
    chat.types(CTRL_C)
    assert chat.ends() == 130
    assert not psutil.pid_exists(cli.worker())
