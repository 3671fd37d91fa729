"""Registration refuses what is certainly wrong, naming whose it is, and keeps the rest."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import Any

import pytest
from tests.fakes import Fake

from aiplayground._hooks import HOOKS
from aiplayground._loader import PluginSet, load_plugins
from aiplayground.hookspecs import hookimpl
from aiplayground.specs import BackendSpec


def load(*plugins: object, **named: object) -> PluginSet:
    given = [(f"plugin{index}", plugin) for index, plugin in enumerate(plugins)]
    return load_plugins([*given, *named.items()], discover=False)


def refusal(plugin: object) -> str:
    found = load(plugin)
    assert not found.loaded
    (failure,) = found.failures
    assert failure.message.startswith("plugin0 (the embedding program): ")
    assert failure.stage == "validate"
    return failure.message


class Takes:
    """A plugin with one function for a hook, whatever it looks like."""

    def __init__(self, hook: str, function: Callable[..., Any], **options: Any) -> None:
        setattr(self, hook, hookimpl(**options)(function))


async def ok(ctx: Any) -> None: ...


async def any_keywords(ctx: Any, **kwargs: Any) -> None: ...


async def keyword_only(ctx: Any, *, model: Any) -> None: ...


async def any_positions(*args: Any) -> None: ...


async def unheard_of(ctx: Any, banana: Any) -> None: ...


async def own_before(mine: int = 1, ctx: Any = None) -> None: ...


def plain(ctx: Any) -> None: ...


async def coroutine(ctx: Any, request: Any = None) -> None: ...


def plain_generator(ctx: Any, request: Any) -> Any:
    yield 1


async def generator(ctx: Any) -> AsyncIterator[int]:
    yield 1


async def nothing() -> None: ...


@pytest.mark.parametrize(
    ("hook", "function", "words"),
    [
        ("start", any_keywords, "takes 'kwargs' by keyword only, or any keyword"),
        ("start", keyword_only, "takes 'model' by keyword only"),
        ("start", any_positions, "takes 'args'; it can take ctx"),
        ("start", unheard_of, "takes 'banana'; it can take ctx"),
        ("start", own_before, "put 'mine' behind 'ctx'"),
        ("start", plain, "must be a coroutine function: `async def start(...)`"),
        ("start", generator, "must be a coroutine function"),
        ("chat", coroutine, "must be an async generator: `async def chat(...)` with `yield`"),
        ("chat", plain_generator, "must be an async generator"),
        ("backend", nothing, "must be a plain function: `def backend(...)`"),
        ("backendd", plain, "hook 'backendd' is not one that this kernel knows"),
    ],
)
def test_what_cannot_work_is_refused(hook: str, function: Any, words: str) -> None:
    message = refusal(Takes(hook, function))
    assert words in message
    assert f"'{hook}'" in message


@pytest.mark.parametrize("options", [{"wrapper": True}, {"hookwrapper": True}])
def test_pluggys_wrappers_are_refused_with_the_way_out(options: dict[str, bool]) -> None:
    assert "register_middleware" in refusal(Takes("start", plain_generator, **options))


def test_a_class_is_refused() -> None:
    assert "the class Fake; register an instance" in refusal(Fake)


def test_a_plugin_without_any_hook_is_refused() -> None:
    assert "implements no hook. Mark its functions with @hookimpl" in refusal(object())


@pytest.mark.parametrize("spec", ["x", 5, [BackendSpec(name="a", title="A"), "b"]])
def test_a_backend_hook_that_returns_something_else_is_refused(spec: Any) -> None:
    (failure,) = load(Takes("backend", lambda: spec)).failures
    assert failure.stage == "backend"


@pytest.mark.parametrize("name", ["", "a/b", "..", "Ä", "kernel", "a b"])
def test_names_that_cannot_be_a_services(name: str) -> None:
    (failure,) = load(Fake(name)).failures
    assert "cannot be a service's name" in failure.message


def test_an_unknown_hook_may_be_optional() -> None:
    class Newer(Fake):
        @hookimpl(optionalhook=True)
        def from_the_future(self) -> None: ...

    (loaded,) = load(Newer()).loaded
    assert "from_the_future" not in loaded.hooks


def test_specname_gives_a_function_its_hook() -> None:
    class Renamed:
        @hookimpl(specname="start")
        async def bring_up(self, ctx: Any) -> None: ...

    assert load(Renamed()).loaded[0].hooks == ("start",)
    assert "coroutine" in refusal(Takes("bring_up", plain, specname="start"))


def test_fewer_arguments_another_order_and_own_defaults_are_fine() -> None:
    async def reverse(request: Any, ctx: Any, mine: int = 3) -> AsyncIterator[int]:
        yield mine

    async def none() -> AsyncIterator[int]:
        yield 1

    found = load(Takes("chat", reverse), Takes("generate", none))
    assert not found.failures


def test_wrapped_functions_are_judged_by_what_they_return_later() -> None:
    @functools.wraps(ok)
    def around(*args: Any) -> Any:
        return ok(*args)

    @functools.wraps(generator)
    def around_generator(ctx: Any) -> Any:
        return generator(ctx)

    found = load(Takes("start", around), Takes("chat", around_generator))
    assert not found.failures


def test_static_and_class_methods_are_functions_wherever_the_mark_is() -> None:
    class Static:
        @hookimpl
        @staticmethod
        def model_files() -> list[Any]:
            return []

        @staticmethod
        @hookimpl
        def preset_folders() -> list[Any]:
            return []

        @classmethod
        @hookimpl
        def register_stores(cls) -> dict[str, Any]:
            return {}

    assert load(Static()).loaded[0].hooks == ("model_files", "preset_folders", "register_stores")


def test_what_pluggy_would_pass_over_is_refused() -> None:
    class Cached:
        @hookimpl
        @functools.lru_cache  # noqa: B019  # it is about what this makes of a method
        def detect_devices(self) -> list[Any]:
            return []

    assert "hook 'detect_devices' must be a function" in refusal(Cached())


def test_a_module_is_a_plugin() -> None:
    module = ModuleType("some_plugin")
    vars(module)["start"] = hookimpl(ok)
    assert load(module).loaded[0].hooks == ("start",)


def test_properties_are_not_evaluated() -> None:
    class Eager(Fake):
        @property
        def engine(self) -> Any:
            raise AssertionError("evaluated")

        @functools.cached_property
        def weights(self) -> Any:
            raise AssertionError("evaluated")

    assert not load(Eager()).failures


def test_a_plugin_may_bring_several_backends() -> None:
    class Two:
        @hookimpl
        def backend(self) -> list[BackendSpec]:
            return [BackendSpec(name="one", title="1"), BackendSpec(name="two", title="2")]

    (loaded,) = load(Two()).loaded
    assert [spec.name for spec in loaded.backends] == ["one", "two"]

    class Twice:
        @hookimpl
        def backend(self) -> list[BackendSpec]:
            return [BackendSpec(name="one", title="1")] * 2

    assert "twice" in load(Twice()).failures[0].message


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(3)])
def test_a_broken_backend_hook_breaks_its_plugin_alone(error: BaseException) -> None:
    def backend() -> BackendSpec:
        raise error

    found = load(Fake("first"), Takes("backend", backend), Fake("last"))
    assert [each.name for each in found.loaded] == ["plugin0", "plugin2"]
    (failure,) = found.failures
    assert failure.error is error
    assert type(error).__name__ in failure.message
    assert "plugins.deny" in failure.message
    registered = {id(plugin) for plugin in found.manager.get_plugins()}
    assert registered == {id(each.plugin) for each in found.loaded}, "nothing is half-registered"


def test_an_interrupt_is_not_taken_for_a_failure() -> None:
    def backend() -> BackendSpec:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(Takes("backend", backend))


def test_what_a_failed_plugin_claimed_is_free_again() -> None:
    class Half:
        @hookimpl
        def backend(self) -> list[BackendSpec]:
            return [BackendSpec(name="wanted", title=""), BackendSpec(name="taken", title="")]

    found = load(Fake("taken"), Half(), Fake("wanted"))
    assert [each.name for each in found.loaded] == ["plugin0", "plugin2"]


def test_all_hooks_have_a_specification_with_a_docstring() -> None:
    from aiplayground import hookspecs

    assert {"backend", "chat", "register_middleware"} < set(HOOKS)
    assert all(getattr(hookspecs, name).__doc__ for name in HOOKS)
