"""Pictures: saved where they belong and nowhere else, opened only where that is allowed."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from tests.fakes import kernel

from aiplayground._files import (
    SUFFIXES,
    Opener,
    checked_name,
    confined,
    decode_image,
    kind_of,
    save_image,
)
from aiplayground.errors import FileOperationError, InvalidParameters, ServiceNotAvailable

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TEXT = base64.b64encode(PNG).decode()
LIMIT = 2**20


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "DATA:image/PNG;base64,"])
def test_base64_and_data_urls_are_read(prefix: str) -> None:
    assert decode_image(prefix + TEXT, LIMIT) == PNG


def test_line_breaks_are_allowed() -> None:
    assert decode_image(f"{TEXT[:40]}\r\n{TEXT[40:]}\n", LIMIT) == PNG


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "none of png"),
        ("!!!!", "not base64"),
        (TEXT[:-1], "not base64"),
        (base64.b64encode(b"#!/bin/sh\n").decode(), "none of png"),
        (f"data:image/png,{TEXT}", "data URL in base64"),
        (f"data:text/html;base64,{TEXT}", "not that of a picture"),
        (f"data:;base64,{TEXT}", "not that of a picture"),
        ("data:" + "x" * 1000, "data URL in base64"),
        ("ä" * 8, "not base64"),
    ],
)
def test_what_is_no_picture_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidParameters, match=why):
        decode_image(text, LIMIT)


def test_a_picture_that_is_too_large_is_refused() -> None:
    with pytest.raises(InvalidParameters) as refused:
        decode_image(base64.b64encode(PNG + bytes(LIMIT)).decode(), LIMIT)
    assert refused.value.details["reason"] == "too-large"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (PNG, "png"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"GIF89a", "gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", None),
        (b"\x00\x00\x00\x1cftypavif", "avif"),
        (b"", None),
    ],
)
def test_kinds_show_in_the_first_bytes(head: bytes, kind: str | None) -> None:
    assert kind_of(head) == kind


def test_names_get_an_ending() -> None:
    assert checked_name("a.PNG", "png") == "a.PNG"
    assert checked_name("evil.desktop", "png") == "evil.desktop.png"
    assert checked_name(" ein Bild ", "jpeg") == "ein Bild.jpg"


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", ".hidden.png", "a."),
        *("../a.png", "a/b.png", "a\\b.png", "/etc/a.png", "C:a.png"),
        *("a\0.png", "a\n.png", "con.png", "NUL", "x" * 250),
    ],
)
def test_paths_and_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidParameters):
        checked_name(name, "png")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    names = [save_image(folder, TEXT, "a.png", LIMIT).name for _ in range(3)]
    assert names == ["a.png", "a-1.png", "a-2.png"]
    assert {each.read_bytes() for each in folder.iterdir()} == {PNG}


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")
def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    target = tmp_path / "victim"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").symlink_to(target)
    assert save_image(tmp_path / "out", TEXT, "a.png", LIMIT).name == "a-1.png"
    assert not target.exists()


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(FileOperationError):
        save_image(tmp_path / "out", TEXT, "a.png", LIMIT)


def test_files_are_found_in_the_roots_alone(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "rootless"
    for folder in (root, other):
        folder.mkdir()
        (folder / "a.png").write_bytes(PNG)
    (root / "out.png").symlink_to(other / "a.png")
    (root / "in.png").symlink_to(root / "a.png")
    assert confined("a.png", [root]) == root / "a.png"
    assert confined(str(root / "a.png"), [root]) == root / "a.png"
    assert confined("in.png", [tmp_path / "missing", root]) == root / "a.png"
    outside = ["../rootless/a.png", str(other / "a.png"), "out.png", "missing.png", "."]
    for path in outside:
        with pytest.raises(FileOperationError) as refused:
            confined(path, [root])
        assert refused.value.details["reason"] == "outside"
    with pytest.raises(InvalidParameters):
        confined("a\0.png", [root])


def opener(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Put an xdg-open of the test's own first on PATH."""
    program = folder / "bin" / "xdg-open"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return Opener()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    return path


@pytest.mark.skipif(os.name != "posix", reason="scripts as programs")
class TestOpening:
    def test_the_systems_program_gets_the_path(
        self, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opener(tmp_path, f'echo "$1" > {tmp_path}/seen', monkeypatch).open(picture)
        assert (tmp_path / "seen").read_text().strip() == str(picture)

    def test_a_failure_is_told(
        self, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(ServiceNotAvailable, match="exit code 3"):
            opener(tmp_path, "exit 3", monkeypatch).open(picture)

    def test_a_viewer_that_stays_is_left_to_the_user(
        self, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("aiplayground._files.OPEN_PATIENCE", 0.2)
        one = opener(tmp_path, "exec sleep 60", monkeypatch)
        one.open(picture)
        [viewer] = one._open
        try:
            assert viewer.poll() is None
            one.close()
            os.kill(viewer.pid, 0)
        finally:
            os.kill(viewer.pid, 9)
            os.waitpid(viewer.pid, 0)

    def test_nothing_to_open_with(self, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(ServiceNotAvailable, match="xdg-utils"):
            Opener().open(picture)

    @pytest.mark.parametrize("name", ["a.desktop", "a.jpg", "a"])
    def test_only_pictures_are_opened(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(PNG)
        with pytest.raises(FileOperationError, match="no picture"):
            Opener().open(tmp_path / name)
        (tmp_path / "b.png").write_bytes(b"[Desktop Entry]")
        with pytest.raises(FileOperationError, match="no picture"):
            Opener().open(tmp_path / "b.png")


async def test_the_methods_use_the_declared_folders(tmp_path: Path) -> None:
    settings = {"files": {"output": str(tmp_path / "mine")}}
    async with kernel(tmp_path / "home", settings=settings) as one:
        saved = await one.call("saveImage", TEXT, "a.png")
        assert Path(saved) == tmp_path / "mine" / "a.png"
        with pytest.raises(FileOperationError):
            await one.call("openImageWithSystem", "/etc/passwd")
    async with kernel(tmp_path / "home") as one:
        saved = await one.call("saveImage", TEXT, "b.png")
        assert Path(saved) == tmp_path / "home" / "data" / "outputs" / "b.png"


def test_every_kind_has_endings() -> None:
    endings = [suffix for each in SUFFIXES.values() for suffix in each]
    assert len(endings) == len(set(endings))
