"""Chat templates: from messages to the text that the model was trained on.

A template comes out of a model file, that is, from strangers: it runs in Jinja's sandbox, with a
time limit and limits on what it can build. Source of the names that a template may use: the
`apply_chat_template` of Hugging Face's transformers.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from aiplayground.errors import InvalidParameters
from aiplayground.serving.toolcalls import detect

from .deadline import Deadline, DeadlineExceeded

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_STOP = "<|im_end|>"

MAX_PROMPT = 64 * 1024 * 1024
"""Characters that a template may produce; requests are limited to less."""

MAX_BITS = 4096
"""Of a number that a template may compute."""


class _Refused(TemplateError):
    """What a template says when it calls `raise_exception`."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which a product or power cannot fill the memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _check_size(operator, left, right)
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """The block `{% generation %}`, which marks for trainers what the assistant wrote."""

    tags = {"generation"}  # noqa: RUF012  # declared like this by Jinja

    def parse(self, parser: Parser) -> list[Node]:
        """Return what stands in the block, as if there were none."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled template. Raises `InvalidParameters` if the source is no valid Jinja."""

    def __init__(self, source: str, *, bos: str, eos: str, timeout: float) -> None:
        self.dialect = detect(source)
        self._names = {"bos_token": bos, "eos_token": eos}
        self._timeout = timeout
        self.source = source
        try:
            self._template = _environment().from_string(source)
        except (TemplateError, RecursionError) as error:
            raise _unusable(error) from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the prompt, which ends where the assistant's answer begins.

        `variables` are for the template alone, such as `enable_thinking`. Blocks, for the time
        limit at most. Raises `InvalidParameters` with what the template says about these messages.
        """
        names: dict[str, Any] = {**self._names, "messages": messages, "tools": tools or None}
        names["add_generation_prompt"] = True
        check_variables(variables or {}, names)
        try:
            with Deadline(self._timeout):
                return self._render_with({**(variables or {}), **names})
        except DeadlineExceeded as error:
            raise InvalidParameters(
                f"The model's chat template took longer than {self._timeout:g} seconds. "
                "Send fewer messages, or use another model."
            ) from error
        except _Refused as error:
            raise InvalidParameters(f"The model's chat template says: {error}") from error
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise _unusable(error) from error
        except (AttributeError, RecursionError, MemoryError) as error:
            raise _unusable(error) from error

    def _render_with(self, names: Mapping[str, Any]) -> str:
        try:
            return self._render(names)
        except TypeError:
            if names["tools"] is not None:
                raise
            # Some go through the tools without asking whether there are any.
            return self._render({**names, "tools": []})

    def _render(self, names: Mapping[str, Any]) -> str:
        pieces: list[str] = []
        size = 0
        for piece in self._template.generate(names):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_PROMPT:
                raise OverflowError("it produces too much text")
        return "".join(pieces)


def check_variables(variables: Mapping[str, Any], taken: Collection[str]) -> None:
    """Refuse variables that would replace what a template is given anyway."""
    for name in variables:
        if name in taken:
            raise InvalidParameters(
                f"'chat_template_kwargs' cannot set '{name}': the request itself says it.",
                details={"field": f"chat_template_kwargs.{name}"},
            )


def _environment() -> ImmutableSandboxedEnvironment:
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _unusable(error: BaseException) -> InvalidParameters:
    what = str(error) or type(error).__name__
    return InvalidParameters(
        f"The model's chat template cannot format this conversation: {what}. "
        "Check the order of the roles, or use another model."
    )


def _raise(message: object) -> None:
    raise _Refused(str(message))


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


def _to_json(
    value: Any,
    indent: int | None = None,
    ensure_ascii: bool = False,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML, which is not what models were trained on.
    return json.dumps(
        value,
        indent=indent,
        ensure_ascii=ensure_ascii,
        separators=separators,
        sort_keys=sort_keys,
        default=list,  # what filters such as `map` return
    )


def _check_size(sign: str, left: Any, right: Any) -> None:
    for value, count in ((left, right), (right, left)):
        repeats = isinstance(value, str | list | tuple) and isinstance(count, int)
        if sign == "*" and repeats and operator.length_hint(value) * count > MAX_PROMPT:
            raise OverflowError("it multiplies a text too often")
    numbers = isinstance(left, int) and isinstance(right, int)
    if sign == "**" and numbers and left.bit_length() * right > MAX_BITS:
        raise OverflowError("it computes too large a power")
