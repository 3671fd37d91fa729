"""Fill `.venv`: the kernel and the plugins (editable), and the development tools.

Run by `bootstrap.py` with the environment's own Python; the versions are those of
`constraints.txt`. To take newer ones: edit that file, or `make clean` and install without it,
then write down what `pip freeze` says.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from scripts import llama_wheel
from scripts.bootstrap import READY, ROOT, fail, run, say, succeeds

CONSTRAINTS = ROOT / "constraints.txt"
EDITABLE = (
    ".[serving]",
    "./plugins/llamacpp",
    "./plugins/guide",
    "./plugins/ai_backend",
    "./plugins/models",
)


def development_tools() -> list[str]:
    """Return the requirements of the group `dev` (PEP 735), which an older pip cannot read."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [str(requirement) for requirement in groups["dependency-groups"]["dev"]]


def ensure_pip(uv: str | None) -> None:
    """Put pip into the environment unless it is there: it compiles the engine, uv or not."""
    if succeeds([sys.executable, "-m", "pip", "--version"]):
        return
    if uv:
        run([uv, "pip", "install", "--quiet", "--python", sys.executable, "pip"])
    else:
        run([sys.executable, "-m", "ensurepip", "--upgrade"])


def constraints(folder: Path, *, but: str | None) -> Path:
    """Return the file of constraints; without the line of a package whose wheel the user chose."""
    if but is None:
        return CONSTRAINTS
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    chosen = folder / "constraints.txt"
    kept = [line for line in lines if not line.startswith(f"{but}==")]
    chosen.write_text("\n".join(kept), encoding="utf-8")
    return chosen


def install(uv: str | None, wheel: Path | None, constrained_by: Path) -> None:
    """Install everything in one go, so that the resolver sees it all."""
    with_uv = [uv or "", "pip", "install", "--quiet", "--python", sys.executable]
    with_pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(
        [
            *(with_uv if uv else with_pip),
            *("--constraint", str(constrained_by)),
            *(part for path in EDITABLE for part in ("--editable", path)),
            *development_tools(),
            *([str(wheel)] if wheel else []),
        ]
    )


def main() -> None:
    """Fill the environment, prove that the engine loads, and only then call it ready."""
    uv = shutil.which("uv")
    version = llama_wheel.pinned(CONSTRAINTS.read_text(encoding="utf-8"))
    chosen = wheel = llama_wheel.given()
    if wheel is None and llama_wheel.installed() != version:
        wheel = llama_wheel.cached(version)
        if wheel is None:
            ensure_pip(uv)
            wheel = llama_wheel.make(version)
    say("Installing AI Playground, its plugins and the development tools")
    if uv is None:
        ensure_pip(uv)
    with tempfile.TemporaryDirectory() as folder:
        but = llama_wheel.NAME if chosen else None
        install(uv, wheel, constraints(Path(folder), but=but))
    problem = llama_wheel.problem(wheel)
    if problem:
        fail(problem)
    READY.write_text("Written by scripts/install.py when all is in place.\n", encoding="utf-8")
    say("Ready")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
