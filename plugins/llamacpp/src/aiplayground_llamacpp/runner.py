"""Work on many jobs at a time: continuous batching over one context.

All of it happens in the engine's thread, one step after the other; between two steps the thread
does what else was asked of it. Which tokens are computed next is decided in `scheduler`.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from bisect import insort
from collections.abc import Callable
from time import perf_counter

from aiplayground.errors import AIPlaygroundError, FailureClass, ServiceFailed

from .answer import Answer, Chosen
from .branch import Branch
from .context import FULL, INTERRUPTED, OK, Context, Row
from .counters import Counters
from .jobs import Job, deliver
from .measuring import Measuring
from .memory import SlotMemory
from .native import unloaded
from .scheduler import (
    Limit,
    Pace,
    Part,
    Slot,
    goes_on,
    held_back,
    latecomer,
    next_parts,
    reading,
    split,
)
from .sight import Sight
from .thread import EngineThread
from .viewer import Viewer, up_to_images

STEP = 0.1
"""Seconds that a step aims to take at most: so long may an answer wait for its next token."""

LEAST_CHUNK = 64
"""Tokens of prompts in a step, at least: with fewer, reading a long prompt takes much longer
(measured: 1,024 tokens 6.1 s by 16, 4.7 s by 32, 3.4 s by 64, 3.2 s by 128, 2.9 s by 512)."""

QUIET_CHUNK = 256
"""Tokens of prompts in a step while most wait for these (`scheduler.reading`)."""


class BatchRunner:
    """Advances all jobs together, as many at a time as there are slots.

    `report` takes lines for the log. What a job leaves in its slot is kept: a conversation's next
    turn, and whatever begins like it, computes only what is new.
    """

    def __init__(
        self,
        thread: EngineThread,
        context: Context,
        report: Callable[[str], None],
        *,
        cache: int,
        sight: Sight | None = None,
    ) -> None:
        self._thread = thread
        self._context = context
        self.counters = Counters()
        self._memory: SlotMemory[Branch] = SlotMemory(context, cache, self.counters)
        self._slots = self._memory.slots
        self._waiting: list[Branch] = []
        self._open: set[Job] = set()
        self._outbox: list[tuple[Job, Chosen | AIPlaygroundError]] = []
        self._computed: list[Answer] = []
        # What the next step computes, where that is the next token of all who are in work.
        self._next: list[list[Part[Branch]]] | None = None
        self._limit = Limit(context.slots)
        most = context.batch_size
        self._pace = Pace(STEP, least=LEAST_CHUNK, quiet=QUIET_CHUNK, most=most)
        self._measuring = Measuring(self._memory, report)
        self._viewer = Viewer(context, sight) if sight else None
        self._orders = 0
        self._running = self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def active(self) -> int:
        """How many jobs are waiting or in work, given up or not.

        On the loop, as all who change that.
        """
        return len(self._open) or int(self.counters.slots_busy > 0)

    def start(self) -> None:
        """Begin, with measurements while there is nothing else to do."""
        self._thread.submit(self._wake)

    def submit(self, job: Job) -> None:
        """Take on a job."""
        self._loop = asyncio.get_running_loop()
        self._open.add(job)
        self._thread.submit(lambda: self._admit(job))

    def abort(self, error: AIPlaygroundError) -> None:
        """End all jobs with this error."""
        for job in tuple(self._open):
            job.put(error)
        self._interrupt()

    def withdraw(self, job: Job) -> None:
        """Give a job up, whether it is done or not. Called on the loop."""
        job.cancel()
        self._open.discard(job)
        self._interrupt()

    def _interrupt(self) -> None:
        """Have a batch interrupted that nobody waits for."""
        answers = self._computed
        if answers and all(answer.over for answer in answers):
            # By now it may be another batch: that one is computed again.
            self._context.interrupt()

    def release(self) -> int:
        """Give up what is kept for later and return the bytes; in the engine's thread."""
        return self._memory.release()

    def close(self) -> None:
        """Free what jobs hold; in the engine's thread, before the context is freed."""
        self._closed = True
        for work in (*self._waiting, *(slot.work for slot in self._slots)):
            if work is not None:
                work.close()
        self._waiting.clear()
        self._memory.close()

    def _admit(self, job: Job) -> None:
        if self._closed:
            self._fail(job, unloaded())
            self._flush()
            return
        for index in range(job.task.answers):
            self._orders += 1
            size = self._context.size
            branch = Branch(self._context.model, job, index, self._orders, size)
            self._waiting.append(branch)
        self._wake()

    def _wake(self) -> None:
        if not self._running:
            self._running = True
            self._thread.submit(self._turn)

    def _turn(self) -> None:
        """Do steps until there is nothing to do, or something else is due in between."""
        while not self._closed:
            again = self._do()
            self._flush()
            if not again:
                self._running = False
                return
            if self._thread.wanted:
                self._thread.submit(self._turn)
                return

    def _do(self) -> bool:
        """Do a step, or what is left for idle times; return False if there is nothing."""
        try:
            return self._step() or self._measuring.step() or self._memory.keep_copy()
        except AIPlaygroundError as error:
            return self._fail_all(error)
        except Exception as error:  # noqa: BLE001  # the jobs' end, not the thread's
            traceback.print_exception(error, file=sys.stderr)
            told = AIPlaygroundError("The engine failed on this request; its log says more.")
            return self._fail_all(told)

    def _step(self) -> bool:
        """Compute what is next; return False if there is nothing to do."""
        started = perf_counter()
        self._drop_over()
        if self._waiting:
            self._place_waiting()
        else:
            self._memory.tidy()
        batches, seen = self._next, False
        if batches is None:
            batches, seen = self._plan()
        for batch in batches:
            if not self._compute(batch):
                break
        if batches:
            self.counters.steps += 1
            self.counters.step_seconds += perf_counter() - started
        return bool(batches or seen or self._waiting)

    def _plan(self) -> tuple[list[list[Part[Branch]]], bool]:
        """Return the batches of this step, and whether a piece of an image was done before them."""
        chunk = self._pace.chunk(quiet=reading(self._slots))
        seen = self._viewer is not None and self._look(self._viewer, chunk)
        parts = next_parts(self._slots, self._context.batch_size, chunk)
        if self._viewer is not None:
            parts = up_to_images(parts)
        batches = split(parts, self._measuring.sizes, apart=not self._context.unified)
        if self._viewer is None and goes_on(parts, self._slots):
            self._next = batches
        return batches, seen

    def _look(self, viewer: Viewer, most: int) -> bool:
        """Do a piece of the image that is next; return False if there is none."""
        view = viewer.next(self._slots)
        if view is None:
            return False
        self._computed = [view.work.answer]
        before = len(view.slot.tokens)
        try:
            status = viewer.step(view, most)
        except ServiceFailed as error:
            self._fail(view.work.job, error)
            self._end(view.slot, view.work)
            return True
        finally:
            self._computed = []
        self.counters.prompt_tokens += len(view.slot.tokens) - before
        if status == FULL:
            self._make_room([Part(view.slot, view.image.length, False)])
        elif status == INTERRUPTED:
            self._memory.trim(view.slot, len(view.slot.tokens))
            viewer.drop()
        elif status != OK:
            raise _failed(status)
        return True

    def _drop_over(self) -> None:
        for slot in self._slots:
            if slot.work is not None and slot.work.answer.over:
                self._end(slot, slot.work)
                self._limit.ended()
        for branch in [branch for branch in self._waiting if branch.answer.over]:
            self._waiting.remove(branch)
            branch.close()

    def _place_waiting(self) -> None:
        busy = sum(slot.work is not None for slot in self._slots)
        for branch in tuple(self._waiting):
            if busy >= self._limit.value:
                return
            if self._context.sharing and held_back(branch.tokens, self._slots):
                continue
            self._waiting.remove(branch)
            busy += self._begin(branch)

    def _begin(self, branch: Branch) -> bool:
        """Give a branch a slot; return False if it cannot be worked on."""
        self._next = None
        try:
            branch.open()
        except AIPlaygroundError as error:
            self._fail(branch.job, error)
            return False
        found = self._memory.place(branch)
        if branch.answer.cached is None:  # not one that was put off
            branch.answer.cached = found
            self.counters.cached_tokens += found
        return True

    def _compute(self, batch: list[Part[Branch]]) -> bool:
        """Compute a batch and choose the tokens that follow; False if there was no room."""
        rows = [_row(part) for part in batch]
        self._computed = [part.slot.work.answer for part in batch if part.slot.work]
        started, began = perf_counter(), self._context.clock()
        status, places = self._context.decode(rows)
        used, seconds = self._context.clock() - began, perf_counter() - started
        self._computed = []
        if status == FULL:
            self._make_room(batch)
            return False
        if status == INTERRUPTED:
            self._next = None
            for part in batch:
                self._memory.trim(part.slot, len(part.slot.tokens))
            return False
        if status != OK:
            raise _failed(status)
        self._learn(batch, seconds, used)
        self.counters.answer_tokens += len(places)
        started, wanted = perf_counter(), iter(places)
        for part, row in zip(batch, rows, strict=True):
            part.slot.tokens += row.tokens
            if part.final:
                self._choose(part.slot, next(wanted))
        self.counters.choose_seconds += perf_counter() - started
        return True

    def _learn(self, batch: list[Part[Branch]], seconds: float, used: float) -> None:
        """Take note of the seconds, and of those by the context's own clock."""
        self.counters.decode_seconds += seconds
        self.counters.batches += 1
        read = sum(part.size for part in batch if part.size > 1)
        if read:
            self.counters.prompt_tokens += read
            self._pace.took(sum(part.size for part in batch), seconds)
        elif self._measuring.learn(len(batch), used):
            self._next = None

    def _choose(self, slot: Slot[Branch], place: int) -> None:
        branch = slot.work
        if branch is None:
            return
        chosen = branch.advance(self._context, place)
        if chosen.reason is not None:
            self._end(slot, branch)
            self._limit.ended()
        self._outbox.append((branch.job, chosen))

    def _make_room(self, batch: list[Part[Branch]]) -> None:
        """Give up what is kept for later; else put somebody off; else end the only answer."""
        self._next = None
        if self._memory.evict():
            return
        late = latecomer(self._slots)
        if late is not None and late.work is not None:
            insort(self._waiting, late.work, key=lambda branch: branch.order)
            self._memory.leave(late)
            self._memory.forget(late)
            self._limit.full(sum(slot.work is not None for slot in self._slots))
            self.counters.put_off += 1
            return
        slot = batch[0].slot
        branch = slot.work
        if branch is None:
            return
        self._end(slot, branch)
        self._memory.forget(slot)
        self._outbox.append((branch.job, branch.end("length")))

    def _end(self, slot: Slot[Branch], branch: Branch) -> None:
        self._next = None
        if self._viewer is not None and self._viewer.begun_in(slot):
            self._memory.trim(slot, len(slot.tokens))
            self._viewer.drop()
        self._memory.leave(slot)
        branch.close()

    def _fail(self, job: Job, error: AIPlaygroundError) -> None:
        job.cancel()
        self._outbox.append((job, error))

    def _fail_all(self, error: AIPlaygroundError) -> bool:
        """Fail what is in work; return whether somebody waits."""
        self._next = None
        for slot in self._slots:
            if slot.work is not None:
                branch = slot.work
                if not branch.answer.over:
                    self._fail(branch.job, error)
                self._end(slot, branch)
        # After an error nobody knows how much of the batch the memory holds.
        self._memory.clear()
        self._measuring.give_up()
        return bool(self._waiting)

    def _flush(self) -> None:
        if self._outbox and self._loop is not None:
            events, self._outbox = self._outbox, []
            self._loop.call_soon_threadsafe(deliver, events)


def _row(part: Part[Branch]) -> Row:
    slot, count, final = part
    start = len(slot.tokens)
    tokens = slot.work.tokens[start : start + count] if slot.work else []
    return Row(slot.index, start, tokens, final)


def _failed(status: int) -> ServiceFailed:
    return ServiceFailed(
        f"llama.cpp failed to compute (status {status}). Try again; if it stays so, set a smaller "
        "context_size or batch_size, or use another model.",
        failure=FailureClass.CRASH,
        details={"status": status},
    )
