"""The pages about manifests and attached servers: their examples load, their tables are whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.programs import output_of

from aiplayground.kernel import Kernel
from aiplayground.manifest import InvalidManifest, load_manifest
from aiplayground.manifest._schema import CAPABILITIES, FACTS, KINDS, PLACES
from aiplayground.settings import EndpointSettings

DOCS = Path(__file__).parents[2] / "docs"
MANIFESTS = (DOCS / "manifests.md").read_text(encoding="utf-8")
ATTACH = (DOCS / "attach.md").read_text(encoding="utf-8")


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def test_the_manifests_of_the_page_are_manifests(tmp_path: Path) -> None:
    first, complete, settings = blocks(MANIFESTS, "toml")
    assert complete == (DOCS / "examples/llama-server.toml").read_text(encoding="utf-8")
    used = '["{settings.threads}"], "{settings.mode}"'
    third = f'name = "third"\ncommand = ["x", "{{port}}", {used}]\n{settings}'
    for text, name in ((first, "small"), (third, "third")):
        file = tmp_path / f"{name}.toml"
        file.write_text(text, encoding="utf-8")
        assert load_manifest(file).manifest.name == name


def test_every_key_and_placeholder_is_on_the_page(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("zzz = 1")
    with pytest.raises(InvalidManifest) as caught:
        load_manifest(file)
    keys = re.findall(r"There is: (.*)\.", caught.value.message)[0].split(", ")
    assert len(keys) == 15
    wanted = [f"`{word}`" for word in (*keys, *CAPABILITIES, *FACTS, *KINDS)]
    wanted += [f"{{{place}}}" for place in PLACES]
    assert [word for word in wanted if word not in MANIFESTS] == []


def test_every_setting_of_an_endpoint_is_on_the_page() -> None:
    assert [name for name in EndpointSettings.model_fields if f"`{name}`" not in ATTACH] == ["url"]


async def test_the_settings_of_the_page_make_services(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.toml").write_text("\n".join(blocks(ATTACH, "toml")))
    k = Kernel(home=tmp_path, discover=False, environ={})
    assert [each.name for each in k.plugins.loaded] == ["workstation", "office"]
    attachment = k.settings.attachment("llamacpp-backend")
    assert attachment is not None
    assert attachment.url == "http://127.0.0.1:8080"
    office = k.settings.attachment("office")
    assert office is not None
    assert office.url == "https://models.example.org/api"


def test_the_program_of_the_page_runs(tmp_path: Path) -> None:
    (source,) = blocks(ATTACH, "python")
    assert output_of(source, tmp_path) == "far True http://127.0.0.1:8080\n"
