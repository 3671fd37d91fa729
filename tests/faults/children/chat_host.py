"""A program with a kernel, the real engine and the guide: is killed while it keeps an answer.

Argument: the home. Prints the conversation's id when the beginning of an answer is on the disk.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.fakes import QUICK, eventually

import aiplayground_guide.plugin as guide
import aiplayground_llamacpp.plugin as llamacpp
from aiplayground import Kernel
from aiplayground.conversations import Archive, _answering

PLUGINS = {"llamacpp-backend": llamacpp, "guide": guide}


async def main(home: Path) -> None:
    """Ask for a long answer."""
    _answering.KEEP_EVERY = 0.01
    async with Kernel(home=home, plugins=PLUGINS, discover=False, settings=QUICK) as kernel:
        chat = await kernel.store("openAiCompatibleChat")
        conversation = await chat.new_conversation()
        await chat.configure(settings={"ignore_eos": True, "max_tokens": 900})
        sending = asyncio.create_task(chat.send_message("What is AI Playground?"))
        await eventually(lambda: chat.state.messages and chat.state.messages[-1].content)
        reader = Archive(home / "data" / "conversations")
        while not (await reader.branch(conversation)).messages[-1].content:
            await asyncio.sleep(0.01)
        print(conversation, flush=True)
        await sending


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
