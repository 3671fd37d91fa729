"""What it costs to start: the command line, discovery, an idle kernel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .measure import Row, figure, ratio

PLUGINS = 50

PLUGIN = """
from aiplayground.hookspecs import hookimpl
from aiplayground.specs import BackendSpec

@hookimpl
def backend():
    return BackendSpec(name="service-{number}", title="Number {number}")

@hookimpl
async def start(ctx):
    pass
"""

DISCOVERY = """
import sys, time
sys.path.insert(0, sys.argv[1])
import pluggy, asyncio
import aiplayground._loader as loader
began = time.perf_counter()
found = loader.load_plugins()
took = time.perf_counter() - began
assert len([p for p in found.loaded if p.name.startswith("plug-")]) == int(sys.argv[2]), found
print(took)
"""

IDLE = """
import asyncio, psutil, sys
from aiplayground import Kernel
async def main():
    async with Kernel(home=sys.argv[1]):
        await asyncio.sleep(0.2)
        print(psutil.Process().memory_info().rss)
asyncio.run(main())
"""


def rows() -> Iterator[Row]:
    """Measure."""
    aipg = str(Path(sys.executable).with_name("aipg"))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"

        def python() -> None:
            _run([sys.executable, "-c", "pass"])

        yield ratio(
            "`aipg --version` / `python -c pass`", lambda: _run([aipg, "--version"]), python, 8
        )
        plugins = [aipg, "--home", str(home), "plugins", "--json"]
        yield ratio("`aipg plugins --json` / `python -c pass`", lambda: _run(plugins), python, 25)
        site = _site_with_plugins(Path(folder) / "site")
        samples = [
            float(_run([sys.executable, "-c", DISCOVERY, str(site), str(PLUGINS)])) * 1000
            for _ in range(9)
        ]
        yield figure(f"discovery of {PLUGINS} installed plugins", samples, "ms", 50)
        resident = [float(_run([sys.executable, "-c", IDLE, str(home)])) / 1e6 for _ in range(5)]
        yield figure("idle kernel, resident", resident, "MB", 60)
        shutil.rmtree(site)


def _run(argv: list[str]) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


def _site_with_plugins(site: Path) -> Path:
    for number in range(PLUGINS):
        package, info = site / f"plug{number}", site / f"plug{number}-0.1.dist-info"
        package.mkdir(parents=True)
        info.mkdir()
        (package / "__init__.py").write_text("")
        (package / "plugin.py").write_text(PLUGIN.format(number=number))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plug{number}\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(
            f"[aiplayground.plugins]\nplug-{number} = plug{number}.plugin\n"
        )
    return site
