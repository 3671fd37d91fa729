"""One download against a server that misbehaves: the right file or a clear error, never half of it.

The fetcher's work runs in this process; `test_downloads` has it in its own.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from huggingface_hub import close_session
from tests.hub_server import TOKEN, HubServer, Repository

from aiplayground.errors import (
    AIPlaygroundError,
    FileOperationError,
    InvalidSettings,
    ModelNotFound,
    ServiceNotAvailable,
)
from aiplayground_models.fetcher import work
from aiplayground_models.fetcher.faults import Later
from aiplayground_models.fetcher.hub import Hub
from aiplayground_models.fetcher.job import Job, Network
from aiplayground_models.fetcher.report import Reporter
from aiplayground_models.fetcher.writer import Writer
from aiplayground_models.partial import DAY, LOCK, NOTE, PART, find_partials
from aiplayground_models.place import HIDDEN

MODEL = random.Random(1).randbytes(1_500_000)
SMALL = b"# A model\n" * 50
REPO = "owner/model-GGUF"
FILE = "model-Q4_K_M.gguf"
Fetch = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    files: dict[str, Any] = {FILE: MODEL, "README.md": SMALL}
    with HubServer({REPO: Repository(files)}) as server:
        yield server
    close_session()


@pytest.fixture
def fetch(hub: HubServer, tmp_path: Path) -> Fetch:
    """Does a download; returns what it told."""

    def fetch(**changed: Any) -> list[dict[str, Any]]:
        network = Network(endpoint=hub.url, timeout=5, retry_wait=0.01, patience=5, retries=3)
        network = replace(network, **changed.pop("network", {}))
        job = Job(
            network=network, repo=REPO, folder=str(tmp_path / "llm" / "m"), base=str(tmp_path)
        )
        told = io.BytesIO()
        try:
            work.work(replace(job, **changed), Reporter(told))
        finally:
            fetch.told = [json.loads(line) for line in told.getvalue().splitlines()]  # type: ignore[attr-defined]  # for tests of errors
        return fetch.told  # type: ignore[attr-defined, no-any-return]  # as above

    return fetch


def target(folder: Path) -> Path:
    return folder / "llm" / "m" / FILE


def partial(folder: Path) -> Path:
    return folder / HIDDEN / (hashlib.sha256(MODEL).hexdigest() + PART)


def is_clean(folder: Path) -> bool:
    """Whether the model is in its place, and nothing else anywhere."""
    return target(folder).read_bytes() == MODEL and not list((folder / HIDDEN).iterdir())


def nothing_counts(folder: Path) -> bool:
    """Whether no model is seen where models are looked for."""
    return not (folder / "llm").exists()


def starts(hub: HubServer) -> list[str]:
    return [each.headers.get("range", "") for each in hub.bodies()]


def test_a_file_comes_whole_checked_and_in_place(
    hub: HubServer, fetch: Fetch, tmp_path: Path
) -> None:
    *_, done = fetch()
    assert done == {
        "event": "done",
        "path": str(target(tmp_path)),
        "files": [str(target(tmp_path))],
    }
    assert is_clean(tmp_path)
    assert len(hub.bodies()) == 1
    fetch()
    assert len(hub.bodies()) == 1  # it is there, and was checked


def test_drops_are_gone_on_from(hub: HubServer, fetch: Fetch, tmp_path: Path) -> None:
    hub.faults.drop_at.extend([1000, 500_000, 0])
    fetch()
    assert is_clean(tmp_path)
    assert starts(hub) == ["", "bytes=1000-", "bytes=501000-", "bytes=501000-"]


def test_a_second_try_goes_on_where_the_first_gave_up(
    hub: HubServer, fetch: Fetch, tmp_path: Path
) -> None:
    hub.faults.drop_at.extend([700_000, 0, 0, 0, 0])
    with pytest.raises(ServiceNotAvailable, match=r"broke off 4 times.*is kept") as failed:
        fetch()
    assert failed.value.details["reason"] == "unreachable"
    assert nothing_counts(tmp_path)
    assert partial(tmp_path).stat().st_size == 700_000
    hub.faults.drop_at.clear()
    fetch()
    assert is_clean(tmp_path)
    assert starts(hub)[-1] == "bytes=700000-"


def test_a_server_that_ignores_ranges_sends_it_all_again(
    hub: HubServer, fetch: Fetch, tmp_path: Path
) -> None:
    hub.faults.ignore_range = True
    hub.faults.drop_at.extend([600_000, 400_000])
    fetch()
    assert is_clean(tmp_path)


def test_a_server_that_sends_another_range_is_not_believed(
    hub: HubServer, fetch: Fetch, tmp_path: Path
) -> None:
    hub.faults.other_range = True
    hub.faults.drop_at.append(600_000)
    with pytest.raises(ServiceNotAvailable, match="another part"):
        fetch()
    assert nothing_counts(tmp_path)
    hub.faults.other_range = False
    fetch()
    assert is_clean(tmp_path)


def test_wrong_bytes_of_the_right_size_are_fetched_again(
    hub: HubServer, fetch: Fetch, tmp_path: Path
) -> None:
    hub.faults.wrong_bytes = 1
    fetch()
    assert is_clean(tmp_path)
    assert starts(hub) == ["", ""]


def test_bytes_that_stay_wrong_never_count(hub: HubServer, fetch: Fetch, tmp_path: Path) -> None:
    hub.faults.wrong_bytes = 2
    with pytest.raises(FileOperationError, match="other content") as failed:
        fetch()
    assert failed.value.details["reason"] == "checksum"
    assert nothing_counts(tmp_path)
    assert not partial(tmp_path).exists()


def test_a_damaged_leftover_is_no_harm(hub: HubServer, fetch: Fetch, tmp_path: Path) -> None:
    partial(tmp_path).parent.mkdir()
    partial(tmp_path).write_bytes(b"\0" * 400_000)
    fetch()
    assert is_clean(tmp_path)
    partial(tmp_path).write_bytes(MODEL + b"more")
    target(tmp_path).unlink()
    fetch()
    assert is_clean(tmp_path)


def test_a_stalled_connection_is_given_up(hub: HubServer, fetch: Fetch, tmp_path: Path) -> None:
    hub.faults.stall_at.append(300_000)
    fetch(network={"timeout": 0.3})
    assert is_clean(tmp_path)
    assert starts(hub) == ["", "bytes=300000-"]


def test_more_bytes_than_there_should_be(hub: HubServer, fetch: Fetch, tmp_path: Path) -> None:
    hub.faults.too_long = 1
    fetch()
    assert is_clean(tmp_path)


def test_no_content_length(hub: HubServer, fetch: Fetch, tmp_path: Path) -> None:
    hub.faults.no_length = True
    hub.faults.drop_at.append(200_000)
    fetch()
    assert is_clean(tmp_path)


def test_a_list_without_checksums_is_completed_by_the_headers(
    hub: HubServer, fetch: Fetch, tmp_path: Path
) -> None:
    hub.faults.no_checksums = True
    hub.faults.wrong_bytes = 1
    fetch(paths=(FILE, "README.md"))
    assert target(tmp_path).read_bytes() == MODEL
    assert target(tmp_path).with_name("README.md").read_bytes() == SMALL
    assert len(hub.bodies()) == 3


def test_the_token_never_goes_to_another_host(hub: HubServer, fetch: Fetch, tmp_path: Path) -> None:
    hub.repositories[REPO].gated = True
    hub.faults.redirect = True
    hub.faults.drop_at.append(1000)
    fetch(network={"token": TOKEN})
    assert is_clean(tmp_path)
    others = [each for each in hub.seen if each.cdn]
    assert len(others) == 2
    assert not any("authorization" in each.headers for each in others)
    assert all(TOKEN in each.headers["authorization"] for each in hub.seen if not each.cdn)


def test_a_mirror_is_checked_and_never_gets_the_token(
    hub: HubServer, fetch: Fetch, tmp_path: Path
) -> None:
    files: dict[str, Any] = {FILE: bytes(len(MODEL))}
    with HubServer({REPO: Repository(files)}) as mirror:
        fetch(network={"token": TOKEN, "mirror": mirror.url})
        assert is_clean(tmp_path)
        assert [len(mirror.bodies()), len(hub.bodies())] == [1, 1]
        assert not any("authorization" in each.headers for each in mirror.seen)
        target(tmp_path).unlink()
        mirror.repositories[REPO].files[FILE] = MODEL
        fetch(network={"mirror": mirror.url})
        assert [len(mirror.bodies()), len(hub.bodies())] == [2, 1]
        mirror.repositories.clear()
        target(tmp_path).unlink()
        fetch(network={"mirror": mirror.url})
    assert is_clean(tmp_path)


@pytest.mark.parametrize(
    ("token", "gated", "repo", "kind", "reason", "said"),
    [
        (None, True, REPO, ServiceNotAvailable, "gated", "accept them.*aipg config hf-token"),
        ("hf_other", True, REPO, ServiceNotAvailable, "gated", "no access to it"),
        (None, False, "owner/none", ModelNotFound, "no-repository", "or it is private"),
        (TOKEN, False, "owner/none", ModelNotFound, "no-repository", "Check the spelling"),
    ],
)
def test_refusals_are_told_apart(
    fetch: Fetch, hub: HubServer, token: str | None, gated: bool, repo: str,
    kind: type[AIPlaygroundError], reason: str, said: str,
) -> None:  # fmt: skip
    hub.repositories[REPO].gated = gated
    with pytest.raises(kind, match=said) as failed:
        fetch(repo=repo, network={"token": token})
    assert failed.value.details["reason"] == reason
    assert token is None or token not in json.dumps(failed.value.to_dict())


@pytest.mark.parametrize(
    ("status", "headers", "kind", "said"),
    [
        (401, {}, ServiceNotAvailable, "does not accept the token"),
        (403, {"X-Error-Message": "not for you"}, ServiceNotAvailable, "not for you"),
        (404, {"X-Error-Code": "RevisionNotFound"}, ModelNotFound, "no such revision"),
        (404, {}, ModelNotFound, "no model"),
        (418, {}, ServiceNotAvailable, "HTTP 418"),
    ],
)
def test_statuses_are_told_apart(
    fetch: Fetch, hub: HubServer, status: int, headers: dict[str, str],
    kind: type[AIPlaygroundError], said: str,
) -> None:  # fmt: skip
    hub.faults.answers.append((status, headers))
    with pytest.raises(kind, match=said):
        fetch(network={"token": "hf_expired"})


def test_files_and_revisions_that_are_not_there(fetch: Fetch) -> None:
    with pytest.raises(ModelNotFound, match=r"Did you mean 'model-Q4_K_M\.gguf'"):
        fetch(paths=("model-Q4_K_S.gguf",))
    with pytest.raises(ModelNotFound, match="no such revision"):
        fetch(revision="gone")


def test_busy_servers_are_waited_for(hub: HubServer, fetch: Fetch, tmp_path: Path) -> None:
    hub.faults.answers.append((503, {}))
    hub.faults.body_answers.extend([(429, {"Retry-After": "0"}), (502, {}), (429, {})])
    told = fetch()
    assert is_clean(tmp_path)
    waits = [each["message"] for each in told if each.get("status") == "waiting"]
    assert len(waits) == 4
    assert "HTTP 429" in waits[1]


@pytest.mark.parametrize("headers", [{"Retry-After": "60"}, {"RateLimit": '"api";r=0;t=60'}])
def test_a_hub_that_asks_to_wait_too_long_is_explained(
    hub: HubServer, fetch: Fetch, headers: dict[str, str]
) -> None:
    hub.faults.body_answers.append((429, headers))
    with pytest.raises(ServiceNotAvailable, match=r"asks to wait 60 s.*With a token") as failed:
        fetch()
    assert failed.value.details["retryAfter"] == 60


def test_a_hub_that_cannot_be_reached(fetch: Fetch) -> None:
    with pytest.raises(ServiceNotAvailable, match=r"cannot be reached.*hub\.proxy"):
        fetch(network={"endpoint": "http://127.0.0.1:9", "retries": 1})


def test_offline_mode_is_said(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiplayground_models.fetcher.hub.is_offline_mode", lambda: True)
    with pytest.raises(ServiceNotAvailable, match="HF_HUB_OFFLINE"):
        fetch()


def test_a_file_of_authorities_that_is_none(fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("no certificate")
    for name in ("x.pem", "gone.pem"):
        with pytest.raises(InvalidSettings, match=r"hub\.ca_bundle.*cannot be used"):
            fetch(network={"ca_bundle": str(tmp_path / name)})


def test_a_disk_without_room_is_seen_before(
    hub: HubServer, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "SPARE", 2**62)
    with pytest.raises(FileOperationError, match=r"too little room: 0\.00 GB are needed") as failed:
        fetch()
    assert failed.value.details["reason"] == "disk-full"
    assert hub.bodies() == []


def test_a_disk_that_fills_up_keeps_what_came(
    hub: HubServer, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Writer.write

    def full(writer: Writer, block: bytes) -> None:
        if writer.size > 400_000:
            raise OSError(28, "No space left on device")
        write(writer, block)

    monkeypatch.setattr(Writer, "write", full)
    with pytest.raises(FileOperationError, match="too little room") as failed:
        fetch()
    assert failed.value.details["reason"] == "disk-full"
    assert nothing_counts(tmp_path)
    came = partial(tmp_path).stat().st_size
    assert came > 400_000
    monkeypatch.undo()
    fetch()
    assert is_clean(tmp_path)
    assert starts(hub)[-1] == f"bytes={came}-"


def test_several_files_are_put_in_place_together(
    hub: HubServer, fetch: Fetch, tmp_path: Path
) -> None:
    parts = {f"m-Q8_0-{n:05d}-of-00003.gguf": MODEL[n : n + 300_000] for n in (1, 2, 3)}
    same = {"copy.bin": SMALL, "other.bin": SMALL, "deep/er/x.bin": MODEL[:5]}
    hub.repositories[REPO].files |= {**parts, **same}
    hub.faults.body_answers.extend([(404, {"X-Error-Code": "EntryNotFound"})])
    with pytest.raises(ModelNotFound):
        fetch(quant="Q8_0", connections=1)
    assert nothing_counts(tmp_path)
    *_, done = fetch(quant="Q8_0")
    folder = tmp_path / "llm" / "m"
    assert done["path"] == str(folder / "m-Q8_0-00001-of-00003.gguf")
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == parts
    *_, done = fetch(include=("*.bin",))
    assert done["path"] == str(folder)
    assert {name: (folder / name).read_bytes() for name in same} == same
    assert not list((tmp_path / HIDDEN).iterdir())


def test_another_file_of_that_name_is_replaced_when_the_new_one_is_whole(
    hub: HubServer, fetch: Fetch, tmp_path: Path
) -> None:
    target(tmp_path).parent.mkdir(parents=True)
    target(tmp_path).write_bytes(b"old" + MODEL[3:])
    hub.faults.drop_at.extend([10, 0, 0, 0, 0])
    with pytest.raises(ServiceNotAvailable):
        fetch()
    assert target(tmp_path).read_bytes()[:3] == b"old"
    hub.faults.drop_at.clear()
    fetch()
    assert is_clean(tmp_path)


def test_files_over_xet_go_on_where_they_ended(
    hub: HubServer, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hf_xet itself needs the Hub's storage servers; its stream is stood in for."""
    asked: list[int] = []

    def blocks_from(_: Any, __: Any, ___: str, start: int) -> Iterator[bytes]:
        asked.append(start)
        yield MODEL[start : start + 900_000]
        raise Later("Xet: a storage server went away")

    monkeypatch.setattr("aiplayground_models.fetcher.xet.blocks_from", blocks_from)
    fetch()
    assert asked == [0]
    assert starts(hub) == ["bytes=900000-"]  # over HTTP, from there on
    assert is_clean(tmp_path)


def test_what_is_asked_of_xet(
    hub: HubServer, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calls are those of hf_xet 1.8, whose storage servers are stood in for."""
    asked: list[dict[str, Any]] = []

    class Session:
        def new_download_stream_group(self, **given: Any) -> Session:
            asked.append(given)
            return self

        def download_stream(self, info: tuple[str, int], start: int | None) -> Iterator[bytes]:
            asked.append({"info": info, "start": start})
            yield MODEL[start or 0 :]

    stored = SimpleNamespace(file_hash="a" * 64, refresh_route=f"{hub.url}/api/xet")
    said = SimpleNamespace(xet_file_data=stored)
    monkeypatch.setattr(Hub, "metadata", lambda *_: said)
    monkeypatch.setattr("hf_xet.XetSession", Session)
    monkeypatch.setattr("hf_xet.XetFileInfo", lambda *given: given)
    partial(tmp_path).parent.mkdir()
    partial(tmp_path).write_bytes(MODEL[:300_000])
    fetch(network={"token": TOKEN})
    assert is_clean(tmp_path)
    group, stream = asked
    assert stream == {"info": ("a" * 64, len(MODEL)), "start": 300_000}
    assert TOKEN in group["token_refresh_headers"]["authorization"]
    assert TOKEN not in str(group["custom_headers"])
    assert hub.bodies() == []


def test_a_file_that_another_program_works_on_is_waited_for(
    hub: HubServer, fetch: Fetch, tmp_path: Path
) -> None:
    (tmp_path / HIDDEN).mkdir()
    lock = partial(tmp_path).with_suffix(LOCK)
    with (
        FileLock(lock),
        pytest.raises(ServiceNotAvailable, match="Another program") as failed,
    ):
        fetch(network={"patience": 0.3})
    assert failed.value.details["reason"] == "locked"
    assert hub.bodies() == []
    fetch()
    assert is_clean(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="modes of folders")
@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(fetch: Fetch, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FileOperationError, match="cannot be written"):
        fetch()


def test_what_nobody_asks_for_any_more_goes_after_a_time(
    hub: HubServer, fetch: Fetch, tmp_path: Path
) -> None:
    """Of what earlier downloads left, not what this one goes on from, nor what is worked on."""
    hub.faults.drop_at.extend([700_000, 0, 0, 0, 0])
    with pytest.raises(ServiceNotAvailable):
        fetch()
    (own,) = find_partials([tmp_path])
    assert (own.repo, own.file, own.size, own.total) == (REPO, FILE, 700_000, len(MODEL))
    folder = tmp_path / HIDDEN
    for name in ("old", "new", "busy"):
        (folder / f"{name}{PART}").write_bytes(b"x")
        (folder / f"{name}{NOTE}").write_text("torn")
    for name in ("old", "busy", own.place.name):
        os.utime(folder / f"{name}{PART}", (0, folder.stat().st_mtime - 31 * DAY))
    hub.faults.drop_at.clear()
    with FileLock(folder / f"busy{LOCK}"):
        fetch(keep_days=30.0)
    assert starts(hub)[-1] == "bytes=700000-"
    assert target(tmp_path).read_bytes() == MODEL
    assert [each.place.name for each in find_partials([tmp_path])] == ["busy", "new"]
    fetch(keep_days=0.0)
    assert len(find_partials([tmp_path])) == 2
