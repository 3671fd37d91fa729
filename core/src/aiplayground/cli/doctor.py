"""`aipg doctor`: what is wrong here, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from . import exits
from ._app import App, json_option
from ._output import can_print, print_json, say

if TYPE_CHECKING:
    from aiplayground.kernel import Kernel

    from ._checks import Finding, Verdict

TIMEOUT = 120.0
"""Seconds that each engine gets."""

_MARKS = {"ok": ("✓", "ok", "green"), "warn": ("!", "!", "yellow"), "fail": ("✗", "X", "red")}

Tell = Callable[["Finding"], None]


@click.command("doctor")
@json_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="How long each engine may take to start and answer.",
)
@click.pass_context
def command(ctx: click.Context, timeout: float) -> None:
    """Check everything, with a real answer of each engine.

    Every engine that is installed is started, asked one question and stopped again. The exit
    code is 1 if anything must be mended.
    """
    app = ctx.ensure_object(App)
    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        if not app.json:
            _print(finding)

    _examine(app, timeout, tell)
    bad = [each for each in findings if each.verdict.value == "fail"]
    if app.json:
        print_json({"ok": not bad, "checks": [each.as_json() for each in findings]})
    else:
        _sum_up(findings)
    if bad:
        ctx.exit(exits.ERROR)


def _examine(app: App, timeout: float, tell: Tell) -> None:
    from ._checks import check_folders, check_machine, check_settings

    for findings in (check_machine(), check_folders(app.paths)):
        _tell_all(findings, tell)
    settings = list(check_settings(app))
    _tell_all(settings, tell)
    if any(each.check == "settings" and _stops_kernel(each) for each in settings):
        return
    _examine_kernel(app, timeout, tell)


def _examine_kernel(app: App, timeout: float, tell: Tell) -> None:
    from aiplayground.errors import AIPlaygroundError

    from ._checks import check_plugins, failed
    from ._engine_checks import check_engine, check_models
    from ._run import run_with_kernel
    from ._status import StatusLine

    async def work(kernel: Kernel) -> None:
        _tell_all(check_plugins(kernel.plugins), tell)
        async for finding in check_models(kernel):
            tell(finding)
        for spec in (spec for plugin in kernel.plugins.loaded for spec in plugin.backends):
            status = StatusLine()
            status.show(f"Starting {spec.title} and asking it something …")
            finding = await check_engine(kernel, spec, timeout)
            status.end()
            tell(finding)

    try:
        run_with_kernel(app, work)
    except AIPlaygroundError as error:
        tell(failed("kernel", error))


def _tell_all(findings: Iterable[Finding], tell: Tell) -> None:
    for finding in findings:
        tell(finding)


def _stops_kernel(finding: Finding) -> bool:
    # Settings that do not validate; a plugin's wrong settings model comes with advice instead.
    return finding.verdict.value == "fail" and not finding.advice


def _mark(verdict: Verdict) -> tuple[str, str]:
    fancy, plain, colour = _MARKS[verdict.value]
    return (fancy if can_print(fancy) else plain), colour


def _print(finding: Finding) -> None:
    mark, colour = _mark(finding.verdict)
    say(
        f"{click.style(mark, fg=colour)} {click.style(finding.check, bold=True)}: {finding.message}"
    )
    if finding.advice:
        say(f"  → {finding.advice}" if can_print("→") else f"  -> {finding.advice}")


def _sum_up(findings: list[Finding]) -> None:
    say()
    counts = {
        name: sum(each.verdict.value == name for each in findings) for name in ("fail", "warn")
    }
    if not any(counts.values()):
        say("Everything is in order.", fg="green")
        return
    words = {"fail": "to mend", "warn": "to look at"}
    say(", ".join(f"{count} {words[name]}" for name, count in counts.items() if count) + ".")
