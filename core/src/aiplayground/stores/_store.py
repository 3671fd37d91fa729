"""A store: state for user interfaces, and what they can do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_args, overload

from aiplayground._method import OPEN_ATTRIBUTE, Method
from aiplayground.errors import InvalidParameters, PluginError, suggest
from aiplayground.validation import camel

from ._observe import Observable, S
from ._state import StoreState, changed

if TYPE_CHECKING:
    from aiplayground.events import Event
    from aiplayground.kernel import Kernel

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])

ACTION_ATTRIBUTE = "aiplayground_action"


@overload
def action(function: F, /) -> F: ...
@overload
def action(*, listing: bool = False) -> Callable[[F], F]: ...
def action(function: Any = None, /, *, listing: bool = False) -> Any:
    """Make a coroutine method of a store an action: other programs may call it, in camelCase.

    Its parameters and result are validated by their annotations. Callers need the kernel's token,
    unless it is `listing`: it changes nothing, and nothing in a `private` store.
    """

    def mark(method: F) -> F:
        setattr(method, ACTION_ATTRIBUTE, True)
        setattr(method, OPEN_ATTRIBUTE, listing)
        return method

    return mark if function is None else mark(function)


class Store(Observable[S]):
    """Base of all stores: `class Notes(Store[NotesState])`, where the state has defaults.

    There is one instance in each kernel, made at first use. Its methods belong to the kernel's
    event loop. `_set` is the only writer; an action that raises before it leaves the state alone.
    Of a `private` store the state needs the kernel's token as well.
    """

    name: ClassVar[str]
    private: ClassVar[bool] = False

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(self.name, self.state_type()())
        self.kernel = kernel
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def state_type(cls) -> type[S]:
        """Return the class of the state; raises `PluginError` if the store names none."""
        for each in cls.__mro__:
            for base in getattr(each, "__orig_bases__", ()):
                for argument in get_args(base):
                    if isinstance(argument, type) and issubclass(argument, StoreState):
                        return argument  # type: ignore[return-value]  # what S stands for
        raise PluginError(f"{cls.__qualname__} must name its state: class …(Store[ItsState]).")

    @classmethod
    def actions(cls) -> Mapping[str, Method]:
        """Return the actions by their outside names."""
        every: Any = cls
        return _actions(every)

    async def open(self) -> None:
        """Bring the state in; called once, before anybody gets the store."""

    async def close(self) -> None:
        """Let go of everything; called when the kernel goes down."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._end()

    async def call(self, action: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """Call an action by its outside name; plain data in and out.

        Raises `InvalidParameters`, and what the action raises.
        """
        return await self.find_action(action)(self, params)

    @classmethod
    def find_action(cls, action: str) -> Method:
        """Return an action by its outside name; raises `InvalidParameters` if there is none."""
        found = cls.actions().get(action)
        if found is None:
            raise InvalidParameters(
                f"The store '{cls.name}' has no action '{action}'.{suggest(action, cls.actions())}",
                details={"store": cls.name, "action": action, "actions": list(cls.actions())},
            )
        return found

    def _set(self, **fields: Any) -> None:
        """Make these fields others, and tell everyone, in one step; what is equal is left out."""
        changes, state = changed(self._state, fields)
        if changes:
            self._advance(state, self._version + 1, changes)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background until the store closes; a failure is logged."""
        task = asyncio.create_task(work, name=f"store {self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.kernel.log().logger.error("Store %s: %s", self.name, error, exc_info=error)

    async def _follow(self, *kinds: type[Event], handle: Callable[[Any], None]) -> None:
        """Hand the kernel's events of these kinds to `handle`: a snapshot now, others as they come.

        A snapshot comes again when events were lost.
        """
        subscription = self.kernel.subscribe(*kinds)
        handle(await anext(subscription))

        async def follow() -> None:
            async with subscription:
                async for event in subscription:
                    handle(event)

        self._begin(follow())


@cache
def _actions(kind: type[Store[Any]]) -> Mapping[str, Method]:
    found: dict[str, Method] = {}
    for each in reversed(kind.__mro__):
        for name in vars(each):
            function = getattr(kind, name)
            if getattr(function, ACTION_ATTRIBUTE, False):
                found[camel(name)] = Method(camel(name), function, group=kind.name)
    return found
