"""The deployment with the GPU: one engine, and what Serve wants to know of it."""

import asyncio
import math
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

from PIL import Image

from infra.settings import from_environment
from serving.app.options import Options
from serving.engine.request import Description, Edited, Progress, Work


class Replica:
    """An engine that takes requests from any number of callers. It has done an edit before it takes the first."""

    def __init__(self, options: Options) -> None:
        settings = from_environment()
        module, _, name = options.engine.partition(":")
        engine = getattr(import_module(module), name)
        self.engine = engine(
            options.base or settings.base, options.cache or settings.cache, **dict(options.engine_options)
        )
        self.description: Description = self.engine.describe()
        self._warm_up()

    def _warm_up(self) -> None:
        """One step at full size: memory is taken, and kernels are there, before anybody waits for them."""
        multiple = self.description.multiple
        side = max(multiple, int(math.sqrt(self.description.max_area)) // multiple * multiple)
        image = Image.new("RGB", (side, side), "grey")
        work = Work(query=image, pairs=((image, image),), shown=(("warm", "up"),), seed=0, steps=1)
        self.engine.submit(work).result()

    async def describe(self) -> Description:
        """What it runs."""
        return self.description

    async def transfer(self, work: Work) -> Edited:
        """Edit an image. When the caller goes away, its place in the batch is free at the next step."""
        return await asyncio.wrap_future(self.engine.submit(work))

    async def progress(self, work: Work) -> AsyncIterator[Progress | Edited]:
        """Edit an image, and say after each step how far it is; the last thing said is the result."""
        loop, told = asyncio.get_running_loop(), asyncio.Queue[Progress | None]()

        def tell(progress: Progress | None) -> None:
            loop.call_soon_threadsafe(told.put_nowait, progress)

        future = self.engine.submit(work, tell)
        future.add_done_callback(lambda _: tell(None))
        try:
            while (progress := await told.get()) is not None:
                yield progress
            yield await asyncio.wrap_future(future)
        finally:
            future.cancel()

    async def state(self) -> dict[str, Any]:
        """Numbers of the engine, and under `replica` whose they are."""
        from ray import serve

        return {"replica": serve.get_replica_context().replica_id.unique_id, **self.engine.state()}

    def check_health(self) -> None:
        """Raises whatever the engine raises that can no longer tell its state: Serve then starts another."""
        self.engine.state()

    def __del__(self) -> None:
        if hasattr(self, "engine"):
            self.engine.stop()
