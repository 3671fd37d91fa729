"""Importing costs little: no HTTP, UI or machine-learning library, and nothing warns."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import aiplayground

HEAVY = [
    "httpx",
    "aiohttp",
    "uvicorn",
    "starlette",
    "numpy",
    "rich",
    "pydantic",
    "llama_cpp",
    "torch",
    "prompt_toolkit",
    "keyring",
]
ROOT = Path(aiplayground.__file__).parent
WINDOWS_ONLY = {"aiplayground._processes.windows"}


def python(source: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, *options, "-c", source],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "module",
    ["aiplayground", "aiplayground.hookspecs", "aiplayground.specs", "aiplayground.events",
     "aiplayground.states", "aiplayground._loader", "aiplayground.middleware",
     "aiplayground.secrets"],
)  # fmt: skip
def test_a_cheap_module_loads_nothing_heavy(module: str) -> None:
    source = f"import sys, {module}; print(*({HEAVY!r} & sys.modules.keys()))"
    assert python(source).split() == []


def test_reading_a_manifest_loads_nothing_heavy() -> None:
    example = Path(__file__).parents[2] / "docs/examples/llama-server.toml"
    source = f"""
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from aiplayground._loader import load_plugins
assert load_plugins([("x", Path({str(example)!r}))], discover=False).loaded
print(*(set({[*HEAVY, "tomlkit"]!r}) & sys.modules.keys()))
"""
    assert python(source).split() == []


def test_importing_the_package_loads_none_of_its_modules() -> None:
    source = (
        "import sys, aiplayground; print(*(n for n in sys.modules if n.startswith('aiplayground')))"
    )
    assert python(source).split() == ["aiplayground"]


def modules() -> list[str]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = ["aiplayground", *path.relative_to(ROOT).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if parts[-1] != "__main__" and name not in WINDOWS_ONLY:
            found.append(name)
    return found


def test_every_module_can_be_imported_alone_first_and_without_a_warning() -> None:
    names = modules()
    assert len(names) > 40
    # Two at a time, and without looking for garbage: each begins with none of our modules.
    with ThreadPoolExecutor(2) as pool:
        printed = [*pool.map(import_each, (names[::2], names[1::2]))]
    assert printed == ["", ""], "importing prints nothing"


def import_each(names: list[str]) -> str:
    source = f"""
import gc, importlib, sys
gc.disable()
for name in {names!r}:
    for loaded in [n for n in sys.modules if n.startswith("aiplayground")]:
        del sys.modules[loaded]
    importlib.import_module(name)
"""
    return python(source, "-W", "error")


def test_all_is_what_can_be_imported() -> None:
    names = aiplayground.__all__
    assert len(set(names)) == len(names)
    assert set(names) == {*aiplayground._HOMES, "__version__"}
    assert all(getattr(aiplayground, name) is not None for name in names)
    assert dir(aiplayground) == sorted(names)
    assert python("from aiplayground import *; print(Kernel.__name__)") == "Kernel\n"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Kernal'"):
        aiplayground.Kernal  # noqa: B018  # that is the point


def test_what_the_type_checker_sees_is_what_is_imported() -> None:
    source = (ROOT / "__init__.py").read_text(encoding="utf-8")
    static = source.partition("if TYPE_CHECKING:\n    from")[2].partition("__all__")[0]
    for name, home in aiplayground._HOMES.items():
        assert name in static, name
        assert f".{home} import" in static, home
