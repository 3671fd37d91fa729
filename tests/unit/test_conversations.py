"""Conversations in their file: branches, pages, search, damage, and two programs at once."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from tests.fakes import nothing_leaks
from tests.unit.test_files import PNG, TEXT

from aiplayground._processes import forks, locks
from aiplayground.conversations import (
    Archive,
    ChatMessage,
    Draft,
    MessageStatus,
    Progress,
    _schema,
    _search,
)
from aiplayground.errors import FileOperationError, InvalidParameters


@asynccontextmanager
async def archive(folder: Path, busy: float = 5.0) -> AsyncIterator[Archive]:
    opened = Archive(folder, busy)
    try:
        yield opened
    finally:
        await opened.close()


def draft(id_: str, role: str = "user", content: str = "Hello", **more: object) -> Draft:
    fields = {"id": id_, "role": role, "content": content, "timestamp": 1000, **more}
    return Draft(**fields)  # type: ignore[arg-type]  # the fields of a draft


def answer(id_: str, parent: str) -> Draft:
    return draft(id_, "assistant", "", parent=parent, status=MessageStatus.STREAMING)


def texts(messages: tuple[ChatMessage, ...]) -> list[str]:
    return [each.content for each in messages]


async def test_messages_are_kept_with_all_that_belongs_to_them(tmp_path: Path) -> None:
    async with archive(tmp_path) as one:
        new = await one.create(
            title="T", model="m", backend="b", preset="p", system_prompt="s", settings={"seed": 1}
        )
        await one.add(new.id, [draft("q", images=(PNG,)), answer("a", "q")])
        end = Progress(
            content="Hi",
            reasoning="hm",
            tool_calls=[{"id": "1"}],
            status=MessageStatus.FAILED,
            finish_reason="stop",
            prompt_tokens=1,
            completion_tokens=2,
            error={"code": -3, "message": "gone", "details": {"a": 1}},
        )
        await one.finish("a", end)
        before = await one.branch(new.id)
    async with archive(tmp_path) as one:
        again = await one.branch(new.id)
        assert again == before
        [question, said] = again.messages
        assert again.conversation.settings == {"seed": 1}
        assert question.images == (f"data:image/png;base64,{TEXT}",)
        assert said.error is not None
        assert (said.content, said.reasoning, said.error.code) == ("Hi", "hm", -3)
        assert (said.tool_calls, said.status) == (({"id": "1"},), "failed")


async def test_branches(tmp_path: Path) -> None:
    async with archive(tmp_path) as one:
        new = await one.create()
        await one.add(new.id, [draft("q1"), draft("a1", "assistant", "one", parent="q1")])
        await one.add(new.id, [draft("q2", content="more", parent="a1")])
        branch = await one.add(new.id, [draft("a2", "assistant", "two", parent="q1")])
        assert texts(branch.messages) == ["Hello", "two"]
        assert branch.messages[1].siblings == ("a1", "a2")
        assert branch.messages[0].siblings == ()
        assert texts((await one.show(new.id, "a1")).messages) == ["Hello", "one", "more"]
        assert texts((await one.branch(new.id)).messages) == ["Hello", "one", "more"]
        with pytest.raises(InvalidParameters, match="no message 'x'"):
            await one.show(new.id, "x")
        other = await one.create()
        with pytest.raises(InvalidParameters, match="no message 'a1'"):
            await one.show(other.id, "a1")


async def test_a_conversation_may_be_long_and_goes_whole(tmp_path: Path) -> None:
    async with archive(tmp_path) as one:
        new = await one.create()
        many = [draft("m0")] + [draft(f"m{n}", parent=f"m{n - 1}") for n in range(1, 2500)]
        assert len((await one.add(new.id, many)).messages) == 2500
        await one.delete(new.id)
        assert (await one.page()).items == ()
        with pytest.raises(InvalidParameters, match="There is no conversation"):
            await one.branch(new.id)
    with closing(sqlite3.connect(one.path)) as file:
        assert file.execute("SELECT count(*) FROM messages").fetchone() == (0,)


async def test_a_picture_is_kept_once_and_goes_with_its_last_message(tmp_path: Path) -> None:
    async with archive(tmp_path) as one:
        first, second = await one.create(), await one.create()
        await one.add(first.id, [draft("a", images=(PNG, PNG))])
        await one.add(first.id, [draft("b", parent="a", same_images_as="a")])
        branch = await one.add(second.id, [draft("c", images=(PNG,))])
        assert branch.messages[0].images is not None

        def kept() -> int:
            with closing(sqlite3.connect(one.path)) as file:
                return int(file.execute("SELECT count(*) FROM images").fetchone()[0])

        assert kept() == 1
        await one.delete(first.id)
        assert kept() == 1
        await one.delete(second.id)
        assert kept() == 0


async def test_pages_go_on_where_the_last_ended(tmp_path: Path) -> None:
    async with archive(tmp_path) as one:
        for number in range(7):
            await one.create(title=str(number))
        pages: list[list[str]] = []
        after = None
        while True:
            page = await one.page(3, after)
            pages.append([each.title for each in page.items])
            after = page.next
            if after is None:
                break
        listed = [title for page in pages for title in page]
        assert [len(each) for each in pages] == [3, 3, 1]
        assert sorted(listed) == list("0123456")
        for wrong in (0, 501):
            with pytest.raises(InvalidParameters, match="limit"):
                await one.page(wrong)
        for cursor in ("x", "-", "²-a", "9" * 30 + "-a"):
            with pytest.raises(InvalidParameters, match="'after'"):
                await one.page(3, cursor)


async def test_what_changes_comes_first_in_the_list(tmp_path: Path) -> None:
    async with archive(tmp_path) as one:
        old, new = await one.create(title="old"), await one.create(title="new")
        later = max(old.updated, new.updated) + 1
        await one.add(old.id, [draft("q", timestamp=later)])
        assert [each.title for each in (await one.page()).items] == ["old", "new"]
        changed = await one.change(new.id, title="renamed", model="m")
        assert (changed.title, changed.model, changed.updated) == ("renamed", "m", new.updated)


# Search -------------------------------------------------------------------------------------


async def filled(one: Archive) -> str:
    new = await one.create(title="About tigers")
    said = [
        ("q", "Where do TIGERS live?"),
        ("a", "In Asia: they don't live in Öland; tiger 50% of 猫科动物 are there_really"),
        ("x", 'Say "cat" (a)'),
    ]
    drafts = [
        draft(id_, content=text, parent=said[n - 1][0] if n else None)
        for n, (id_, text) in enumerate(said)
    ]
    await one.add(new.id, drafts)
    return new.id


QUERIES = [
    ("tigers", [None, "q"]),
    ("tiger live", ["a"]),
    ("don't", ["a"]),
    ("asi", ["a"]),
    ("猫科", ["a"]),
    ("there_really", ["a"]),
    ("50%", ["a"]),
    ("%", ["a"]),
    ('"cat" (a', ["x"]),
    ('cat" OR tigers', []),
    ("cat (", ["x"]),
    ("( cat", ["x"]),
    ("nowhere", []),
    ("content:cat", []),
]


@pytest.mark.parametrize(("text", "found"), QUERIES)
async def test_search(tmp_path: Path, text: str, found: list[str | None]) -> None:
    async with archive(tmp_path) as one:
        conversation = await filled(one)
        hits = (await one.search(text)).items
        assert [each.message_id for each in hits] == found
        assert all(each.conversation_id == conversation for each in hits)
        assert all(each.snippet for each in hits)


async def test_search_finds_accents_without_them_and_pages(tmp_path: Path) -> None:
    async with archive(tmp_path) as one:
        conversation = await filled(one)
        assert len((await one.search("oland")).items) == 1
        await one.add(conversation, [draft(f"n{n}", content=f"needle {n}") for n in range(5)])
        first = await one.search("needle", 3)
        second = await one.search("needle", 3, first.next)
        ids = [each.message_id for each in (*first.items, *second.items)]
        assert (ids, second.next) == (["n4", "n3", "n2", "n1", "n0"], None)
        for wrong in ("", "  ", "a" * 1001):
            with pytest.raises(InvalidParameters, match="'text'"):
                await one.search(wrong)


async def test_an_answer_is_found_when_it_has_ended(tmp_path: Path) -> None:
    async with archive(tmp_path) as one:
        new = await one.create()
        await one.add(new.id, [draft("q"), answer("a", "q")])
        await asyncio.wrap_future(one.write("a", Progress(content="needle")))
        assert (await one.search("needle")).items == ()
        end = Progress(content="needle two", status=MessageStatus.COMPLETE)
        await one.finish("a", end)
        assert [each.message_id for each in (await one.search("needle")).items] == ["a"]
        await one.delete(new.id)
        assert (await one.search("needle")).items == ()


async def test_without_fts5_everything_works_and_the_index_returns_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with archive(tmp_path) as one:
        await filled(one)
    with monkeypatch.context() as patch:
        patch.setattr(_search, "has_fts5", lambda _: False)
        async with archive(tmp_path) as one:
            new = await one.create()
            await one.add(new.id, [draft("late", content="x" * 500 + " Needles " + "y" * 500)])
            [hit] = (await one.search("needle")).items
            assert "Needles" in hit.snippet
            assert len(hit.snippet) < 200
            assert [each.message_id for each in (await one.search("50%")).items] == ["a"]
    async with archive(tmp_path) as one:
        assert [each.message_id for each in (await one.search("needle")).items] == ["late"]
        await one.delete(new.id)
        assert (await one.search("needle")).items == ()


# The file -----------------------------------------------------------------------------------


async def test_the_file_is_the_users_alone(tmp_path: Path) -> None:
    folder = tmp_path / "conversations"
    async with archive(folder) as one:
        assert not folder.exists(), "nothing is made before it is needed"
        await one.create()
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert one.path in files
        for path in files:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_nothing_leaks(tmp_path: Path) -> None:
    with nothing_leaks():
        async with archive(tmp_path) as one:
            await filled(one)
        await one.close()
        with pytest.raises(FileOperationError, match="closed"):
            await one.page()
    assert list((tmp_path / "writers").iterdir()) == []


async def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    async with archive(tmp_path) as one:
        await one.create()
    with closing(sqlite3.connect(one.path)) as file:
        file.execute("PRAGMA user_version = 99")
    async with archive(tmp_path) as one:
        with pytest.raises(FileOperationError, match="newer AI Playground"):
            await one.page()


async def test_a_step_to_a_new_version_is_done_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with archive(tmp_path) as one:
        new = await one.create(title="kept")
    step = ["ALTER TABLE conversations ADD COLUMN colour TEXT", "CREATE TABLE conversations (a)"]
    with monkeypatch.context() as patch:
        patch.setattr(_schema, "STEPS", [*_schema.STEPS, step])
        async with archive(tmp_path) as one:
            with pytest.raises(FileOperationError, match="already exists"):
                await one.page()
    with closing(sqlite3.connect(one.path)) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (1,)
        assert "colour" not in str(file.execute("SELECT sql FROM sqlite_master").fetchall())
    monkeypatch.setattr(_schema, "STEPS", [*_schema.STEPS, step[:1]])
    async with archive(tmp_path) as one:
        assert [each.id for each in (await one.page()).items] == [new.id]
    with closing(sqlite3.connect(one.path)) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (2,)


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database " * 500)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [garbage, cut])
async def test_a_damaged_file_is_put_aside_and_told_of(tmp_path: Path, damage: object) -> None:
    async with archive(tmp_path) as one:
        await filled(one)
        assert await one.open() is None
    assert callable(damage)
    damage(one.path)
    bytes_then = one.path.read_bytes()
    async with archive(tmp_path) as one:
        report = await one.open()
        assert report is not None
        [aside] = tmp_path.glob("conversations.db.damaged-*")
        assert str(aside) in report
        assert aside.read_bytes() == bytes_then
        assert (await one.page()).items == ()
        await filled(one)
    async with archive(tmp_path) as one:
        assert await one.open() is None


async def test_damage_that_shows_later_is_found_by_the_next_opening(tmp_path: Path) -> None:
    async with archive(tmp_path) as one:
        new = await one.create()
        await one.add(new.id, [draft(f"m{n}", content="text " * 400) for n in range(50)])
    data = bytearray(one.path.read_bytes())
    for page in range(0, len(data), 4096):
        if b"text text" in data[page : page + 4096]:
            data[page : page + 64] = b"\xff" * 64
    one.path.write_bytes(data)
    async with archive(tmp_path) as one:
        assert await one.open() is None, "an opening reads but the beginning"
        with pytest.raises(FileOperationError, match="put aside") as damaged:
            await one.branch(new.id)
        assert damaged.value.details["reason"] == "damaged"
    async with archive(tmp_path) as one:
        assert "put aside" in (await one.open() or "")


async def test_a_damaged_file_that_another_has_open_stays(tmp_path: Path) -> None:
    async with archive(tmp_path) as one:
        await one.create()
    async with archive(tmp_path) as one:
        await one.page()
        data = one.path.read_bytes()
        garbage(one.path)
        async with archive(tmp_path) as two:
            with pytest.raises(FileOperationError, match="another program has it open"):
                await two.page()
        assert list(tmp_path.glob("*damaged*")) == []
        one.path.write_bytes(data)


async def test_what_is_in_the_way_is_explained(tmp_path: Path) -> None:
    (tmp_path / "conversations.db").mkdir()
    async with archive(tmp_path) as one:
        with pytest.raises(FileOperationError, match="directory"):
            await one.page()
    file = tmp_path / "file"
    file.touch()
    async with archive(file) as one:
        with pytest.raises(FileOperationError, match="in the way"):
            await one.page()


# Two programs -------------------------------------------------------------------------------


async def test_two_write_at_once(tmp_path: Path) -> None:
    async with archive(tmp_path) as one, archive(tmp_path) as two:
        await asyncio.gather(*(each.create() for each in [one, two] * 20))
        assert len((await one.page()).items) == 40
        assert await two.page() == await one.page()


async def test_one_that_holds_the_file_is_waited_for_and_then_told_of(tmp_path: Path) -> None:
    async with archive(tmp_path, busy=0.05) as one:
        await one.create()
        with closing(sqlite3.connect(one.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert len((await one.page()).items) == 1, "reading goes on"
            with pytest.raises(FileOperationError, match="Another program") as refused:
                await one.create()
            assert refused.value.details["reason"] == "busy"
            other.execute("COMMIT")
        await one.create()


async def test_an_answer_of_a_living_program_is_not_interrupted(tmp_path: Path) -> None:
    async with archive(tmp_path) as one:
        new = await one.create()
        await one.add(new.id, [draft("q"), answer("a", "q")])
        async with archive(tmp_path) as two:
            assert (await two.branch(new.id)).messages[1].status == "streaming"
            with pytest.raises(InvalidParameters, match="being answered") as refused:
                await two.add(new.id, [draft("q2", parent="a")])
            assert refused.value.details["reason"] == "busy"
        await one.finish("a", Progress(content="!", status=MessageStatus.COMPLETE))
        assert texts((await one.branch(new.id)).messages) == ["Hello", "!"]


CHILD = """
import asyncio, sys
from pathlib import Path
from aiplayground.conversations import Archive, Draft, Progress

async def main():
    one = Archive(Path(sys.argv[1]))
    new = await one.create(title="t")
    await one.add(new.id, [
        Draft(id="q", role="user", content="Hello", timestamp=1),
        Draft(id="a", role="assistant", parent="q", timestamp=2, status="streaming"),
    ])
    await asyncio.wrap_future(one.write("a", Progress(content="the text so far")))
    print(new.id, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_program_that_is_killed_leaves_its_text(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        conversation = (await asyncio.to_thread(child.stdout.readline)).strip()
        async with archive(tmp_path) as early:
            assert (await early.branch(conversation)).messages[1].status == "streaming"
            child.kill()
            child.wait(10)
            # One that was open all the time notices when it wants to go on.
            await early.add(conversation, [draft("q2", parent="a")])
            assert (await early.branch(conversation)).messages[1].status == "interrupted"
    async with archive(tmp_path) as later:
        said = (await later.branch(conversation)).messages[1]
        assert (said.content, said.status) == ("the text so far", "interrupted")
        assert [each.message_id for each in (await later.search("far")).items] == ["a"]


async def test_the_next_program_finds_the_text_of_one_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        conversation = (await asyncio.to_thread(child.stdout.readline)).strip()
        child.kill()
    async with archive(tmp_path) as later:
        said = (await later.branch(conversation)).messages[1]
        assert (said.content, said.status) == ("the text so far", "interrupted")
    assert list((tmp_path / "writers").iterdir()) == []


async def test_those_who_open_at_once_wait_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "opening").mkdir(parents=True)
    lock = locks.try_lock(tmp_path / "opening")
    async with archive(tmp_path, busy=0.05) as one:
        with pytest.raises(FileOperationError, match="Another program"):
            await one.page()
    threading.Timer(0.1, forks.close, [lock]).start()
    async with archive(tmp_path) as one:
        assert (await one.page()).items == ()


# Size ---------------------------------------------------------------------------------------


def seed(path: Path, conversations: int, messages: int = 3) -> None:
    """Fill a file quickly; the index of the search is filled by its triggers."""
    with closing(sqlite3.connect(path)) as file, file:
        file.executemany(
            "INSERT INTO conversations VALUES (?, ?, ?, ?, 'ai-backend', 'm', NULL, '', '{}', ?)",
            (
                (f"c{n:06}", f"Conversation {n}", n, n, f"c{n:06}m{messages - 1}")
                for n in range(conversations)
            ),
        )
        file.executemany(
            "INSERT INTO messages (id, conversation, parent, role, content, timestamp, status) "
            "VALUES (?, ?, ?, 'user', ?, ?, 'complete')",
            (
                (f"c{n:06}m{m}", f"c{n:06}", f"c{n:06}m{m - 1}" if m else None, "word " * 50, n)
                for n in range(conversations)
                for m in range(messages)
            ),
        )


async def peak_of_opening(folder: Path) -> int:
    """Return the bytes that opening, the list, and one conversation take at their peak."""
    tracemalloc.start()
    try:
        async with archive(folder) as one:
            page = await one.page()
            assert len(page.items) == 50
            assert len((await one.branch(page.items[0].id)).messages) == 3
            return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_ten_thousand_conversations_open_in_the_memory_of_a_hundred(tmp_path: Path) -> None:
    folders = {count: tmp_path / str(count) for count in (100, 10_000)}
    for count, folder in folders.items():
        async with archive(folder) as one:
            await one.open()
        await asyncio.to_thread(seed, one.path, count)
    await peak_of_opening(folders[100])  # what is imported and cached once
    few, many = [await peak_of_opening(each) for each in folders.values()]
    assert many < few * 1.2, f"{few} bytes with 100, {many} with 10,000"
    small, large = [await asyncio.to_thread(most_memory, each) for each in folders.values()]
    assert large - small < 4096, f"{small} KiB with 100, {large} KiB with 10,000"


OPENER = """
import asyncio, resource, sys
from pathlib import Path
from aiplayground.conversations import Archive

async def main():
    one = Archive(Path(sys.argv[1]))
    page = await one.page()
    await one.branch(page.items[0].id)
    await one.close()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

asyncio.run(main())
"""


def most_memory(folder: Path) -> int:
    """Return the KiB that a program takes at most which opens the file, SQLite's own included."""
    done = subprocess.run(
        [sys.executable, "-c", OPENER, str(folder)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)
