"""Firefox for Playwright: starts it, and answers for it what it does not know.

Playwright drives an installed Firefox by WebDriver BiDi (channel moz-firefox) and, in every new context, asks it to
emulate media features. Firefox 153 has no such command and refuses it, so no page opens. This stands between the two,
answers that one command, and passes on all others. Color schemes are then those of the machine. Needs `websockets`.

    python firefox_proxy.py firefox-esr --headless ...
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from typing import Any

LISTENING = re.compile(r"WebDriver BiDi listening on (ws://\S+)")
UNKNOWN = "emulation.setMediaFeaturesOverride"


async def serve(command: list[str]) -> int:
    """Run Firefox until it ends, with a port of our own in place of the one that it reports."""
    from websockets.asyncio.server import serve as listen

    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    async with contextlib.AsyncExitStack() as stack:
        async for line in process.stderr:
            text = line.decode(errors="replace").rstrip()
            if match := LISTENING.search(text):
                to = match[1]
                server = await stack.enter_async_context(
                    listen(lambda client, to=to: between(client, to), "127.0.0.1", 0, max_size=None)
                )
                text = f"WebDriver BiDi listening on ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            print(text, file=sys.stderr, flush=True)
        return await process.wait()


async def between(client: Any, url: str) -> None:
    """Pass messages on, in both directions, until one side ends."""
    from websockets.asyncio.client import connect

    async with connect(url + client.request.path, max_size=None) as firefox:

        async def to_firefox() -> None:
            async for text in client:
                message = json.loads(text)
                if message["method"] == UNKNOWN:
                    await client.send(json.dumps({"type": "success", "id": message["id"], "result": {}}))
                else:
                    await firefox.send(text)
            await firefox.close()

        async def to_client() -> None:
            async for text in firefox:
                await client.send(text)
            await client.close()

        await asyncio.gather(to_firefox(), to_client())


if __name__ == "__main__":
    sys.exit(asyncio.run(serve(sys.argv[1:])))
