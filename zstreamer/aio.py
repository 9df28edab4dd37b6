"""The client for asyncio: `zstreamer.aio.Client`, the same as `zstreamer.Client`, awaited.

async with zstreamer.aio.Client("tcp://127.0.0.1:7787") as client:
    [word] = await client.predict(["Happy birthday to [MASK]."])
"""

from __future__ import annotations

from zstreamer.client.aio import AsyncClient as Client

__all__ = ["Client"]
