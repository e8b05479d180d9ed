"""Room for decoded images: requests wait for it, so that many large ones together cannot take all memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """A number of pixels that may be decoded at a time; who came first is let in first."""

    def __init__(self, pixels: int) -> None:
        self.pixels = self.free = pixels
        self._line = asyncio.Lock()
        self._left = asyncio.Event()

    @asynccontextmanager
    async def taken(self, pixels: int) -> AsyncIterator[None]:
        """While the block lasts, so many pixels are taken; an image larger than the room has it for itself."""
        pixels = min(pixels, self.pixels)
        async with self._line:
            while self.free < pixels:
                self._left.clear()
                await self._left.wait()
            self.free -= pixels
        try:
            yield
        finally:
            self.free += pixels
            self._left.set()
