"""The OpenAPI document, made from the table of endpoints. Source: OpenAPI 3.1.0."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .access import Access
from .version import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .table import Endpoint

_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {
        "code": {"type": "integer", "enum": [-1, -2, -3, -4, -5]},
        "message": {"type": "string"},
        "details": {"type": "object"},
    },
    "required": ["code", "message", "details"],
}
_SCHEMES: dict[str, Any] = {"token": {"type": "http", "scheme": "bearer"}}


def document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        paths.setdefault(each.template, {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {"title": "AI Playground", "version": API_VERSION},
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR}, "securitySchemes": _SCHEMES},
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "parameters": [*_in_path(endpoint), *_in_query(endpoint)],
        "responses": {
            "2XX": {"description": "Done.", "content": {endpoint.answer: {}}},
            "3XX": {"description": "Elsewhere."},
            "4XX": _failure("The request cannot be answered."),
            "5XX": _failure("A backend or the disk is in the way."),
        },
    }
    if endpoint.body is not None:
        content = {"application/json": {"schema": endpoint.body}}
        operation["requestBody"] = {"required": True, "content": content}
    if endpoint.access is Access.CONTROL:
        operation["security"] = [{"token": []}]
    return operation


def _failure(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _in_path(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)\}", endpoint.template)
    text = {"type": "string", "minLength": 1}
    return [{"name": name, "in": "path", "required": True, "schema": text} for name in names]


def _in_query(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "schema": {"type": "string"}} for name in endpoint.query]
