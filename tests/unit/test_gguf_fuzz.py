"""Whatever the bytes, the reader returns or raises GgufError, and stays small."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import gguf_files as gg
from tests.gguf_files import MODEL, Gguf, Tensor

from aiplayground.gguf import GgufError, GgufReason, read_gguf

MUTATIONS = 2_000
MEMORY = 16 << 20  # bytes
METADATA = {
    **MODEL,
    "general.alignment": 32,
    "general.file_type": 7,
    "tokenizer.ggml.tokens": gg.array(gg.STRING, [f"t{number}" for number in range(1100)]),
    "tokenizer.ggml.scores": gg.array(gg.F32, [0.0] * 1100),
    "tokenizer.ggml.add_bos": True,
    "tokenizer.chat_template": "{{ messages }}",
    "tags": gg.array(gg.STRING, ["a", "b"]),
    "nested": gg.Raw(gg.ARRAY, gg.u32(gg.ARRAY) + gg.u64(1) + gg.array(gg.U8, [1]).data),
}
SOUND = Gguf(METADATA, (Tensor("a", (64,), 8, size=68), Tensor("b"), Tensor("c", (5,)))).to_bytes()
INTERESTING = (0, 1, 2**31, 2**32 - 1, 2**60, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def mutate(random_: random.Random) -> bytes:
    data = bytearray(SOUND)
    for _ in range(random_.randint(1, 4)):
        # Most of this file is vocabulary; the first bytes and the last hold what decides.
        start = random_.choice((0, 0, len(data) - 400))
        at = max(0, random_.randrange(start, start + 400) if len(data) > 800 else 0)
        match random_.randrange(6):
            case 0:
                data[at : at + 1] = bytes([random_.randrange(256)])
            case 1:
                data[at : at + 1] = bytes([data[at] ^ (1 << random_.randrange(8))])
            case 2:
                data[at : at + 8] = random_.choice(INTERESTING).to_bytes(8, "little")
            case 3:
                data[at:at] = random_.randbytes(random_.randint(1, 16))
            case 4:
                del data[at : at + random_.randint(1, 16)]
            case _:
                del data[random_.randrange(len(data) // 2, len(data)) :]
    return bytes(data)


def outcome(path: Path) -> str:
    try:
        read_gguf(path)
    except GgufError as error:
        return error.reason.value
    return "sound"


def test_mutated_files_are_read_or_refused_in_bounded_memory(tmp_path: Path) -> None:
    random_ = random.Random(20_240_817)
    path = tmp_path / "mutant.gguf"
    path.write_bytes(SOUND)
    assert outcome(path) == "sound"
    seen: dict[str, int] = {}
    tracemalloc.start()
    try:
        for _ in range(MUTATIONS):
            path.write_bytes(mutate(random_))
            result = outcome(path)
            seen[result] = seen.get(result, 0) + 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY
    # The mutations are worth something only if they reach every kind of refusal, and no other.
    assert set(seen) == {
        "sound",
        GgufReason.NOT_GGUF,
        GgufReason.UNSUPPORTED_VERSION,
        GgufReason.TRUNCATED,
        GgufReason.CORRUPT,
    }
    assert min(seen.values()) >= 5


def test_a_huge_vocabulary_is_passed_over_in_bounded_memory(tmp_path: Path) -> None:
    tokens = gg.array(gg.STRING, [f"token {number}" for number in range(300_000)])
    path = Gguf({**MODEL, "tokens": tokens, "after": 1}).write(tmp_path / "big.gguf")
    del tokens
    tracemalloc.start()
    try:
        file = read_gguf(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert file.integer("after") == 1
    assert peak < 2 << 20


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "random.gguf"


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(tail=st.binary(max_size=400), tensors=st.integers(0, 3), pairs=st.integers(0, 3))
def test_random_bytes_after_a_sound_start(
    scratch: Path, tail: bytes, tensors: int, pairs: int
) -> None:
    scratch.write_bytes(b"GGUF" + gg.u32(3) + gg.u64(tensors) + gg.u64(pairs) + tail)
    assert outcome(scratch) in {"sound", "truncated", "corrupt"}


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.one_of(st.booleans(), st.integers(0, 2**32 - 1), TEXTS)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    metadata=st.dictionaries(TEXTS.filter(lambda key: key not in ("", "general.alignment")), VALUES)
)
def test_what_is_written_is_what_is_read(scratch: Path, metadata: dict[str, object]) -> None:
    Gguf(metadata).write(scratch)
    assert dict(read_gguf(scratch).metadata) == metadata
