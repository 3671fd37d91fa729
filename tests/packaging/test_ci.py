"""Before the tests, continuous integration finds a browser, or says that it has none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / ".ci" / "run"
TOOLS = ("bash", "cat", "dirname", "env", "grep", "sed", "tail", "timeout", "uname")

APT = """\
#!/usr/bin/env bash
echo "$*" >> "$FOLDER/asked"
case "$*" in
  *update*) [[ -e $FOLDER/no-update ]] && { echo "E: no network" >&2; exit 100; } ;;
  *install*)
    [[ -e $FOLDER/no-package ]] && { echo "E: Unable to locate package chromium" >&2; exit 100; }
    ln -s "$(command -v cat)" "$FOLDER/bin/chromium"
    ;;
esac
exit 0
"""

pytestmark = pytest.mark.skipif(
    not Path("/etc/os-release").exists()
    or "\nID=debian" not in f"\n{Path('/etc/os-release').read_text()}",
    reason="a browser is installed on Debian alone",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a `bin` of everything that the script needs, and no browser."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in (*TOOLS, "ln"):
        found = shutil.which(name)
        assert found is not None, name
        (programs / name).symlink_to(found)
    for name, text in {
        "apt-get": APT,
        "id": "#!/bin/sh\necho 0\n",
        "make": '#!/bin/sh\necho "make $*"\n',
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return tmp_path


def run(folder: Path) -> list[str]:
    done = subprocess.run(
        [str(RUN)],
        env={"PATH": str(folder / "bin"), "FOLDER": str(folder), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("make test\n")
    return [line for line in done.stdout.splitlines() if line.startswith(("browser", "apt-get"))]


def test_a_browser_that_is_there_is_used(folder: Path) -> None:
    (folder / "bin" / "chromium").symlink_to(folder / "bin" / "cat")
    assert run(folder) == [f"browser: {folder}/bin/chromium"]
    assert not (folder / "asked").exists()


@pytest.mark.parametrize("lists", [True, False])
def test_one_is_installed_after_the_lists_are_renewed_or_could_not_be(
    folder: Path, lists: bool
) -> None:
    if not lists:
        (folder / "no-update").touch()
    assert run(folder) == [f"browser: {folder}/bin/chromium, installed just now"]
    update, install = (folder / "asked").read_text().splitlines()
    assert "update" in update
    assert install.endswith("install --no-install-recommends -y chromium")


def test_that_there_is_none_is_said_with_the_reason(folder: Path) -> None:
    (folder / "no-package").touch()
    why, none = run(folder)
    assert why == "apt-get: E: Unable to locate package chromium"
    assert "NONE" in none
    assert "the tests of pages are SKIPPED" in none
