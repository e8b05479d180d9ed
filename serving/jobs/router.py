"""The routes below /v1/jobs. Everything that blocks runs in threads of its own, for a bounded time."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, Path, Query, Response

from infra.errors import NoCluster, UsageError
from serving.access import Caller, Gate
from serving.access.http import caller_with
from serving.jobs.desk import Desk
from serving.jobs.messages import JobList, JobRequest, JobTold
from serving.jobs.webhooks import Webhooks

SECONDS = 60  # for the cluster to answer
THREADS = 8

JobId = Annotated[str, Path(alias="id", max_length=64, description="Id of a job.")]
T = TypeVar("T")
log = logging.getLogger(__name__)


def jobs_router(desk: Desk, gate: Gate, webhooks: Webhooks | None, **options: Any) -> APIRouter:
    """Submit, list, look at and cancel jobs; `options` go to the APIRouter, such as `responses` for errors.

    Errors are raised as they are, for the app to answer. Keys need the scope `jobs`. Where webhooks are allowed,
    `webhooks.run()` should run while the app does.
    """
    assert webhooks or not desk.config.webhooks, "allowed webhooks need somebody to send them"
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"], **options)
    ask = _in_threads(desk)
    Whose = Annotated[Caller, Depends(caller_with(gate, "jobs"))]

    @router.post("", status_code=202, response_model=JobTold, responses={200: {"model": JobTold}})
    async def submit(
        body: JobRequest,
        caller: Whose,
        response: Response,
        idempotency_key: Annotated[
            str | None,
            Header(
                min_length=1,
                max_length=255,
                pattern=r"^[\x21-\x7e]+$",
                description="With the same key, the same request is the same job: 200 instead of 202.",
            ),
        ] = None,
    ) -> JobTold:
        """Edit a catalog as a job. What it has finished is not repeated by the next one over the same catalog."""
        job, is_new = await ask(desk.submit, caller, body, idempotency_key)
        if webhooks and body.webhook:
            webhooks.expect(job.id)
        response.status_code = 202 if is_new else 200
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        return job

    @router.get("")
    async def all_jobs(
        caller: Whose, limit: Annotated[int, Query(ge=1, le=100, description="At most so many.")] = 20
    ) -> JobList:
        """The latest jobs of this key, the newest first; those of all keys for an admin."""
        return JobList(data=await ask(desk.all, caller, limit))

    @router.get("/{id}")
    async def find(caller: Whose, job_id: JobId) -> JobTold:
        """The state of a job and, once it has ended, where its results are."""
        return await ask(desk.find, caller, job_id)

    @router.post("/{id}/cancel", status_code=202)
    async def cancel(caller: Whose, job_id: JobId) -> JobTold:
        """Stop a job: it takes some seconds until its state is `stopped`. What is finished stays finished."""
        return await ask(desk.cancel, caller, job_id)

    @router.delete("/{id}", status_code=202)
    async def delete(caller: Whose, job_id: JobId) -> JobTold:
        """The same as cancel."""
        return await ask(desk.cancel, caller, job_id)

    return router


def _in_threads(desk: Desk) -> Callable[..., Any]:
    threads = ThreadPoolExecutor(THREADS, "jobs")

    async def ask(method: Callable[..., T], *arguments: object) -> T:
        desk.check_open()
        answer = asyncio.get_running_loop().run_in_executor(threads, lambda: method(*arguments))
        try:
            return await asyncio.wait_for(answer, SECONDS)
        except (UsageError, TimeoutError) as error:
            if type(error) not in (UsageError, NoCluster, TimeoutError):
                raise
            log.error("The cluster that jobs run on: %s", error)  # what it says is for operators
            raise NoCluster("The cluster that jobs run on does not answer at the moment; try again later.") from None

    return ask
