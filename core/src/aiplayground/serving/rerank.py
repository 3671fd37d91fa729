"""`POST /v1/rerank`: from its body to a request, from scores to its answer. Pure functions.

Source of the shapes: Jina AI's reranker API and Cohere's, which agree on these fields. OpenAI has
nothing of the kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from aiplayground.errors import InvalidParameters
from aiplayground.types import RerankRequest, Scores

from .wire import parse_object, validate


class RerankCall(NamedTuple):
    """A request to rank; `return_documents`: the answer repeats the documents."""

    request: RerankRequest
    return_documents: bool


def parse_rerank(body: bytes) -> RerankCall:
    """Read the body. Raises `InvalidParameters` naming the field that is wrong."""
    given = parse_object(body)
    fields = {name: value for name, value in given.items() if value is not None}
    wanted = fields.pop("return_documents", False)
    if not isinstance(wanted, bool):
        raise _wrong("return_documents", "must be true or false")
    for name in ("kind", "user"):
        fields.pop(name, None)
    if not isinstance(fields.get("model"), str):
        raise _wrong("model", "must be a text: the name of the model that ranks")
    documents = fields.get("documents")
    if isinstance(documents, list):
        fields["documents"] = [_text_of(index, each) for index, each in enumerate(documents)]
    return RerankCall(validate(RerankRequest, fields), wanted)


def rank_list(call: RerankCall, answer: Scores) -> dict[str, Any]:
    """Return the body of the answer: the best documents first, ties in the order given."""
    request, scores = call.request, answer.scores
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    results: list[dict[str, Any]] = []
    for index in order[: request.top_n]:
        result: dict[str, Any] = {"index": index, "relevance_score": scores[index]}
        if call.return_documents:
            result["document"] = {"text": request.documents[index]}
        results.append(result)
    count = answer.usage.prompt_tokens
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"model": answer.model, "object": "list", "usage": usage, "results": results}


def _text_of(index: int, document: Any) -> Any:
    """Return a document's text; one may be an object with nothing but that."""
    if not isinstance(document, Mapping):
        return document
    if set(document) != {"text"}:
        raise _wrong(f"documents[{index}]", "must be a text, or an object with 'text' alone")
    return document["text"]


def _wrong(field: str, what: str) -> InvalidParameters:
    return InvalidParameters(f"'{field}' {what}.", details={"field": field})
