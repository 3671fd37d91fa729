"""From a conversation to tokens, with the user's text unable to speak for the template."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from aiplayground.errors import InvalidParameters
from aiplayground.serving.describe import told
from aiplayground.serving.tools import arguments_of

from .arguments import Arguments
from .pictures import Gallery, Picture
from .sight import Image, Reading, Words

if TYPE_CHECKING:
    from aiplayground.types import ChatRequest, Message

    from .template import ChatTemplate

# What the texts of control tokens contain; without any of it the vocabulary is not searched.
_HINTS = ("<", "[", "|", "\uff5c", "\u2581")

BYTES_PER_TOKEN = 64
"""No text has so many bytes a token on average: a longer one is refused unread, since some
tokenizers take very long, or all of the stack, for very long texts."""


class Tokenizer(Protocol):
    """What is needed of a model here; `native.Model` has it."""

    @property
    def bos_text(self) -> str:
        """The text of the token that begins a sequence."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Turn text into tokens."""

    def control_texts(self) -> tuple[str, ...]:
        """Return the texts of all control tokens."""


class Eyes(Protocol):
    """What lets a model see; `sight.Sight` has it."""

    def read(self, parts: Sequence[Words | Picture], *, add_special: bool) -> Reading:
        """Turn a prompt into tokens and images."""


class Prompt(NamedTuple):
    """What the model continues, as tokens and as the text that the template made."""

    tokens: list[int]
    text: str
    images: tuple[Image, ...] = ()


def flatten(messages: Sequence[Message], gallery: Gallery | None = None) -> list[dict[str, Any]]:
    """Return messages as templates want them: content as one text, no empty fields.

    In the places of images stand the marks of `gallery`; without one there can be none. Raises
    `InvalidParameters` for content that is neither, and for an image that cannot be taken.
    """
    return [_flatten(index, message, gallery) for index, message in enumerate(messages)]


def _flatten(index: int, message: Message, gallery: Gallery | None) -> dict[str, Any]:
    fields = message.model_dump(exclude_none=True)
    # OpenAI's newer name; the templates know the older one.
    fields["role"] = "system" if message.role == "developer" else message.role
    if message.content is None and not message.tool_calls:
        raise InvalidParameters(
            f"'messages[{index}].content' is missing.",
            details={"field": f"messages[{index}].content"},
        )
    content = message.content or ""
    fields["content"] = content if isinstance(content, str) else _join(index, content, gallery)
    if message.tool_calls:
        fields["tool_calls"] = [_readable(call) for call in message.tool_calls]
    return fields


def _readable(call: Mapping[str, Any]) -> dict[str, Any]:
    arguments = arguments_of(call)
    if isinstance(arguments, dict):
        arguments = Arguments(arguments)
    return {**call, "function": {**call["function"], "arguments": arguments}}


def _join(index: int, parts: Sequence[Mapping[str, Any]], gallery: Gallery | None) -> str:
    """Join texts as llama-server does: by a line break, but for a text that follows an image."""
    joined, beside_text = "", False
    for number, part in enumerate(parts):
        piece = _text_of(part, f"messages[{index}].content[{number}]", gallery)
        is_text = part.get("type") == "text"
        joined += "\n" + piece if is_text and beside_text and joined else piece
        beside_text = is_text
    return joined


def _text_of(part: Mapping[str, Any], field: str, gallery: Gallery | None) -> str:
    kind, text = part.get("type"), part.get("text")
    if kind == "text" and isinstance(text, str):
        return text
    if kind != "image_url":
        raise InvalidParameters(
            f"'{field}' is neither text nor an image; nothing else is supported by this engine.",
            details={"field": field},
        )
    if gallery is None:
        raise InvalidParameters(
            f"'{field}' is an image, and this model cannot see: it was loaded without a "
            "projector. Put its mmproj file beside it, or name it in the setting "
            "models.<name>.projector, and load the model again.",
            details={"field": field},
        )
    return gallery.add(part, field)


def chat_prompt(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    request: ChatRequest,
    limit: int,
    eyes: Eyes | None = None,
) -> Prompt:
    """Return the prompt of a conversation; `limit` is the context's size in tokens.

    A control token's text that a user or tool wrote stays text: the template sees a mark in its
    place, as it does in the place of an image.
    """
    gallery = Gallery() if eyes is not None else None
    flat = flatten(request.messages, gallery)
    check_length(sum(len(fields["content"]) for fields in flat), limit)
    tools: list[dict[str, Any]] = request.tools or []
    if _has_tools(flat, tools) and not template.dialect.tools_in_template:
        flat, tools = told(flat, tools, template.dialect), []
    found = control_texts_in([flat, tools], tokenizer.control_texts)
    marks = marks_for(found)
    if found:
        flat, tools = with_marks([flat, tools], marks)
    pictures = gallery.pictures if gallery is not None else {}
    rendered = _render(template, flat, tools, request, pictures)
    if eyes is not None and pictures:
        return _see(eyes, tokenizer, rendered, marks, pictures, limit)
    if not found:
        return Prompt(text_tokens(tokenizer, rendered, limit), rendered)
    return Prompt(_tokenize_marked(tokenizer, rendered, marks, limit), rendered)


def _render(
    template: ChatTemplate,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    request: ChatRequest,
    pictures: Collection[str],
) -> str:
    rendered = template.render(messages, tools, request.chat_template_kwargs)
    if all(mark in rendered for mark in pictures):
        return rendered
    # Some templates of models that see pass over content which is not a list of parts.
    listed = [
        {**fields, "content": [{"type": "text", "text": fields["content"]}]} for fields in messages
    ]
    rendered = template.render(listed, tools, request.chat_template_kwargs)
    if all(mark in rendered for mark in pictures):
        return rendered
    raise InvalidParameters(
        "The model's chat template leaves out the image. Send it in a message of the user, or set "
        "another chat_template.",
        details={"field": "messages"},
    )


def _see(
    eyes: Eyes,
    tokenizer: Tokenizer,
    rendered: str,
    marks: Mapping[str, str],
    pictures: Mapping[str, Picture],
    limit: int,
) -> Prompt:
    check_length(len(rendered.encode()), limit)
    texts = {mark: text for text, mark in marks.items()}
    pieces = filter(None, re.split(f"({'|'.join([*texts, *pictures])})", rendered))
    parts = [
        pictures.get(piece) or Words(texts.get(piece, piece), control=piece not in texts)
        for piece in pieces
    ]
    tokens, images = eyes.read(parts, add_special=not _begins_itself(tokenizer, rendered))
    if images and images[-1].end == len(tokens):
        raise ends_with_image()
    return Prompt(tokens, rendered, images)


def ends_with_image() -> InvalidParameters:
    """Say that there is nothing behind an image."""
    return InvalidParameters(
        "The prompt ends with an image, behind which the model has nothing to continue. Set "
        "another chat_template.",
        details={"field": "messages"},
    )


def _has_tools(messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> bool:
    return bool(tools) or any(message.get("tool_calls") for message in messages)


def text_tokens(tokenizer: Tokenizer, text: str, limit: int) -> list[int]:
    """Return the tokens of a prompt in which control tokens count."""
    check_length(len(text.encode()), limit)
    return _start(tokenizer, text)


def input_tokens(tokenizer: Tokenizer, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Return the tokens of texts for embeddings, in which control tokens are text."""
    found = []
    for index, text in enumerate(texts):
        check_length(len(text.encode()), limit)
        tokens = tokenizer.tokenize(text, add_special=True, parse_special=False)
        if not 0 < len(tokens) <= limit:
            raise InvalidParameters(
                f"'input[{index}]' has {len(tokens)} tokens; this model takes 1 to {limit}.",
                details={"field": f"input[{index}]", "tokens": len(tokens), "limit": limit},
            )
        found.append(tokens)
    return found


def check_length(size: int, limit: int) -> None:
    """Refuse a prompt of so many bytes that no context of `limit` tokens can hold it."""
    if size > max(limit, 1) * BYTES_PER_TOKEN:
        raise too_long(size // BYTES_PER_TOKEN, limit, at_least=True)


def too_long(tokens: int, limit: int, *, at_least: bool = False) -> InvalidParameters:
    """Say that a prompt does not fit; both numbers are in tokens."""
    return InvalidParameters(
        f"The prompt has {'more than ' if at_least else ''}{tokens} tokens and the context holds "
        f"{limit}, answer included. Shorten it, or set a larger context_size.",
        details={"tokens": tokens, "limit": limit},
    )


def _start(tokenizer: Tokenizer, text: str) -> list[int]:
    written = _begins_itself(tokenizer, text)
    return tokenizer.tokenize(text, add_special=not written, parse_special=True)


def _begins_itself(tokenizer: Tokenizer, text: str) -> bool:
    # Many templates write the first token themselves; two of it make answers worse.
    return bool(tokenizer.bos_text) and text.startswith(tokenizer.bos_text)


def marks_for(texts: Iterable[str]) -> dict[str, str]:
    """Return a mark for each text that nobody can have written."""
    return {text: f"x{secrets.token_hex(8)}x" for text in texts}


def control_texts_in(value: Any, control_texts: Callable[[], Sequence[str]]) -> list[str]:
    """Return the texts of control tokens that occur within a JSON value, the longest first."""
    content = "\n".join(_texts(value))
    if not any(hint in content for hint in _HINTS):
        return []
    found = [text for text in control_texts() if text in content]
    return sorted(found, key=len, reverse=True)


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts within a JSON value, the names of fields too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def with_marks(value: Any, marks: Mapping[str, str]) -> Any:
    """Return a JSON value in all texts of which the marks stand for the control tokens."""
    pattern = re.compile("|".join(map(re.escape, marks)))

    def replace(value: Any) -> Any:
        if isinstance(value, str):
            return pattern.sub(lambda match: marks[match.group()], value)
        if isinstance(value, dict):
            # Of its own kind: `Arguments` stay what they are.
            return type(value)({replace(name): replace(each) for name, each in value.items()})
        return [replace(each) for each in value] if isinstance(value, list) else value

    return replace(value)


def _tokenize_marked(
    tokenizer: Tokenizer, rendered: str, marks: Mapping[str, str], limit: int
) -> list[int]:
    check_length(len(rendered.encode()), limit)
    first, *rest = re.split(f"({'|'.join(marks.values())})", rendered)
    return _start(tokenizer, first) + marked_tokens(tokenizer, rest, marks)


def marked_tokens(
    tokenizer: Tokenizer, parts: Iterable[str], marks: Mapping[str, str]
) -> list[int]:
    """Return the tokens of parts, of which marks stand for control tokens that are just text."""
    texts = {mark: text for text, mark in marks.items()}
    tokens: list[int] = []
    for part in filter(None, parts):
        tokens += tokenizer.tokenize(
            texts.get(part, part), add_special=False, parse_special=part not in texts
        )
    return tokens
