"""The `llama-server` program for tests and benchmarks: compiled once for a machine.

Its sources are those inside the source distribution of the llama-cpp-python that is pinned, so that
both engines are the same llama.cpp. It is kept in the user's cache beside the wheel;
`AIPG_LLAMA_SERVER` names one that is already here. Run as `python -m scripts.llama_server` it makes
the program if there is none, and prints where it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from scripts import llama_wheel
from scripts.bootstrap import ROOT, fail, say
from scripts.install import ensure_pip

VARIABLE = "AIPG_LLAMA_SERVER"
CORE_SECONDS = 760
"""What compiling takes, in seconds of one processor core (measured: 6 min 54 s on two)."""

FETCH_TIMEOUT = 600
"""Seconds that fetching the sources, or the tools, may take."""

SOURCE = "vendor/llama.cpp"
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_SERVER": "ON",
    "LLAMA_BUILD_TOOLS": "ON",
}


def ready() -> Path:
    """Return the program; ends with what to do if there is none yet."""
    found = given() or cached()
    if found is None:
        fail(
            "There is no llama-server for the tests yet. Make one: make llama-server, or name one: "
            f"{VARIABLE}=/path/to/llama-server"
        )
    return found


def given() -> Path | None:
    """Return the program that the user names, if any."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    program = Path(named).expanduser().resolve()
    if not program.is_file() or not os.access(program, os.X_OK):
        fail(f"{VARIABLE} names {program}, which is no program. Correct it, or unset it.")
    return program


def cached() -> Path | None:
    """Return the program of an earlier run on this kind of machine."""
    program = place()
    return program if program.is_file() else None


def place() -> Path:
    """Return where the program of the pinned version is kept."""
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    suffix = ".exe" if os.name == "nt" else ""
    return llama_wheel.folder() / f"llama-server-{llama_wheel.pinned(constraints)}{suffix}"


def make() -> Path:
    """Compile the program, and put it into the cache in one step when it is whole."""
    target = place()
    target.parent.mkdir(parents=True, exist_ok=True)
    llama_wheel.sweep()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=llama_wheel.MAKING) as name:
        program = _compile(_unpack(Path(name)), Path(name))
        subprocess.run([program, "--version"], check=True, capture_output=True, timeout=60)
        return program.replace(target)


def _unpack(into: Path) -> Path:
    """Fetch the source distribution and return the folder of llama.cpp in it."""
    version = llama_wheel.pinned((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    ensure_pip(shutil.which("uv"))
    arguments = ["--no-binary", llama_wheel.NAME, "--quiet", "--dest", str(into)]
    command = llama_wheel.pip("download", version, *arguments)
    if subprocess.run(command, check=False, timeout=FETCH_TIMEOUT).returncode != 0:
        fail(f"The sources of {llama_wheel.NAME} {version} could not be fetched (pip says why).")
    archive = next(into.glob("*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    return into / archive.name.removesuffix(".tar.gz") / SOURCE


def _compile(source: Path, into: Path) -> Path:
    missing = llama_wheel.missing_compilers()
    if missing:
        fail(f"Compiling llama-server needs compilers; missing here: {', '.join(missing)}.")
    count = llama_wheel.jobs()
    minutes = max(1, round(CORE_SECONDS / count / 60))
    say(f"Compiling llama-server, once; takes about {minutes} min with {count} processes")
    environment = {**os.environ, **_tools(into), "CMAKE_BUILD_PARALLEL_LEVEL": str(count)}
    build = into / "build"
    flags = [f"-D{name}={value}" for name, value in OPTIONS.items()]
    cmake = shutil.which("cmake", path=environment["PATH"]) or "cmake"
    steps = [
        [cmake, "-S", str(source), "-B", str(build), "-G", "Ninja", *flags],
        [cmake, "--build", str(build), "--target", "llama-server"],
    ]
    log = llama_wheel.folder() / "build-server.log"
    with log.open("wb") as output:
        failed = any(llama_wheel.watched(step, environment, output) for step in steps)
    if failed:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()
        shown = "\n".join(tail[-llama_wheel.LOG_LINES :])
        fail(f"{shown}\n\nCompiling llama-server failed. The whole log: {log}")
    return build / "bin" / f"llama-server{'.exe' if os.name == 'nt' else ''}"


def _tools(into: Path) -> dict[str, str]:
    """Fetch CMake and Ninja, which go with the build; return the variables that lead to them."""
    ensure_pip(shutil.which("uv"))
    folder = into / "tools"
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    command += ["--target", str(folder), "cmake", "ninja"]
    if subprocess.run(command, check=False, timeout=FETCH_TIMEOUT).returncode != 0:
        fail("CMake and Ninja could not be fetched from the package index (pip says why above).")
    path = os.pathsep.join([str(folder / "bin"), os.environ.get("PATH", "")])
    return {"PATH": path, "PYTHONPATH": str(folder)}


def main() -> None:
    """Have the program, and print where it is."""
    say(f"llama-server: {given() or cached() or make()}")


if __name__ == "__main__":
    main()
