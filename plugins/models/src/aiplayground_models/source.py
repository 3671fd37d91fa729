"""What people type for a model on the Hub: `owner/repo:Q4_K_M`, `hf.co/...`, an address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from aiplayground.errors import InvalidParameters

HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_PAGES = frozenset({"blob", "resolve", "raw", "tree"})
_OTHERS = frozenset({"datasets", "spaces", "api", "docs", "papers", "collections", "models"})
# The Hub's own rule, as huggingface_hub.utils.validate_repo_id has it.
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
LONGEST = 96
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Source:
    """A model on the Hub: its repository, and what of it was named along with that.

    `quant` is what stands after the colon; `path` is a file, or a folder that ends in `/`.
    """

    repo: str
    revision: str | None = None
    quant: str | None = None
    path: str | None = None


def parse_source(text: str, endpoint: str = "") -> Source:
    """Return what a text names. `endpoint`: a Hub elsewhere, whose addresses count, too.

    Raises `InvalidParameters` that says which forms there are.
    """
    given = text.strip()
    if not given or _CONTROL.search(given) or len(given) > 2048:
        raise _unknown(text, "it is empty or has control characters")
    if "://" in given:
        return _of_address(given, endpoint)
    host, _, rest = given.partition("/")
    if host.lower() in HOSTS:
        return _of_path(rest, text)
    return _of_name(given)


def _of_address(text: str, endpoint: str) -> Source:
    address = urlsplit(text)
    known = HOSTS | {(urlsplit(endpoint).hostname or "").lower()}
    if address.scheme not in ("http", "https") or (address.hostname or "").lower() not in known:
        raise _unknown(text, "it is no address of the Hugging Face Hub")
    return _of_path(unquote(address.path).strip("/"), text)


def _of_path(path: str, text: str) -> Source:
    parts = [part for part in path.split("/") if part]
    if len(parts) < 2 or parts[0] in _OTHERS:
        raise _unknown(text, "it is not the address of a model")
    if len(parts) == 2:
        return _of_name("/".join(parts))
    page, rest = parts[2], parts[3:]
    if page not in _PAGES or not rest:
        raise _unknown(text, "it is not the address of a model or of a file")
    repo = checked_repo("/".join(parts[:2]), text)
    below = "/".join(rest[1:])
    if page == "tree":
        below = f"{below}/" if below else ""
    return Source(repo, revision=rest[0], path=below or None)


def _of_name(text: str) -> Source:
    name, colon, quant = text.partition(":")
    name, _, revision = name.partition("@")
    repo = checked_repo(name, text)
    if colon and not quant:
        raise _unknown(text, "nothing stands after the colon")
    if quant.lower().endswith(".gguf"):
        return Source(repo, revision or None, path=quant)
    # Ollama's way to say: whatever is usual.
    return Source(repo, revision or None, None if quant == "latest" else quant or None)


def checked_repo(repo: str, text: str) -> str:
    """Return the id of a repository if it can be one. Raises `InvalidParameters`."""
    parts = repo.split("/")
    fine = all(_PART.fullmatch(part) and "--" not in part and ".." not in part for part in parts)
    if len(parts) != 2 or not fine or len(repo) > LONGEST:
        raise _unknown(text, "that is no name of a repository")
    return repo


def _unknown(text: str, why: str) -> InvalidParameters:
    shown = _CONTROL.sub("?", text)[:200]
    return InvalidParameters(
        f"'{shown}' names no model on the Hub: {why}. Write owner/repository, "
        "owner/repository:Q4_K_M for one of its quantizations, or the address of its page.",
        details={"field": "repo", "repo": shown},
    )
