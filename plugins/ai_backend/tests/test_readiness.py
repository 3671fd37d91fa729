"""`ai-backend` as the backend to make ready: it routes, so the backend with the model is meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from plugins.ai_backend.tests.serving import make_kernel
from tests.fakes import Fake

from aiplayground.errors import InvalidParameters, ModelNotFound


async def test_the_router_makes_ready_whoever_has_the_model(tmp_path: Path) -> None:
    one, two = Fake("one", models=["a", "b"]), Fake("two", models=["b", "c"])
    async with make_kernel(tmp_path, one, two) as kernel:
        await kernel.ensure_ready("ai-backend", "c")
        assert (one.calls, two.calls) == ([], ["start", "load c"])
        assert kernel.service("two").models == ("c",)
        assert kernel.service("ai-backend").runtime == "running"
        assert await kernel.call("ensureBackendReadiness", "ai-backend", "ai-backend/a") is None
        assert kernel.service("one").models == ("a",)
        await kernel.call("ensureBackendReadiness", "ai-backend", "one/b")
        assert "b" in kernel.service("one").models
        assert (await kernel.start("ai-backend", "a")).name == "ai-backend"


async def test_the_routers_name_as_a_model_is_the_default_one(tmp_path: Path) -> None:
    fake = Fake(models=["a"])
    async with make_kernel(tmp_path, fake) as kernel:
        await kernel.call("ensureBackendReadiness", "ai-backend", "ai-backend")
        assert kernel.service("fake").models == ("a",)


async def test_what_no_backend_has_and_what_two_have_is_said(tmp_path: Path) -> None:
    async with make_kernel(tmp_path, Fake("one"), Fake("two")) as kernel:
        with pytest.raises(ModelNotFound, match="There is no model 'x'"):
            await kernel.call("ensureBackendReadiness", "ai-backend", "x")
        with pytest.raises(InvalidParameters, match="Say which: one/m, two/m"):
            await kernel.call("ensureBackendReadiness", "ai-backend", "m")
        assert kernel.service("ai-backend").runtime == "stopped"
        # A backend's own name still means that backend alone.
        with pytest.raises(ModelNotFound):
            await kernel.ensure_ready("one", "two/m")
