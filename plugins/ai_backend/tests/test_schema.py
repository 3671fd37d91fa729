"""Whatever the OpenAPI document allows, and some that it does not, is answered without a 500."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from plugins.ai_backend.tests.serving import free_port
from schemathesis.generation import GenerationMode
from tests.fakes import QUICK, Fake

import aiplayground_ai_backend.plugin as ai_backend
from aiplayground import BlockingKernel

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]

DOCUMENTED = {-1, -2, -3, -4, -5}
LEFT_OUT = ("/events", "/stop", "/restart")
"""A stream without an end; and what would end the server under the test."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve in a thread; yields the address, and the header with the token."""
    port = free_port()
    with BlockingKernel(
        home=tmp_path,
        plugins={"ai-backend": ai_backend, "fake": Fake()},
        discover=False,
        settings={**QUICK, "services": {"ai-backend": {"port": port}}},
        exclusive=True,
    ) as kernel:
        kernel.start("ai-backend")
        token = (kernel.kernel.paths.runtime / "token").read_text()
        yield f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_is_answered_with_a_500(
    served: tuple[str, dict[str, str]], mode: GenerationMode
) -> None:
    url, headers = served
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    found: list[Any] = list(document.get_all_operations())
    tried = 0
    for operation in [each.ok() for each in found]:
        if not operation.path.endswith(LEFT_OUT):
            tried += _try(operation, headers, mode)
    assert tried > 200


def _try(operation: Any, headers: dict[str, str], mode: GenerationMode) -> int:
    tried = 0

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    def run(case: Any) -> None:
        nonlocal tried
        tried += 1
        answer = case.call(headers=headers, timeout=20)
        assert answer.status_code < 500 or answer.status_code == 503, answer.text
        if answer.status_code >= 400:
            assert answer.json()["code"] in DOCUMENTED

    with suppress(Unsatisfiable):  # nothing of some operations can be wrong
        run()
    return tried
