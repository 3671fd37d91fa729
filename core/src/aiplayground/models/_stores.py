"""Other programs' stores, whose files' names say nothing: read only, by their own indexes.

Sources: "Cache-system reference" of huggingface_hub (`models--owner--name/{refs,snapshots,blobs}`);
Ollama's `server/manifest.go` and `types/model/name.go` (`manifests/host/namespace/name/tag`, which
are OCI image manifests, and `blobs/sha256-…`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_MANIFEST = 1 << 20
"""Bytes of a manifest that are read at most; they take some hundreds."""

MAX_MANIFESTS = 10_000
MODEL_LAYER = "application/vnd.ollama.image.model"
PROJECTOR_LAYER = "application/vnd.ollama.image.projector"

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Stored:
    """A model in Ollama's store: `namespace/name:tag`, its weights, its projector."""

    name: str
    path: Path
    projector: Path | None


def is_hub_repository(name: str, names: Collection[str]) -> bool:
    """Say whether a folder of this name, with these in it, is a repository in the hub's cache."""
    return name.startswith("models--") and "snapshots" in names


def hub_repository(name: str) -> str:
    """Return `owner/name` of a folder in the hub's cache."""
    return name.removeprefix("models--").replace("--", "/", 1)


def hub_snapshots(folder: Path) -> list[Path]:
    """Return the revisions in the cache: those that references name, `main` first; then the rest.

    The rest is in the order of time, newest first.
    """
    refs = sorted((folder / "refs").glob("*"), key=lambda each: (each.name != "main", each.name))
    named = [folder / "snapshots" / _text(ref).strip() for ref in refs if ref.is_file()]
    every = sorted((folder / "snapshots").iterdir(), key=_age, reverse=True)
    kept = [each for each in named if each in every]
    return list(dict.fromkeys([*kept, *(each for each in every if not each.name.startswith("."))]))


def is_ollama(names: Collection[str]) -> bool:
    """Say whether a folder with these in it is Ollama's store."""
    return "manifests" in names and "blobs" in names


def ollama_models(folder: Path) -> Iterator[Stored]:
    """Yield the models of Ollama's store whose weights are one file in it."""
    manifests = sorted((folder / "manifests").glob("*/*/*/*"))[:MAX_MANIFESTS]
    for manifest in manifests:
        layers = _layers(manifest)
        model = _blob(folder, layers, MODEL_LAYER)
        # No weights here: a model of the cloud, or one that is imported in another format.
        if model is not None and _may_be_gguf(model):
            host, namespace, name, tag = manifest.parts[-4:]
            label = f"{namespace}/{name}:{tag}"
            label = label if host == "registry.ollama.ai" else f"{host}/{label}"
            yield Stored(label, model, _blob(folder, layers, PROJECTOR_LAYER))


def _layers(manifest: Path) -> list[Any]:
    if manifest.name.startswith("."):
        return []
    try:
        body = json.loads(_text(manifest))
    except ValueError:
        return []  # not a manifest: Ollama skips it, too
    layers = body.get("layers") if isinstance(body, dict) else None
    return layers if isinstance(layers, list) else []


def _blob(folder: Path, layers: list[Any], media_type: str) -> Path | None:
    for layer in layers:
        if isinstance(layer, dict) and layer.get("mediaType") == media_type:
            digest = _DIGEST.fullmatch(str(layer.get("digest")))
            return folder / "blobs" / f"sha256-{digest[1]}" if digest else None
    return None


def _may_be_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return True  # whoever reads it says why it cannot be read


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_MANIFEST).decode("utf-8", "replace")
    except OSError:
        return ""


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
