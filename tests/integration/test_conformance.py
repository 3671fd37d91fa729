"""The conformance kit on backends without Python: by manifest, and attached."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest
from tests.endpoints import Server, answers, free_port
from tests.fakes import PATIENCE
from tests.programs import GUIDE, llama_server

from aiplayground.testing import BackendConformance, Subject

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
EXAMPLES = Path(__file__).parents[2] / "docs/examples"


class TestAttached(BackendConformance):
    """A server that speaks enough of the protocol, and that nobody's kernel started."""

    server: ClassVar[Server]

    @classmethod
    def make_subject(cls) -> Subject:
        cls.server = Server("chunks=16")
        cls.server.start()
        declared = {"capabilities": ["chat"], "parameters": []}
        return Subject(
            attach=cls.server.url, model="m", settings={"attach": {"attached": declared}}
        )

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        assert cls.server.alive, "nobody ends what it did not start"
        cls.server.end()


@pytest.mark.full
@pytest.mark.engine
class TestManifest(BackendConformance):
    """The real llama-server, started by the manifest of the documentation."""

    @classmethod
    def make_subject(cls) -> Subject:
        return Subject(
            manifest=EXAMPLES / "llama-server.toml",
            settings={"services": {"llama-server": {"program": llama_server()}}},
            model="guide",
            model_folders=[GUIDE.parent],
        )


@pytest.mark.full
@pytest.mark.engine
class TestSecondManifest(BackendConformance):
    """The server of llama-cpp-python."""

    @classmethod
    def make_subject(cls) -> Subject:
        return Subject(
            manifest=EXAMPLES / "llama-cpp-python-server.toml",
            settings={"services": {"llama-cpp-python-server": {"python": sys.executable}}},
            model="guide",
            model_folders=[GUIDE.parent],
        )


@pytest.mark.full
@pytest.mark.engine
class TestAttachedEngine(BackendConformance):
    """The real llama-server, running before the kernel came."""

    process: ClassVar[subprocess.Popen[bytes]]

    @classmethod
    def make_subject(cls) -> Subject:
        port = free_port()
        argv = [llama_server(), "--model", str(GUIDE), "--port", str(port), "--alias", "guide"]
        cls.process = subprocess.Popen(
            [*argv, "--embeddings", "--pooling", "mean"], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + PATIENCE
        while not answers(port):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return Subject(attach=f"http://127.0.0.1:{port}", model="guide")

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        assert cls.process.poll() is None, "nobody ends what it did not start"
        cls.process.kill()
        cls.process.wait(PATIENCE)
