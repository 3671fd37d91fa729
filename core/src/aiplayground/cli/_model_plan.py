"""`aipg models plan`: what loading a model would do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ._remote import running
from ._run import run_with_kernel

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel

    from ._app import App


def ask(app: App, name: str, backend: str | None) -> dict[str, Any]:
    """Ask the running kernel if there is one, else one of our own; returns `Readiness`."""

    async def find(kernel: Kernel) -> dict[str, Any]:
        service = backend or (await kernel.find_model(name)).service
        answer: dict[str, Any] = await kernel.call("explainReadiness", service, name)
        return answer

    if running(app.paths) is None:
        return run_with_kernel(app, find)
    from aiplayground.client import Client

    async def resolve(kernel: Kernel) -> str:
        return (await kernel.find_model(name)).service

    service = backend or run_with_kernel(app, resolve)
    with Client(home=app.home) as client:
        answer: dict[str, Any] = client.call("explainReadiness", service, name)
        return answer


def lines(plan: dict[str, Any]) -> Iterator[str]:
    """Yield what is shown of a plan, for people."""
    from aiplayground.admission import amount

    yield plan["message"]
    for pool, size in plan["needs"].items():
        yield f"  {pool}: needs {amount(size)}, free for it {amount(plan['free'][pool])}"
    for step in plan["unload"]:
        who = f"{step['serviceName']}/{step['model']}"
        yield f"  unloads {who} ({amount(step['bytes'])}): {step['why']}"
    for name in plan["waitFor"]:
        yield f"  waits for {name}, which is in use"
    if plan["change"]:
        yield "To make it fit, one or more of:"
    for change in plan["change"]:
        yield f"  - {change}"
    for note in plan["notes"]:
        yield f"  {note}"
