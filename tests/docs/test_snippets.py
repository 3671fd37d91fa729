"""The Python examples in the documentation run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def snippets(page: str) -> list[str]:
    return FENCE.findall((ROOT / page).read_text(encoding="utf-8"))


EMBEDDING = snippets("docs/embedding.md")


def test_the_page_has_its_examples() -> None:
    assert len(EMBEDDING) == 5


@pytest.mark.engine
@pytest.mark.parametrize("number", range(len(EMBEDDING)))
def test_embedding_example_runs(number: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EMBEDDING[number]],
        env={**os.environ, "AIPG_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stderr == ""
