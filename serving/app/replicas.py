"""The replicas with the engines, as the ingress sees them: called once more where one died, never for ever."""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from infra.errors import DeadlinePassed, EditTransferError, Interrupted, TooMany
from serving.engine.request import Description, Edited, Progress, Work

log = logging.getLogger(__name__)

TRIES = 2
AGAIN_AFTER = 2.0  # seconds, where there is no room, or nobody to answer
GRACE = 2.0  # seconds for an engine to say itself that time is up

GONE = (RayActorError, TaskCancelledError)  # the process died, or was told to stop


class Replicas:
    """Every method raises what the engine raises, TooMany where no more can be queued, Interrupted where replicas
    died, and DeadlinePassed."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def describe(self) -> Description:
        """What the engines run; waits until one of them is ready."""
        return await self._handle.describe.remote()

    async def transfer(self, work: Work) -> Edited:
        """Edit one image."""
        async for said in self._said(work, "transfer"):
            if isinstance(said, Edited):
                return said
        raise Interrupted("The edit ended without a result. Send the request again.")

    def progress(self, work: Work) -> AsyncGenerator[Progress | Edited, None]:
        """Edit one image; the last thing said is the result. After a replica died, steps count from one again."""
        return self._said(work, "progress")

    async def _said(self, work: Work, method: str) -> AsyncGenerator[Progress | Edited, None]:
        loop = asyncio.get_running_loop()
        deadline = None if work.seconds is None else loop.time() + work.seconds + GRACE
        for left in reversed(range(TRIES)):
            try:
                async with aclosing(self._asked(work, method)) as answers:
                    async for said in _until(deadline, answers):
                        yield said
                return
            except TimeoutError:
                raise DeadlinePassed(f"The edit was not done within {work.seconds:g} seconds.") from None
            except GONE as error:
                log.warning("A replica went away during an edit: %s", type(error).__name__)
                if not left:
                    raise Interrupted(
                        "What worked on this request went away, twice. Send it again in some seconds."
                    ) from None

    async def _asked(self, work: Work, method: str) -> AsyncGenerator[Progress | Edited, None]:
        """One call. Its place in the engine is given back however the block is left."""
        streams = method == "progress"
        response: Any = self._handle.options(stream=streams, method_name=method).remote(work)
        done = False
        try:
            if streams:
                async for said in response:
                    yield said
            else:
                yield await response
            done = True
        except BackPressureError:
            raise TooMany("As many requests wait as can be queued. Try again in a moment.", AGAIN_AFTER) from None
        except RayTaskError as error:
            if isinstance(error.cause, EditTransferError):
                raise error.cause from None
            raise
        finally:
            if not done:
                with suppress(Exception):  # nothing is left to cancel
                    response.cancel()

    async def states(self, seconds: float = 1.0) -> list[dict[str, Any]]:
        """Numbers of every replica that answers in time."""
        try:
            answers = await self._handle.broadcast("state").results_async(timeout_s=seconds, return_exceptions=True)
        except (TimeoutError, RayError, RayServeException):
            return []
        return [answer for answer in answers if isinstance(answer, dict)]


async def _until(
    deadline: float | None, answers: AsyncGenerator[Progress | Edited, None]
) -> AsyncIterator[Progress | Edited]:
    """Hand on what comes; raises TimeoutError when the loop's clock passes the deadline."""
    while True:
        async with asyncio.timeout_at(deadline):  # not around the yield: what a caller does is not timed
            try:
                said = await anext(answers)
            except StopAsyncIteration:
                return
        yield said


def retry_after(error: BaseException) -> int | None:
    """Seconds after which a request may be worth another try, None where it is not."""
    if isinstance(error, TooMany):
        return max(1, math.ceil(error.retry_after))
    return math.ceil(AGAIN_AFTER) if getattr(error, "http_status", 500) == 503 else None
