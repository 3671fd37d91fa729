"""Versions of the contract: what a plugin for another number is told, and whether it runs."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from tests.fakes import Fake

from aiplayground import _hook_api
from aiplayground._hook_api import ATTRIBUTE, CHANGES, OLDEST, Change, judge, stated
from aiplayground._hooks import HOOKS
from aiplayground._loader import PluginSet, load_plugins
from aiplayground.errors import PluginError
from aiplayground.hookspecs import HOOK_API, hookimpl

HISTORY = (
    Change(number=2, hook="chat", text="Chunks have an index.", breaks=True),
    Change(number=2, hook="health", text="It may be called twice."),
    Change(number=3, hook="stop", text="It gets the reason."),
)


def verdict(built: int | tuple[int, ...], *hooks: str, api: int = 3, oldest: int = 1) -> Any:
    numbers = built if isinstance(built, tuple) else (built,)
    return judge(numbers, hooks, api=api, oldest=oldest, changes=HISTORY)


def test_the_history_fits_the_contract() -> None:
    assert 1 <= OLDEST <= HOOK_API
    numbers = [change.number for change in CHANGES]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(2, HOOK_API + 1)), "each number says what it changed"
    assert all(change.text.endswith(".") for change in CHANGES)


def test_one_for_this_contract_runs_without_a_word() -> None:
    assert verdict(3, "chat") == judge((1, 3), ["chat"], api=3, oldest=1, changes=HISTORY)
    assert (verdict(3, "chat").usable, verdict(3, "chat").notes) == (True, ())


def test_an_older_one_runs_where_nothing_of_its_own_broke_and_is_told() -> None:
    found = verdict(1, "health", "stop")
    assert found.usable
    first, *rest = found.notes
    assert "built for hook API 1 and runs with 3" in first
    assert rest == [
        "Hook API 2, hook 'health': It may be called twice.",
        "Hook API 3, hook 'stop': It gets the reason.",
    ]
    assert verdict(2, "chat", "health").usable, "what broke was before its number"


def test_an_older_one_with_a_broken_hook_is_told_what_changed() -> None:
    found = verdict(1, "chat", "stop")
    assert not found.usable
    assert "Update the plugin" in found.notes[0]
    assert "Hook API 2, hook 'chat': Chunks have an index." in found.notes
    assert "Hook API 3, hook 'stop': It gets the reason." in found.notes
    assert not any("health" in note for note in found.notes), "it does not have that hook"


def test_one_that_is_too_old_is_told_everything() -> None:
    found = verdict(1, "list_models", oldest=2)
    assert not found.usable
    assert "takes plugins from 2 on" in found.notes[0]
    assert len(found.notes) == 1 + len(HISTORY)


def test_one_that_is_too_new_says_what_to_update() -> None:
    found = verdict((4, 5), "chat")
    assert not found.usable
    assert found.notes == (
        "it is built for hook API 4, 5, and this kernel has 3. Update the package aiplayground, "
        "or install an older version of the plugin.",
    )


def test_one_that_works_with_several_runs_with_each() -> None:
    assert verdict((2, 5), "chat").usable
    assert verdict((3, 5), "chat").notes == ()


def test_unstated_is_the_first_number() -> None:
    assert stated(Fake()) == (1,)
    module = ModuleType("plugin")
    setattr(module, ATTRIBUTE, (2, 1))
    assert stated(module) == (1, 2)


@pytest.mark.parametrize("value", ["1", 0, -1, 1.0, True, None, (), (1, "2"), [1]])
def test_what_is_no_number_is_refused(value: object) -> None:
    module = ModuleType("plugin")
    setattr(module, ATTRIBUTE, value)
    with pytest.raises(PluginError, match=f"{ATTRIBUTE} = {HOOK_API}"):
        stated(module)


def test_stating_it_runs_no_property() -> None:
    class Lazy:
        @property
        def AIPG_HOOK_API(self) -> int:  # noqa: N802  # the name that is looked for
            raise AssertionError("properties are not run")

    with pytest.raises(PluginError, match="state the number"):
        stated(Lazy())


class Stating(Fake):
    """A backend that says which contract it was built for."""

    def __init__(self, number: object, name: str = "stating") -> None:
        super().__init__(name)
        setattr(self, ATTRIBUTE, number)


def load(*plugins: Fake) -> PluginSet:
    return load_plugins([(each.spec.name, each) for each in plugins], discover=False)


def test_the_loader_keeps_the_number() -> None:
    (plugin,) = load(Stating(1)).loaded
    assert (plugin.hook_api, plugin.notes) == ((1,), ())


def test_the_loader_refuses_one_for_the_future_and_keeps_the_others() -> None:
    found = load(Stating(99, "future"), Stating(1))
    assert [each.name for each in found.loaded] == ["stating"]
    (failure,) = found.failures
    assert (failure.stage, failure.hook_api) == ("validate", (99,))
    assert "built for hook API 99" in failure.message
    assert "Update the package aiplayground" in failure.message


def test_its_number_comes_before_a_hook_that_this_kernel_does_not_know() -> None:
    class Future(Stating):
        @hookimpl
        async def dream(self) -> None: ...

    (failure,) = load(Future(99)).failures
    assert "built for hook API 99" in failure.message


def test_an_older_one_is_loaded_with_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hook_api, "HOOK_API", 3)
    monkeypatch.setattr(_hook_api, "CHANGES", HISTORY[1:])
    (plugin,) = load(Stating(1)).loaded
    assert "Hook API 3, hook 'stop': It gets the reason." in plugin.notes
    assert "list_models" in HOOKS


def test_a_hook_that_broke_keeps_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hook_api, "HOOK_API", 3)
    monkeypatch.setattr(_hook_api, "CHANGES", HISTORY)
    (failure,) = load(Stating(1)).failures
    assert "Hook API 2, hook 'chat': Chunks have an index." in failure.message
