"""The table of routes: what answers a path, and what it asks for."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiplayground.errors import InvalidParameters, suggest

from .access import Access
from .errors import Dialect

Handler: TypeAlias = "Callable[..., Awaitable[None]]"

_PARAMETER = re.compile(r"\{(\w+)(:path)?\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path. `{name}` in the path is a part of it, `{name:path}` its rest.

    `body` is the JSON schema of the request's body, `answer` what a success is: both are for the
    OpenAPI document.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    access: Access = Access.OPEN
    dialect: Dialect = "plain"
    body: Mapping[str, Any] | None = None
    answer: str = "application/json"
    query: tuple[str, ...] = field(default=())

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it."""
        return self.path.replace(":path}", "}")


Match: TypeAlias = "tuple[Endpoint, dict[str, str]]"


class Table:
    """Finds the endpoint for a method and a path."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self._exact: dict[str, dict[str, Endpoint]] = {}
        self._patterns: list[tuple[re.Pattern[str], Endpoint]] = []
        for each in self.endpoints:
            if "{" in each.path:
                self._patterns.append((_compiled(each.path), each))
            else:
                self._exact.setdefault(each.path, {})[each.method] = each

    def knows(self, path: str) -> bool:
        """Whether anything answers at a path."""
        return path in self._exact or any(each.fullmatch(path) for each, _ in self._patterns)

    def dialect(self, path: str) -> Dialect:
        """Return whose clients ask at a path, also where nothing answers."""
        found = next(iter(self._exact.get(path, {}).values()), None)
        if found is not None:
            return found.dialect
        return "openai" if path.startswith("/v1/") else "plain"

    def find(self, method: str, path: str) -> Match:
        """Return the endpoint and its parameters.

        Raises `InvalidParameters` whose reason is `not-found` or `method`.
        """
        method = "GET" if method == "HEAD" else method
        there = self._exact.get(path, {})
        if method in there:
            return there[method], {}
        allowed = list(there)
        for pattern, endpoint in self._patterns:
            if (match := pattern.fullmatch(path)) is not None:
                if endpoint.method == method:
                    return endpoint, match.groupdict()
                allowed.append(endpoint.method)
        if allowed:
            raise InvalidParameters(
                f"{path} answers {', '.join(allowed)}, not {method}.",
                details={"reason": "method", "allowed": allowed},
            )
        raise InvalidParameters(
            f"There is nothing at {path}.{suggest(path, self._exact)} /openapi.json lists what "
            f"there is.",
            details={"reason": "not-found"},
        )


def _compiled(path: str) -> re.Pattern[str]:
    parts, place = [], 0
    for match in _PARAMETER.finditer(path):
        parts.append(re.escape(path[place : match.start()]))
        parts.append(f"(?P<{match[1]}>{'.+' if match[2] else '[^/]+'})")
        place = match.end()
    return re.compile("".join([*parts, re.escape(path[place:])]))
