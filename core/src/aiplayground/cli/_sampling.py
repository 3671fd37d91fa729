"""The options of a chat that say how tokens are chosen, and the request that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from aiplayground.types import ChatRequest

Function = TypeVar("Function", bound=Callable[..., Any])
Range = click.IntRange | click.FloatRange

# The ranges are those of `types.Sampling`, which a test compares: a wrong value is then refused
# before anything is started, and without importing pydantic.
OPTIONS: dict[str, tuple[Range, str]] = {
    "max_tokens": (click.IntRange(min=1), "Length of the answer at most, in tokens."),
    "temperature": (click.FloatRange(0, 5), "0 always takes the likeliest token; 1 varies more."),
    "top_p": (click.FloatRange(0, 1), "Choose among the likeliest tokens of this total."),
    "top_k": (click.IntRange(min=0), "Choose among this many likeliest tokens."),
    "min_p": (click.FloatRange(0, 1), "Leave out tokens less likely than this share of the best."),
    "repeat_penalty": (
        click.FloatRange(0, 10, min_open=True),
        "Above 1: make repetition less likely.",
    ),
    "seed": (click.IntRange(0, 2**32 - 1), "The same seed gives the same answer again."),
}


def sampling_options(function: Function) -> Function:
    """Give a command the options of `OPTIONS`, and `--stop`; they arrive as `sampling`."""
    function = click.option(
        "--stop", multiple=True, metavar="TEXT", help="End before this text; may be repeated."
    )(function)
    for name, (kind, text) in reversed(OPTIONS.items()):
        option = click.option(
            f"--{name.replace('_', '-')}", type=kind, metavar=_metavar(kind), help=text
        )
        function = option(function)
    return function


def _metavar(kind: Range) -> str:
    return "N" if isinstance(kind, click.IntRange) else "X"


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sampling options that were given."""
    found = {name: options[name] for name in OPTIONS if options[name] is not None}
    return {**found, "stop": list(options["stop"])} if options["stop"] else found


def chat_request(
    model: str, messages: Sequence[Mapping[str, Any]], sampling: Mapping[str, Any]
) -> ChatRequest:
    """Make a request. Raises `InvalidParameters` for what the options could not check.

    Bytes of the command line that are no text in its encoding are replaced.
    """
    from aiplayground.conversations._prompting import well_formed
    from aiplayground.types import ChatRequest
    from aiplayground.validation import parse

    sent = [{**each, "content": well_formed(each["content"])} for each in messages]
    return parse(ChatRequest, {"model": model, "messages": sent, **sampling})
