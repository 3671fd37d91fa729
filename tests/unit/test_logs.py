from __future__ import annotations

import asyncio
import gc
import logging
import re
import sys
import threading
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

import pytest

from aiplayground import _logs
from aiplayground._logs import KERNEL, LogHub, LogLine, LogStream, ServiceLog, _files
from aiplayground._logs._redact import redact


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LogHub]:
    hub = LogHub(tmp_path / "logs")
    yield hub
    assert hub.close()


@pytest.fixture
def log(hub: LogHub) -> ServiceLog:
    return hub.service("fake-backend")


def texts(lines: list[LogLine]) -> list[str]:
    return [line.text for line in lines]


async def read(stream: LogStream, count: int) -> list[str]:
    async with asyncio.timeout(10):
        return [(await anext(stream)).text for _ in range(count)]


def test_lines_reach_memory_and_file(hub: LogHub, log: ServiceLog) -> None:
    log.line("main", "loading\n")
    log.logger.warning("slow: %d s", 3)
    assert hub.flush()
    assert texts(log.tail()) == ["loading", "slow: 3 s"]
    assert texts(log.tail(1)) == ["slow: 3 s"]
    assert log.tail(0) == []
    first, second = log.path.read_text(encoding="utf-8").splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"
    assert re.fullmatch(stamp + " INFO    main: loading", first)
    assert re.fullmatch(stamp + " WARNING fake-backend: slow: 3 s", second)


def test_each_service_has_a_file_of_its_own(hub: LogHub, tmp_path: Path) -> None:
    hub.service(KERNEL).logger.info("up")
    hub.service("a").line("main", "one")
    assert hub.service("a") is hub.service("a")
    assert hub.flush()
    assert "up" in (tmp_path / "logs" / "kernel.log").read_text()
    assert "one" in (tmp_path / "logs" / "a.log").read_text()


def test_no_global_logging_is_touched(
    hub: LogHub, log: ServiceLog, caplog: pytest.LogCaptureFixture
) -> None:
    logging.disable(logging.CRITICAL)
    try:
        log.logger.error("mine")
        log.logger.getChild("part").error("mine too")
    finally:
        logging.disable(logging.NOTSET)
    log.logger.error("mine as well")
    assert [line.source for line in log.tail()] == ["fake-backend", "part", "fake-backend"]
    assert caplog.records == []
    names = logging.Logger.manager.loggerDict
    assert not [name for name in names if name.startswith("fake-backend")]


def test_the_level_holds_for_loggers_and_not_for_workers(tmp_path: Path) -> None:
    hub = LogHub(tmp_path, level="warning")
    log = hub.service("x")
    log.logger.info("quiet")
    log.logger.getChild("part").info("quiet")
    log.line("main", "a worker's line")
    assert texts(log.tail()) == ["a worker's line"]
    assert hub.close()


def test_exceptions_and_wrong_formats_are_logged(log: ServiceLog) -> None:
    try:
        raise ValueError("inner")
    except ValueError:
        log.logger.exception("it failed")
    log.logger.info("%d", "text")
    first, second = texts(log.tail())
    assert first.startswith("it failed\nTraceback")
    assert "ValueError: inner" in first
    assert second.startswith("'%d' with ('text',)")


def test_memory_is_bounded(hub: LogHub, log: ServiceLog, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(_logs.RING_LINES + 5):
        log.line("main", str(number))
    kept = log.tail()
    assert len(kept) == _logs.RING_LINES
    assert kept[-1].seq == _logs.RING_LINES + 5
    log.line("main", "x" * (_logs.MAX_LINE + 7))
    assert log.tail(1)[0].text.endswith("x… (7 more characters)")


def test_files_rotate(tmp_path: Path) -> None:
    hub = LogHub(tmp_path, max_bytes=200, backups=2)
    log = hub.service("x")
    for number in range(30):
        log.line("main", f"line {number:02}")
    assert hub.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.log", "x.log.1", "x.log.2"]
    assert "line 29" in log.path.read_text()
    assert all(path.stat().st_size <= 200 for path in tmp_path.iterdir())
    assert hub.write_errors == 0


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be moved on Windows")
def test_a_file_that_another_kernel_rotated_is_opened_anew(hub: LogHub, log: ServiceLog) -> None:
    log.line("main", "before")
    assert hub.flush()
    log.path.rename(log.path.with_suffix(".log.1"))
    log.line("main", "after")
    assert hub.flush()
    assert "after" in log.path.read_text()
    log.path.unlink()
    log.line("main", "and again")
    assert hub.flush()
    assert "and again" in log.path.read_text()


def test_a_refused_rotation_loses_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(*_: object) -> None:
        raise PermissionError(13, "held by another program")

    monkeypatch.setattr(RotatingFileHandler, "rotate", held)
    hub = LogHub(tmp_path, max_bytes=100, backups=1)
    for number in range(5):
        hub.service("x").line("main", f"line {number}")
    assert hub.close()
    written = (tmp_path / "x.log").read_text()
    assert all(f"line {number}" in written for number in range(5))
    assert hub.write_errors > 0


def test_an_unwritable_place_is_counted_and_told_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    hub = LogHub(tmp_path / "file")
    log = hub.service("x")
    for number in range(3):
        log.line("main", str(number))
        assert hub.flush()
    assert hub.write_errors == 4
    told = [text for text in texts(log.tail()) if "cannot be written" in text]
    assert len(told) == 1
    assert str(tmp_path / "file") in told[0]
    assert hub.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_counted(tmp_path: Path) -> None:
    (tmp_path / "x.log").symlink_to("/dev/full")
    hub = LogHub(tmp_path)
    hub.service("x").line("main", "one")
    assert hub.close()
    assert hub.write_errors >= 1
    gc.collect()


def test_a_hanging_disk_neither_blocks_nor_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(_files, "QUEUE_SIZE", 10)
    monkeypatch.setattr(_files._File, "emit", lambda *_: go.wait(30))
    hub = LogHub(tmp_path)
    for number in range(100):
        hub.service("x").line("main", str(number))
    assert hub.write_errors >= 89
    assert not hub.flush(0.01)
    assert not hub.close(0.01)
    go.set()
    assert hub.close(30)


def test_closing_writes_the_rest_and_may_be_repeated(hub: LogHub, log: ServiceLog) -> None:
    log.line("main", "last")
    assert hub.close()
    assert hub.close()
    assert hub.flush()
    assert "last" in log.path.read_text()
    log.line("main", "too late for the file")
    assert texts(log.tail()) == ["last", "too late for the file"]
    assert "too late" not in log.path.read_text()


def test_a_hub_without_lines_starts_no_thread_and_makes_no_folder(tmp_path: Path) -> None:
    before = threading.active_count()
    hub = LogHub(tmp_path / "logs")
    hub.service("x")
    assert threading.active_count() == before
    assert hub.close()
    assert not (tmp_path / "logs").exists()


def test_lines_of_many_threads_keep_one_order(hub: LogHub, log: ServiceLog) -> None:
    def talk(source: str) -> None:
        for number in range(100):
            log.line(source, str(number))

    threads = [threading.Thread(target=talk, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert hub.flush()
    assert [line.seq for line in log.tail()] == list(range(1, 401))
    assert [line.render() for line in log.tail()] == log.path.read_text().splitlines()


async def test_a_stream_has_the_backlog_and_what_follows(log: ServiceLog) -> None:
    for number in range(5):
        log.line("main", str(number))
    async with log.follow(backlog=2) as stream, log.follow() as fresh:
        log.line("main", "5")
        assert await read(stream, 3) == ["3", "4", "5"]
        assert await read(fresh, 1) == ["5"]


async def test_a_stream_wakes_for_a_line_of_another_thread(log: ServiceLog) -> None:
    stream = log.follow()
    waiting = asyncio.ensure_future(read(stream, 1))
    await asyncio.sleep(0)
    await asyncio.to_thread(log.line, "main", "hello")
    assert await waiting == ["hello"]
    stream.close()


async def test_a_slow_reader_loses_the_oldest_and_knows(
    log: ServiceLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_logs, "STREAM_LINES", 3)
    stream = log.follow()
    for number in range(5):
        log.line("main", str(number))
    assert await read(stream, 3) == ["2", "3", "4"]
    assert stream.dropped == 2


async def test_streams_end_when_closed_after_the_rest_is_read(hub: LogHub, log: ServiceLog) -> None:
    by_reader, by_log = log.follow(), log.follow()
    log.line("main", "one")
    by_reader.close()
    log.line("main", "two")
    log.close()
    assert [line.text async for line in by_reader] == ["one"]
    assert [line.text async for line in by_log] == ["one", "two"]
    assert [line.text async for line in log.follow(backlog=1)] == ["two"]


def test_a_stream_of_a_closed_loop_does_no_harm(log: ServiceLog) -> None:
    async def forget() -> LogStream:
        return log.follow()

    stream = asyncio.run(forget())
    log.line("main", "nobody waits")
    assert texts(log.tail()) == ["nobody waits"]
    stream.close()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Authorization: Bearer abcdef.ghijkl", "Authorization: Bearer [hidden]"),
        ("using hf_AbCdEfGhIjKlMnOpQrStUv now", "using hf_[hidden] now"),
        ("key sk-abcdefghijklmnop1234", "key sk-[hidden]"),
        ("AIPG_WORKER_TOKEN=0123456789abcdef0123", "AIPG_WORKER_TOKEN=[hidden]"),
        ('{"token": "0123456789abcdef0123"}', '{"token": "[hidden]"}'),
        ("token 0123456789abcdef0123", "token [hidden]"),
        ("api_key: AAAAAAAAAAAAAAAAAAAA", "api_key: [hidden]"),
        ("print_info: EOS token        = 2 '</s>'", None),
        ("n_tokens = 128, token_embd.weight loaded", None),
        ("llama_model_loader: tokenizer.ggml.tokens arr[str,32000]", None),
    ],
)
def test_secrets_are_hidden(log: ServiceLog, text: str, kept: str | None) -> None:
    assert redact(text) == (text if kept is None else kept)
    log.line("main", text)
    assert log.tail(1)[0].text == redact(text)


def test_an_embedder_may_hide_more(tmp_path: Path) -> None:
    hub = LogHub(tmp_path, redact=lambda text: text.replace("name", "***"))
    hub.service(KERNEL).logger.info("my name")
    assert hub.close()
    assert "my ***" in (tmp_path / "kernel.log").read_text()
