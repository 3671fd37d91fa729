"""What people type for a model."""

from __future__ import annotations

import pytest

from aiplayground.errors import InvalidParameters
from aiplayground_models.source import Source, parse_source


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("owner/repo", Source("owner/repo")),
        (" owner/repo ", Source("owner/repo")),
        ("owner/repo:Q4_K_M", Source("owner/repo", quant="Q4_K_M")),
        ("owner/repo:latest", Source("owner/repo")),
        ("owner/repo:m-q8_0.gguf", Source("owner/repo", path="m-q8_0.gguf")),
        ("owner/repo@v1", Source("owner/repo", revision="v1")),
        ("hf.co/owner/repo:Q8_0", Source("owner/repo", quant="Q8_0")),
        ("huggingface.co/owner/repo", Source("owner/repo")),
        ("https://huggingface.co/owner/repo", Source("owner/repo")),
        ("https://huggingface.co/owner/repo/tree/main", Source("owner/repo", "main")),
        (
            "https://huggingface.co/owner/repo/tree/main/BF16",
            Source("owner/repo", "main", path="BF16/"),
        ),
        (
            "https://huggingface.co/owner/repo/blob/v2/a/b%20c.gguf",
            Source("owner/repo", "v2", path="a/b c.gguf"),
        ),
        (
            "https://hf.co/owner/repo/resolve/main/m.gguf?download=true",
            Source("owner/repo", "main", path="m.gguf"),
        ),
        ("https://hub.example:8443/owner/repo", Source("owner/repo")),
    ],
)
def test_each_form_is_understood(text: str, meant: Source) -> None:
    assert parse_source(text, "https://hub.example:8443") == meant


@pytest.mark.parametrize(
    "text",
    [
        "", "repo", "a/b/c", "../x", "owner/..", "owner/re po", "owner/repo:", "owner/-x",
        "own\x00er/repo", "https://example.com/owner/repo", "ftp://hf.co/owner/repo",
        "https://huggingface.co/datasets/owner/repo", "https://huggingface.co/owner",
        "https://huggingface.co/owner/repo/discussions/3", "owner/" + "x" * 96, "a/b--c",
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(InvalidParameters, match="owner/repository:Q4_K_M"):
        parse_source(text)
