"""Scores of documents: llama-server puts query and document together, to the same tokens.

Source: "POST /reranking" in `tools/server/README.md` of llama.cpp.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from aiplayground.types import RerankRequest
from aiplayground_llamacpp.prompt import control_texts_in
from aiplayground_llamacpp.ranking import Frame, pair_tokens

from .client import Client, Tokenizer
from .texts import broken_up

_PLACES = ("{query}", "{document}")


class Pairs(NamedTuple):
    """What to send, and how many tokens each document has with the query."""

    query: str
    documents: Sequence[str]
    lengths: list[int]


def make_pairs(
    tokenizer: Tokenizer, form: str | Frame, request: RerankRequest, limit: int
) -> Pairs:
    """Return the texts to rank, and their lengths; blocks.

    In a form of the model's own all control tokens count, also those that somebody wrote, and its
    places are filled one after the other: such texts are broken up. Raises `InvalidParameters`
    for a pair of more than `limit` tokens.
    """
    query, documents = request.query, request.documents
    tokenizer = tokenizer.with_texts((query, *documents))
    if not isinstance(form, Frame):
        found = [*control_texts_in([query, *documents], tokenizer.control_texts), *_PLACES]
        query, *documents = (broken_up(text, found) for text in (query, *documents))
        tokenizer = tokenizer.with_texts(())
    tokens = pair_tokens(tokenizer, form, query, documents, limit)
    return Pairs(query, documents, [len(pair) for pair in tokens])


async def frame_of(client: Client, tokenizer: Tokenizer) -> Frame:
    """Return as many tokens as llama-server puts around the texts; which ones does not matter."""
    _, total = await client.rerank("x", ["x"])
    text = await asyncio.to_thread(tokenizer.tokenize, "x", add_special=False, parse_special=False)
    return Frame((0,) * (total - 2 * len(text)), (), ())
