"""The backends of docs/writing-a-backend.md, exactly as printed, built and run outside of here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.packaging.conftest import KIT, MANIFESTS, ROOT, CleanEnvironment

PAGE = ROOT / "docs" / "writing-a-backend.md"
PAGES = [PAGE, ROOT / "docs" / "middleware.md"]
PLAIN = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r'^```(\w+) title="([^"]+)"\n(.*?)^```$', re.DOTALL | re.MULTILINE)
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)


def printed(section: str) -> dict[str, str]:
    """Return the files that a section of the page prints, by path."""
    parts = SECTION.split(PAGE.read_text(encoding="utf-8"))
    text = dict(zip(parts[1::2], parts[2::2], strict=True))[section]
    return {path: source for _, path, source in FILE.findall(text)}


def lines(files: dict[str, str], ending: str) -> int:
    return sum(len(text.splitlines()) for path, text in files.items() if path.endswith(ending))


def written(files: dict[str, str], folder: Path) -> Path:
    """Write a package as the page says: what it prints, and an empty `__init__.py`."""
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    for package in (folder / "src").iterdir():
        (package / "__init__.py").touch()
    return folder


def test_the_backend_in_python(
    tmp_path: Path, build: Callable[[Path], Path], clean: CleanEnvironment
) -> None:
    files = printed("A backend in Python")
    assert set(files) == {"pyproject.toml", "src/parrot/plugin.py", "src/parrot/__main__.py"}
    assert lines(files, ".py") <= 40
    wheel = build(written(files, tmp_path / "project"))
    assert wheel.name in PAGE.read_text(encoding="utf-8"), "the page names it"
    clean.install(wheel)
    (plugin,) = json.loads(clean.aipg("plugins", "--json"))["plugins"]
    assert (plugin["name"], plugin["hookApi"]) == ("parrot", [1])
    assert plugin["hooks"] == ["backend", "list_models", "start"]
    assert clean.aipg("chat", "-m", "polly", "Pieces of eight").strip() == "Pieces of eight"
    project = written(printed("Test it"), tmp_path / "project")
    assert (project / "tests/test_conformance.py").is_file()
    clean.passes(project / "tests/test_parrot.py")


@pytest.mark.skipif(not MANIFESTS, reason="this kernel reads no manifests")
def test_the_backend_without_python(
    tmp_path: Path, build: Callable[[Path], Path], clean: CleanEnvironment
) -> None:
    files = printed("A backend without Python")
    assert set(files) == {"pyproject.toml", "src/mynah/aiplayground.toml"}
    assert lines(files, ".toml") <= 20
    clean.install(build(written(files, tmp_path / "project")))
    (plugin,) = json.loads(clean.aipg("plugins", "--json"))["plugins"]
    assert (plugin["name"], plugin["services"]) == ("mynah", ["mynah"])
    assert clean.aipg("chat", "-m", "hill", "Pieces of eight").strip() == "Pieces of eight"


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.skipif(not KIT, reason="this kernel has no conformance kit")
def test_the_backend_in_python_passes_the_conformance_kit(
    tmp_path: Path, build: Callable[[Path], Path], clean: CleanEnvironment
) -> None:
    project = written(printed("A backend in Python"), tmp_path / "project")
    clean.install(build(project))
    clean.passes(written(printed("Test it"), project) / "tests/test_conformance.py")


def test_the_other_python_on_the_page_works() -> None:
    for page in PAGES:
        sources = PLAIN.findall(page.read_text(encoding="utf-8"))
        assert sources
        for source in sources:
            exec(compile(source, str(page), "exec"), {"__name__": "page"})


def test_every_link_on_the_page_leads_somewhere() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), target
