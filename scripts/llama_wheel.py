"""The wheel of llama-cpp-python: compiled once for a machine, and kept in the user's cache.

Its authors publish the sources alone on the package index. Where the index that pip is set up
for does offer a wheel, that one is taken; `AIPG_LLAMA_WHEEL` names one that is already here.
llama.cpp is compiled for the very processor it is compiled on, so the cache has a folder for
each kind of machine.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from scripts.bootstrap import fail, say

NAME = "llama-cpp-python"
WHEEL_VARIABLE = "AIPG_LLAMA_WHEEL"
LINE_EVERY = 15.0
"""Seconds between signs of life where the output is no terminal."""
CORE_SECONDS = 520
"""What compiling takes, in seconds of one processor core (measured: 4 min 21 s on two)."""
MEMORY_PER_JOB = 1.5 * 2**30
"""Bytes that one compiler may need at once."""
LOG_LINES = 25
MAKING = ".making-"
STALE_AFTER = 24 * 3600
"""Seconds after which an unfinished folder is nobody's."""
END_GRACE = 5.0
"""Seconds that an interrupted build gets to end its compilers."""

NEEDS_COMPILER = """\
Compiling llama.cpp needs a C and a C++ compiler; missing here: {missing}.
  Debian, Ubuntu:  sudo apt install build-essential
  Fedora:          sudo dnf install gcc gcc-c++ make
  Arch:            sudo pacman -S base-devel
  macOS:           xcode-select --install
  Windows:         winget install Microsoft.VisualStudio.2022.BuildTools (with "C++ build tools")
Then run the same command again. Without a compiler: get a ready-made wheel of {name} {version}
from its authors (https://github.com/abetlen/llama-cpp-python#installation) and name it:
  AIPG_LLAMA_WHEEL=/path/to/the.whl make demo"""


def pinned(constraints: str) -> str:
    """Return the version that `constraints.txt` names."""
    found = re.search(rf"^{NAME}==(\S+)$", constraints, re.MULTILINE)
    if found is None:
        fail(f"constraints.txt has no line '{NAME}==…'. Add one, then run the same command again.")
    return found[1]


def given() -> Path | None:
    """Return the wheel that the user names, if any."""
    named = os.environ.get(WHEEL_VARIABLE)
    if not named:
        return None
    wheel = Path(named).expanduser().resolve()
    if not wheel.is_file() or wheel.suffix != ".whl":
        fail(f"{WHEEL_VARIABLE} names {wheel}, which is no wheel file. Correct it, or unset it.")
    return wheel


def installed() -> str | None:
    """Return the version in this environment, if there is one."""
    try:
        return importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:
        return None


def cached(version: str) -> Path | None:
    """Return the wheel of an earlier run on this kind of machine."""
    return next(iter(sorted(folder().glob(f"llama_cpp_python-{version}-*.whl"))), None)


def make(version: str) -> Path:
    """Fetch or compile the wheel, and put it into the cache in one step when it is whole."""
    folder().mkdir(parents=True, exist_ok=True)
    sweep()
    with tempfile.TemporaryDirectory(dir=folder(), prefix=MAKING) as name:
        making = Path(name)
        if not _fetched(version, making):
            _compile(version, making)
        wheel = next(making.glob("*.whl"))
        return wheel.replace(folder() / wheel.name)


def sweep() -> None:
    """Remove what a killed build left behind; a younger folder may be another run's."""
    for left in folder().glob(f"{MAKING}*"):
        if time.time() - left.stat().st_mtime > STALE_AFTER:
            shutil.rmtree(left)


def problem(wheel: Path | None) -> str | None:
    """Say why the engine does not load, or return None if it does."""
    command = [sys.executable, "-c", "import llama_cpp"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode == 0:
        return None
    if done.returncode == -getattr(signal, "SIGILL", 0):
        cause = "it was compiled for another processor"
    else:
        cause = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    again = ["make clean", f"{sys.executable} -m pip cache remove {NAME.replace('-', '_')}"]
    again += [f"rm '{wheel}'"] if wheel else []
    steps = "".join(f"\n  {step}" for step in reversed(again))
    return (
        f"llama.cpp is installed and does not load: {cause}.\n"
        f"To make it anew:{steps}\nThen run the same command again."
    )


def folder() -> Path:
    """Return the folder of this kind of machine in the user's cache."""
    return _cache() / "aiplayground" / "wheels" / machine()


def machine() -> str:
    """Name what a compiled llama.cpp depends on: system, processor, C library, build options."""
    what = "\n".join([_processor(), *platform.libc_ver(), *_build_options()])
    digest = hashlib.sha256(what.encode()).hexdigest()[:8]
    return f"{platform.system()}-{platform.machine()}-{digest}".lower()


def _build_options() -> list[str]:
    names = ("CMAKE_ARGS", "CC", "CXX", "CFLAGS", "CXXFLAGS")
    return [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]


def _cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    telling = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(telling)}))


def pip(what: str, version: str, *arguments: str) -> list[str]:
    """Return the command line of pip for the sources or the wheel, in this very environment."""
    pip = [sys.executable, "-m", "pip", what, "--disable-pip-version-check", "--no-deps"]
    return [*pip, *arguments, f"{NAME}=={version}"]


def _fetched(version: str, into: Path) -> bool:
    command = pip("download", version, "--only-binary", NAME, "--dest", str(into))
    done = subprocess.run(command, capture_output=True, check=False)
    return done.returncode == 0 and any(into.glob("*.whl"))


def _compile(version: str, into: Path) -> None:
    missing = missing_compilers()
    if missing:
        text = ", ".join(missing)
        fail(NEEDS_COMPILER.format(missing=text, name=NAME, version=version))
    count = jobs()
    minutes = max(1, round(CORE_SECONDS / count / 60))
    title = f"Compiling llama.cpp {version}, once; takes about {minutes} min with {count} processes"
    say(f"{title}. The wheel is kept in {folder()}")
    log = folder() / "build.log"
    arguments = ["--no-binary", NAME, "--wheel-dir", str(into), "--verbose"]
    # pip's own cache may have a wheel from this machine; it does not know of build options.
    arguments += ["--no-cache-dir"] if _build_options() else []
    command = pip("wheel", version, *arguments)
    # Inside the folder that goes in any case: an interrupted pip leaves its own behind.
    scratch = into / "tmp"
    scratch.mkdir()
    environment = {"CMAKE_BUILD_PARALLEL_LEVEL": str(count), **os.environ}
    environment |= {"TMPDIR": str(scratch)}
    with log.open("wb") as output:
        status = watched(command, environment, output)
    if status:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        fail("\n".join([*tail, "", f"Compiling llama.cpp failed. The whole log: {log}"]))


def missing_compilers() -> list[str]:
    """Return which of the two compilers are not on PATH."""
    if sys.platform == "win32":
        return []  # CMake finds Visual Studio by its own registry; it says so if there is none
    wanted = {
        "C (cc, gcc or clang)": [os.environ.get("CC", ""), "cc", "gcc", "clang"],
        "C++ (c++, g++ or clang++)": [os.environ.get("CXX", ""), "c++", "g++", "clang++"],
    }
    return [
        what
        for what, names in wanted.items()
        if not any(shutil.which(name.split()[0]) for name in names if name)
    ]


def jobs() -> int:
    """Return how many compilers to run at a time."""
    cores = os.cpu_count() or 1
    if sys.platform != "linux":
        return cores
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores, int(memory / MEMORY_PER_JOB)))


def watched(command: list[str], environment: dict[str, str], output: IO[bytes]) -> int:
    """Run the build with signs of life; an interrupt ends all that it started."""
    started = said = time.monotonic()
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        while process.poll() is None:
            time.sleep(0.5)
            now = time.monotonic()
            if now - said >= (1.0 if sys.stdout.isatty() else LINE_EVERY):
                said = now
                _tell(now - started)
    except BaseException:
        _end(process)
        raise
    if sys.stdout.isatty():
        print()
    return process.returncode


def _tell(seconds: float) -> None:
    spent = f"  compiling … {int(seconds) // 60}m{int(seconds) % 60:02}s"
    print(f"\r{spent} ", end="", flush=True) if sys.stdout.isatty() else print(spent, flush=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the build. Asked first: ninja puts compilers into groups of their own, and ends them."""
    if sys.platform == "win32":
        process.kill()
        process.wait()
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        _send(process.pid, number)
        deadline = time.monotonic() + END_GRACE
        while time.monotonic() < deadline and _send(process.pid, 0):
            process.poll()
            time.sleep(0.1)
    process.wait()


def _send(group: int, number: int) -> bool:
    """Send a signal to a process group; False if there is none any more."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
