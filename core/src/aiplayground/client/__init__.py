"""A client for a kernel that runs elsewhere (`aipg serve`): its IPC methods and its events.

    async with AsyncClient() as client:
        print(await client.send_start_signal("llamacpp-backend"))
        async for event in client.events():
            print(event.name, event.data)

`Client` is the same without `async`. Both need the extra `client`:
`pip install "aiplayground[client]"`. Chats go to the OpenAI-compatible API, `/v1` below
`client.base_url()`, for which there are clients already.
"""

from __future__ import annotations

from ._async import AsyncClient
from ._events import RemoteEvent
from ._sync import Client

__all__ = ["AsyncClient", "Client", "RemoteEvent"]
