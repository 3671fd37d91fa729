"""Manifests: what they say, and what is wrong with them, each with file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiplayground._inference import SUBJECT
from aiplayground.manifest import InvalidManifest, Manifest, load_manifest
from aiplayground.manifest._schema import KERNEL_SETTINGS, PARAMETERS, Choice, Group
from aiplayground.manifest._template import arguments, environment
from aiplayground.settings import ServiceSettings
from aiplayground.specs import BackendSpec, Capability
from aiplayground.types import ChatRequest, CompletionRequest, EmbedRequest

LEAST = 'name = "x"\ncommand = ["serve", "{port}"]\n'


def read(tmp_path: Path, text: str) -> Manifest:
    file = tmp_path / "x.toml"
    file.write_text(text, encoding="utf-8")
    return load_manifest(file).manifest


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(InvalidManifest) as caught:
        read(tmp_path, text)
    return caught.value.message.replace(str(tmp_path / "x.toml"), "FILE")


def test_the_least_that_a_manifest_says(tmp_path: Path) -> None:
    said = read(tmp_path, LEAST)
    assert (said.name, said.command, said.ready) == ("x", ("serve", "{port}"), "/health")
    assert said.capabilities == {Capability.CHAT}
    assert said.parameters == frozenset()


def test_everything_that_a_manifest_can_say(tmp_path: Path) -> None:
    text = """
hook_api = 1
name = "x"
title = "The X"
description = "Serves."
command = ["{settings.program}", "--port", "{port}", ["--size", "{settings.size}"],
  { if = "settings.fast", then = "--fast", else = ["--slow", "{host}"] }]
cwd = "{data}"
ready = "/up"
health = "/v1/health"
capabilities = ["chat", "embedding"]
parameters = ["seed", "top_k"]
port = 9000
start_timeout = 2.5
models = ["a", { name = "b", path = "b.bin", embedding = true }]
[env]
KEY = "{key}"
MORE = "{settings.more}"
[settings]
program = { type = "path", default = "serve" }
size = { type = "int", min = 1, max = 9, description = "How large." }
fast = { default = false }
more = { options = ["a", "b"] }
"""
    file = tmp_path / "x.toml"
    file.write_text(text)
    plugin = load_manifest(file)
    said = plugin.manifest
    assert said.command[3:] == (
        Group(("--size", "{settings.size}")),
        Choice("settings.fast", ("--fast",), ("--slow", "{host}")),
    )
    assert [each.kind for each in said.settings] == ["path", "int", "bool", "text"]
    assert [(each.name, each.path) for each in said.models.named] == [
        ("a", None),
        ("b", tmp_path / "b.bin"),
    ]
    spec = plugin.backend()
    assert isinstance(spec, BackendSpec)
    assert (spec.title, spec.preferred_port, spec.api) == ("The X", 9000, "openai")
    assert spec.parameters == {"seed", "top_k"}
    assert plugin.backend() == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "FILE: it has no name. Add one: name"),
        ('name = "x"', "FILE: it has no command. Add one: command"),
        ('name = "x"\ncommand = []', "FILE, line 2: it has no command."),
        ('name = "X y"\ncommand = ["a", "{port}"]', "FILE, line 1: 'X y' cannot be a service's"),
        ('name = "kernel"\ncommand = ["a", "{port}"]', "FILE, line 1: 'kernel' cannot be"),
        ('name = 3\ncommand = ["a", "{port}"]', "FILE, line 1: 'name' must be text in quotes, not"),
        (LEAST + 'titel = "X"', "FILE, line 3: there is no key 'titel'. Did you mean 'title'?"),
        (LEAST + "zzz = 1", "FILE, line 3: there is no key 'zzz'. There is: hook_api, name,"),
        (LEAST + "port = true", "FILE, line 3: 'port' must be a whole number, not true."),
        (LEAST + 'port = "80"', "FILE, line 3: 'port' must be a whole number, not \"80\"."),
        (LEAST + "port = 70000", "FILE, line 3: 'port' must be from 1 to 65535, not 70000."),
        (LEAST + "start_timeout = 0", "FILE, line 3: 'start_timeout' must be more than 0 seconds"),
        (LEAST + 'ready = "health"', "FILE, line 3: 'ready' must be a path that begins with '/'"),
        (LEAST + 'health = "//x"', "FILE, line 3: 'health' must be a path that begins with '/'"),
        (LEAST + "hook_api = 9", "FILE, line 3: it is made for version 9 of the hooks"),
        (
            LEAST + 'capabilities = [\n  "chat",\n  "embeding",\n]',
            "FILE, line 5: 'capabilities' has no 'embeding'. Did you mean 'embedding'?",
        ),
        (LEAST + 'capabilities = ["image"]', "'capabilities' has no 'image'. There is: chat"),
        (LEAST + "capabilities = [1]", "FILE, line 3: 'capabilities' must hold texts in quotes"),
        (
            LEAST + 'parameters = ["temprature"]',
            "FILE, line 3: 'parameters' has no 'temprature'. Did you mean 'temperature'?",
        ),
        ('name = "x"\ncommand = ["a"]', "FILE, line 2: nothing has the placeholder {port}"),
        (
            'name = "x"\ncommand = [\n "a", "{port}",\n "{modle}",\n]',
            "FILE, line 4: there is no placeholder {modle}. Did you mean 'model'?",
        ),
        (
            'name = "x"\ncommand = ["a", "{port}", "{settings.sise}"]\n'
            "[settings]\nsize = { default = 1 }",
            "FILE, line 2: there is no placeholder {settings.sise}. Did you mean 'settings.size'?",
        ),
        (
            LEAST + '[env]\nA = "{x}"',
            "there is no placeholder {x}. There is: port, host, key",
        ),
        ('name = "x"\ncommand = ["a", "{port}", 5]', "FILE, line 2: 'command' holds texts, lists"),
        (
            'name = "x"\ncommand = [["a", "{port}"]]',
            "line 2: 'command' must begin with",
        ),
        (
            'name = "x"\ncommand = ["a", "{port}", { if = "settings.x" }]',
            "FILE, line 2: a choice is written { if =",
        ),
        (
            'name = "x"\ncommand = ["a", "{port}", { if = "model.embeding", then = "-e" }]',
            "line 2: there is no 'model.embeding' to ask for. Did you mean 'model.embedding'?",
        ),
        (
            'name = "x"\ncommand = ["a", "{port}", { iff = "model.vision", then = "-e" }]',
            "there is no key 'command.iff'. Did you mean 'if'?",
        ),
        (
            'name = "x"\ncommand = ["a", "{port}", "{settings.y}"]\n[settings]\n'
            'y = { type = "int" }',
            "FILE, line 2: {settings.y} may have no value. Put it into a list of its own",
        ),
        (
            'name = "x"\ncommand = ["a", "{port}", "-y={settings.y}"]\n'
            '[settings]\ny.default = ["b"]',
            "FILE, line 2: {settings.y} is a list, so it must be a text of its own.",
        ),
        (
            LEAST + "[settings]\ny = { default = 1 }",
            "FILE, line 4: the setting is declared and nothing uses it. Put {settings.y} into",
        ),
        (
            LEAST + "[settings]\nport = { default = 1 }",
            "FILE, line 4: 'port' cannot be the name of a setting: every service has it already.",
        ),
        (LEAST + "[settings]\nA-b = {}", "'A-b' cannot be the name of a setting: use a-z, 0-9"),
        (LEAST + "[settings]\ny = 3", "FILE, line 4: 'settings.y' must be a table, not 3."),
        (
            LEAST + '[settings.y]\ntype = "integer"',
            "FILE, line 4: 'settings.y.type' has no 'integer'. Did you mean 'int'?",
        ),
        (LEAST + "[settings.y]\ndefalt = 1", "there is no key 'settings.y.defalt'. Did you mean"),
        (LEAST + '[settings.y]\ntype = "text"\nmin = 1', "FILE, line 5: only numbers have a 'min'"),
        (LEAST + '[settings.y]\ntype = "int"\ndefault = "a"', "\"a\" is not of type 'int'."),
        (LEAST + "[settings.y]\ndefault = [1]", "a list is not of type 'list'."),
        (LEAST + "[settings.y]\ndefault = 5\nmax = 4", "FILE, line 4: 'settings.y': 5 is not from"),
        (
            LEAST + '[settings.y]\ndefault = "c"\noptions = ["a", "b"]',
            "FILE, line 4: 'settings.y': \"c\" is none of its options.",
        ),
        (LEAST + "models = 3", "FILE, line 3: 'models' must be a list of models, or a table with"),
        (LEAST + "models = [3]", "FILE, line 3: 'models' holds names, and tables like"),
        (LEAST + 'models = [{ path = "/a" }]', "FILE, line 3: a model has no 'name'."),
        (LEAST + '[models]\npattern = "*"', "'models' has no folder. Add one, or leave"),
        (LEAST + '[models]\nfoldr = "a"', "there is no key 'models.foldr'. Did you mean 'folder'?"),
        ("name = \n", "FILE, line 1, column 8: this is not TOML: Invalid value."),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    told = refusal(tmp_path, 'name = "x"\ncommand = ["a"]\nport = "a"\ntitel = ""')
    assert [line.partition(":")[0] for line in told.splitlines()] == [
        "FILE, line 3",
        "FILE, line 4",
        "FILE, line 2",
    ]


def test_files_that_cannot_be_read_are_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest, match="cannot be read: No such file"):
        load_manifest(tmp_path / "none.toml")
    (tmp_path / "x.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(InvalidManifest, match=r"is not UTF-8 text \(byte 8\)"):
        load_manifest(tmp_path / "x.toml")
    (tmp_path / "x.toml").write_bytes(b"#" * 70_000)
    with pytest.raises(InvalidManifest, match="larger than a manifest may be"):
        load_manifest(tmp_path / "x.toml")


def test_placeholders_are_filled(tmp_path: Path) -> None:
    parts = (
        "a{port}",
        "{{x}} {b}",
        Group(("-c", "{c}")),
        Group(("-d", "{d}", "e")),
        "{list}",
        Choice("b", ("yes", "{b}")),
        Choice("c", ("yes",), ("no",)),
    )
    values: dict[str, Any] = {"port": 1, "b": True, "c": None, "d": "", "list": ("x", "y")}
    assert arguments(parts, values) == ["a1", "{x} true", "x", "y", "yes", "true", "no"]
    values |= {"c": 0, "d": "z", "list": ()}
    assert arguments(parts, values) == (
        ["a1", "{x} true", "-c", "0", "-d", "z", "e", "yes", "true", "no"]
    )
    assert environment({"A": "{b}", "B": "{d}"}, {"b": 2, "d": None}) == {"A": "2"}


def test_the_words_are_those_of_the_rest_of_the_program() -> None:
    assert frozenset(ServiceSettings.model_fields) == KERNEL_SETTINGS
    fields = {
        *ChatRequest.model_fields,
        *CompletionRequest.model_fields,
        *EmbedRequest.model_fields,
    }
    assert fields - SUBJECT == PARAMETERS
