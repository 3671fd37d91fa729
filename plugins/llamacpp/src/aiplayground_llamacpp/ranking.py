"""From a query and a document to the tokens that a model ranks by.

Source of the two forms: `format_prompt_rerank` of llama.cpp's server. A model's own form is text
with `{query}` and `{document}` in it, which its file has under `tokenizer.chat_template.rerank`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from aiplayground.errors import InvalidParameters

from .native import Model
from .prompt import (
    Tokenizer,
    check_length,
    control_texts_in,
    marked_tokens,
    marks_for,
    with_marks,
)

TEMPLATE_KEY = "tokenizer.chat_template.rerank"
_FIELDS = re.compile(r"\{(query|document)\}")


class Frame(NamedTuple):
    """The tokens around a query and a document, for models without a form of their own."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]


def frame_of(model: Model) -> Frame:
    """Return what the tokenizer puts around a pair of texts: BOS query EOS SEP document EOS."""
    lib, vocab = model.lib, model.vocab
    sep = int(lib.llama_vocab_sep(vocab))
    eos = int(lib.llama_vocab_eos(vocab))

    def token(wanted: bool, number: int) -> tuple[int, ...]:
        # An id out of range would be refused with the whole batch.
        return (number,) if wanted and 0 <= number < model.vocabulary else ()

    end = token(lib.llama_vocab_get_add_eos(vocab), sep if eos < 0 else eos)
    return Frame(
        before=token(lib.llama_vocab_get_add_bos(vocab), int(lib.llama_vocab_bos(vocab))),
        between=end + token(lib.llama_vocab_get_add_sep(vocab), sep),
        after=end,
    )


def pair_tokens(
    tokenizer: Tokenizer,
    form: str | Frame,
    query: str,
    documents: Sequence[str],
    limit: int,
) -> list[list[int]]:
    """Return the tokens of each document with the query.

    Raises `InvalidParameters` where one of the pairs has more than `limit` tokens.
    """
    check_length(len(query.encode()), limit)
    pairs = []
    for index, document in enumerate(documents):
        check_length(len(document.encode()), limit)
        tokens = _pair(tokenizer, form, query, document)
        if not 0 < len(tokens) <= limit:
            raise InvalidParameters(
                f"'documents[{index}]' and the query have {len(tokens)} tokens together; this "
                f"model takes 1 to {limit}. Divide the document.",
                details={"field": f"documents[{index}]", "tokens": len(tokens), "limit": limit},
            )
        pairs.append(tokens)
    return pairs


def _pair(tokenizer: Tokenizer, form: str | Frame, query: str, document: str) -> list[int]:
    if isinstance(form, Frame):
        first, second = (
            tokenizer.tokenize(text, add_special=False, parse_special=False)
            for text in (query, document)
        )
        return [*form.before, *first, *form.between, *second, *form.after]
    # The text of a control token that somebody wrote stays text.
    marks = marks_for(control_texts_in([query, document], tokenizer.control_texts))
    if marks:
        query, document = with_marks([query, document], marks)
    texts = {"query": query, "document": document}
    filled = _FIELDS.sub(lambda field: texts[field[1]], form)
    parts = re.split(f"({'|'.join(marks.values())})", filled) if marks else [filled]
    return marked_tokens(tokenizer, parts, marks)
