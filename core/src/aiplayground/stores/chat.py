"""The store `openAiCompatibleChat`: conversations with models, kept.

    chat = await kernel.store("openAiCompatibleChat")
    await chat.set_model("guide", "ai-backend")
    await chat.send_message("What is AI Playground?")
    print(chat.state.messages[-1].content)

Source: the API reference, "openAiCompatibleChat Store" and "Message Schema".
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from pydantic import Field

from aiplayground.conversations import (
    PAGE,
    ROUTER,
    Archive,
    Branch,
    ChatMessage,
    Conversation,
    ConversationPage,
    SearchPage,
    Turns,
)
from aiplayground.conversations._images import decode_images
from aiplayground.conversations._model import model_with, parameters_of, resolve, sampling
from aiplayground.conversations._prompting import MAX_TEXT, well_formed
from aiplayground.errors import InvalidParameters

from ._state import StoreState, getter
from ._store import Store, action

__all__ = ["ChatState", "OpenAiCompatibleChatStore", "ShownConversation"]

Id = Annotated[str, Field(min_length=1, max_length=64)]
Name = Annotated[str, Field(min_length=1, max_length=4096)]
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Title = Annotated[str, Field(min_length=1, max_length=200)]
Preset = Annotated[str, Field(max_length=200)]
Limit = Annotated[int, Field(ge=1, le=500)]


class ChatState(StoreState):
    """`messages` are those of the conversation that is open, in the branch that is shown.

    `conversations` is the beginning of the list, newest first; `next_conversations` asks for what
    follows. `generating` names the conversations that are being answered. `model` and `backend` are
    what the next message goes to. `problem` says what happened to a file that was damaged.
    """

    conversation: Conversation | None = None
    messages: tuple[ChatMessage, ...] = ()
    model: str = ""
    backend: str = ROUTER
    generating: tuple[str, ...] = ()
    conversations: tuple[Conversation, ...] = ()
    next_conversations: str | None = None
    problem: str | None = None

    @getter
    def is_generating(self) -> bool:
        """Whether the conversation that is open is being answered."""
        return self.conversation is not None and self.conversation.id in self.generating


class ShownConversation(Conversation):
    """A conversation with the messages of the branch that it shows."""

    messages: tuple[ChatMessage, ...]


class OpenAiCompatibleChatStore(Store[ChatState]):
    """Conversations with models: sent, answered as it streams, kept, searched.

    Where an action takes a conversation and none is named, it is the one that is open. One answer
    at a time in each conversation, any number of conversations at a time. An answer belongs to the
    store: it goes on when its caller is gone, until it has ended or `stop` is called.
    """

    name = "openAiCompatibleChat"
    private = True

    async def open(self) -> None:
        """Open the file, and list the newest conversations."""
        self._archive = Archive(self.kernel.paths.conversations)
        self._turns = Turns(self.kernel, self._archive, self._told, self._show)
        self._beginning = asyncio.Lock()
        problem = await self._archive.open()
        if problem is not None:
            self.kernel.log().logger.error("%s", problem)
        self._set(problem=problem)
        await self.list_again()

    async def close(self) -> None:
        """End the answers, which are kept as they are, and close the file."""
        await self._turns.close()
        await self._archive.close()
        await super().close()

    # Messages -----------------------------------------------------------------------------

    @action
    async def send_message(
        self, text: Text, images: list[str] | None = None, conversation_id: Id | None = None
    ) -> None:
        """Send a message, and return when it is answered; `images` in base64 or as data URLs.

        A conversation is begun where none is open. Raises what the answer failed with.
        """
        text = well_formed(text)
        if not images:
            _refuse_empty(text)
        limit = self.kernel.settings.files.max_image * 2**20
        pictures = await asyncio.to_thread(decode_images, images or [], limit)
        await self._turns.send(await self._open_or_new(conversation_id), text, pictures)

    @action
    async def regenerate(
        self, message_id: Id | None = None, conversation_id: Id | None = None
    ) -> None:
        """Answer again: the last question, or the one of a message. The old answer is kept.

        So is a failed, stopped or interrupted answer tried again.
        """
        await self._turns.regenerate(self._named(conversation_id), message_id)

    @action
    async def edit_message(
        self, message_id: Id, text: Text, conversation_id: Id | None = None
    ) -> None:
        """Say something else in the place of a message; a question is answered anew.

        What stood there is kept in a branch of its own: see `show_branch`.
        """
        text = well_formed(text)
        _refuse_empty(text)
        await self._turns.edit(self._named(conversation_id), message_id, text)

    @action
    async def show_branch(self, message_id: Id, conversation_id: Id | None = None) -> None:
        """Show the newest branch that goes through a message: one of its `siblings`, mostly."""
        conversation = self._named(conversation_id)
        self._turns.refuse_when_busy(conversation)
        self._show(await self._archive.show(conversation, message_id))

    @action
    async def stop(self, conversation_id: Id | None = None) -> None:
        """End the answer that is being given, if one is; what there is of it is kept."""
        await self._turns.stop(self._named(conversation_id))

    # The model ----------------------------------------------------------------------------

    @action
    async def set_model(
        self, model_name: Name, backend: Id = ROUTER, conversation_id: Id | None = None
    ) -> None:
        """Choose the model that the conversation goes on with; it is loaded when it is needed.

        With the backend `ai-backend` whichever backend has the model. Raises `ModelNotFound` and
        `ServiceNotAvailable`, which suggest what may have been meant.
        """
        await resolve(self.kernel, model_name, backend)
        shown = self.state.conversation
        chosen = conversation_id or (shown.id if shown else None)
        if chosen is not None:
            await self._change(chosen, model=model_name, backend=backend)
        if conversation_id is None or self._is_open(conversation_id):
            self._set(model=model_name, backend=backend)

    @action
    async def configure(
        self,
        system_prompt: Text | None = None,
        settings: dict[str, Any] | None = None,
        preset: Preset | None = None,
        conversation_id: Id | None = None,
    ) -> None:
        """Set the instructions, the sampling settings or the preset of a conversation.

        What is not given stays. `settings` are fields of a chat request: `{"temperature": 0.7}`.
        `preset` is `NAME` or `NAME/VARIANT`, '' for none: what it says holds where the conversation
        has nothing of its own, and its model is chosen. Raises `InvalidParameters` for a preset
        that there is not, and what `set_model` does.
        """
        fields: dict[str, Any] = {}
        if system_prompt is not None:
            fields["system_prompt"] = well_formed(system_prompt)
        if settings is not None:
            fields["settings"] = sampling(settings)
        id_ = self._named(conversation_id)
        if preset is not None:
            now = await self._archive.find(id_)
            fields |= await self._preset(well_formed(preset), now.model, now.backend)
        await self._change(id_, **fields)
        if preset and self._is_open(id_):
            self._set(model=fields["model"], backend=fields["backend"])

    # Conversations ------------------------------------------------------------------------

    @action
    async def new_conversation(self, system_prompt: Text = "", preset: Preset | None = None) -> str:
        """Begin a conversation with the model that is chosen, and open it; returns its id.

        `preset` is as `configure` takes it.
        """
        chosen = await self._preset(well_formed(preset or ""), self.state.model, self.state.backend)
        made = await self._archive.create(system_prompt=well_formed(system_prompt), **chosen)
        self._set(
            conversation=made,
            messages=(),
            model=made.model,
            backend=made.backend,
            conversations=self._listed(made),
        )
        return made.id

    @action
    async def open_conversation(self, conversation_id: Id) -> None:
        """Open a conversation: its messages are those of the state from now on."""
        branch = await self._archive.branch(conversation_id)
        self._set(
            conversation=branch.conversation,
            messages=self._turns.as_it_is(branch),
            model=branch.conversation.model,
            backend=branch.conversation.backend,
        )

    @action
    async def rename_conversation(self, conversation_id: Id, title: Title) -> None:
        """Give a conversation another title."""
        await self._change(conversation_id, title=well_formed(title).strip() or title)

    @action
    async def delete_conversation(self, conversation_id: Id) -> None:
        """Remove a conversation for good; an answer in it is stopped."""
        await self._turns.stop(conversation_id)
        await self._archive.delete(conversation_id)
        left = tuple(each for each in self.state.conversations if each.id != conversation_id)
        closed = {"conversation": None, "messages": ()} if self._is_open(conversation_id) else {}
        self._set(conversations=left, **closed)

    @action(listing=True)
    async def get_conversation(self, conversation_id: Id) -> ShownConversation:
        """Return a conversation and its messages, without opening it."""
        branch = await self._archive.branch(conversation_id)
        return ShownConversation(
            **branch.conversation.model_dump(), messages=self._turns.as_it_is(branch)
        )

    @action(listing=True)
    async def list_conversations(
        self, limit: Limit = PAGE, after: str | None = None
    ) -> ConversationPage:
        """Return a part of the list, newest first; `after` is the `next` of the part before."""
        return await self._archive.page(limit, after)

    @action
    async def list_more(self) -> None:
        """Add the next part of the list to the state."""
        after = self.state.next_conversations
        if after is not None:
            page = await self._archive.page(after=after)
            known = {each.id for each in self.state.conversations}
            more = [each for each in page.items if each.id not in known]
            listed = (*self.state.conversations, *more)
            self._set(conversations=listed, next_conversations=page.next)

    @action
    async def list_again(self) -> None:
        """List the newest conversations anew: what other programs wrote is among them then."""
        page = await self._archive.page()
        self._set(conversations=page.items, next_conversations=page.next)

    @action(listing=True)
    async def search_conversations(
        self, text: Name, limit: Limit = PAGE, after: str | None = None
    ) -> SearchPage:
        """Find messages that have every word of a text, and conversations so called."""
        return await self._archive.search(text, limit, after)

    # Inside -------------------------------------------------------------------------------

    def _is_open(self, conversation: str) -> bool:
        return self.state.conversation is not None and self.state.conversation.id == conversation

    def _named(self, conversation: str | None) -> str:
        if conversation is not None:
            return conversation
        if self.state.conversation is None:
            raise InvalidParameters(
                "No conversation is open. Open one, or name one.",
                details={"reason": "no-conversation"},
            )
        return self.state.conversation.id

    async def _open_or_new(self, conversation: str | None) -> str:
        if conversation is not None:
            return conversation
        async with self._beginning:  # of two first messages the second goes to the same one
            if self.state.conversation is None:
                # First: a model that is not there must not leave an empty conversation.
                await resolve(self.kernel, self.state.model, self.state.backend)
                return await self.new_conversation()
        return self._named(None)

    async def _preset(self, preset: str, model: str, backend: str) -> dict[str, Any]:
        """Return the fields that choosing a preset sets."""
        if preset:
            given = await parameters_of(self.kernel, preset)
            chosen = model_with(await self.kernel.models(), given, model, backend)
            if chosen != (model, backend):
                await resolve(self.kernel, *chosen)
            model, backend = chosen
        return {"preset": preset or None, "model": model, "backend": backend}

    async def _change(self, conversation: str, **fields: Any) -> None:
        changed = await self._archive.change(conversation, **fields)
        shown = {"conversation": changed} if self._is_open(conversation) else {}
        self._set(conversations=self._listed(changed), **shown)

    def _listed(self, changed: Conversation) -> tuple[Conversation, ...]:
        """Return the list with a conversation as it is now; one far down in it stays out."""
        others = [each for each in self.state.conversations if each.id != changed.id]
        if len(others) == len(self.state.conversations) and self._is_beyond(changed):
            return self.state.conversations
        newest = sorted([*others, changed], key=lambda it: (it.updated, it.id), reverse=True)
        return tuple(newest)

    def _is_beyond(self, conversation: Conversation) -> bool:
        last = self.state.conversations[-1:]
        return (
            bool(last)
            and self.state.next_conversations is not None
            and (conversation.updated, conversation.id) < (last[0].updated, last[0].id)
        )

    def _show(self, branch: Branch) -> None:
        """Show a branch that became another, and which conversations are being answered."""
        fields: dict[str, Any] = {}
        if self._is_open(branch.conversation.id):
            fields = {"conversation": branch.conversation, "messages": self._turns.as_it_is(branch)}
        self._set(
            conversations=self._listed(branch.conversation),
            generating=self._turns.in_progress,
            **fields,
        )

    def _told(self, conversation: str, message: ChatMessage | None) -> None:
        """Show an answer as it has become."""
        fields: dict[str, Any] = {"generating": self._turns.in_progress}
        if message is not None and self._is_open(conversation):
            shown = self.state.messages
            fields["messages"] = tuple(message if it.id == message.id else it for it in shown)
        self._set(**fields)


def _refuse_empty(text: str) -> None:
    if not text.strip():
        raise InvalidParameters("The message is empty.", details={"field": "text"})
