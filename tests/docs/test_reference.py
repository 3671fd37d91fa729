"""The reference pages are those that the code makes, and nothing is missing from them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from aiplayground import errors, hookspecs
from aiplayground._hooks import HOOKS
from aiplayground.settings import AttachSettings, EndpointSettings, KernelSettings

METHODS = [
    "getServices",
    "sendStartSignal",
    "sendStopSignal",
    "setUpService",
    "ensureBackendReadiness",
    "loadModels",
    "refreshLLMModels",
    "getModelPaths",
    "downloadModel",
    "checkModelExists",
    "selectDevice",
    "detectDevices",
    "showOpenDialog",
    "showSaveDialog",
    "saveImage",
    "openImageWithSystem",
    "miniWindow",
    "exitApp",
    "setFullScreen",
    "comfyui:downloadCustomNode",
    "comfyui:listInstalledCustomNodes",
    "comfyui:isCustomNodeInstalled",
]
LISTENERS = [
    "onServiceSetUpProgress",
    "onServiceInfoUpdate",
    "onWebServiceExit",
    "onModelDownloadProgress",
]
"""What the API reference names, word for word."""

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_up_to_date(reference: ModuleType) -> None:
    assert reference.out_of_date() == [], "run: python scripts/reference.py"


def test_every_hook_is_documented_with_its_exact_arguments() -> None:
    page = (ROOT / "docs/reference/hooks.md").read_text(encoding="utf-8")
    for name, signature in HOOKS.items():
        assert (
            f"def {name}({', '.join(str(p) for p in signature.parameters.values())})".replace(
                "'", ""
            )
            in page
        )
        assert (getattr(hookspecs, name).__doc__ or "").strip(), f"{name} has no docstring"


def test_every_setting_has_a_description() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    for section, field in KernelSettings.model_fields.items():
        if section in ("services", "attach"):
            continue  # tables by name
        for key, inner in field.annotation.model_fields.items():  # type: ignore[union-attr]  # a section is a model
            assert inner.description, f"{section}.{key}"
            table = f"`[{section}.{key}]`" in page  # a table of its own, with a row for each key
            assert table or f"| `{key}` |" in page
            for name in getattr(inner.annotation, "model_fields", ()) if table else ():
                assert f"| `{name}` |" in page
    for key, inner in EndpointSettings.model_fields.items():
        assert inner.description, key
        assert page.count(f"| `{key}` |") >= 1 + (key in AttachSettings.model_fields)


def test_every_method_and_event_of_the_api_reference_is_documented() -> None:
    page = (ROOT / "docs/reference/methods.md").read_text(encoding="utf-8")
    for name in METHODS:
        assert f"### `{name}`\n\n```typescript\n{name}(" in page
    for listener in LISTENERS:
        assert f"`{listener}(callback)`" in page


def test_every_failure_class_is_documented() -> None:
    page = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    for failure in errors.FailureClass:
        assert f"`{failure.value}`" in page
