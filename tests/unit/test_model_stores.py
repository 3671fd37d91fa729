"""Other programs' stores: the Hugging Face cache, Ollama's, folders as upstream names them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from tests import model_files as files
from tests.gguf_files import MODEL, Gguf

from aiplayground.models import find_models

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links need a privilege on Windows")

OLD, NEW = "a" * 40, "b" * 40


def cached(hub: Path, repo: str, revision: str, name: str, data: bytes) -> Path:
    """Put a file into the cache as huggingface_hub does: a blob, and a link to it."""
    folder = hub / f"models--{repo.replace('/', '--')}"
    blob = files.write(folder / "blobs" / hashlib.sha256(data).hexdigest(), data)
    link = folder / "snapshots" / revision / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link


def main_is(hub: Path, repo: str, revision: str) -> None:
    files.write(hub / f"models--{repo.replace('/', '--')}" / "refs" / "main", revision)


def test_the_hugging_face_cache(tmp_path: Path) -> None:
    data = Gguf().to_bytes()
    link = cached(tmp_path, "o/n", NEW, "x.gguf", data)
    main_is(tmp_path, "o/n", NEW)
    files.write(tmp_path / "models--o--n" / "blobs" / "cd.incomplete", data)
    files.write(tmp_path / ".locks" / "x.gguf", data)
    (model,) = find_models([tmp_path]).models
    assert (model.name, model.path, model.repo) == ("x", link, "o/n")
    assert model.size == len(data)


def test_of_several_revisions_the_present_one_counts(tmp_path: Path) -> None:
    cached(tmp_path, "o/n", OLD, "x.gguf", Gguf().to_bytes())
    cached(tmp_path, "o/n", OLD, "only-old.gguf", Gguf({**MODEL, "a": 1}).to_bytes())
    link = cached(tmp_path, "o/n", NEW, "x.gguf", Gguf({**MODEL, "b": 1}).to_bytes())
    main_is(tmp_path, "o/n", NEW)
    found = find_models([tmp_path])
    assert found.problems == ()
    assert {model.name: model.path for model in found.models} == {
        "x": link,
        "only-old": tmp_path / "models--o--n" / "snapshots" / OLD / "only-old.gguf",
    }


def test_a_reference_leads_nowhere_else(tmp_path: Path) -> None:
    cached(tmp_path, "o/n", NEW, "x.gguf", Gguf().to_bytes())
    main_is(tmp_path, "o/n", "../../..")
    assert [model.name for model in find_models([tmp_path]).models] == ["x"]


def test_a_repository_that_is_one_model_has_its_name(tmp_path: Path) -> None:
    folder = files.transformers(tmp_path / "source")
    for path in folder.iterdir():
        cached(tmp_path / "hub", "o/n", NEW, path.name, path.read_bytes())
    (model,) = find_models([tmp_path / "hub"]).models
    assert (model.name, model.format, model.repo) == ("o/n", "transformers", "o/n")


def test_two_repositories_with_one_name_are_told_apart(tmp_path: Path) -> None:
    cached(tmp_path, "o/n", NEW, "x.gguf", Gguf().to_bytes())
    cached(tmp_path, "p/n", NEW, "x.gguf", Gguf({**MODEL, "b": 1}).to_bytes())
    assert [model.name for model in find_models([tmp_path]).models] == ["o/n/x", "p/n/x"]


def test_folders_named_after_repositories(tmp_path: Path) -> None:
    Gguf().write(tmp_path / "owner---name" / "x.gguf")
    (model,) = find_models([tmp_path]).models
    assert model.repo == "owner/name"


# Ollama ------------------------------------------------------------------------------------------


def stored(store: Path, name: str, tag: str, data: bytes, projector: bytes | None = None) -> Path:
    layers = [("application/vnd.ollama.image.model", data)]
    layers += [("application/vnd.ollama.image.projector", projector)] if projector else []
    listed = [{"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:0"}]
    for media_type, each in layers:
        digest = hashlib.sha256(each).hexdigest()
        files.write(store / "blobs" / f"sha256-{digest}", each)
        listed.append({"mediaType": media_type, "digest": f"sha256:{digest}"})
    manifest = store / "manifests" / "registry.ollama.ai" / "library" / name / tag
    files.write(manifest, {"schemaVersion": 2, "layers": listed})
    return store / "blobs" / f"sha256-{hashlib.sha256(data).hexdigest()}"


def test_ollamas_store(tmp_path: Path) -> None:
    blob = stored(tmp_path, "llama3.2", "1b", Gguf().to_bytes(), b"GGUF projector")
    (model,) = find_models([tmp_path]).models
    assert (model.name, model.path, model.format) == ("library/llama3.2:1b", blob, "gguf")
    assert model.projector is not None
    assert model.vision


def test_what_is_not_plain_gguf_in_ollamas_store_is_left_out(tmp_path: Path) -> None:
    stored(tmp_path, "other", "latest", b"no model")
    files.write(tmp_path / "manifests" / "registry.ollama.ai" / "library" / "cloud" / "x", "{}")
    files.write(tmp_path / "manifests" / "registry.ollama.ai" / "library" / "bad" / "x", "[")
    found = find_models([tmp_path])
    assert (found.models, found.problems) == ((), ())


def test_a_manifest_whose_file_is_gone(tmp_path: Path) -> None:
    stored(tmp_path, "m", "1", Gguf().to_bytes()).unlink()
    (problem,) = find_models([tmp_path]).problems
    assert problem.reason == "missing"


def test_two_tags_of_one_file_are_two_names(tmp_path: Path) -> None:
    stored(tmp_path, "m", "1", Gguf().to_bytes())
    stored(tmp_path, "m", "latest", Gguf().to_bytes())
    names = [model.name for model in find_models([tmp_path]).models]
    assert names == ["library/m:1", "library/m:latest"]
