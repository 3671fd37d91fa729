"""The guide's tokenizer: byte-level BPE, trained on the questions and answers themselves."""

import random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from .dialogs import Questions
from .variation import vary

END_OF_TEXT, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, START_OF_TURN, END_OF_TURN)

PRE_TOKENIZER = "qwen2"
"""``tokenizer.ggml.pre``: llama.cpp and OpenVINO GenAI both know this one, and split alike."""

_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML, in Jinja: what ``dialogs.DialogEncoder`` writes."""


def train_tokenizer(questions: Questions, vocab: int, rng: random.Random) -> Tokenizer:
    """Learn ``vocab`` tokens, the 256 bytes and the special tokens among them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    texts = [topic.answer for topic in questions.topics] * 4
    texts += ["system\nuser\nassistant\n"] * 50
    for topic in questions.topics:
        for phrasing in topic.ask:
            texts += [questions.expand(phrasing, rng).lower() for _ in range(3)]
            texts.append(vary(questions.expand(phrasing, rng), rng))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
