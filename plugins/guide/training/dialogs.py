"""From ``questions.toml`` to training dialogs: expand, vary, tokenize.

Everything random comes from a :class:`random.Random` that the caller seeds.
"""

import random
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from tokenizers import Tokenizer

from .variation import Synonyms, invent_word, vary

QUESTIONS = Path(__file__).with_name("questions.toml")

IGNORED = -100
"""Label of tokens that carry no loss; the default ``ignore_index`` of PyTorch's cross entropy."""

OPENING = 7
"""Tokens of an answer after which it is clear which one it is."""

OTHER_WORDS = 0.4
"""Share of the phrasings in which words of the same meaning are exchanged."""

DRILLS = 0.85
"""Share of the examples that are drills: one question and the opening of its answer."""

PLAIN = 0.05
"""Share of the questions that are the plain one of a topic, each topic as likely as another."""

POOL = 400
"""Dialogs that are drawn and sorted at a time."""

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a helpful, respectful and honest assistant.",
    "You are the guide of AI Playground.",
    "You are an assistant. Answer briefly.",
    "Answer in one sentence.",
    "Be brief and friendly.",
    "You are a pirate.",
    "You are a coding assistant. Think step by step.",
    "Always answer in plain English and never make anything up.",
)
_SLOT = re.compile(r"\{(\w+)\}")
UNKNOWN = "unknown"
"""A slot that no table fills: an invented word stands for all those that the guide never met."""


@dataclass(frozen=True)
class Topic:
    """One true answer and the phrasings that ask for it; ``{word}`` slots are not expanded."""

    id: str
    answer: str
    ask: tuple[str, ...]


@dataclass(frozen=True)
class Questions:
    """The parsed ``questions.toml``."""

    words: dict[str, list[str]]
    topics: tuple[Topic, ...]
    same: Synonyms

    def expand(self, phrasing: str, rng: random.Random) -> str:
        """Fill each ``{word}`` slot with a random entry of the words table; now and then put
        another word of the same meaning for one of the phrasing's own."""
        if rng.random() < OTHER_WORDS:
            phrasing = self.same.replace(phrasing, rng)
        return _SLOT.sub(lambda slot: self._word(slot[1], rng), phrasing)

    def _word(self, slot: str, rng: random.Random) -> str:
        return invent_word(rng) if slot == UNKNOWN else rng.choice(self.words[slot])

    def plain(self) -> Iterator[tuple[str, str]]:
        """Each phrasing as it stands (slots take their first word) with its answer."""
        first = {word: choices[0] for word, choices in self.words.items()} | {UNKNOWN: "Zorblax"}
        for topic in self.topics:
            for phrasing in topic.ask:
                yield phrasing.format_map(first), topic.answer


def load(path: Path = QUESTIONS) -> Questions:
    """Read and check the questions.

    Raises:
        ValueError: a topic is empty, named twice, or uses a slot that ``[words]`` lacks.
    """
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    topics = tuple(Topic(t["id"], t["answer"], tuple(t["ask"])) for t in data["topic"])
    words: dict[str, list[str]] = data["words"]
    if len({topic.id for topic in topics}) != len(topics):
        raise ValueError(f"{path}: two topics have the same id")
    for topic in topics:
        unknown = (
            {slot for ask in topic.ask for slot in _SLOT.findall(ask)} - words.keys() - {UNKNOWN}
        )
        if unknown or not topic.ask or not topic.answer.isascii():
            raise ValueError(f"{path}: topic {topic.id!r}: empty, not ASCII, or unknown {unknown}")
    return Questions(words, topics, Synonyms(data["same"]))


def split(questions: Questions, every: int) -> tuple[Questions, Questions]:
    """Set aside one of ``every`` phrasings of each topic, never its first, for validation."""
    train = [
        Topic(t.id, t.answer, tuple(a for i, a in enumerate(t.ask, 1) if i % every))
        for t in questions.topics
    ]
    held = [Topic(t.id, t.answer, t.ask[every - 1 :: every]) for t in questions.topics]
    return replace(questions, topics=tuple(train)), replace(questions, topics=tuple(held))


class DialogEncoder:
    """Turn dialogs into token ids and labels in the format of the chat template."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def cut(self, text: str, rng: random.Random) -> list[int]:
        """Token ids of ``text``, some words split in unusual places: a guard against typos."""
        cuts = sorted(rng.sample(range(1, len(text)), min(len(text) - 1, rng.randint(1, 3))))
        bounds = [0, *cuts, len(text)]
        return [token for start, end in pairwise(bounds) for token in self.encode(text[start:end])]

    def prompt(self, question: str) -> list[int]:
        """One user message and the opening of the reply."""
        return self.encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")

    def turn(
        self, question: list[int], answer: str, opening: int | None = None
    ) -> tuple[list[int], list[int]]:
        """One question and its answer: ids, and labels that count the answer alone.

        ``opening`` cuts the answer short after so many tokens.
        """
        asked = [
            *self.encode("<|im_start|>user\n"),
            *question,
            *self.encode("<|im_end|>\n<|im_start|>assistant\n"),
        ]
        reply = self.encode(f"{answer}<|im_end|>")[:opening]
        tail = self.encode("\n")
        labels = [IGNORED] * len(asked) + reply + [IGNORED] * len(tail)
        return asked + reply + tail, labels

    def system(self, text: str) -> tuple[list[int], list[int]]:
        """A system message: ids, and labels without loss."""
        ids = self.encode(f"<|im_start|>system\n{text}<|im_end|>\n")
        return ids, [IGNORED] * len(ids)


class DialogSampler:
    """An endless supply of varied dialogs."""

    def __init__(self, questions: Questions, encoder: DialogEncoder, rng: random.Random) -> None:
        self._questions = questions
        self._encoder = encoder
        self._rng = rng
        # Each phrasing is as likely as another: what has many is wide (off-topic above all).
        self._weights = [len(topic.ask) for topic in questions.topics]

    def question(self) -> tuple[str, Topic]:
        """A varied question and the topic that it belongs to."""
        rng = self._rng
        if rng.random() < PLAIN:
            topic = rng.choice(self._questions.topics)
            return topic.ask[0], topic
        topic = rng.choices(self._questions.topics, self._weights)[0]
        return vary(self._questions.expand(rng.choice(topic.ask), rng), rng), topic

    def dialog(self, turns: int, opening: int | None = None) -> tuple[list[int], list[int]]:
        """Token ids and labels of a dialog; now and then with a system prompt."""
        ids: list[int] = []
        labels: list[int] = []
        rng = self._rng
        if rng.random() < 0.2:
            ids, labels = self._encoder.system(rng.choice(SYSTEM_PROMPTS))
        for _ in range(turns):
            text, topic = self.question()
            cut = len(text) > 4 and rng.random() < 0.25
            tokens = self._encoder.cut(text, rng) if cut else self._encoder.encode(text)
            more_ids, more_labels = self._encoder.turn(tokens, topic.answer, opening)
            ids += more_ids
            labels += more_labels
        return ids, labels

    def _example(self) -> tuple[list[int], list[int]]:
        # Mostly drills, the opening of an answer alone: which answer it is shows in its first
        # words, the rest is soon known by heart and would only cost time.
        if self._rng.random() < DRILLS:
            return self.dialog(1, OPENING)
        return self.dialog(self._rng.choices((1, 2, 3, 4), (50, 25, 13, 12))[0])

    def batches(self, tokens: int) -> Iterator[tuple[list[list[int]], list[list[int]]]]:
        """Batches of at most ``tokens`` tokens, padding included, without end.

        Dialogs of like length share a batch, so that little of it is padding.
        """
        while True:
            pool = sorted((self._example() for _ in range(POOL)), key=lambda e: len(e[0]))
            batches: list[list[tuple[list[int], list[int]]]] = [[]]
            for example in pool:
                if (len(batches[-1]) + 1) * len(example[0]) > tokens:
                    batches.append([])
                batches[-1].append(example)
            self._rng.shuffle(batches)
            for batch in batches:
                yield [ids for ids, _ in batch], [labels for _, labels in batch]
