"""The setting `devices`, with both engines on a computer that may have none but its CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plugins.llamacpp.tests.test_lifecycle import failure_of
from plugins.llamacpp.tests.workers import ENGINES as BOTH
from plugins.llamacpp.tests.workers import Launch

pytestmark = pytest.mark.engine

ENGINES = BOTH


def test_the_cpu_alone(launch: Launch, model_path: Path) -> None:
    settings = json.dumps({"devices": ["none"]})
    worker = launch("--model", str(model_path), "--name", "tiny", "--settings", settings)
    assert worker.chat(max_tokens=2).is_success


def test_a_device_that_is_not_there(launch: Launch, model_path: Path) -> None:
    settings = json.dumps({"devices": ["CUDA77"]})
    told = failure_of(launch("--model", str(model_path), "--settings", settings, ready=False))
    assert told["code"] == -4
    assert "no device 'CUDA77' here. There are: " in told["message"]
