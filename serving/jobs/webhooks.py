"""Telling of jobs that have ended: signed as Standard Webhooks, at least once, with a dedupe id that never changes.

What is to be told is found in Ray's list of jobs, so nothing is lost with a process. What was told is written down in
`<serving>/webhooks/<job>.json`, once. A process tells of the jobs that it took itself; another one takes over what
is not written down some minutes after a job's end.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from infra import store
from infra.errors import EditTransferError, RequestError, StoreError
from infra.jobs import Job
from serving.access import Gate, Key
from serving.jobs.desk import OWNER, WEBHOOK, Desk
from serving.jobs.targets import without_query

if TYPE_CHECKING:
    from aiohttp import ClientSession

SECONDS_TO_ANSWER = 10
AT_A_TIME = 16
GONE = 410  # whoever answers so does not want to be asked again

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Seconds.

    look      between looks at the jobs of which this process will tell
    idle      between looks where there are none
    orphaned  after the end of a job that another process took, until this one tells of it
    first     pause after a failed try; each further one is twice as long, up to `longest`, and drawn at random
    give_up   after the end of a job: no further try
    """

    look: float = 2
    idle: float = 60
    orphaned: float = 180
    first: float = 1
    longest: float = 3600
    give_up: float = 24 * 3600


class Webhooks:
    """Tells of the jobs of one desk, while `run` runs."""

    def __init__(
        self, desk: Desk, gate: Gate, schedule: Schedule | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` in seconds since 1970."""
        self._desk, self._gate, self._schedule, self._clock = desk, gate, schedule or Schedule(), clock
        self._targets = desk.config.targets
        self._mine, self._taken = set[str](), set[str]()
        self._wake = asyncio.Event()
        self._at_a_time = asyncio.Semaphore(AT_A_TIME)

    def expect(self, job_id: str) -> None:
        """This process took the job, and will tell of it."""
        self._mine.add(job_id)
        self._wake.set()

    async def run(self) -> None:
        """Tell of jobs until this is cancelled. What was not told by then is told by the next process."""
        import aiohttp

        session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=SECONDS_TO_ANSWER), cookie_jar=aiohttp.DummyCookieJar()
        )
        async with session, asyncio.TaskGroup() as telling:
            while True:
                for job in await self._to_tell():
                    self._taken.add(job.job_id)
                    telling.create_task(self._tell(job, session))
                await self._rest()

    async def _to_tell(self) -> list[Job]:
        mine = set(self._mine)
        try:
            jobs = await asyncio.to_thread(self._desk.with_webhooks)
        except EditTransferError as error:
            log.warning("Jobs cannot be looked at to tell of them: %s", error)
            return []
        known = {job.job_id for job in jobs}
        self._mine -= mine - known  # jobs that came meanwhile stay
        self._taken &= known
        return [job for job in jobs if job.ended and job.job_id not in self._taken and self._is_ours(job)]

    def _is_ours(self, job: Job) -> bool:
        return job.job_id in self._mine or self._since_end(job) > self._schedule.orphaned

    async def _rest(self) -> None:
        self._wake.clear()
        if self._mine - self._taken:
            await asyncio.sleep(self._schedule.look)
        else:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._schedule.idle)

    async def _tell(self, job: Job, session: "ClientSession") -> None:
        try:
            await self._insist(job, session)
        except Exception:  # of one job; the others are told of
            log.exception("Nobody was told that job %s has ended", job.job_id)

    async def _insist(self, job: Job, session: "ClientSession") -> None:
        pauses = self._pauses()
        for tries in count(1):
            if await self._stored(job, lambda: store.stat(self._record(job))):
                return
            answer = await self._try(job, session)
            told = isinstance(answer, int) and 200 <= answer < 300
            if told or answer == GONE or isinstance(answer, str) or self._since_end(job) > self._schedule.give_up:
                return await self._write_down(job, told, answer, tries)
            await asyncio.sleep(next(pauses))

    def _pauses(self) -> Iterator[float]:
        for tries in count():
            longest = min(self._schedule.first * 2 ** min(tries, 30), self._schedule.longest)
            yield random.uniform(longest / 2, longest)

    async def _stored(self, job: Job, verb: Callable[[], T]) -> T | None:
        """What the store answers, asked again while it does not; None once it is time to give up."""
        for pause in self._pauses():
            try:
                return await asyncio.to_thread(verb)
            except StoreError as error:
                log.warning("Whether somebody was told of job %s cannot be looked up: %s", job.job_id, error)
                if self._since_end(job) > self._schedule.give_up:
                    return None
            await asyncio.sleep(pause)
        return None

    async def _try(self, job: Job, session: "ClientSession") -> int | str | None:
        """The status that was answered; None if nobody answered; why not, if nothing may be sent."""
        import aiohttp

        try:
            url = self._targets.checked(job.metadata[WEBHOOK])
            key = await self._gate.key(job.metadata[OWNER])
        except RequestError as error:
            return str(error)
        except EditTransferError:
            return None
        if key is None:
            return "The key was revoked."
        body = await asyncio.to_thread(self._body, job)
        headers = signed(key, f"msg_{job.job_id}", int(self._clock()), body)
        try:
            async with self._at_a_time, session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    def _body(self, job: Job) -> bytes:
        told = self._desk.told(job)
        message = {"type": f"job.{job.state}", "timestamp": job.ended_at, "data": told.model_dump(mode="json")}
        return json.dumps(message).encode()

    async def _write_down(self, job: Job, told: bool, answer: int | str | None, tries: int) -> None:
        record = {
            "job_id": job.job_id,
            "url": without_query(job.metadata[WEBHOOK]),
            "delivered": told,
            "answer": answer,
            "tries": tries,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        await self._stored(job, lambda: store.write_if_absent(self._record(job), json.dumps(record).encode()))
        if not told:
            log.warning("Nobody was told that job %s has ended: %s", job.job_id, answer)

    def _record(self, job: Job) -> str:
        return store.join(self._desk.config.serving, "webhooks", f"{job.job_id}.json")

    def _since_end(self, job: Job) -> float:
        return self._clock() - datetime.fromisoformat(job.ended_at or "9999-01-01T00:00:00+00:00").timestamp()


def signed(key: Key, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of https://www.standardwebhooks.com for a message; `timestamp` in seconds since 1970."""
    secret = base64.b64decode(key.signing_secret.removeprefix("whsec_"))
    signature = hmac.digest(secret, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }
