"""An app with nothing but /v1/jobs, and a cluster that takes jobs and runs none: what the tests of jobs share."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from infra.errors import EditTransferError, JobNotFound, UsageError
from infra.jobs import Job
from serving.access import Gate, keys
from serving.jobs import Desk, JobsConfig, Webhooks, jobs_router

PAIR = {"before": "s3://shop/a.png", "after": "s3://shop/b.png"}
BODY = {"input": "s3://shop/photos", "output": "s3://shop/out", "pairs": [PAIR]}


class Cluster:
    """Answers as `infra.jobs.Jobs` does; a job ends when the test says so."""

    def __init__(self) -> None:
        self.jobs, self.written, self.environments = dict[str, Job](), dict[str, str](), list[dict[str, Any]]()
        self.looks = 0  # at all jobs

    def submit(
        self, command: str, job_id: str, environment: dict[str, Any], metadata: Mapping[str, str] | None = None
    ) -> None:
        if job_id in self.jobs:
            raise UsageError(f"The Ray cluster refused: ValueError: {job_id} already exists, /root/secret")
        self.environments.append(environment)
        self.jobs[job_id] = Job(
            job_id=job_id,
            state="pending",
            submitted_at=f"2026-01-01T00:00:{len(self.jobs):02}+00:00",
            ended_at=None,
            seconds=0.0,
            exit_code=None,
            message="",
            command=command,
            metadata=dict(metadata or {}),
        )

    def all(self) -> list[Job]:
        self.looks += 1
        return sorted(self.jobs.values(), key=lambda job: job.submitted_at, reverse=True)

    def status(self, job_id: str) -> Job:
        if job_id not in self.jobs:
            raise JobNotFound(f"There is no job {job_id} at http://10.0.0.1:8265.")
        return self.jobs[job_id]

    def stop(self, job_id: str) -> Job:
        before = self.status(job_id)
        if not before.ended:
            self.end(job_id, "stopped", None)
        return before

    def logs(self, job_id: str) -> str:
        return self.written.get(job_id, "")

    def end(self, ended: str, state: str = "succeeded", exit_code: int | None = 0, **told: Any) -> None:
        """The job is over; it has written a summary if any of it is told."""
        now = {"ended_at": "2026-01-01T01:00:00+00:00", "message": "An end.", "seconds": 3600.0}
        self.jobs[ended] = replace(self.jobs[ended], state=state, exit_code=exit_code, **now)
        if told:
            counts = {"total": 0, "done": 0, "skipped": 0, "failed": 0}
            self.written[ended] = f"some words\n{json.dumps(counts | {'job_id': ended} | told)}\nand more\n"


def app_for(config: JobsConfig, cluster: Any) -> FastAPI:
    """An app that answers errors with their status, their code and their sentence."""
    app = FastAPI()
    desk, gate = Desk(config, lambda: cluster), Gate(config.serving)
    app.include_router(jobs_router(desk, gate, Webhooks(desk, gate)))

    @app.exception_handler(EditTransferError)
    async def answer(_request: Request, error: EditTransferError) -> JSONResponse:
        told = {"code": error.code, "message": str(error), "param": error.param}
        return JSONResponse({"error": told}, error.http_status)

    return app


def header(config: JobsConfig, *scopes: str) -> dict[str, str]:
    """What is sent with a new key."""
    _, token = keys.create(config.serving, "shop", scopes or ["jobs"])
    return {"Authorization": f"Bearer {token}"}


def refused(answer: Any, status: int = 400) -> dict[str, str]:
    """The error that an answer tells."""
    assert answer.status_code == status, answer.text
    return answer.json()["error"]
