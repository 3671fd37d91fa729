"""One exception hierarchy, with the error codes that every door answers with.

The codes are those of the API reference ("Common Error Codes"). A message says what happened and
what to do next; `details` carries the machine-readable rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from enum import IntEnum, StrEnum
from typing import Any, ClassVar


class ErrorCode(IntEnum):
    """The codes of the API reference; every error of ours has exactly one."""

    SUCCESS = 0
    GENERIC = -1
    MODEL_NOT_FOUND = -2
    SERVICE_NOT_AVAILABLE = -3
    INVALID_PARAMETERS = -4
    FILE_OPERATION = -5


class FailureClass(StrEnum):
    """Why an engine did not start or went away, as far as it can be told from outside."""

    BAD_MODEL = "bad-model"
    CRASH = "crash"
    EXIT = "exit"
    HUNG = "hung"
    MISSING_FILE = "missing-file"
    MISSING_LIBRARY = "missing-library"
    NOT_INSTALLED = "not-installed"
    OUT_OF_MEMORY = "out-of-memory"
    PLUGIN = "plugin"
    PORT_TAKEN = "port-taken"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"


class AIPlaygroundError(Exception):
    """Base of everything that the kernel raises on purpose.

    `message` is one or two sentences for a person; `details` holds JSON-serialisable context.
    """

    code: ClassVar[ErrorCode] = ErrorCode.GENERIC

    def __init__(self, message: str, *, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details or {}

    def to_dict(self) -> dict[str, Any]:
        """Return the documented error body: `code`, `message`, `details`."""
        return {"code": int(self.code), "message": self.message, "details": self.details}


class NotEnoughMemory(AIPlaygroundError):
    """A model does not fit into what is free; `details` has the figures and what to change."""


class InvalidTransition(AIPlaygroundError):
    """A state machine was asked for an edge that it does not have: a defect of the caller."""


class PluginError(AIPlaygroundError):
    """A plugin broke the contract of a hook, or raised something that is no error of ours."""


class ModelNotFound(AIPlaygroundError):
    """No backend serves a model of this name."""

    code = ErrorCode.MODEL_NOT_FOUND


class ServiceNotAvailable(AIPlaygroundError):
    """The service is absent, not set up, stopping, or went away under the request."""

    code = ErrorCode.SERVICE_NOT_AVAILABLE


class ServiceFailed(ServiceNotAvailable):
    """An engine failed to start, crashed or hung; `failure` is the class of the cause."""

    def __init__(
        self,
        message: str,
        *,
        failure: FailureClass,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, details={**(details or {}), "failure": failure.value})
        self.failure = failure


class InvalidParameters(AIPlaygroundError):
    """The request is not one that the method, hook or backend accepts."""

    code = ErrorCode.INVALID_PARAMETERS


class InvalidSettings(InvalidParameters):
    """A settings file, variable or argument is wrong; the message names where it stands."""


class FileOperationError(AIPlaygroundError):
    """A file cannot be read, written or found."""

    code = ErrorCode.FILE_OPERATION


class InvalidModelFile(FileOperationError):
    """A model file is missing, damaged or of a kind that the engine cannot read."""


CLOSE = 0.6
"""How much alike two words must be for one to be suggested; `difflib`'s own default."""

CLOSE_START = 0.8
"""The same for a word and the beginning of a longer one."""

PART = 0.95
"""What a match with a beginning is worth: a whole word that matches as well is meant rather."""


def suggest(word: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the closest known word, or an empty string."""
    likeness, best = max(((_likeness(word, each), each) for each in known), default=(0.0, ""))
    return f" Did you mean '{best}'?" if likeness >= CLOSE else ""


def _likeness(word: str, known: str) -> float:
    """Say how much alike two words are, 0 to 1, whatever their case.

    Somebody may have typed the beginning of a long name alone.
    """
    word, known = word.casefold(), known.casefold()
    whole = SequenceMatcher(None, word, known).ratio()
    start = SequenceMatcher(None, word, known[: len(word)]).ratio()
    return max(whole, start * PART) if len(word) > 2 and start >= CLOSE_START else whole


def from_dict(body: dict[str, Any]) -> AIPlaygroundError:
    """Rebuild an error from its documented body, as the other end of a connection sent it."""
    details = body.get("details")
    details = dict(details) if isinstance(details, dict) else {}
    message = str(body.get("message") or "The backend reported an error without a message.")
    failure = details.pop("failure", None)
    if failure in FailureClass._value2member_map_:
        return ServiceFailed(message, failure=FailureClass(failure), details=details)
    by_code: dict[Any, type[AIPlaygroundError]] = {
        kind.code: kind
        for kind in (ModelNotFound, ServiceNotAvailable, InvalidParameters, FileOperationError)
    }
    return by_code.get(body.get("code"), AIPlaygroundError)(message, details=details)
