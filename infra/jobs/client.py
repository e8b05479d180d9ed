"""The jobs of one Ray cluster, asked through its dashboard. What goes wrong is told in a sentence."""

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from infra.errors import EXIT_BROKEN, EXIT_INTERRUPTED, EXIT_OK, EditTransferError, JobNotFound, NoCluster, UsageError
from infra.settings import Settings

ADDRESS = "RAY_API_SERVER_ADDRESS"
DEFAULT = "http://127.0.0.1:8265"
SUCCEEDED, FAILED, STOPPED = "succeeded", "failed", "stopped"
SECONDS_BETWEEN_LOOKS = 1
SECONDS_TO_COME_BACK = 60  # a dashboard may be started anew under a job that runs on
SECONDS_TO_STOP = 120
# A cancelled job records what is finished and lets its workers go; Ray gives it 3 seconds unless this is set for it.
GRACE = {"RAY_JOB_STOP_WAIT_TIME_S": "30"}
TOKEN = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the token that the cluster has"


def new_job_id() -> str:
    """An id that sorts by time: YYYYMMDD-HHMMSS and six random hexadecimal digits."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the cluster knows of a job. Times are UTC, in ISO 8601.

    state      pending, running, succeeded, failed or stopped
    seconds    since its submission, or until its end
    exit_code  of its command, None while it runs and where it was stopped or never started
    metadata   what whoever submitted it noted beside it
    message    the last line that a failed command wrote, or what Ray has to say
    """

    job_id: str
    state: str
    submitted_at: str
    ended_at: str | None
    seconds: float
    exit_code: int | None
    message: str
    command: str
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.state in (SUCCEEDED, FAILED, STOPPED)

    @property
    def outcome(self) -> int:
        """The exit code that stands for the end of the job: its command's own, or 130 where it was stopped."""
        if self.state == SUCCEEDED:
            return EXIT_OK
        return EXIT_INTERRUPTED if self.state == STOPPED else self.exit_code or EXIT_BROKEN


class Jobs:
    """The jobs of the cluster whose dashboard is at `address`; None: as the settings say, or on this machine."""

    def __init__(self, address: str | None, settings: Settings) -> None:
        """Raises NoCluster if no cluster answers there, UsageError if it does not let us in."""
        self.address = address or settings.jobs or settings.ray or DEFAULT
        if address and "://" not in address:
            self.address = f"http://{address}"
        with self._sentences():
            self._client = _client(self.address)

    def submit(
        self, command: str, job_id: str, environment: dict[str, Any], metadata: Mapping[str, str] | None = None
    ) -> None:
        """Start a shell command as a job, in a Ray runtime environment. Raises UsageError if the id is taken.

        Ray shows the command, the environment and `metadata` to whoever may look at its dashboard.
        """
        variables = GRACE | environment.get("env_vars", {})
        with self._sentences(job_id):
            self._client.submit_job(
                entrypoint=command,
                submission_id=job_id,
                runtime_env=environment | {"env_vars": variables},
                metadata=dict(metadata or {}),
            )

    def all(self) -> list[Job]:
        """All that were submitted as jobs, the newest first."""
        with self._sentences():
            found = [_job(each) for each in self._client.list_jobs() if each.submission_id]
        return sorted(found, key=lambda job: job.submitted_at, reverse=True)

    def status(self, job_id: str) -> Job:
        """What is known of one job. Raises JobNotFound if there is none of that id."""
        with self._sentences(job_id):
            return _job(self._client.get_job_info(job_id))

    def logs(self, job_id: str) -> str:
        """Everything that the job has written so far, to stdout and to stderr."""
        with self._sentences(job_id):
            return self._client.get_job_logs(job_id)

    def follow(self, job_id: str, tell: Callable[[str], None]) -> Job:
        """Pass on what the job writes until it ends. Raises NoCluster after a minute without an answer."""
        told, answered = 0, time.monotonic()
        while True:
            try:
                job, written = self.status(job_id), self.logs(job_id)  # in this order: its last words are not missed
            except NoCluster:
                if time.monotonic() - answered > SECONDS_TO_COME_BACK:
                    raise
            else:
                answered = time.monotonic()
                tell(written[told:])
                told = len(written)
                if job.ended:
                    return job
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def stop(self, job_id: str) -> Job:
        """Tell a job to stop, and do not wait until it has; one that has ended stays as it is. Raises JobNotFound."""
        job = self.status(job_id)
        if not job.ended:
            with self._sentences(job_id):
                self._client.stop_job(job_id)
        return job

    def cancel(self, job_id: str) -> Job:
        """Stop a job and wait until it has stopped; one that has ended stays as it is.

        Raises JobNotFound if there is none of that id, EditTransferError if it goes on for two minutes.
        """
        deadline = time.monotonic() + SECONDS_TO_STOP
        job = self.stop(job_id)
        while not job.ended:
            if time.monotonic() > deadline:
                raise EditTransferError(f"Job {job_id} was told to stop, but is {job.state} still. Try again.")
            time.sleep(SECONDS_BETWEEN_LOOKS)
            job = self.status(job_id)
        return job

    @contextmanager
    def _sentences(self, job_id: str = "") -> Iterator[None]:
        """Ray's client raises what it comes across; this makes UsageErrors of it."""
        import requests
        from ray.exceptions import AuthenticationError, RayError

        try:
            yield
        except AuthenticationError:
            raise UsageError(f"The Ray cluster at {self.address} asks for a token: {TOKEN}.") from None
        except RuntimeError as error:
            if "status code 404" in str(error):
                listed = "`edit-transfer jobs list` shows which there are"
                raise JobNotFound(f"There is no job {job_id} at {self.address}; {listed}.") from None
            raise UsageError(f"The Ray cluster at {self.address} refused: {_reason(error)}") from None
        except (requests.RequestException, RayError, ConnectionError, ValueError) as error:
            raise NoCluster(
                f"No Ray cluster answers at {self.address} ({type(error).__name__}). Give the address of its dashboard"
                " with --address, as in --address http://HEAD:8265."
            ) from None


def _client(address: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    for talkative in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
        logging.getLogger(talkative).setLevel(logging.ERROR)
    kept = os.environ.get(ADDRESS)
    os.environ[ADDRESS] = address  # Ray's client prefers the environment to its argument
    try:
        return JobSubmissionClient()
    finally:
        del os.environ[ADDRESS]
        os.environ |= {ADDRESS: kept} if kept else {}


def _job(found: Any) -> Job:
    state = str(found.status.value).lower()
    until = found.end_time or time.time() * 1000
    return Job(
        job_id=found.submission_id,
        state=state,
        submitted_at=_told(found.start_time),
        ended_at=_told(found.end_time) if found.end_time else None,
        seconds=max(0.0, round((until - found.start_time) / 1000, 1)),  # the cluster may have another time
        exit_code=found.driver_exit_code,
        message=_reason(found.message or ""),
        command=found.entrypoint,
        metadata=found.metadata or {},
    )


def _told(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _reason(text: object) -> str:
    """The last line that says something: Ray puts the end of a log, or of a traceback, into its messages."""
    return next((line.strip() for line in reversed(str(text).splitlines()) if line.strip()), "")
