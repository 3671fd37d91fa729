"""The kernel's own stores as a user interface sees them, in process and through a client alike."""

from __future__ import annotations

from typing import Any, Protocol

from aiplayground.api import ModelDownloadInfo
from aiplayground.conversations import PAGE, ROUTER, ConversationPage, SearchPage
from aiplayground.states import BackendStatus

from ._surface import StoreView
from .backend_services import BackendServicesState
from .chat import ChatState, ShownConversation
from .models import ModelsState
from .presets import PresetsState


class BackendServices(StoreView[BackendServicesState], Protocol):
    """The store `backendServices`."""

    async def refresh_service_info(self) -> None:
        """Look at every service anew."""

    async def start_service(self, service_name: str) -> BackendStatus:
        """Start a service; returns when it runs."""

    async def stop_service(self, service_name: str) -> BackendStatus:
        """Stop a service."""

    async def set_up_service(self, service_name: str) -> None:
        """Install what a service needs."""


class Models(StoreView[ModelsState], Protocol):
    """The store `models`."""

    async def refresh_models(self) -> None:
        """Look at the model folders again."""

    async def download_model(self, model_info: ModelDownloadInfo) -> None:
        """Download a model; returns when it is complete."""


class Presets(StoreView[PresetsState], Protocol):
    """The store `presets`."""

    async def set_active_preset(self, index: int) -> None:
        """Make a preset the active one."""

    async def set_active_variant(self, name: str | None = None) -> None:
        """Choose a variant of the active preset; None means the first."""

    async def set_setting(self, key: str, value: Any = None) -> None:
        """Set a setting of the active preset; None brings its default back."""

    async def reset_settings(self) -> None:
        """Bring the defaults of all settings of the active preset back."""

    async def load_presets(self) -> None:
        """Read every preset anew."""


class OpenAiCompatibleChat(StoreView[ChatState], Protocol):
    """The store `openAiCompatibleChat`; `aiplayground.stores.chat` says what each action does."""

    async def send_message(
        self, text: str, images: list[str] | None = None, conversation_id: str | None = None
    ) -> None:
        """Send a message, and return when it is answered."""

    async def regenerate(
        self, message_id: str | None = None, conversation_id: str | None = None
    ) -> None:
        """Answer again."""

    async def edit_message(
        self, message_id: str, text: str, conversation_id: str | None = None
    ) -> None:
        """Say something else in the place of a message."""

    async def show_branch(self, message_id: str, conversation_id: str | None = None) -> None:
        """Show the newest branch that goes through a message."""

    async def stop(self, conversation_id: str | None = None) -> None:
        """End the answer that is being given."""

    async def set_model(
        self, model_name: str, backend: str = ROUTER, conversation_id: str | None = None
    ) -> None:
        """Choose the model that the conversation goes on with."""

    async def configure(
        self,
        system_prompt: str | None = None,
        settings: dict[str, Any] | None = None,
        preset: str | None = None,
        conversation_id: str | None = None,
    ) -> None:
        """Set the instructions, the sampling settings or the preset's name of a conversation."""

    async def new_conversation(self, system_prompt: str = "", preset: str | None = None) -> str:
        """Begin a conversation, and open it; returns its id."""

    async def open_conversation(self, conversation_id: str) -> None:
        """Open a conversation."""

    async def rename_conversation(self, conversation_id: str, title: str) -> None:
        """Give a conversation another title."""

    async def delete_conversation(self, conversation_id: str) -> None:
        """Remove a conversation for good."""

    async def get_conversation(self, conversation_id: str) -> ShownConversation:
        """Return a conversation and its messages, without opening it."""

    async def list_conversations(
        self, limit: int = PAGE, after: str | None = None
    ) -> ConversationPage:
        """Return a part of the list, newest first."""

    async def list_more(self) -> None:
        """Add the next part of the list to the state."""

    async def list_again(self) -> None:
        """List the newest conversations anew."""

    async def search_conversations(
        self, text: str, limit: int = PAGE, after: str | None = None
    ) -> SearchPage:
        """Find messages that have every word of a text."""
