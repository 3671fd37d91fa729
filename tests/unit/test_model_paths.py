"""Where models lie: one authority, settings over it, folders of other programs beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from aiplayground import Kernel
from aiplayground.errors import InvalidParameters, InvalidSettings
from aiplayground.models import KINDS, ModelPaths, checked_kind, kind_named
from aiplayground.paths import Paths
from aiplayground.settings import ModelPathSettings, load_layers

FIRST = ("llm", "embedding", "checkpoint", "inpaint", "lora", "vae")
"""The kinds that the API reference names."""


def paths_of(home: Path, environ: dict[str, str] | None = None, **settings: Any) -> ModelPaths:
    environ = {"HOME": str(home / "user"), **(environ or {})}
    paths = Paths.resolve(home, environ)
    layers = load_layers(
        paths, environ, {f"models.{name}": each for name, each in settings.items()}
    )
    return ModelPaths.of(paths, layers.kernel().models, environ)


def test_each_kind_has_a_folder_below_the_root(tmp_path: Path) -> None:
    found = paths_of(tmp_path)
    assert tuple(found.folders)[:6] == FIRST
    assert set(found.folders) == set(KINDS)
    assert all(folder.parent == found.root for folder in found.folders.values())
    assert found.folder("llm") == tmp_path / "models" / "llm"
    assert found.roots() == (tmp_path / "models",)


def test_every_kind_can_be_set() -> None:
    assert set(ModelPathSettings.model_fields) == set(KINDS)


def test_the_root_and_single_kinds_can_be_elsewhere(tmp_path: Path) -> None:
    found = paths_of(tmp_path, root=str(tmp_path / "big"), paths={"lora": str(tmp_path / "l")})
    assert found.folder("llm") == tmp_path / "big" / "llm"
    assert found.folder("lora") == tmp_path / "l"
    assert found.writable() == (tmp_path / "big", tmp_path / "l")


def test_an_unknown_kind_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameters, match="Did you mean 'lora'"):
        paths_of(tmp_path).folder("loora")
    with pytest.raises(InvalidSettings, match=r"models\.paths\.loora"):
        paths_of(tmp_path, paths={"loora": "/x"})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("loras", "lora"),
        ("controlNet", "controlnet"),
        ("clip-vision", "clip_vision"),
        ("unet", "diffusion_model"),
        ("clip", "text_encoder"),
        ("embeddings", "textual_inversion"),
        ("Checkpoints", "checkpoint"),
        ("things", None),
    ],
)
def test_folders_of_other_programs_say_the_kind(name: str, kind: str | None) -> None:
    assert kind_named(name) == kind


def test_no_two_kinds_share_a_name() -> None:
    for kind, each in KINDS.items():
        assert checked_kind(kind) == kind
        assert all(kind_named(name) == kind for name in (each.folder, *each.other_names))


# What a path means ------------------------------------------------------------------------------


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_a_relative_path_is_looked_for_in_every_folder(tmp_path: Path) -> None:
    found = paths_of(tmp_path, folders=[str(tmp_path / "more")])
    there = put(tmp_path / "more" / "a" / "m.gguf")
    assert found.resolve("a/m.gguf") == there
    assert found.resolve("a/new.gguf") == found.root / "a" / "new.gguf"
    both = put(found.root / "a" / "m.gguf")
    assert found.resolve("a/m.gguf") == both


def test_the_name_of_a_kind_leads_to_its_folder_wherever_that_is(tmp_path: Path) -> None:
    found = paths_of(tmp_path, paths={"llm": str(tmp_path / "texts")})
    assert found.resolve("llm/mistral-7b") == tmp_path / "texts" / "mistral-7b"
    assert paths_of(tmp_path).resolve("llm/x") == tmp_path / "models" / "llm" / "x"
    assert paths_of(tmp_path).resolve("llm") == tmp_path / "models" / "llm"
    old = put(tmp_path / "models" / "llm" / "old.gguf")
    assert found.resolve("llm/old.gguf") == old


def test_an_absolute_path_must_lie_inside(tmp_path: Path) -> None:
    found = paths_of(tmp_path)
    assert found.resolve(str(found.root / "x.gguf")) == found.root / "x.gguf"
    for text in ("/etc/passwd", str(tmp_path / "modelsx"), str(found.root / ".." / "config")):
        with pytest.raises(InvalidParameters) as refused:
            found.resolve(text)
        assert refused.value.details["reason"] == "outside"


@pytest.mark.parametrize("text", ["../x", "llm/../../x", "a/../../models/../x", "..\\x"])
def test_no_path_climbs_out(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidParameters, match="outside"):
        paths_of(tmp_path).resolve(text)


@pytest.mark.parametrize("text", ["", "  ", "a\x00b"])
def test_what_is_no_path_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidParameters, match="must name a file"):
        paths_of(tmp_path).resolve(text)


def test_a_name_that_no_file_can_have_is_still_a_path(tmp_path: Path) -> None:
    name = "x" * 5000
    assert paths_of(tmp_path).resolve(name).name == name


def test_the_kind_of_a_file_is_that_of_its_folder(tmp_path: Path) -> None:
    other = tmp_path / "comfy"
    found = paths_of(tmp_path, paths={"vae": str(tmp_path / "v")}, external=[str(other)])
    assert found.kind_of(found.root / "llm" / "a" / "m.gguf") == "llm"
    assert found.kind_of(tmp_path / "v" / "m.safetensors") == "vae"
    assert found.kind_of(other / "loras" / "style" / "m.safetensors") == "lora"
    assert found.kind_of(found.root / "m.gguf") is None
    assert found.kind_of(tmp_path / "elsewhere" / "loras" / "m.gguf") is None


# Folders of other programs ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "user/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "caches"}, "caches/huggingface/hub"),
        ({"HF_HOME": "hf"}, "hf/hub"),
        ({"HF_HOME": "hf", "HF_HUB_CACHE": "hub2"}, "hub2"),
    ],
)
def test_the_hugging_face_cache(tmp_path: Path, environ: dict[str, str], expected: str) -> None:
    environ = {name: str(tmp_path / value) for name, value in environ.items()}
    found = paths_of(tmp_path, environ, external=["huggingface"])
    assert found.read_only == (tmp_path / expected,)
    assert found.roots() == (found.root, tmp_path / expected)


def test_the_folders_of_lm_studio(tmp_path: Path) -> None:
    user = tmp_path / "user"
    usual = (user / ".lmstudio" / "models", user / ".cache" / "lm-studio" / "models")
    assert paths_of(tmp_path, external=["lm-studio"]).read_only == usual
    put(user / ".lmstudio-home-pointer").write_text(str(tmp_path / "studio"))
    moved = {"downloadsFolder": str(tmp_path / "disk")}
    put(tmp_path / "studio" / "settings.json").write_text(json.dumps(moved))
    put(user / ".lmstudio" / "settings.json").write_text("[1]")
    found = paths_of(tmp_path, external=["lm-studio"]).read_only
    assert found == (tmp_path / "disk", tmp_path / "studio" / "models", *usual)


def test_the_store_of_ollama(tmp_path: Path) -> None:
    usual = paths_of(tmp_path, external=["ollama"]).read_only
    assert usual[0] == tmp_path / "user" / ".ollama" / "models"
    moved = {"OLLAMA_MODELS": str(tmp_path / "o")}
    assert paths_of(tmp_path, moved, external=["ollama"]).read_only == (tmp_path / "o",)


# What is ours -----------------------------------------------------------------------------------


def test_only_our_own_folders_are_written(tmp_path: Path) -> None:
    inside = tmp_path / "models" / "theirs"
    found = paths_of(tmp_path, folders=[str(tmp_path / "more"), str(inside)])
    assert found.is_writable(put(found.root / "llm" / "m.gguf"))
    assert found.is_writable(found.root / "m.gguf")
    assert not found.is_writable(put(tmp_path / "more" / "m.gguf"))
    assert not found.is_writable(put(inside / "m.gguf"))
    assert not found.is_writable(tmp_path / "m.gguf")


def test_a_root_inside_a_folder_of_the_user_is_ours(tmp_path: Path) -> None:
    found = paths_of(tmp_path, folders=[str(tmp_path)])
    assert found.is_writable(found.root / "m.gguf")
    assert not found.is_writable(tmp_path / "m.gguf")


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege on Windows")
def test_what_lies_behind_a_link_is_not_ours(tmp_path: Path) -> None:
    found = paths_of(tmp_path)
    put(tmp_path / "disk" / "m.gguf")
    found.root.mkdir(exist_ok=True)
    (found.root / "disk").symlink_to(tmp_path / "disk")
    assert not found.is_writable(found.root / "disk" / "m.gguf")
    (found.root / "m.gguf").symlink_to(tmp_path / "disk" / "m.gguf")
    assert found.is_writable(found.root / "m.gguf")  # the link is, its target is not touched


async def test_the_kernel_has_the_paths(tmp_path: Path) -> None:
    settings = {"models.root": str(tmp_path / "m")}
    async with Kernel(home=tmp_path, discover=False, settings=settings) as kernel:
        assert kernel.model_paths.root == tmp_path / "m"
