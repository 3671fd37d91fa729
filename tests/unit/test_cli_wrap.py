from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiplayground.cli._wrap import Wrapper


def _wrapped(text: str, width: int, step: int = 1) -> str:
    wrapper = Wrapper(width)
    pieces = [text[at : at + step] for at in range(0, len(text), step)]
    return "".join(map(wrapper.feed, pieces)) + wrapper.flush()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one two three", "one two\nthree"),
        ("one two thr", "one two\nthr"),
        ("1234567 90", "1234567 90"),
        ("1234567 890", "1234567\n890"),
        ("a\nb", "a\nb"),
        ("  x = 1\n  y", "  x = 1\n  y"),
        ("longer-than-a-line ok", "longer-than-a-line\nok"),
        ("so longer-than-a-line", "so\nlonger-than-a-line"),
        ("1234567890 x", "1234567890\nx"),
        ("日本語日本語", "日本語日本\n語"),
        ("ends  ", "ends  "),
        ("1234567890\nx", "1234567890\nx"),
    ],
)
def test_lines_break_between_words(text: str, shown: str) -> None:
    assert _wrapped(text, 10) == shown


@given(st.text(alphabet="ab \n\té日"), st.integers(1, 12), st.integers(1, 5))
def test_nothing_but_spaces_changes_and_pieces_do_not_matter(
    text: str, width: int, step: int
) -> None:
    shown = _wrapped(text, width, step)
    assert shown == _wrapped(text, width)
    assert "".join(shown.split()) == "".join(text.split())


@given(st.lists(st.text(alphabet="abc", min_size=1, max_size=7), max_size=30))
def test_no_line_is_too_long(words: list[str]) -> None:
    shown = _wrapped(" ".join(words), 7)
    assert all(len(line) <= 7 for line in shown.split("\n"))
    assert shown.split() == words


def test_a_word_is_shown_as_soon_as_it_is_complete() -> None:
    wrapper = Wrapper(20)
    assert [wrapper.feed(piece) for piece in ("He", "llo", " wor", "ld.\n")] == [
        "",
        "",
        "Hello",
        " world.\n",
    ]
