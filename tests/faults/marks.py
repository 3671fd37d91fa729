"""A word in the environment of all that a test starts: what of it still lives?"""

from __future__ import annotations

from pathlib import Path

MARK = "AIPG_TEST_MARK"


def marked(word: str) -> list[int]:
    """Return the living processes that carry the word (a zombie's environment is empty)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environ = path.read_bytes()
        except OSError:
            continue
        if f"{MARK}={word}".encode() in environ.split(b"\0"):
            found.append(int(path.parent.name))
    return found
