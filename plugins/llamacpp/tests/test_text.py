"""Bytes to text, and stop texts that never leak."""

from __future__ import annotations

import random

import pytest

from aiplayground_llamacpp.text import AnswerText, StopMatcher, Utf8Stream

SAMPLES = ["plain", "grüße", "日本語のテキスト", "👩\u200d👩\u200d👧 🇪🇺", "a\u0301", "é日👍 end"]


def cut(data: bytes, source: random.Random) -> list[bytes]:
    pieces = []
    while data:
        size = source.randint(1, 4)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


@pytest.mark.parametrize("text", SAMPLES)
def test_characters_survive_every_way_of_cutting_them(text: str) -> None:
    source = random.Random(3)
    for _ in range(50):
        stream = Utf8Stream()
        pieces = [stream.feed(piece) for piece in cut(text.encode(), source)]
        assert "".join(pieces) == text
        assert all("\ufffd" not in piece for piece in pieces)


def test_half_a_character_waits_and_is_dropped_at_the_end() -> None:
    answer = AnswerText(())
    assert answer.feed("👍".encode()[:3]) == ""
    assert answer.flush() == ""


def test_bytes_that_are_no_character_become_replacement_characters() -> None:
    stream = Utf8Stream()
    assert stream.feed(b"a\xffb") == "a\ufffdb"
    assert stream.feed(b"\xf0\x9f") == ""
    assert stream.feed(b"x") == "\ufffdx"


def test_a_stop_text_is_removed_with_all_that_follows() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.feed("one END two") == "one "
    assert matcher.stopped
    assert matcher.feed("more") == ""


def test_the_beginning_of_a_stop_text_is_held_back_until_it_is_none() -> None:
    matcher = StopMatcher(["<end>"])
    assert matcher.feed("a<e") == "a"
    assert matcher.feed("n") == ""
    assert matcher.feed("x>") == "<enx>"
    assert not matcher.stopped


def test_what_is_held_at_the_end_is_given_out() -> None:
    matcher = StopMatcher(["<end>"])
    assert matcher.feed("a<en") == "a"
    assert matcher.flush() == "<en"
    assert matcher.flush() == ""


def test_the_first_of_several_stop_texts_wins() -> None:
    matcher = StopMatcher(["three", "two"])
    assert matcher.feed("one two three") == "one "


def test_overlapping_starts_are_found() -> None:
    matcher = StopMatcher(["aab"])
    assert matcher.feed("a") + matcher.feed("a") + matcher.feed("a") + matcher.feed("b") == "a"
    assert matcher.stopped


def test_any_cut_gives_the_text_before_the_first_stop() -> None:
    source = random.Random(11)
    for _ in range(500):
        text = "".join(source.choice("abc") for _ in range(source.randint(0, 40)))
        stops = ["".join(source.choice("abc") for _ in range(source.randint(1, 4))) for _ in "xy"]
        matcher = StopMatcher(stops)
        out = "".join(matcher.feed(piece.decode()) for piece in cut(text.encode(), source))
        places = [place for stop in stops if (place := text.find(stop)) >= 0]
        assert matcher.stopped == bool(places)
        if places:
            # Cut finely, a match is found as soon as it is complete, not when a longer one starts.
            ends = min(text.find(stop) + len(stop) for stop in stops if stop in text)
            assert text.startswith(out)
            assert len(out) <= ends
            assert not any(stop in out for stop in stops)
        else:
            assert out + matcher.flush() == text
