"""The guide: what ships, what it knows to the letter, how it generalizes, what it never saw."""

from __future__ import annotations

import json
import random
import re
import string
import tomllib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aiplayground.gguf import read_gguf
from aiplayground_guide import plugin

if TYPE_CHECKING:
    from llama_cpp import Llama

HERE = Path(__file__).parent
HELD_OUT = HERE / "held_out.jsonl"
TRAINING = HERE.parent / "training"
LEAST_SHARE = 0.8
"""Share of the held-out questions that must be answered right."""
LATEST = 86
"""Questions at the end of the file that nothing was ever tuned on."""
LEAST_SHARE_LATEST = 0.8
"""Share of those that must be answered right."""
LEAST_SHARE_LATER = 0.85
"""Share of plain questions that must be answered to the letter later in a conversation."""

_SLOT = re.compile(r"\{(\w+)\}")
_INVENTED = (
    r"(?:(?:[bcdfghjklmnprstvwz]|[bcfgp][lr]|[dt]r|s[ht]|th)(?:ai|ea|ee|ia|ou|[aeiou])){1,3}"
    r"(?:ck|nd|st|[nrslmt])?"
)
"""What ``training/variation.py`` invents."""
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Topic:
    """One topic: its plain question, its answer, and a pattern for each phrasing."""

    id: str
    plain: str
    answer: str
    patterns: tuple[re.Pattern[str], ...]

    def asks(self, question: str) -> bool:
        """Whether ``question`` is one of the phrasings, case and punctuation aside."""
        asked = canonical(question)
        return any(pattern.fullmatch(asked) for pattern in self.patterns)


def normal(text: str) -> str:
    """Lower case, without punctuation, single spaces."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())


DATA = tomllib.loads((TRAINING / "questions.toml").read_text(encoding="utf-8"))
FIRST = {normal(word): normal(group[0]) for group in DATA["same"] for word in group}
"""Words that training exchanges for each other, and the one that stands for them here."""
_EXCHANGED = re.compile(rf"\b(?:{'|'.join(sorted(FIRST, key=len, reverse=True))})\b")


@cache
def canonical(text: str) -> str:
    """``normal``, with one word for all those that mean the same."""
    return _EXCHANGED.sub(lambda found: FIRST[found[0]], normal(text))


def load_topics() -> list[Topic]:
    """Read ``questions.toml``."""
    words: dict[str, list[str]] = DATA["words"]
    return [
        Topic(
            topic["id"],
            topic["ask"][0],
            topic["answer"],
            tuple(_pattern(ask, words) for ask in topic["ask"]),
        )
        for topic in DATA["topic"]
    ]


def _pattern(ask: str, words: dict[str, list[str]]) -> re.Pattern[str]:
    """Match each expansion of a phrasing; ``{unknown}`` is any invented word."""
    parts = _SLOT.split(ask)
    texts = [re.escape(canonical(part)) for part in parts[::2]]
    slots = [
        "|".join(re.escape(canonical(word)) for word in words[slot]) if slot in words else _INVENTED
        for slot in parts[1::2]
    ]
    pattern = texts[0]
    for slot, text in zip(slots, texts[1:], strict=True):
        pattern += rf"\s*(?:{slot})\s*{text}"
    return re.compile(pattern)


@dataclass(frozen=True)
class HeldOut:
    """A question that the guide was not trained on, and what its right answer contains."""

    question: str
    contains: tuple[str, ...]


def held_out() -> list[HeldOut]:
    rows = map(json.loads, HELD_OUT.read_text(encoding="utf-8").splitlines())
    return [HeldOut(row["question"], tuple(row["contains"])) for row in rows]


TOPICS = load_topics()
HELD = held_out()


def test_hook_names_the_file() -> None:
    (path,) = plugin.model_files()
    assert path.stem == "guide"
    assert path.is_file()


def test_file_is_small() -> None:
    assert plugin.GUIDE.stat().st_size < 2_000_000
    assert read_gguf(plugin.GUIDE).parameters < 1_000_000


def test_at_least_thirty_distinct_held_out_questions() -> None:
    assert len({normal(row.question) for row in HELD}) == len(HELD) >= 30


def test_no_held_out_question_is_trained_on() -> None:
    known = [row.question for row in HELD if any(t.asks(row.question) for t in TOPICS)]
    assert known == []


def test_phrasings_are_recognized() -> None:
    # Guards the test above: a matcher that knows nothing would let everything pass.
    by_id = {topic.id: topic for topic in TOPICS}
    assert all(topic.asks(topic.plain) for topic in TOPICS)
    assert by_id["list-models"].asks("SHOW ME HOW TO list all language models!")
    assert by_id["chats-rm"].asks("erase discussion"), "words of the same meaning"
    assert not by_id["list-models"].asks("how do I list the plugins?")


def test_training_does_not_read_the_held_out_questions() -> None:
    sources = [path.read_text(encoding="utf-8") for path in TRAINING.glob("*.py")]
    assert sources
    assert not [text for text in sources if re.search(r"held_out|jsonl|\btests\b/", text)]


def test_answers_are_short_and_plain() -> None:
    for topic in TOPICS:
        assert topic.answer.isascii()
        assert len(topic.answer) <= 180
        assert topic.answer.count("`") % 2 == 0


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    llama_cpp = pytest.importorskip("llama_cpp", exc_type=ImportError)
    with closing(
        llama_cpp.Llama(str(plugin.GUIDE), n_ctx=1024, n_threads=1, verbose=False)
    ) as model:
        yield model


def chat(llama: Llama, *messages: str, system: str | None = None) -> str:
    """Greedy answer to the last of ``messages``, which alternate between user and assistant."""
    roles = ("user", "assistant")
    dialog: list[Any] = [{"role": "system", "content": system}] if system else []
    dialog += [{"role": roles[i % 2], "content": text} for i, text in enumerate(messages)]
    reply: Any = llama.create_chat_completion(dialog, temperature=0.0, max_tokens=120)
    choice = reply["choices"][0]
    assert choice["finish_reason"] == "stop"
    text = choice["message"]["content"]
    assert isinstance(text, str)
    return text


@pytest.mark.engine
@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.id)
def test_plain_question_is_answered_to_the_letter(llama: Llama, topic: Topic) -> None:
    assert chat(llama, topic.plain) == topic.answer


@pytest.mark.engine
@pytest.mark.parametrize(
    ("held", "least"),
    [(HELD, LEAST_SHARE), (HELD[-LATEST:], LEAST_SHARE_LATEST)],
    ids=["all", "latest"],
)
def test_held_out_questions(llama: Llama, held: list[HeldOut], least: float) -> None:
    answers = {row.question: chat(llama, row.question) for row in held}
    wrong = {
        row.question: answers[row.question]
        for row in held
        if not all(part in answers[row.question] for part in row.contains)
    }
    share = 1 - len(wrong) / len(held)
    listing = "\n".join(f"  {question} -> {answer}" for question, answer in wrong.items())
    assert share >= least, f"{share:.0%} of {len(held)} right; wrong:\n{listing}"


@pytest.mark.engine
@pytest.mark.parametrize("turns", [2, 4])
def test_last_of_several_turns(llama: Llama, turns: int) -> None:
    rng = random.Random(turns)
    dialogs = [rng.choices(TOPICS, k=turns) for _ in range(60)]
    wrong = []
    for dialog in dialogs:
        *before, last = dialog
        said = [text for topic in before for text in (topic.plain, topic.answer)]
        if chat(llama, *said, last.plain) != last.answer:
            wrong.append([topic.id for topic in dialog])
    # A bare "Thanks" after a long answer is what it mistakes most.
    assert len(wrong) <= (1 - LEAST_SHARE_LATER) * len(dialogs), wrong


@pytest.mark.engine
@pytest.mark.parametrize("system", ["You are a helpful assistant.", "Be brief and friendly."])
@pytest.mark.parametrize("asked", ["about", "chat", "list-models", "off-topic"])
def test_system_prompt_does_no_harm(llama: Llama, system: str, asked: str) -> None:
    topic = next(topic for topic in TOPICS if topic.id == asked)
    assert chat(llama, topic.plain, system=system) == topic.answer


@pytest.mark.engine
def test_metadata(llama: Llama) -> None:
    data = llama.metadata
    assert data["general.name"] == "AI Playground Guide"
    assert data["general.license"] == "apache-2.0"
    assert data["general.architecture"] == "llama"
    assert "<|im_start|>" in data["tokenizer.chat_template"]
    assert data["llama.context_length"] == "1024"
