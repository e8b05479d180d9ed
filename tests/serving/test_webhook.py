"""Webhooks, to a server that really answers, or does not."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from infra import store
from infra.errors import RequestError, StoreUnavailable, UsageError
from serving.access import Gate, keys
from serving.jobs import Desk, JobsConfig, Schedule, Webhooks
from serving.jobs.targets import Targets
from tests.serving.jobs import Cluster

STAT = store.stat  # that of a test may fail
QUICK = Schedule(look=0.01, idle=0.01, first=0.001, longest=0.002)


class Receiver:
    """A server that answers with one status after another, the last one for ever, and keeps what it was sent."""

    def __init__(self, *answers: int) -> None:
        self.answers, self.received = list(answers), list[tuple[dict[str, str], bytes]]()
        self.origin = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.received.append(({name.lower(): text for name, text in request.headers.items()}, await request.read()))
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=status, headers={"Location": "/elsewhere"} if 300 <= status < 400 else {})

    @asynccontextmanager
    async def served(self) -> AsyncIterator["Receiver"]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


class Office:
    """A desk with one job of one key, of which a receiver wants to be told."""

    def __init__(self, serving: str, receiver: Receiver, path: str = "/hooks/jobs?token=t") -> None:
        self.config = JobsConfig(serving=serving, registry=f"{serving}/registry", webhooks=(receiver.origin,))
        self.cluster = Cluster()
        self.key, _ = keys.create(serving, "shop", ["jobs"])
        self.url = receiver.origin + path
        notes = {"edit-transfer-owner": self.key.key_id, "edit-transfer-webhook": self.url}
        self.cluster.submit("apply", "job-1", {}, notes | {"edit-transfer-output": "s3://shop/out"})
        self.record = f"{serving}/webhooks/job-1.json"

    def webhooks(self, schedule: Schedule = QUICK, mine: bool = True, clock: Callable[[], float] = time.time):
        made = Webhooks(Desk(self.config, lambda: self.cluster), Gate(self.config.serving), schedule, clock)
        if mine:
            made.expect("job-1")
        return made

    def ends(self) -> None:
        """The job is over, just now."""
        self.cluster.end("job-1", total=2, done=2, report="s3://shop/out/report.html")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.cluster.jobs["job-1"] = replace(self.cluster.jobs["job-1"], ended_at=now)

    async def looked_at(self, times: int = 5) -> None:
        """Several more times, by what is running."""
        until = self.cluster.looks + times
        while self.cluster.looks < until:
            await asyncio.sleep(0.01)

    async def recorded(self) -> dict[str, Any]:
        while not await asyncio.to_thread(STAT, self.record):
            await asyncio.sleep(0.01)
        return json.loads(store.read(self.record))


@asynccontextmanager
async def running(webhooks: Webhooks) -> AsyncIterator[None]:
    task = asyncio.create_task(webhooks.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def verified(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """As the specification of Standard Webhooks has it, in other words than those of the sender."""
    content = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    wanted = hmac.new(base64.b64decode(secret.split("_", 1)[1]), content, hashlib.sha256).digest()
    version, signature = headers["webhook-signature"].split(",")
    return version == "v1" and base64.b64decode(signature) == wanted


def test_a_job_is_told_of_until_somebody_listens(serving):
    async def tells() -> None:
        async with Receiver(500, 503, 204).served() as receiver:
            office = Office(serving, receiver)
            async with running(office.webhooks()):
                await office.looked_at()
                assert not receiver.received  # the job runs still
                office.ends()
                record = await office.recorded()
            assert record.items() >= {"delivered": True, "answer": 204, "tries": 3, "job_id": "job-1"}.items()
            assert record["url"] == f"{receiver.origin}/hooks/jobs"
            assert len(receiver.received) == 3
            for headers, body in receiver.received:
                assert verified(office.key.signing_secret, headers, body)
                assert not verified(keys.create(serving, "b", ["jobs"])[0].signing_secret, headers, body)
                assert not verified(office.key.signing_secret, headers, body + b" ")
                assert abs(int(headers["webhook-timestamp"]) - time.time()) < 300
                assert headers["content-type"] == "application/json"
            assert {headers["webhook-id"] for headers, _ in receiver.received} == {"msg_job-1"}
            told = json.loads(receiver.received[-1][1])
            assert told["type"] == "job.succeeded" and told["data"]["id"] == "job-1"
            assert told["data"]["counts"]["done"] == 2 and told["data"]["report"] == "s3://shop/out/report.html"

            async with running(office.webhooks()):  # a process that is started anew
                await office.looked_at()
            assert len(receiver.received) == 3

    asyncio.run(tells())


def test_what_a_process_did_not_tell_the_next_one_does(local):
    async def tells() -> None:
        async with Receiver(500, 200).served() as receiver:
            office = Office(local, receiver)
            office.ends()
            never = Schedule(look=0.01, idle=0.01, first=1000, longest=1000)
            async with running(office.webhooks(never)):
                while not receiver.received:
                    await asyncio.sleep(0.01)
            later = time.time() + QUICK.orphaned + 10
            async with running(office.webhooks(mine=False)):  # it is too early for somebody else
                await office.looked_at()
            assert len(receiver.received) == 1
            async with running(office.webhooks(mine=False, clock=lambda: later)):
                assert (await office.recorded())["delivered"]
            assert {headers["webhook-id"] for headers, _ in receiver.received} == {"msg_job-1"}

    asyncio.run(tells())


def test_redirects_are_not_followed(local):
    async def tells() -> None:
        async with Receiver(302, 307, 200).served() as receiver:
            office = Office(local, receiver, "/hook")
            office.ends()
            async with running(office.webhooks()):
                assert (await office.recorded())["tries"] == 3

    asyncio.run(tells())


@pytest.mark.parametrize("answer", [410, 500])
def test_it_is_given_up_when_nobody_wants_it_or_after_a_day(local, answer):
    async def tells() -> None:
        async with Receiver(answer).served() as receiver:
            office = Office(local, receiver)
            office.ends()
            clock = time.time if answer == 410 else lambda: time.time() + QUICK.give_up + 10
            async with running(office.webhooks(clock=clock)):
                record = await office.recorded()
            assert record.items() >= {"delivered": False, "answer": answer, "tries": 1}.items()
            assert len(receiver.received) == 1

    asyncio.run(tells())


def test_nothing_is_sent_for_a_revoked_key_or_to_what_is_not_allowed_any_more(local):
    async def tells() -> None:
        async with Receiver(200).served() as receiver:
            office = Office(local, receiver)
            office.ends()
            keys.revoke(local, office.key.key_id)
            async with running(office.webhooks()):
                assert "revoked" in (await office.recorded())["answer"]
            store.delete(office.record)
            office.config = replace(office.config, webhooks=("https://shop.example",))
            async with running(office.webhooks()):
                assert "may not send" in (await office.recorded())["answer"]
            assert not receiver.received

    asyncio.run(tells())


def test_it_waits_for_a_cluster_and_a_store_that_do_not_answer(local, monkeypatch):
    listing = Cluster.all
    failures = iter(range(6))

    def sometimes(uri: str):
        if next(failures, None) is not None:
            raise StoreUnavailable(f"{uri}: the S3 server does not answer.")
        return STAT(uri)

    async def tells() -> None:
        async with Receiver(200).served() as receiver:
            office = Office(local, receiver)
            office.ends()
            gone = iter(range(3))

            def all_jobs(cluster: Cluster):
                if next(gone, None) is not None:
                    raise UsageError("The Ray cluster refused.")
                return listing(cluster)

            monkeypatch.setattr(Cluster, "all", all_jobs)
            monkeypatch.setattr(store, "stat", sometimes)
            async with running(office.webhooks()):
                assert (await office.recorded())["delivered"]
            assert len(receiver.received) == 1

    asyncio.run(tells())


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/hooks",
        "https://shop.example",
        "https://shop.example/hooksy",
        "https://shop.example/hooks/../admin",
        "https://shop.example/hooks/%2e%2e/admin",
        "https://shop.example/hooks%2f..%2fadmin",
        "https://shop.example/hooks/%252e%252e/admin",
        "https://shop.example//hooks",
        "https://shop.example:8443/hooks",
        "https://shop.example.evil.example/hooks",
        "https://evil.example/https://shop.example/hooks",
        "https://shop.example@evil.example/hooks",
        "https://evil.example\\@shop.example/hooks",
        "https://evil.example#@shop.example/hooks",
        "https://user:password@shop.example/hooks",
        "https://SHOP.example/hooks",
        "https://shop.example/hooks#a",
        "https://shop.example/hooks a",
        "https://shop.example/hooks\r\nx: y",
        "https://shop.example:0/hooks",
        "https://shop.example:99999/hooks",
        "https://[::1]/hooks",
        "//shop.example/hooks",
        "file:///etc/passwd",
        "gopher://shop.example/hooks",
        "",
    ],
)
def test_urls_outside_the_list_are_refused(url):
    targets = Targets(("https://shop.example/hooks/", "http://10.0.0.1:8080"))
    with pytest.raises(RequestError):
        targets.checked(url)


def test_urls_on_the_list_are_left_as_they_are():
    targets = Targets(("https://shop.example/hooks/", "http://10.0.0.1:8080"))
    for url in (
        "https://shop.example/hooks",
        "https://shop.example:443/hooks/a?b=c&d=%20",
        "http://10.0.0.1:8080/anything",
    ):
        assert targets.checked(url) == url
    for bad in ("shop.example", "ftp://shop.example", "https://shop.example/../x"):
        with pytest.raises(UsageError, match="--webhook"):
            Targets((bad,))
