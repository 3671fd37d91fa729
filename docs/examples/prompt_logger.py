"""Middleware that logs each prompt and a summary of its answer, with secrets taken out.

A plugin as it stands: name this module in the entry point group `aiplayground.plugins`. It logs to
the logger `aiplayground.prompts`; with `PROMPT_LOG=FILE` in the environment, to that file.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from aiplayground.hookspecs import hookimpl
from aiplayground.middleware import Middleware, Proceed, RequestCall

AIPG_HOOK_API = 1

LIMIT = 2000
"""Characters of a prompt or an answer that are kept at most."""

SECRETS: Mapping[str, re.Pattern[str]] = {
    "e-mail": re.compile(r"[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+"),
    "key": re.compile(r"\b(?:sk|pk|ghp|gho|hf|xox[abp]|AKIA)[-_A-Za-z0-9]{12,}"),
    "token": re.compile(r"(?i)\bbearer\s+[-._~+/A-Za-z0-9]{8,}=*"),
}
"""What is replaced by its name in brackets; no pattern can take long on any text."""


@hookimpl
def register_middleware() -> Sequence[Middleware]:
    """Bring the logger, writing to a file if `PROMPT_LOG` names one."""
    logger = logging.getLogger("aiplayground.prompts")
    if "PROMPT_LOG" in os.environ:
        logger = logging.Logger("prompts", logging.INFO)  # a logger of our own, for this kernel
        logger.addHandler(AppendingHandler(Path(os.environ["PROMPT_LOG"])))
    return [PromptLogger(logger)]


class PromptLogger(Middleware):
    """Logs a line before each request and one after it, however it ends."""

    def __init__(
        self, logger: logging.Logger, secrets: Mapping[str, re.Pattern[str]] = SECRETS
    ) -> None:
        self._logger = logger
        self._secrets = secrets

    async def request(self, call: RequestCall, proceed: Proceed) -> AsyncIterator[Any]:
        """Log the prompt, pass the answer on, log how it ended."""
        where = f"{call.service} {call.hook} {call.request.model}"
        self._logger.info("%s prompt: %r", where, self.redact(prompt_of(call.request)))
        answer, ended = Kept(), "given up by the caller"
        try:
            async with aclosing(proceed(call.request)) as items:
                async for item in items:
                    answer.add(item)
                    yield item
            ended = answer.finish_reason or "complete"
        except Exception as error:
            ended = f"failed: {self.redact(str(error))}"
            raise
        finally:
            # Closing the answer or cancelling its reader ends up here as well.
            text = self.redact(answer.text)
            self._logger.info("%s answer (%d tokens, %s): %r", where, answer.tokens, ended, text)

    def redact(self, text: str) -> str:
        """Shorten a text and replace what is secret by the name of its kind."""
        if len(text) > LIMIT:
            # At a word's end: half a secret would not be recognised.
            text = text[:LIMIT].rpartition(" ")[0] + " …"
        for name, pattern in self._secrets.items():
            text = pattern.sub(f"[{name}]", text)
        return text


class Kept:
    """The beginning of an answer; a secret may come in pieces, so it is redacted as a whole."""

    def __init__(self) -> None:
        self.text = ""
        self.tokens = 0
        self.finish_reason: str | None = None

    def add(self, item: Any) -> None:
        """Keep what one item says. Items are `ChatChunk`, `GenerateEvent` or `Embeddings`."""
        if len(self.text) <= LIMIT:
            self.text += getattr(item, "text", "")
        self.finish_reason = getattr(item, "finish_reason", None) or self.finish_reason
        usage = getattr(item, "usage", None)
        self.tokens += usage.total_tokens if usage is not None else 0


def prompt_of(request: Any) -> str:
    """Return what a request asks: the last message, the prompt, or the texts."""
    if hasattr(request, "messages"):
        content = request.messages[-1].content
        parts = content if isinstance(content, list) else [{"text": content or ""}]
        return " ".join(str(part.get("text", "")) for part in parts)
    given = getattr(request, "prompt", None) or getattr(request, "input", None)
    return " ".join(given) if isinstance(given, list) else given or ""


class AppendingHandler(logging.Handler):
    """Adds a line to a file that is open no longer than that takes."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a full disk is reported as logging reports it, and stops no answer."""
        try:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(self.format(record) + "\n")
        except OSError:
            self.handleError(record)
