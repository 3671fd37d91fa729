"""Breaking the rules of a declaration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiplayground.context import ServiceContext
from aiplayground.hookspecs import hookimpl
from aiplayground.specs import BackendSpec, Capability
from aiplayground.types import (
    ChatRequest,
)
from tests.conformance import heavy
from tests.conformance.broken.variants import VARIANTS, Variant, breaks
from tests.conformance.reference import Reference

VARIANTS.append(Variant("declaration.import-cost", heavy, "imports httpx"))


@breaks("declaration.loads", r"hook 'chat' must be an async generator")
class NoGenerator(Reference):
    @hookimpl
    async def chat(  # type: ignore[override]  # that is what is wrong with it
        self, ctx: ServiceContext, request: ChatRequest
    ) -> Any:
        return None


@breaks("declaration.pure", r"hook 'backend': it returned")
class Changes(Reference):
    count = 0

    @hookimpl
    def backend(self) -> BackendSpec:
        self.count += 1
        return replace(self.spec, title=f"Reference {self.count}")


@breaks("declaration.capabilities", r"declares 'embedding' and has no 'embed'")
class NoEmbed(Reference):
    embed = None  # type: ignore[assignment]  # the hook is taken away


@breaks("declaration.hooks", r"implements 'embed', which no declared capability reaches")
class Undeclared(Reference):
    spec = replace(
        Reference.spec, capabilities=Reference.spec.capabilities - {Capability.EMBEDDING}
    )


@breaks("declaration.parameters", r"'max_token', which no request has. Did you mean 'max_tokens'")
class Misspelt(Reference):
    spec = replace(Reference.spec, parameters=Reference.spec.parameters | {"max_token"})


@breaks("declaration.settings", r"reading its settings raised InvalidSettings: .*greeting")
class NoDefault(Reference):
    spec = replace(Reference.spec, settings="tests.conformance.reference:Required")


@breaks("declaration.settings-described", r"setting 'greeting' has no description")
class Undescribed(Reference):
    spec = replace(Reference.spec, settings="tests.conformance.reference:Undescribed")


@breaks("declaration.version", r"hook 'installed_version': its engine counts as absent")
class NotInstalled(Reference):
    @hookimpl
    async def installed_version(self) -> str | None:
        return None
