"""The conformance kit on llamacpp-backend, with the model that ships and each of its engines."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.programs import llama_server

import aiplayground_guide
from aiplayground.testing import BackendConformance, Subject

pytestmark = pytest.mark.engine

PLUGIN = "aiplayground_llamacpp.plugin"
FOLDERS = [Path(aiplayground_guide.__file__).parent]


class TestConformance(BackendConformance):
    subject = Subject(plugin=PLUGIN, model="guide", model_folders=FOLDERS)


@pytest.mark.full
class TestServerConformance(BackendConformance):
    @classmethod
    def make_subject(cls) -> Subject:
        options = {"engine": "llama-server", "llama_server": llama_server()}
        return Subject(
            plugin=PLUGIN,
            model="guide",
            model_folders=FOLDERS,
            settings={"services": {"llamacpp-backend": options}},
        )
