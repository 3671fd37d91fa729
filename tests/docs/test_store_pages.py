"""The examples of the pages on stores and presets run as they stand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.fakes import kernel

from aiplayground.presets import Preset, chat_parameters

from .test_snippets import ROOT, snippets

STORES, PRESETS = snippets("docs/stores.md"), snippets("docs/presets.md")
PAGE = (ROOT / "docs" / "presets.md").read_text(encoding="utf-8")


def run(code: str, home: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"AIPG_HOME": str(home), "AIPG_PLUGINS__ALLOW": "[]"},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_first_example_of_stores(tmp_path: Path) -> None:
    first, second, settings = run(STORES[0], tmp_path).splitlines()
    assert (first, second) == ("1 Chat", "2 Precise answers")
    assert "'temperature': 0.5" in settings


async def test_the_store_of_the_example(tmp_path: Path) -> None:
    import types

    module = types.ModuleType("my_plugin.timer")
    sys.modules["my_plugin.timer"] = module
    try:
        exec(compile(STORES[1], "stores.md", "exec", dont_inherit=True), module.__dict__)
        async with kernel(tmp_path, module) as running:
            assert await running.call("stores:call", "timer", "startTimer", [5]) == {
                "version": 1,
                "result": "5 min",
            }
    finally:
        del sys.modules["my_plugin.timer"]


def test_the_examples_of_presets(tmp_path: Path) -> None:
    assert run(PRESETS[0], tmp_path) == "{'temperature': 0, 'max_tokens': 200, 'seed': 1}\n"
    [example] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    preset = Preset.model_validate(json.loads(example))
    assert chat_parameters(preset).unused == ()
