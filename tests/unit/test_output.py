"""Bytes of any kind become bounded lines of text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aiplayground._processes.output import LINE_LIMIT, LineSplitter


def split(*chunks: bytes) -> list[str]:
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return [*lines, *splitter.finish()]


def test_lines_end_at_newline_and_carriage_return() -> None:
    assert split(b"a\nb\r\nc\r 10%\r 20%\n") == ["a", "b", "c", " 10%", " 20%"]
    assert split(b"a\r", b"\nb") == ["a", "b"]
    assert split(b"a\x0bb\x0cc\xe2\x80\xa8d\n") == ["a\x0bb\x0cc\u2028d"]


def test_blank_lines_are_dropped() -> None:
    assert split(b"\n\n\r\n" * 1000) == []


def test_a_character_may_come_in_two_chunks() -> None:
    assert split("größe".encode()[:3], "größe".encode()[3:]) == ["größe"]


def test_undecodable_bytes_are_replaced() -> None:
    assert split(b"\xff\xfe ok\n") == ["\ufffd\ufffd ok"]
    assert split(b"cut \xe2\x82") == ["cut \ufffd"]


def test_a_long_line_comes_in_pieces_before_it_ends() -> None:
    splitter = LineSplitter()
    first = splitter.feed(b"x" * (LINE_LIMIT + 5))
    assert [len(line) for line in first] == [LINE_LIMIT]
    assert splitter.feed(b"y\n") == ["xxxxxy"]


@given(st.lists(st.binary(max_size=200)))
def test_the_way_it_is_cut_into_chunks_does_not_matter(chunks: list[bytes]) -> None:
    assert split(*chunks) == split(b"".join(chunks))


@given(st.lists(st.binary(max_size=60_000), max_size=4))
def test_no_line_is_longer_than_the_limit_or_blank(chunks: list[bytes]) -> None:
    assert all(0 < len(line) <= LINE_LIMIT for line in split(*chunks))
