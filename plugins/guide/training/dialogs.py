"""From ``questions.toml`` to training dialogs: expand, vary, tokenize.

Everything random comes from a :class:`random.Random` that the caller seeds.
"""

import random
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tokenizers import Tokenizer

QUESTIONS = Path(__file__).with_name("questions.toml")

IGNORED = -100
"""Label of tokens that carry no loss; the default ``ignore_index`` of PyTorch's cross entropy."""

OPENING = 9
"""Tokens of an answer after which it is clear which one it is."""

POOL = 400
"""Dialogs that are drawn and sorted at a time."""

LONG = 5
"""Words above which a question is still understood with one that the guide never met."""

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
OPENINGS = (
    "please ", "hi, ", "hey, ", "hello, ", "ok, ", "so ", "and ", "but ", "excuse me, ", "well, ",
    "quick question: ", "I have a question: ", "question: ", "sorry, ", "now ", "one more thing: ",
    "can you tell me ", "could you tell me ", "do you know ", "tell me ", "I wonder: ",
    "I want to know ", "just curious, ", "thanks. ", "great. ", "hi guide! ",
)  # fmt: skip
CLOSINGS = (
    " please", " please", " here", " now", " exactly", " for me", " again", " then", " with aipg",
    " in AI Playground", " in this program", " on my computer", " thanks", ", can you tell me",
)  # fmt: skip
SHORT_FORMS = (
    ("what is", "what's"), ("where is", "where's"), ("how is", "how's"), ("who is", "who's"),
    ("I am", "I'm"), ("it is", "it's"), ("do not", "don't"), ("does not", "doesn't"),
    ("I have", "I've"), ("I would", "I'd"), ("can not", "can't"), ("is not", "isn't"),
    ("how do I", "how do you"), ("how can I", "how can we"), ("do I", "do we"), ("you", "u"),
    ("please", "pls"), ("what is", "what s"), ("what is", "wat is"), ("Which", "What"),
)  # fmt: skip
FILLERS = frozenset(
    re.findall(
        r"\w+",
        "a an the do does is are i my me to can of it that this there in on for you so please one "
        "would could should want like need tell way at and some any have has",
    )
)
_SLOT = re.compile(r"\{(\w+)\}")
UNKNOWN = "unknown"
"""A slot that no table fills: an invented word stands for all those that the guide never met."""

ONSETS: tuple[str, ...] = (
    *"bcdfghjklmnprstvwz",
    "br",
    "bl",
    "cr",
    "dr",
    "fl",
    "gr",
    "pl",
    "sh",
    "st",
    "th",
    "tr",
)
NUCLEI: tuple[str, ...] = (*"aeiou", "ai", "ea", "ee", "ou", "ia")
CODAS: tuple[str, ...] = ("", "", "", *"nrslmt", "ck", "nd", "st")


def invent_word(rng: random.Random) -> str:
    """A pronounceable word that means nothing, such as ``blonika``."""
    parts = (rng.choice(ONSETS) + rng.choice(NUCLEI) for _ in range(rng.randint(1, 3)))
    word = "".join(parts) + rng.choice(CODAS)
    return word.capitalize() if rng.random() < 0.4 else word


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

    def expand(self, phrasing: str, rng: random.Random) -> str:
        """Fill each ``{word}`` slot with a random entry of the words table."""
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
    return Questions(words, topics)


def split(questions: Questions, every: int) -> tuple[Questions, Questions]:
    """Set aside one of ``every`` phrasings of each topic, never its first, for validation."""
    train = [
        Topic(t.id, t.answer, tuple(a for i, a in enumerate(t.ask, 1) if i % every))
        for t in questions.topics
    ]
    held = [Topic(t.id, t.answer, t.ask[every - 1 :: every]) for t in questions.topics]
    return Questions(questions.words, tuple(train)), Questions(questions.words, tuple(held))


def _typo(text: str, rng: random.Random) -> str:
    places = [i for i in range(1, len(text) - 1) if text[i - 1 : i + 2].isalpha()]
    if not places:
        return text
    i = rng.choice(places)
    return rng.choice(
        (
            text[:i] + text[i + 1 :],
            text[:i] + text[i] + text[i:],
            text[:i] + text[i + 1] + text[i] + text[i + 2 :],
            text[:i] + rng.choice("abcdefghijklmnopqrstuvwxyz") + text[i + 1 :],
        )
    )


def _drop_fillers(text: str, rng: random.Random, share: float) -> str:
    words = text.split(" ")
    kept = [word for word in words if word.lower() not in FILLERS or rng.random() > share]
    return " ".join(kept if len(kept) > 1 else words)


def _swap_words(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    i = rng.randrange(len(words) - 1)
    words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)


def _strange_word(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    words[rng.randrange(len(words))] = invent_word(rng)
    return " ".join(words)


def _recase(text: str, rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.45:
        return text.lower()
    if roll < 0.85:
        return text[:1].upper() + text[1:]
    return text.upper() if roll > 0.97 else text


def vary(text: str, rng: random.Random) -> str:
    """Say the same thing as another person might: politeness, short forms, typos, case."""
    if rng.random() < 0.2:
        return text
    long_enough = len(text.split()) > 2
    body = text.rstrip("?!.")
    if rng.random() < 0.4:
        body = re.sub(*rng.choice(SHORT_FORMS), body, flags=re.IGNORECASE)
    if long_enough and rng.random() < 0.25:
        body = _drop_fillers(body, rng, rng.choice((0.2, 0.5, 0.9)))
    if long_enough and rng.random() < 0.05:
        body = _swap_words(body, rng)
    if len(body.split()) > LONG and rng.random() < 0.25:
        body = _strange_word(body, rng)
    if long_enough and rng.random() < 0.2:
        body = rng.choice(OPENINGS) + body
    if long_enough and rng.random() < 0.12:
        body += rng.choice(CLOSINGS)
    if rng.random() < 0.12:
        body = _typo(body, rng)
    ending = rng.choices(("?", "", ".", "!", "??", " ?"), (50, 38, 5, 3, 2, 2))[0]
    return _recase(body, rng) + ending


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
        if self._rng.random() < 0.75:
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
