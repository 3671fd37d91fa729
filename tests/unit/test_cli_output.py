from __future__ import annotations

import io

import pytest

from aiplayground.cli import _output
from aiplayground.cli.setup import ProgressLines


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, ""),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (1_600_000, "1.6 MB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_sizes_are_written_as_people_do(size: int | None, text: str) -> None:
    assert _output.size_text(size) == text


@pytest.mark.parametrize(
    ("count", "text"), [(None, ""), (42, "42"), (790_000, "790.0K"), (7_240_000_000, "7.2B")]
)
def test_counts_are_written_as_people_do(count: int | None, text: str) -> None:
    assert _output.count_text(count) == text


def test_a_models_text_cannot_steer_the_terminal() -> None:
    hostile = "a\x1b]0;title\x07b\tc\n\x9b31mé\r\x7f"
    assert _output.without_controls(hostile) == "a]0;titleb\tc\n31mé"


def test_a_piped_table_is_aligned_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    _output.print_table(["name", "path"], [["a [b]", "/" + "x" * 300], [None, 3]])
    assert capsys.readouterr().out.splitlines() == [
        "NAME   PATH",
        "a [b]  /" + "x" * 300,
        "       3",
    ]


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_terminals_table_takes_brackets_literally(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    _output.print_table(["name"], [["a [bold]b"], ["c\x1b[2J"]])
    lines = [line.rstrip() for line in terminal.getvalue().splitlines()]
    assert lines[1:] == ["a [bold]b", "c[2J"]


def test_a_dumb_terminal_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert not _output.is_terminal(_Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert _output.is_terminal(_Terminal())


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    _output.say("red", fg="red")
    monkeypatch.delenv("NO_COLOR")
    _output.say("red", fg="red")
    assert terminal.getvalue() == "red\n\x1b[31mred\x1b[0m\n"


def test_plain_progress_prints_a_line_for_each_stage_and_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ProgressLines() as shown:
        for percent in (0, 3, 9.9, 10, 12):
            shown.show("get", percent, "part")
        shown.show("verify", 12, "")
    assert capsys.readouterr().out.splitlines() == [
        "  0 % get: part",
        " 10 % get: part",
        " 12 % verify",
    ]
