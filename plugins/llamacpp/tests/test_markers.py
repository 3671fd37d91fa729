"""Control tokens in answers: hidden, unless those who read the answer look for them."""

from __future__ import annotations

from pathlib import Path

from aiplayground_llamacpp.bindings import EngineLog, load_bindings
from aiplayground_llamacpp.native import Model
from aiplayground_llamacpp.settings import Settings


def test_marks_are_shown_and_other_control_tokens_are_not(model_path: Path) -> None:
    lib = load_bindings()
    lines: list[str] = []
    log = EngineLog(lines.append, verbose=False)
    log.install(lib)
    model = Model(lib, log, model_path, Settings(), lambda _: True)
    try:
        shown, hidden = model.control_texts()[:2]
        tokens = [
            model.tokenize(text, add_special=False, parse_special=True) for text in (shown, hidden)
        ]
        assert [len(each) for each in tokens] == [1, 1]
        assert model.piece(tokens[0][0]) == b""
        model.show([shown, "two words"])
        assert model.piece(tokens[0][0]) == shown.encode()
        assert model.piece(tokens[1][0]) == b""
    finally:
        model.close()
