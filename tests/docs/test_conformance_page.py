"""The examples of docs/conformance.md run as they stand."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.reference import Reference
from tests.fakes import Fake

from aiplayground.context import ServiceContext
from aiplayground.hookspecs import hookimpl
from aiplayground.specs import LaunchSpec
from aiplayground.testing import Subject

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
AUTHORS, SKIPS, FAKES, CLOCK, FAULTS = FENCE.findall(
    (ROOT / "docs/conformance.md").read_text(encoding="utf-8")
)


class Mine(Reference):
    spec = replace(Reference.spec, name="mine")


class Launches(Reference):
    @hookimpl
    async def start(self, ctx: ServiceContext) -> None:
        await ctx.spawn(LaunchSpec(argv=["my-engine", "{port}"]))


def executed(source: str, plugin: Any, **given: Any) -> dict[str, Any]:
    names = {"plugin": plugin, "asyncio": asyncio, **given}
    exec(source, names)
    return names


def test_an_authors_file(tmp_path: Path) -> None:
    folder = tmp_path / "my_backend"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "plugin.py").write_text("from tests.conformance.plugin import *\n", encoding="utf-8")
    (tmp_path / "test_conformance.py").write_text(AUTHORS, encoding="utf-8")
    options = ["-q", "-p", "no:asyncio", "-p", "no:schemathesis", "-c", "/dev/null"]
    options += ["--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-k", "inference.chat or lifecycle.stop]"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_skipping() -> None:
    names = executed(SKIPS, None, Subject=Subject)
    assert names["subject"].skip


async def test_a_hook_with_fakes() -> None:
    await executed(FAKES, Launches())["test_start_launches_the_engine"]()


def test_a_virtual_clock(tmp_path: Path) -> None:
    executed(CLOCK, Fake("mine", models=["tiny"]))["test_an_idle_model_is_unloaded"](tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_faults_from_a_seed(tmp_path: Path) -> None:
    body = f"async def main():\n{textwrap.indent(FAULTS, '    ')}"
    await executed(body, Mine(), tmp_path=tmp_path)["main"]()
