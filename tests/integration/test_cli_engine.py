from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli_fakes import environment

pytestmark = pytest.mark.engine

QUESTION = "What is AI Playground?"


def _run(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aiplayground.cli", *args],
        input="",
        capture_output=True,
        text=True,
        env=environment(home),
        timeout=100,
        check=False,
    )


def test_the_guide_answers(tmp_path: Path) -> None:
    done = _run(tmp_path, "chat", "-m", "guide", "--temperature", "0", QUESTION)
    assert (done.returncode, done.stderr) == (0, "")
    assert "runs AI models on your own computer" in done.stdout
    again = _run(tmp_path, "chat", "--temperature", "0", "--json", QUESTION)
    body = json.loads(again.stdout)
    assert (body["model"], body["service"]) == ("guide", "llamacpp-backend")
    assert body["text"].strip() == done.stdout.strip()
    assert body["usage"]["completion_tokens"] > 10


def test_a_short_answer_says_why_it_ended(tmp_path: Path) -> None:
    done = _run(tmp_path, "chat", "-m", "guide", "--max-tokens", "3", "--json", QUESTION)
    body = json.loads(done.stdout)
    assert (body["finish_reason"], body["usage"]["completion_tokens"]) == ("length", 3)


def test_doctor_finds_the_engine_in_order(tmp_path: Path) -> None:
    done = _run(tmp_path, "doctor", "--json")
    checks = {each["check"]: each for each in json.loads(done.stdout)["checks"]}
    engine = checks["engine llamacpp-backend"]
    assert engine["status"] == "ok", engine
    assert engine["details"]["model"] == "guide"
    assert engine["details"]["text"]
    assert engine["details"]["tokensPerSecond"] > 0
