"""`aipg presets`, and `aipg chat --preset`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli_fakes import Cli
from tests.integration.test_cli_chats import exported

from aiplayground.conversations import Archive
from aiplayground.presets._choices import Choice, write_choices

LOUD: dict[str, Any] = {
    "name": "Loud",
    "type": "text",
    "backend": "fake-backend",
    "settings": {
        "systemPrompt": {"name": "Instructions", "type": "text", "default": "shout"},
        "temperature": {"name": "Temperature", "type": "number", "default": 0.5, "max": 2},
        "volume": {"name": "Volume", "type": "number", "default": 11},
    },
    "variants": [
        {"name": "usual"},
        {"name": "silent", "settings": {"systemPrompt": "", "temperature": 0}},
    ],
}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    made = Cli(tmp_path)
    folder = made.home / "config" / "presets"
    folder.mkdir(parents=True)
    (folder / "loud.json").write_text(json.dumps(LOUD, indent=1))
    return made


def test_the_list_has_what_is_right_and_what_is_wrong(cli: Cli, tmp_path: Path) -> None:
    bad = tmp_path / "home" / "config" / "presets" / "bad.json"
    bad.write_text('{\n "name": "Bad",\n "type": "song"\n}')
    told = cli.json("presets")
    found = {each["preset"]["name"]: each for each in told["presets"]}
    assert (found["Chat"]["origin"], found["Loud"]["origin"]) == ("built-in", "user")
    assert found["Loud"]["available"] is True
    assert found["Loud"]["preset"] == LOUD
    reason = "'type': input should be 'text', 'image' or 'comfy'"
    assert told["problems"] == [{"file": str(bad), "line": 3, "reason": reason}]
    done = cli.run("presets")
    assert done.returncode == 0
    assert "Loud" in done.stdout
    assert f"{bad}:3: {reason}" in done.stderr


def test_one_is_shown_in_full(cli: Cli) -> None:
    done = cli.run("presets", "show", "loud", "--variant", "silent")
    assert done.returncode == 0
    assert "Variants: usual, silent" in done.stdout
    assert "number to 2" in done.stdout
    assert "'settings.volume' means nothing to a chat" in done.stdout
    shown = cli.json("presets", "show", "Loud", "--variant", "silent")
    assert shown["preset"]["settings"]["temperature"]["default"] == 0
    assert "Did you mean 'Loud'" in cli.json("presets", "show", "Lod", code=1)["message"]


def test_files_are_checked(cli: Cli, tmp_path: Path) -> None:
    good, bad = tmp_path / "home" / "config" / "presets" / "loud.json", tmp_path / "bad.json"
    bad.write_text("{,}")
    told = cli.json("presets", "check", str(good), str(bad), code=1)
    assert [each["name"] for each in told["presets"]] == ["Loud"]
    assert told["problems"][0]["line"] == 1
    done = cli.run("presets", "check", str(good))
    assert (done.returncode, "'Loud' is right" in done.stdout) == (0, True)
    assert f"{bad}:1: " in cli.run("presets", "check", str(bad)).stdout


def test_a_chat_takes_what_a_preset_says(cli: Cli) -> None:
    done = cli.run("chat", "--preset", "Loud", "hi")
    assert (done.returncode, done.stdout) == (0, "hi <su>\n")
    assert "'volume' of 'Loud' means nothing to a chat" in done.stderr
    assert cli.run("chat", "--preset", "Loud/silent", "hi").stdout == "hi <u>\n"
    (cli.home / "config" / "presets" / "bad.json").write_text('{"name": "Bad",\n "type": 1}')
    done = cli.run("chat", "--preset", "Bad", "hi")
    assert "There is no preset 'Bad'" in done.stderr
    assert "bad.json:2: 'type': " in done.stderr
    body = cli.json("chat", "--preset", "Loud/loudest", "hi", code=1)
    assert "There is no variant 'loudest'" in body["message"]
    body = cli.json("chat", "--preset", "Code helper", "--top-p", "0.5", "hi", code=1)
    assert "does not support top_p" in body["message"]


def test_a_chat_takes_what_was_set_in_a_preset(cli: Cli) -> None:
    state = cli.home / "state"
    state.mkdir(exist_ok=True)
    write_choices(state / "presets.json", "Loud", {"Loud": Choice("silent")})
    assert cli.run("chat", "--preset", "Loud", "hi").stdout == "hi <u>\n"
    assert cli.run("chat", "--preset", "Loud/usual", "hi").stdout == "hi <su>\n"
    assert "Chosen in a user interface: variant silent" in cli.run("presets", "show", "loud").stdout


def test_a_conversation_goes_on_with_its_preset(cli: Cli) -> None:
    async def begin() -> None:
        archive = Archive(cli.home / "data" / "conversations")
        await archive.create(title="Mine", preset="Loud", settings={"temperature": 0.1})
        await archive.close()

    asyncio.run(begin())
    assert cli.run("chat", "-c", "--seed", "3", "two").stdout == "two <su>\n"
    kept = exported(cli.home)
    assert (kept["preset"], kept["backend"]) == ("Loud", "ai-backend")
    assert kept["settings"] == {"temperature": 0.1, "seed": 3}
    assert "systemPrompt" not in kept or kept["systemPrompt"] == ""
    (cli.home / "config" / "presets" / "loud.json").unlink()
    told = cli.json("chat", "-c", "three", code=1)["message"]
    assert "There is no preset 'Loud'" in told
    assert "--preset ''" in told
    assert cli.run("chat", "-c", "--preset", "", "three").stdout == "three <uau>\n"
    assert exported(cli.home).get("preset") is None
