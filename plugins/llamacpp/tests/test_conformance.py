"""The conformance kit on llamacpp-backend, with the model that ships."""

from __future__ import annotations

from pathlib import Path

import pytest

import aiplayground_guide
from aiplayground.testing import BackendConformance, Subject

pytestmark = pytest.mark.engine


class TestConformance(BackendConformance):
    subject = Subject(
        plugin="aiplayground_llamacpp.plugin",
        model="guide",
        model_folders=[Path(aiplayground_guide.__file__).parent],
    )
