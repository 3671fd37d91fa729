"""`aipg service`: `aipg serve` at login, by what this system has for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ._app import App, json_option
from ._output import print_json, say, warn

if TYPE_CHECKING:
    from ._login_files import LoginService

UNTESTED = "Untested: nobody has tried this on {}. Please say how it went."


@click.group("service")
def command() -> None:
    """Run `aipg serve` at every login.

    On Linux this is a systemd user unit; on macOS a launch agent, on Windows a scheduled task,
    both untested. It serves with the settings of this home (`aipg config`), and keeps AIPG_HOME,
    PATH and the XDG folders as they are now. A unit of systemd's ends at logout unless
    `loginctl enable-linger` says otherwise.
    """


@command.command("install")
@json_option
@click.option("--dry-run", is_flag=True, help="Print the file, and change nothing.")
@click.pass_obj
def install(app: App, dry_run: bool) -> None:
    """Install it for this home, and start it now. Again: bring it up to date."""
    from ._login_service import install, service_here
    from ._remote import running

    service = service_here(app)
    if dry_run:
        _show_file(app, service)
        return
    _warn_untested(service)
    found = running(app.paths)
    install(service, found.url if found else None)
    if app.json:
        print_json(_facts(service, installed=True))
        return
    say(f"{service.name} is installed and started ({service.file}).")
    say("`aipg service status` shows it, `aipg service uninstall` takes it away.", dim=True)


@command.command("uninstall")
@json_option
@click.pass_obj
def uninstall(app: App) -> None:
    """Stop it, and take it away. Models, settings and engines stay."""
    from ._login_service import service_here, uninstall

    service = service_here(app)
    was_there = uninstall(service)
    if app.json:
        print_json(_facts(service, installed=False))
    else:
        say(f"{service.name} is {'gone' if was_there else 'not installed'}.")


@command.command("status")
@json_option
@click.pass_obj
def status(app: App) -> None:
    """Show whether it is installed, and what the system says about it."""
    from ._login_service import service_here, state
    from ._remote import running

    service = service_here(app)
    said = state(service)
    found = running(app.paths)
    url = found.url if found else None
    if app.json:
        print_json({**_facts(service, installed=said is not None), "status": said, "url": url})
        return
    if said is None:
        say(f"{service.name} is not installed. `aipg service install` does that.")
    else:
        say(f"{service.name} is installed ({service.file}).")
        say(said)
    say(f"A kernel of this home serves on {url}." if url else "No kernel of this home is running.")


def _show_file(app: App, service: LoginService) -> None:
    if app.json:
        print_json({**_facts(service, installed=None), "content": service.text})
        return
    _warn_untested(service)
    say(f"{service.file}:", err=True, dim=True)
    say(service.text.rstrip())


def _warn_untested(service: LoginService) -> None:
    if not service.tested:
        warn(UNTESTED.format(service.system))


def _facts(service: LoginService, *, installed: bool | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": service.name,
        "system": service.system,
        "tested": service.tested,
        "path": str(service.file),
    }
    return facts if installed is None else {**facts, "installed": installed}
