from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from tests import gguf_files as gg
from tests.gguf_files import MODEL, Gguf, Raw, Tensor

from aiplayground.errors import ErrorCode, InvalidModelFile
from aiplayground.gguf import GgufError, GgufReason, _cursor, read_gguf

HUGE = (2**60, 2**63, 2**64 - 1)


def refuse(path: Path, reason: str, *words: str) -> GgufError:
    with pytest.raises(GgufError) as caught:
        read_gguf(path)
    error = caught.value
    assert error.reason == reason, error.message
    for word in words:
        assert word in error.message
    return error


def refuse_bytes(tmp_path: Path, data: bytes, reason: str, *words: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    refuse(path, reason, "model.gguf", *words)


def test_the_error_is_one_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "absent.gguf"
    error = refuse(path, "missing", "absent.gguf does not exist", "download")
    assert isinstance(error, InvalidModelFile)
    assert error.path == path
    assert error.to_dict() == {
        "code": ErrorCode.FILE_OPERATION,
        "message": error.message,
        "details": {"path": str(path), "reason": "missing"},
    }


@pytest.mark.parametrize("name", ["a\0b.gguf", "x" * 5000])
def test_impossible_paths(tmp_path: Path, name: str) -> None:
    with pytest.raises(GgufError) as caught:
        read_gguf(tmp_path / name)
    assert caught.value.reason in (GgufReason.MISSING, GgufReason.UNREADABLE)


def test_a_path_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    refuse(tmp_path / "file" / "x.gguf", "missing")


def test_a_folder(tmp_path: Path) -> None:
    refuse(tmp_path, "not_a_file", "folder")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe.gguf"
    os.mkfifo(path)
    refuse(path, "not_a_file")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Gguf().write(tmp_path / "secret.gguf")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)
    refuse(path, "unreadable", "Permission denied", "permissions")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b"GG", "b'GG'"),
        (b"<html><body>404", "error page"),
        (b"<!DOCTYPE html>", "error page"),
        (b'{"error":"gated"}', "error message"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"tjgg\3\0\0\0", "before GGUF"),
        (b"PK\3\4rest", "archive"),
        (bytes(1000), "never finished"),
        (b"\x89PNG\r\n", "download a GGUF file"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, data: bytes, words: str) -> None:
    refuse_bytes(tmp_path, data, "not_gguf", "not a GGUF file", words)


@pytest.mark.parametrize(
    ("version", "words"),
    [(0, "version 0"), (1, "no longer supported"), (4, "Update"), (3 << 24, "big-endian")],
)
def test_other_versions(tmp_path: Path, version: int, words: str) -> None:
    data = Gguf(version=version).to_bytes()
    refuse_bytes(tmp_path, data, "unsupported_version", words)


def test_every_truncation_of_a_file_is_found(tmp_path: Path) -> None:
    metadata = {**MODEL, "tokens": gg.array(gg.STRING, ["ab"] * 1500), "n": gg.array(gg.U8, [1])}
    data = Gguf(metadata).to_bytes()
    path = tmp_path / "cut.gguf"
    for length in [*range(4, 60), *range(60, len(data), 97), *range(len(data) - 150, len(data))]:
        path.write_bytes(data[:length])
        refuse(path, "truncated", "cut.gguf", "download it again")


def test_a_truncation_in_the_weights_gives_both_sizes(tmp_path: Path) -> None:
    data = Gguf(tensors=(Tensor("a", (1000,)),)).to_bytes()
    needed = len(data) - 4000 % 32 if 4000 % 32 else len(data)
    refuse_bytes(tmp_path, data[:-1000], "truncated", f"has {len(data) - 1000}", f"needs {needed}")


def test_a_file_that_shrinks_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Gguf().write(tmp_path / "shrinking.gguf")
    whole = os.stat_result((*path.stat()[:6], 10_000, *path.stat()[7:10]))
    monkeypatch.setattr(_cursor, "WINDOW", 16)
    monkeypatch.setattr(os, "fstat", lambda _: whole)
    path.write_bytes(path.read_bytes()[:40])
    refuse(path, "truncated", "shorter")


@pytest.mark.parametrize("count", HUGE)
def test_huge_counts(tmp_path: Path, count: int) -> None:
    for data in (
        Gguf(pairs=count % 2**64).to_bytes(),
        Gguf(tensor_count=count).to_bytes(),
        Gguf([("x", gg.array(gg.U8, [], length=count))]).to_bytes(),
        Gguf([("x", gg.array(gg.STRING, [], length=count))]).to_bytes(),
        Gguf([("x", Raw(gg.ARRAY, gg.u32(gg.ARRAY) + gg.u64(count)))]).to_bytes(),
        Gguf([("x", Raw(gg.STRING, gg.u64(count)))]).to_bytes(),
        b"GGUF" + gg.u32(3) + gg.u64(0) + gg.u64(1) + gg.u64(count) + bytes(100),
    ):
        refuse_bytes(tmp_path, data, "corrupt", "claims", str(count))


@pytest.mark.parametrize("count", [2**20, 2**30])
def test_counts_that_are_possible_but_not_in_this_file(tmp_path: Path, count: int) -> None:
    for type_id in (gg.U8, gg.STRING, gg.F64, gg.ARRAY):
        value = Raw(gg.ARRAY, gg.u32(type_id) + gg.u64(count))
        refuse_bytes(tmp_path, Gguf([("x", value)]).to_bytes(), "truncated")


@pytest.mark.parametrize("length", [2**20, 2**62, 2**63, 2**64 - 1])
def test_a_huge_string_inside_a_vocabulary(tmp_path: Path, length: int) -> None:
    body = gg.text("a") * 2000 + gg.u64(length)
    value = Raw(gg.ARRAY, gg.u32(gg.STRING) + gg.u64(2002) + body)
    refuse_bytes(tmp_path, Gguf([("x", value)]).to_bytes(), "truncated")


def nest(depth: int) -> Raw:
    return Raw(gg.ARRAY, (gg.u32(gg.ARRAY) + gg.u64(1)) * depth + gg.array(gg.U8, [1]).data)


def test_deep_nesting(tmp_path: Path) -> None:
    read_gguf(Gguf([("x", nest(3))]).write(tmp_path / "three.gguf"))
    for depth in (4, 5000):
        refuse_bytes(tmp_path, Gguf([("x", nest(depth))]).to_bytes(), "corrupt", "nests")


def test_very_many_nested_arrays(tmp_path: Path) -> None:
    empty = gg.array(gg.U8, []).data
    value = Raw(gg.ARRAY, gg.u32(gg.ARRAY) + gg.u64(70_000) + empty * 70_000)
    refuse_bytes(tmp_path, Gguf([("x", value)]).to_bytes(), "corrupt", "nests")


def test_a_header_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cursor, "MAX_READ", 1 << 20)
    value = gg.array(gg.STRING, ["x"] * 200_000)
    refuse_bytes(tmp_path, Gguf([("x", value)]).to_bytes(), "corrupt", "header")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ([("x", Raw(13, b""))], "unknown type 13"),
        ([("x", Raw(2**32 - 1, b""))], "unknown type"),
        ([("x", Raw(gg.ARRAY, gg.u32(77) + gg.u64(1)))], "unknown type 77"),
        ([("x", Raw(gg.BOOL, b"\2"))], "truth value"),
        ([("x", gg.array(gg.BOOL, [0, 255]))], "truth value"),
        ([("x", 1), ("y", 2), ("x", 3)], "'x' occurs twice"),
        ([("", 1)], "key is empty"),
        ([(b"\xff\xfe", 1)], "not text"),
        ([("general.alignment", gg.scalar(gg.U64, 32))], "uint64, not a uint32"),
        ([("general.alignment", "32")], "string, not a uint32"),
        ([("general.alignment", gg.array(gg.U32, [32]))], "array, not a uint32"),
        ([("general.alignment", Raw(99, b""))], "type 99, not a uint32"),
        ([("general.alignment", 0)], "power of two"),
        ([("general.alignment", 4)], "power of two"),
        ([("general.alignment", 48)], "power of two"),
        ([("general.alignment", 2**32 - 1)], "power of two"),
    ],
)
def test_corrupt_metadata(
    tmp_path: Path, metadata: list[tuple[str | bytes, object]], words: str
) -> None:
    refuse_bytes(tmp_path, Gguf(metadata).to_bytes(), "corrupt", words)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ([Tensor("a", (4, 0), size=0)], "impossible shape"),
        ([Tensor("a", (0,), size=0)], "impossible shape"),
        ([Tensor("a", (2**63,), size=0)], "impossible shape"),
        ([Tensor("a", (2**32, 2**32), size=0)], "impossible shape"),
        ([Tensor("a", (2**16,) * 4, size=0)], "impossible shape"),
        ([Tensor("a", (2**62,), size=0)], "impossible size"),
        ([Tensor("a", (1,) * 5)], "5 dimensions"),
        ([Tensor("a", (33,), type_id=8)], "no multiple of Q8_0's 32"),
        ([Tensor("a", (), type_id=8, size=0)], "no multiple"),
        ([Tensor("a"), Tensor("a")], "'a' occurs twice"),
        ([Tensor("")], "name is empty"),
        ([Tensor(b"\xff")], "not text"),
        ([Tensor("n" * 256)], "claims 256 bytes for a tensor name"),
        ([Tensor("a", offset=16)], "misaligned"),
        ([Tensor("a", offset=2**64 - 32)], "offset"),
        ([Tensor("a", offset=2**63)], "offset"),
        ([Tensor("a", offset=2**63 - 32)], "impossible size"),
        ([Tensor("a", (16,)), Tensor("b", offset=32)], "'a' and 'b' overlap"),
        ([Tensor("a", offset=32), Tensor("b", (16,), offset=0)], "'b' and 'a' overlap"),
        ([Tensor("a"), Tensor("b", offset=0)], "overlap"),
        ([Tensor("a", type_id=999), Tensor("b", offset=0)], "overlap"),
    ],
)
def test_corrupt_tensors(tmp_path: Path, tensors: list[Tensor], words: str) -> None:
    refuse_bytes(tmp_path, Gguf(tensors=tensors).to_bytes(), "corrupt", words)


@pytest.mark.parametrize("type_id", [0, 999])
def test_a_tensor_that_starts_after_the_file(tmp_path: Path, type_id: int) -> None:
    tensor = Tensor("a", offset=2**40, type_id=type_id)
    refuse_bytes(tmp_path, Gguf(tensors=[tensor]).to_bytes(), "truncated", "needs 1099511")


def test_too_many_dimensions_are_not_read(tmp_path: Path) -> None:
    data = Gguf(tensor_count=1, tensors=()).header()
    data += gg.text("a") + struct.pack("<I", 2**32 - 1) + bytes(64)
    refuse_bytes(tmp_path, data, "corrupt", "4294967295 dimensions")
