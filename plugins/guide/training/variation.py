"""To say the same thing as other people might: other words, politeness, haste, typos, case.

Everything random comes from a :class:`random.Random` that the caller seeds.
"""

import random
import re
from collections.abc import Sequence

LONG = 5
"""Words above which a question is still understood with one that the guide never met."""

OPENINGS = (
    "please ", "hi, ", "hey, ", "hello, ", "ok, ", "so ", "and ", "but ", "excuse me, ", "well, ",
    "quick question: ", "I have a question: ", "question: ", "sorry, ", "now ", "one more thing: ",
    "can you tell me ", "could you tell me ", "do you know ", "tell me ", "I wonder: ",
    "I want to know ", "just curious, ", "thanks. ", "great. ", "hi guide! ",
    "sorry for the stupid question, ", "I am new to this. ", "I have been searching for an hour: ",
    "I hope you can help: ", "my question is ", "let's see, ", "just wondering, ", "wondering ",
    "does anybody know ", "can somebody tell me ", "would you mind telling me ", "hmm, ", "ok so ",
    "I would like to know ", "I can't figure out ", "help! ", "another question: ", "um, ",
    "I was asked ", "we were wondering ", "since I am a beginner: ", "right, ", "say, ", "um so ",
    "not sure if you know, ", "I looked everywhere: ", "my boss asks: ", "tell me please, ",
    "I forgot ", "what I want to know is ", "the thing is, ",
)  # fmt: skip
CLOSINGS = (
    " please", " please", " here", " now", " exactly", " for me", " again", " then", " with aipg",
    " in AI Playground", " in this program", " on my computer", " thanks", ", can you tell me",
    ", any idea", ", any ideas", " if possible", " thx", " pls help", ", how", " or not", " anyone",
    ", I can't find it", " on my machine", " for work", ", is that possible", " at all", " asap",
    ", by the way", " in the end", ", I wonder", ", do you know", " or what", ", sorry", " today",
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
SMALL_WORDS = FILLERS | frozenset(
    re.findall(
        r"\w+",
        "how what which who where when why if be am was were will did or but with from by as at me "
        "we us our your its these those them they then than get got use using make let tell show",
    )
)
"""What a search for keywords leaves out."""

_COMMAND = re.compile(r"aipg [a-z]|make [a-z]+\?|--|/\w")
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


class Synonyms:
    """Groups of words and turns of phrase that can stand for each other."""

    def __init__(self, groups: Sequence[Sequence[str]]) -> None:
        self._others = {
            word: [other for other in group if other != word] for group in groups for word in group
        }
        longest_first = sorted(self._others, key=len, reverse=True)
        alternatives = "|".join(map(re.escape, longest_first))
        self._pattern = re.compile(rf"(?<![\w{{./-])(?:{alternatives})(?![\w}}./-])")

    def replace(self, text: str, rng: random.Random) -> str:
        """Exchange about half of the words that have others; commands stay as they are."""
        if _COMMAND.search(text):
            return text
        return self._pattern.sub(
            lambda found: rng.choice(self._others[found[0]]) if rng.random() < 0.5 else found[0],
            text,
        )


def _keywords(text: str, rng: random.Random) -> str:
    """What is typed into a search box: the words that matter, in about any order."""
    words = [word for word in text.split(" ") if word.lower().strip(",:") not in SMALL_WORDS]
    if rng.random() < 0.4:
        rng.shuffle(words)
    return " ".join(words) if len(words) > 2 else text


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
    i = rng.randrange(len(words))
    words[i : i + rng.randint(0, 1)] = [invent_word(rng)]
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
    if rng.random() < 0.15:
        return text
    body = text.rstrip("?!.")
    if rng.random() < 0.4:
        body = re.sub(*rng.choice(SHORT_FORMS), body, flags=re.IGNORECASE)
    if len(text.split()) > 2:
        body = _reword(body, rng)
    for _ in range(1 + len(body) // 40):
        if rng.random() < 0.13:
            body = _typo(body, rng)
    ending = rng.choices(("?", "", ".", "!", "??", " ?"), (45, 43, 5, 3, 2, 2))[0]
    return _recase(body, rng) + ending


def _reword(body: str, rng: random.Random) -> str:
    if rng.random() < 0.08:
        return _keywords(body, rng)
    if rng.random() < 0.25:
        body = _drop_fillers(body, rng, rng.choice((0.2, 0.5, 0.9)))
    if rng.random() < 0.05:
        body = _swap_words(body, rng)
    if len(body.split()) > LONG and rng.random() < 0.25:
        body = _strange_word(body, rng)
    if rng.random() < 0.22:
        body = rng.choice(OPENINGS) + body
    if rng.random() < 0.15:
        body += rng.choice(CLOSINGS)
    return body
