"""Takes jobs and tells of them. Ray's own list of jobs is the only record: what is needed is noted beside each job.

Every method asks the cluster, or a store, and blocks meanwhile.
"""

import hashlib
import json
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from infra import registry
from infra.errors import (
    EXIT_BUSY,
    EXIT_SOME_FAILED,
    Conflict,
    EditTransferError,
    JobNotFound,
    NoCluster,
    NoSuchThing,
    RequestError,
    UsageError,
    about,
)
from infra.jobs import Job, Jobs, new_job_id
from pipelines.catalog import asking
from pipelines.catalog.tables import is_table
from serving.access import Caller
from serving.jobs.config import JobsConfig
from serving.jobs.messages import Counts, JobRequest, JobTold

OWNER, BODY, OUTPUT, WEBHOOK = (f"edit-transfer-{what}" for what in ("owner", "body", "output", "webhook"))
OUTCOMES_KEPT = 1000
MESSAGE_LETTERS = 1000
MESSAGES: dict[int | None, str] = {
    EXIT_SOME_FAILED: "Some images failed; the manifest names them.",
    EXIT_BUSY: "Another job works at this output: send the request again when that has ended, or with `wait`.",
}

log = logging.getLogger(__name__)


class Desk:
    """The jobs of one cluster, each seen by the key that submitted it, and by admins."""

    def __init__(self, config: JobsConfig, cluster: Callable[[], Jobs]) -> None:
        """`cluster` connects to the one that jobs run on; it is asked when the first request comes."""
        self.config, self._cluster = config, cluster
        self._places, self._targets = config.places, config.targets
        self._connected: Jobs | None = None
        self._lock = threading.Lock()
        self._outcomes: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def check_open(self) -> None:
        """Raise RequestError if no jobs are taken here: then no cluster is asked for any."""
        self._places.check_any()

    def submit(self, caller: Caller, body: JobRequest, idempotency_key: str | None = None) -> tuple[JobTold, bool]:
        """A job that was submitted, and whether it was now; with the same idempotency key it is the same job.

        Raises:
            RequestError: what is asked for is not possible, or not allowed.
            Conflict: the idempotency key was used for another request.
            AdapterNotFound: there is no such adapter.
            NoCluster: no Ray cluster answers.
        """
        job_id = _derived(caller, idempotency_key) if idempotency_key else new_job_id()
        if idempotency_key and (earlier := self._earlier(job_id, caller, body)):
            return earlier, False
        asked = self._asked(caller, body)
        command = asking.command_for(asking.seen_from_nodes(asked, job_id))
        jobs = self._jobs()
        try:
            with asking.environment_for() as wanted:
                jobs.submit(command, job_id, wanted, _notes(caller, body, asked))
        except NoCluster:
            raise
        except UsageError as error:
            if idempotency_key and (earlier := self._earlier(job_id, caller, body)):  # a twin was quicker
                return earlier, False
            log.error("A job was not taken: %s", error)
            raise EditTransferError("The cluster did not take the job; the endpoint's log says why.") from None
        return self.told(self._find(job_id, caller)), True

    def all(self, caller: Caller, limit: int) -> list[JobTold]:
        """The latest jobs that a caller may see, without what their logs tell."""
        seen = [job for job in self._jobs().all() if _may_see(caller, job)]
        return [_told(job, None) for job in seen[:limit]]

    def find(self, caller: Caller, job_id: str) -> JobTold:
        """One job. Raises NoSuchThing if there is none that this caller may see."""
        return self.told(self._find(job_id, caller))

    def cancel(self, caller: Caller, job_id: str) -> JobTold:
        """Tell a job to stop; it takes some seconds. One that has ended stays as it is. Raises NoSuchThing."""
        self._find(job_id, caller)
        self._jobs().stop(job_id)
        return self.told(self._find(job_id, caller))

    def with_webhooks(self) -> list[Job]:
        """All jobs that somebody wants to be told of."""
        return [job for job in self._jobs().all() if OWNER in job.metadata and WEBHOOK in job.metadata]

    def told(self, job: Job) -> JobTold:
        """What a caller gets to know of a job, its outcome included."""
        return _told(job, self._outcome(job) if job.ended else None)

    def _asked(self, caller: Caller, body: JobRequest) -> dict[str, Any]:
        """The parameters of `apply`. Raises RequestError for what may not be asked for."""
        pairs = [each for pair in body.pairs for each in (("before", pair.before), ("after", pair.after))]
        refs = [body.adapter] if isinstance(body.adapter, str) else body.adapter or []
        asked = body.model_dump(exclude={"input", "output", "adapter", "pairs", "wait", "webhook"}) | {
            "source": self._source(caller, body.input),
            "output": self._places.checked(body.output, "output", caller),
            "pair": [self._places.checked(uri, f"pairs.{which}", caller) for which, uri in pairs] or None,
            "adapter": refs or None,
            "prompt": body.prompt and self._places.checked(body.prompt, "prompt", caller),
            "registry": self.config.registry,
            "queue": body.wait,
            "yes": True,
            "as_json": True,
        }
        if not refs and not pairs:
            raise RequestError("Show the edit with `adapter` or with `pairs`.", "adapter")
        if body.webhook:
            self._targets.checked(body.webhook)
            if not caller.key_id:
                raise RequestError("webhook: it is signed with the secret of a key, so a key is needed.", "webhook")
        for ref in refs:
            with about("adapter"):
                registry.resolve(self.config.registry, ref.partition(":")[0])
        return asked

    def _source(self, caller: Caller, address: str) -> str:
        source = self._places.checked(address, "input", caller, glob=address.startswith("/"))
        if is_table(source):
            raise RequestError("input: a table may name images anywhere, so jobs take folders and prefixes.", "input")
        return source

    def _earlier(self, job_id: str, caller: Caller, body: JobRequest) -> JobTold | None:
        try:
            job = self._jobs().status(job_id)
        except JobNotFound:
            return None
        if job.metadata.get(OWNER) != caller.key_id or job.metadata.get(BODY) != body.digest():
            raise Conflict("This Idempotency-Key was used for another request; use a new one.", "Idempotency-Key")
        return self.told(job)

    def _find(self, job_id: str, caller: Caller) -> Job:
        if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", job_id):
            try:
                job = self._jobs().status(job_id)
            except JobNotFound:
                pass
            else:
                if _may_see(caller, job):
                    return job
        raise NoSuchThing(f"There is no job {job_id[:64]!r}; GET /v1/jobs lists those of this key.", "id")

    def _outcome(self, job: Job) -> dict[str, Any] | None:
        """What `apply --json` told at the end; read once, from the job's log."""
        key = f"{job.job_id} {job.ended_at}"
        with self._lock:
            if key in self._outcomes:
                return self._outcomes[key]
        try:
            outcome = _summary(self._jobs().logs(job.job_id), job.job_id)
        except UsageError as error:  # the machine that kept it is gone
            log.warning("The log of job %s cannot be read: %s", job.job_id, error)
            return None
        if outcome:
            with self._lock:
                self._outcomes[key] = outcome
                while len(self._outcomes) > OUTCOMES_KEPT:
                    self._outcomes.popitem(last=False)
        return outcome

    def _jobs(self) -> Jobs:
        with self._lock:
            if self._connected is None:
                self._connected = self._cluster()
            return self._connected


def _derived(caller: Caller, idempotency_key: str) -> str:
    """The id of the job of this idempotency key. Ray takes an id once, so of two requests one makes the job."""
    return f"job-{hashlib.sha256(json.dumps([caller.key_id, idempotency_key]).encode()).hexdigest()[:32]}"


def _notes(caller: Caller, body: JobRequest, asked: dict[str, Any]) -> dict[str, str]:
    notes = {OWNER: caller.key_id, BODY: body.digest(), OUTPUT: asked["output"]}
    return notes | ({WEBHOOK: body.webhook} if body.webhook else {})


def _may_see(caller: Caller, job: Job) -> bool:
    """Jobs that were not submitted here are nobody's."""
    owner = job.metadata.get(OWNER)
    return owner is not None and (caller.is_admin or owner == caller.key_id)


def _summary(written: str, job_id: str) -> dict[str, Any] | None:
    """The last line of a log that is a job's summary."""
    for line in reversed(written.splitlines()):
        if line.startswith("{"):
            try:
                told = json.loads(line)
                Counts.model_validate(told)
            except (ValueError, ValidationError):
                continue
            if told.get("job_id") == job_id:
                return told
    return None


def _told(job: Job, outcome: dict[str, Any] | None) -> JobTold:
    told_so = MESSAGES.get(job.exit_code) if job.ended else None
    return JobTold(
        id=job.job_id,
        state=job.state,  # type: ignore[arg-type]
        submitted_at=job.submitted_at,
        ended_at=job.ended_at,
        seconds=job.seconds,
        exit_code=job.exit_code,
        message=told_so or job.message[:MESSAGE_LETTERS],
        output=job.metadata.get(OUTPUT) if job.ended else None,
        report=outcome.get("report") if outcome else None,
        manifest=outcome.get("manifest") if outcome else None,
        counts=Counts.model_validate(outcome) if outcome else None,
    )
