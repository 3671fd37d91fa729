"""`aipg serve` and the commands that act on it, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.cli_fakes import Cli, environment
from tests.gguf_files import Gguf


class Served(Cli):
    """A home whose kernel serves, with the fake backend and the gateway."""

    def environment(self, **more: str) -> dict[str, str]:
        allow = '["fake-backend", "ai-backend"]'
        return environment(self.home, self.plugins, AIPG_PLUGINS__ALLOW=allow, **more)

    def serve(self) -> dict[str, Any]:
        told: dict[str, Any] = self.json("serve", "--detach")
        return told

    def waited(self, *lines: str) -> None:
        """Wait until the kernel's process has gone."""
        for line in lines:
            psutil.wait_procs([psutil.Process(int(line))], timeout=20)


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    note = served.home / "runtime" / "serve.json"
    if note.exists():
        process = psutil.Process(json.loads(note.read_text())["pid"])
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize(
    "args", [["start", "fake-backend"], ["stop"], ["restart", "fake-backend"], ["logs"], ["events"]]
)
def test_without_a_running_kernel_they_say_so(cli: Served, args: list[str]) -> None:
    done = cli.run(*args)
    assert done.returncode == 3
    assert "aipg serve" in done.stderr
    assert cli.json(*args, code=3)["code"] == -3


def test_a_note_of_a_kernel_that_was_killed_counts_for_nothing(cli: Served) -> None:
    told = cli.serve()
    psutil.Process(told["pid"]).kill()
    psutil.wait_procs([psutil.Process(told["pid"])] if psutil.pid_exists(told["pid"]) else [], 20)
    assert cli.run("stop").returncode == 3
    again = cli.serve()  # and hinders no new one
    assert again["pid"] != told["pid"]


def test_the_life_of_a_service(cli: Served) -> None:
    told = cli.serve()
    assert urllib.request.urlopen(f"{told['url']}/healthy", timeout=20).status == 200
    assert cli.run("start", "fake-backend").stdout == "fake-backend: Running\n"
    first = cli.worker()
    shown = {each["name"]: each for each in cli.json("services")}
    assert shown["fake-backend"]["currentStatus"] == "Running"
    assert shown["ai-backend"]["baseUrl"] == told["url"]
    assert shown["ai-backend"]["isRequired"]
    assert "models" not in shown["fake-backend"]
    assert cli.json("restart", "fake-backend")["currentStatus"] == "Running"
    assert cli.worker() != first
    assert "Running" in cli.run("services").stdout
    assert "fake-backend: running" in cli.run("logs", "fake-backend", "-n", "5").stdout
    lines = cli.run("logs", "fake-backend", "--json").stdout.splitlines()
    assert json.loads(lines[-1])["text"] == "running"
    assert json.loads(cli.run("events", "--json").stdout)["event"] == "Snapshot"
    worker = cli.worker()
    assert cli.run("stop", "fake-backend").stdout == "fake-backend: Stopped\n"
    assert not psutil.pid_exists(worker)
    assert cli.run("start", "nothing").returncode == 1
    assert cli.run("stop").stdout == "ai-backend: Stopping\n"
    cli.waited(*([str(told["pid"])] if psutil.pid_exists(told["pid"]) else []))
    assert not (cli.home / "runtime" / "serve.json").exists()


def test_chat_uses_the_running_kernel(cli: Served) -> None:
    cli.serve()
    assert cli.run("chat", "-s", "be brief", "say", "this").stdout == "say this <su>\n"
    worker = cli.worker()
    assert psutil.pid_exists(worker)  # it belongs to the kernel that goes on
    said = cli.json("chat", "-m", "parrot", "hi")
    assert (said["model"], said["service"], said["text"]) == ("parrot", "fake-backend", "hi <u>")
    assert cli.worker() == worker
    assert cli.json("chat", "-m", "parot", "hi", code=1)["code"] == -2
    assert cli.json("chat", "-m", "parrot", "explode", code=1)["code"] == -1


def test_a_model_in_memory_leaves_it_before_its_file_goes(cli: Served) -> None:
    path = Gguf().write(cli.home / "models" / "mine.gguf")
    cli.serve()
    assert cli.run("chat", "-m", "mine", "hi").returncode == 0
    assert cli.json("models", "info", "mine")["loaded"] is True
    assert "fake-backend (loaded)" in cli.run("models").stdout
    assert cli.json("models", "rm", "mine", "--yes")["removed"] is True
    assert not path.exists()
    assert cli.run("models", "rm", "mine", "--yes").returncode == 1
    assert "mine" not in cli.run("models").stdout


def test_following_sees_what_happens(cli: Served) -> None:
    cli.serve()
    with subprocess.Popen(
        [*cli.argv, "events", "-f"], env=cli.environment(), stdout=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        assert "Snapshot" in follower.stdout.readline()
        cli.run("start", "fake-backend")
        while "fake-backend: Running" not in (line := follower.stdout.readline()):
            assert line, "the events ended"
        follower.send_signal(signal.SIGINT)
        assert follower.wait(20) == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(cli: Served, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*cli.argv, "serve"], env=cli.environment(), stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url = re.search(r"http://\S+", server.stdout.readline())
        assert url is not None
        assert cli.run("start", "fake-backend").returncode == 0
        worker = cli.worker()
        server.send_signal(number)
        assert server.wait(30) == 0
    assert not psutil.pid_exists(worker)
    assert not (cli.home / "runtime" / "token").exists()


def test_a_second_one_is_told_who_holds_the_home(cli: Served) -> None:
    told = cli.serve()
    second = cli.run("serve")
    assert second.returncode == 1
    assert f"process {told['pid']}" in second.stderr
    background = cli.run("serve", "--detach")
    assert background.returncode == 1
    assert f"process {told['pid']}" in background.stderr


def test_killing_it_leaves_no_worker(cli: Served) -> None:
    told = cli.serve()
    cli.run("start", "fake-backend")
    worker = psutil.Process(cli.worker())
    os.kill(told["pid"], signal.SIGKILL)
    assert psutil.wait_procs([worker], timeout=20)[1] == []


def test_without_the_gateway_it_says_what_to_install(tmp_path: Path) -> None:
    done = Cli(tmp_path).run("serve")
    assert done.returncode == 1
    assert "pip install aiplayground-ai-backend" in done.stderr


def test_a_taken_port_is_said(cli: Served) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = str(sock.getsockname()[1])
        done = cli.run("serve", "--port", port)
    assert done.returncode == 1
    assert port in done.stderr
