"""Setting up: llama-server is fetched, checked, unpacked, tried, and counts only then."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiplayground.errors import (
    AIPlaygroundError,
    FailureClass,
    ServiceFailed,
    ServiceNotAvailable,
)
from aiplayground.specs import SetupProgress

from . import install
from .release import Asset, Release, candidates, machine_shows, pinned, system

if TYPE_CHECKING:
    import httpx

    from aiplayground.context import ServiceContext
    from aiplayground_llamacpp.settings import Settings

FETCHED = 90.0
"""Percent that stand for the download; the rest is unpacking and trying."""

METADATA_TIMEOUT = 30.0


async def set_up(
    ctx: ServiceContext, release: Release | None = None
) -> AsyncGenerator[SetupProgress, None]:
    """Install the engine that the settings choose, step by step; nothing happens if it is there.

    Raises `InvalidSettings`, `FileOperationError`, `ServiceNotAvailable` or `ServiceFailed`.
    """
    settings: Settings = ctx.settings
    if settings.engine == "python" or settings.llama_server:
        version = await engine_version(ctx)
        if version is None:
            raise ServiceNotAvailable(
                f"{ctx.service}: its engine llama-cpp-python is not installed. Install it: pip "
                "install llama-cpp-python. Or choose the other: aipg config set "
                f"services.{ctx.service}.engine llama-server"
            )
        yield SetupProgress(stage="check", progress=100, message=version)
        return
    release = release or pinned()
    builds = candidates(settings.llama_server_build, system(), release, machine_shows)
    async with aclosing(_first_that_works(ctx, release, builds)) as steps:
        async for step in steps:
            yield step


async def engine_version(ctx: ServiceContext) -> str | None:
    """Return the version of the engine that the settings choose; None if it is not installed.

    Raises `ServiceFailed` if it is there but broken.
    """
    settings: Settings = ctx.settings
    if settings.engine == "python":
        return await ctx.run_sync(_package_version)
    from .program import check_program, find_program

    if not settings.llama_server:
        installed = await ctx.run_sync(install.read, ctx.data_dir)
        if installed is not None:
            return installed.version
    program = await ctx.run_sync(find_program, settings.llama_server, None)
    return None if program is None else await ctx.run_sync(check_program, str(program))


async def remove(ctx: ServiceContext) -> None:
    """Remove the llama-server that was set up."""
    if ctx.settings.engine == "python":
        raise ServiceNotAvailable(
            f"{ctx.service} has nothing to remove but its package: uninstall that with the tool "
            "that installed it."
        )
    await ctx.run_sync(install.clear, ctx.data_dir)


async def _first_that_works(
    ctx: ServiceContext, release: Release, builds: list[str]
) -> AsyncGenerator[SetupProgress, None]:
    passed_over = await ctx.run_sync(_passed_over, ctx.data_dir, release.tag)
    for build in [each for each in builds if each not in passed_over] or builds:
        if await ctx.run_sync(_is_there, ctx.data_dir, release.tag, build):
            yield SetupProgress(stage="check", progress=100, message=f"{build} is there")
            return
        try:
            async with aclosing(_one(ctx, release, build, passed_over)) as steps:
                async for step in steps:
                    yield step
        except ServiceFailed as error:
            if build == builds[-1]:
                raise
            # Of all that can be chosen without being asked for, the CPU's works everywhere.
            ctx.logger.warning("%s does not run here: %s", build, error.message)
            passed_over = (*passed_over, build)
        else:
            return


async def _one(
    ctx: ServiceContext, release: Release, build: str, passed_over: tuple[str, ...]
) -> AsyncGenerator[SetupProgress, None]:
    import httpx

    # Not the kernel's client, which is for workers: this one takes proxies from the environment.
    async with httpx.AsyncClient() as http:
        assets = await _with_checksums(http, release, release.builds[build])
        async with aclosing(_fetch_all(ctx, http, release, assets)) as steps:
            async for step in steps:
                yield step
    yield SetupProgress(stage="unpack", progress=FETCHED, message=build)
    archives = [ctx.cache_dir / asset.name for asset in assets]
    fresh = await ctx.run_sync(_unpack_all, archives, ctx.data_dir, release.tag, build)
    yield SetupProgress(stage="verify", progress=95, message=build)
    version = await ctx.run_sync(_settle, ctx.data_dir, fresh, release.tag, build, passed_over)
    for archive in archives:
        await ctx.run_sync(archive.unlink, missing_ok=True)
    yield SetupProgress(stage="done", progress=100, message=f"llama.cpp {version} ({build})")


async def _fetch_all(
    ctx: ServiceContext, http: httpx.AsyncClient, release: Release, assets: list[Asset]
) -> AsyncGenerator[SetupProgress, None]:
    from .download import fetch

    total = sum(asset.size or 1 for asset in assets)
    before = 0
    for asset in assets:
        url = release.url(asset, ctx.settings.llama_server_mirror)
        async with aclosing(fetch(http, url, asset, ctx.cache_dir)) as parts:
            async for fraction in parts:
                done = (before + fraction * (asset.size or 1)) / total
                yield SetupProgress(stage="download", progress=done * FETCHED, message=asset.name)
        before += asset.size or 1


async def _with_checksums(
    http: httpx.AsyncClient, release: Release, assets: tuple[Asset, ...]
) -> list[Asset]:
    """Fill in what is not pinned from what the release says of itself."""
    if all(asset.sha256 for asset in assets):
        return list(assets)
    import httpx

    url = release.metadata_url
    try:
        answer = await http.get(url, timeout=METADATA_TIMEOUT, follow_redirects=True)
        told = answer.raise_for_status().json()
        by_name = {each["name"]: each for each in told["assets"]}
        return [_filled(asset, by_name) for asset in assets]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise ServiceNotAvailable(
            f"The checksums of llama.cpp's release cannot be read from {url} ({error!r}), and "
            "nothing is installed without. Try again later, or choose another "
            "'llama_server_build'."
        ) from error


def _filled(asset: Asset, told: dict[str, dict[str, Any]]) -> Asset:
    if asset.sha256:
        return asset
    kind, _, digest = str(told[asset.name]["digest"]).partition(":")
    if kind != "sha256" or len(digest) != 64:
        raise ValueError(f"{asset.name} has no SHA-256")
    return replace(asset, sha256=digest, size=int(told[asset.name]["size"]))


def _passed_over(data: Path, tag: str) -> tuple[str, ...]:
    """Return the builds of this release that did not run here: a repeat does not fetch them."""
    try:
        found = install.read(data)
    except AIPlaygroundError:
        return ()
    return tuple(found.passed_over) if found is not None and found.tag == tag else ()


def _is_there(data: Path, tag: str, build: str) -> bool:
    try:
        found = install.read(data)
    except AIPlaygroundError:
        return False  # broken: it is made anew
    return found is not None and (found.tag, found.build) == (tag, build)


def _unpack_all(archives: list[Path], data: Path, tag: str, build: str) -> Path:
    from .unpack import unpack

    fresh = install.root(data) / f"{tag}-{build}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    for archive in archives:
        unpack(archive, fresh)
    return fresh


def _settle(data: Path, fresh: Path, tag: str, build: str, passed_over: tuple[str, ...]) -> str:
    """Try what was unpacked and make it count; return its version."""
    from .program import check_program, executable

    program = fresh / executable()
    if not program.is_file():
        raise ServiceFailed(
            f"The build {build} has no {executable()}. Choose another 'llama_server_build'.",
            failure=FailureClass.MISSING_FILE,
        )
    try:
        version = check_program(str(program))
    except ServiceFailed:
        shutil.rmtree(fresh)
        raise
    final = fresh.with_suffix("")
    shutil.rmtree(final, ignore_errors=True)
    fresh.replace(final)
    size = (final / executable()).stat().st_size
    install.write(
        data,
        install.Installed(
            tag=tag,
            build=build,
            folder=final.name,
            version=version,
            size=size,
            passed_over=passed_over,
        ),
    )
    return version


def _package_version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("llama-cpp-python")
    except PackageNotFoundError:
        return None
