"""Write the reference pages in docs/reference from the code that they describe.

python scripts/reference.py            write them
python scripts/reference.py --check    say which are out of date, exit with 1 if any is
"""

from __future__ import annotations

import argparse
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel

from aiplayground import api, errors, events, hookspecs, methods, states
from aiplayground._deprecations import DEPRECATIONS
from aiplayground._hook_api import CHANGES, OLDEST
from aiplayground._hooks import COROUTINE_HOOKS, GENERATOR_HOOKS, HOOKS
from aiplayground.cli.root import root
from aiplayground.notices import NOTICES
from aiplayground.settings import (
    AttachSettings,
    EndpointSettings,
    KernelSettings,
    ServiceSettings,
    settings_class,
)

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
WIDTH = 90
NOTE = "<!-- Made by scripts/reference.py from the code; change the code, not this page. -->"


def page(title: str, about: str, parts: Iterator[str]) -> str:
    """Put a page together."""
    return "\n\n".join([f"# {title}", NOTE, about.strip(), *parts]).rstrip() + "\n"


def hooks() -> str:
    """Describe every hook specification, from its docstring."""

    def parts() -> Iterator[str]:
        for name, signature in HOOKS.items():
            function = getattr(hookspecs, name)
            kind = "async generator" if name in GENERATOR_HOOKS else "coroutine"
            kind = kind if name in GENERATOR_HOOKS | COROUTINE_HOOKS else "plain function"
            yield f"## `{name}`"
            yield f"```python\n{_signature(name, signature, kind)}\n```"
            yield f"*{kind}*. {inspect.getdoc(function)}"
        yield "## Versions of the contract"
        yield "\n".join(_versions())
        yield "## Deprecated"
        yield "\n".join(_deprecated()) or "Nothing is deprecated."

    return page("Hooks", inspect.getdoc(hookspecs) or "", parts())


def _versions() -> Iterator[str]:
    yield (
        f"This kernel has hook API {hookspecs.HOOK_API} and takes plugins from {OLDEST} on.\n\n"
        "- 1: the first contract."
    )
    for change in CHANGES:
        breaks = " Plugins from before that have this hook do not run." if change.breaks else ""
        yield f"- {change.number}, `{change.hook}`: {change.text}{breaks}"


def _deprecated() -> Iterator[str]:
    for each in DEPRECATIONS:
        yield f"- `{each.name}` since {each.since}, goes with {each.removal}: use {each.instead}."


def _signature(name: str, signature: inspect.Signature, kind: str) -> str:
    prefix = "def" if kind == "plain function" else "async def"
    return f"{prefix} {name}{signature}".replace("'", "")


def event_page() -> str:
    """Describe every event, with its fields."""
    kinds = [
        kind
        for kind in vars(events).values()
        if inspect.isclass(kind) and issubclass(kind, events.Event) and kind is not events.Event
    ]

    def parts() -> Iterator[str]:
        for kind in kinds:
            yield f"## `{kind.__name__}`"
            yield inspect.getdoc(kind) or ""
            outside = f"Outside name: `{kind.outside}`. " if kind.outside else ""
            yield f"{outside}Fields: {_fields(kind)}."

    return page("Events", inspect.getdoc(events) or "", parts())


def _fields(kind: type[events.Event]) -> str:
    own = [name for name in kind.__dataclass_fields__ if name not in ("seq", "time")]
    return ", ".join(f"`{name}: {kind.__dataclass_fields__[name].type}`" for name in own) or "none"


def settings() -> str:
    """Describe every setting: the kernel's, each service's, and those of our own backends."""

    def parts() -> Iterator[str]:
        for name, field in KernelSettings.model_fields.items():
            if name not in ("services", "attach"):
                section: Any = field.annotation
                yield f"## `[{name}]`"
                yield f"{inspect.getdoc(section)}\n\n{_table(section)}"
                yield from _tables_in(name, section)
        yield "## `[services.NAME]`"
        yield f"{inspect.getdoc(ServiceSettings)}\n\n{_table(ServiceSettings)}"
        yield "## `[services.NAME.attach]`"
        yield f"{inspect.getdoc(AttachSettings)}\n\n{_table(AttachSettings)}"
        yield "## `[attach.NAME]`"
        yield f"{inspect.getdoc(EndpointSettings)}\n\n{_table(EndpointSettings)}"
        for name, model in _backends().items():
            yield f"## `[services.{name}]`: its own settings"
            yield f"{inspect.getdoc(model)}\n\n{_table(model)}"

    about = (
        "Settings come in layers, lowest first: defaults, the machine's file, the user's file "
        "(`aipg config path`), environment variables (`AIPG_<SECTION>__<KEY>`), arguments. "
        "`aipg config list` shows each value and where it comes from. Unknown keys are refused."
    )
    return page("Settings", about, parts())


def _tables_in(name: str, section: Any) -> Iterator[str]:
    """Describe the tables inside of a table."""
    for inner, field in section.model_fields.items():
        table = field.annotation
        if inspect.isclass(table) and issubclass(table, BaseModel):
            yield f"## `[{name}.{inner}]`"
            yield f"{inspect.getdoc(table)}\n\n{_table(table)}"


def _backends() -> Mapping[str, type[Any]]:
    from aiplayground_ai_backend.plugin import backend as gateway
    from aiplayground_llamacpp.plugin import backend as llamacpp

    return {spec.name: settings_class(spec) for spec in (gateway(), llamacpp())}


def _table(model: Any) -> str:
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            if field.description:
                rows.append(f"| `{name}` | a table | {field.description} |")
            continue  # a table of its own
        if isinstance(default, tuple) and default:
            default = ", ".join(map(str, default))
        shown = "not set" if default is None else f"`{default}`"
        rows.append(f"| `{name}` | {shown} | {field.description} |")
    return "\n".join(rows)


def error_page() -> str:
    """Describe the error codes, the exceptions and the failure classes."""

    def parts() -> Iterator[str]:
        yield "## Codes"
        yield "\n".join(f"- `{code.value}`: {code.name.lower()}" for code in errors.ErrorCode)
        yield "## Exceptions"
        for kind in vars(errors).values():
            if inspect.isclass(kind) and issubclass(kind, errors.AIPlaygroundError):
                first = (inspect.getdoc(kind) or "").split("\n\n")[0]
                yield f"- `{kind.__name__}` (code {int(kind.code)}): {first}"
        yield "## Failure classes"
        yield "\n".join(f"- `{each.value}`" for each in errors.FailureClass)

    return page("Errors", inspect.getdoc(errors) or "", parts())


def state_page() -> str:
    """Draw both state machines from their tables."""

    def parts() -> Iterator[str]:
        yield f"## Installation\n\n{_diagram(states.INSTALLATION)}"
        yield f"## Runtime\n\n{_diagram(states.RUNTIME)}"
        yield "## Outside names\n\n" + "\n".join(_views())

    return page("States", inspect.getdoc(states) or "", parts())


def _diagram(table: Mapping[Any, frozenset[Any]]) -> str:
    edges = [f"    {old} --> {new}" for old, after in table.items() for new in sorted(after)]
    return "\n".join(["```mermaid", "stateDiagram-v2", *edges, "```"])


def _views() -> Iterator[str]:
    yield "| installation | runtime | before a start was tried | after |"
    yield "| --- | --- | --- | --- |"
    for installation in states.Installation:
        for runtime in states.Runtime:
            views = [
                states.backend_status(installation, runtime, start_tried=tried)
                for tried in (False, True)
            ]
            yield f"| {installation} | {runtime} | {views[0]} | {views[1]} |"


def cli() -> str:
    """Describe every command, from click's own help."""

    def parts() -> Iterator[str]:
        context = click.Context(
            root, info_name="aipg", terminal_width=WIDTH, **root.context_settings
        )
        yield f"```text\n{context.get_help()}\n```"
        yield from _commands(context)

    return page("Command line", "What `aipg --help` and `aipg COMMAND --help` print.", parts())


def _commands(context: click.Context) -> Iterator[str]:
    group = context.command
    assert isinstance(group, click.Group)
    for name in sorted(group.list_commands(context)):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context, terminal_width=WIDTH)
        yield f"## `{inner.command_path}`"
        yield f"```text\n{inner.get_help()}\n```"
        if isinstance(command, click.Group):
            yield from _commands(inner)


def method_page() -> str:
    """Describe every IPC method and event that programs outside get."""
    groups = list(dict.fromkeys(each.group for each in methods.METHODS.values()))

    def parts() -> Iterator[str]:
        for group in groups:
            yield f"## {group}"
            for each in methods.METHODS.values():
                if each.group == group:
                    yield _method_text(each)
        yield "## Events"
        for notice in NOTICES.values():
            given = notice.positional or ("data",)
            callback = f"`{notice.listener}(callback)`, called with `{', '.join(given)}`"
            yield f"### `{notice.name}`"
            yield f"{notice.summary} In a page: {callback}. Data: `{typescript(notice.shape)}`."
        yield "## Shapes"
        for name in sorted(SHAPES):
            yield _shape_text(SHAPES[name])

    about = (
        "One table for every door: `await kernel.call(name, ...)` in process, JSON-RPC over "
        "WebSocket at `/ipc`, `window.electronAPI` in a page. [IPC](../ipc.md) says how to use "
        "them. Errors have the codes of [the reference](errors.md)."
    )
    return page("IPC methods", about, parts())


SHAPES = {
    name: shape
    for name, shape in vars(api).items()
    if inspect.isclass(shape)
    and issubclass(shape, (api.Shape, api.Answer))
    and shape not in (api.Shape, api.Answer)
}


def _method_text(each: methods.Method) -> str:
    given = ", ".join(
        f"{field.alias}{'' if field.is_required() else '?'}: {typescript(field.annotation)}"
        for field in each.parameters.model_fields.values()
    )
    access = "Needs no token." if each.is_open else "Needs the token."
    access = "" if each.is_partly_open else access  # its text says when
    waits = f" Answers -3 without {each.waits_for.partition(':')[0]}." if each.waits_for else ""
    return (
        f"### `{each.name}`\n\n```typescript\n{each.name}({given}): "
        f"{typescript(each.result_type)}\n```\n\n{each.summary}\n\n{access}{waits}"
    ).rstrip()


def _shape_text(shape: Any) -> str:
    fields = "\n".join(
        f"- `{field.alias}{'' if field.is_required() else '?'}: "
        f"{typescript(_given(field.annotation))}`"
        for field in shape.model_fields.values()
    )
    return f"### `{shape.__name__}`\n\n{inspect.getdoc(shape)}\n\n{fields}".rstrip()


def _given(annotation: Any) -> Any:
    """Return the annotation of an optional field without its None."""
    arguments = [each for each in get_args(annotation) if each is not type(None)]
    is_optional = type(None) in get_args(annotation) and len(arguments) == 1
    return arguments[0] if is_optional else annotation


_PLAIN = {str: "string", bool: "boolean", int: "number", float: "number", type(None): "void"}


def typescript(annotation: Any) -> str:
    """Write a type as the API reference does."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if origin is Annotated:
        return typescript(arguments[0])
    if origin is Literal:
        return " | ".join(repr(each) for each in arguments)
    if origin in (list, tuple):
        inner = typescript(arguments[0])
        return f"({inner})[]" if " | " in inner else f"{inner}[]"
    if origin is dict:
        return f"Record<{', '.join(map(typescript, arguments))}>"
    if origin in (Union, types.UnionType):
        return " | ".join("undefined" if a is type(None) else typescript(a) for a in arguments)
    return "any" if annotation is Any else str(annotation.__name__)


def conformance() -> str:
    """Describe every rule of the conformance kit, level by level."""
    from aiplayground.testing.rules import Level, all_rules

    rules = all_rules().values()

    def parts() -> Iterator[str]:
        for level in Level:
            inside = [each for each in rules if each.level is level]
            doc = inspect.getdoc(inspect.getmodule(inside[0].check)) or ""
            yield f"## {level.value.capitalize()}\n\n{doc}"
            for each in inside:
                after = ", ".join(f"`{basis}`" for basis in each.bases)
                builds = f" Builds on {after}." if after else ""
                yield f"### `{each.id}`\n\n{each.wants}"
                link = each.see.removeprefix("docs/").replace("reference/", "")
                link = link if link.startswith(("hooks", "errors", "settings")) else f"../{link}"
                yield f"*To mend:* {each.mend} More: [{each.see}]({link}).{builds}"

    about = (
        f"The {len(rules)} rules that `aiplayground.testing` checks a backend against; "
        "[Conformance](../conformance.md) says how to run them. A failure's message names the "
        "rule by the ids below, which do not change."
    )
    return page("Conformance rules", about, parts())


PAGES: dict[str, Callable[[], str]] = {
    "hooks.md": hooks,
    "events.md": event_page,
    "settings.md": settings,
    "errors.md": error_page,
    "states.md": state_page,
    "cli.md": cli,
    "methods.md": method_page,
    "conformance.md": conformance,
}


def out_of_date() -> list[str]:
    """Return the pages that are not what the code would make of them."""
    return [
        name
        for name, make in PAGES.items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text(encoding="utf-8") != make()
    ]


def main() -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    stale = out_of_date()
    if parser.parse_args().check:
        print("\n".join(f"docs/reference/{name} is out of date" for name in stale))
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (FOLDER / name).write_text(PAGES[name](), encoding="utf-8")
        print(f"wrote docs/reference/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
