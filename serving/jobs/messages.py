"""What is sent and answered below /v1/jobs."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

REF = r"^[a-z0-9][a-z0-9._-]{0,63}(@[a-z0-9][a-z0-9._-]{0,63})?(:-?[0-9]{1,3}(\.[0-9]{1,6})?)?$"

Address = Annotated[str, Field(min_length=1, max_length=1024)]
Ref = Annotated[str, Field(pattern=REF, max_length=150)]
State = Literal["pending", "running", "succeeded", "failed", "stopped"]


class Pair(BaseModel):
    """A before and an after image that show one edit."""

    model_config = ConfigDict(extra="forbid", strict=True)

    before: Address = Field(description="s3:// address or absolute path of an image.")
    after: Address = Field(description="The same after the edit.")


class JobRequest(BaseModel):
    """One edit over one catalog, as `edit-transfer apply` takes it."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"adapter": "lift-arms@production", "input": "s3://shop/photos", "output": "s3://shop/edited"}]
        },
    )

    input: Address = Field(description="Folder or s3:// prefix with the images, or one image on a disk.")
    output: Address = Field(description="Folder or s3:// prefix that gets images/, manifest/ and report.html.")
    adapter: Ref | Annotated[list[Ref], Field(max_length=8)] | None = Field(
        None, description="A trained adapter, REF or REF:SCALE; several to stack them."
    )
    pairs: list[Pair] = Field([], max_length=64, description="Pairs that show the edit, besides the adapter's own.")
    scale: float = Field(1.0, ge=-10, le=10, allow_inf_nan=False, description="How strongly adapters count.")
    seed: int = Field(0, ge=0, lt=2**63, description="Another number gives another variant of every result.")
    steps: int | None = Field(None, ge=1, le=1000, description="Denoising steps. Default: the base's own.")
    format: Literal["png", "jpeg", "webp", "tiff", "avif"] | None = Field(
        None, description="Format of the results. Default: each input's own, JPEG for HEIC."
    )
    restore: bool = Field(
        False, description="Results in full resolution: what the edit did not touch stays the input's."
    )
    prompt: Address | None = Field(
        None, description="s3:// address or absolute path of prompt embeddings. Default: the adapter's or base's own."
    )
    limit: int | None = Field(None, ge=1, lt=2**63, description="Only the first so many images.")
    retry_failed: bool = Field(False, description="Try images again that failed before.")
    fresh: bool = Field(False, description="Edit everything again, finished or not.")
    stage: bool = Field(False, description="Leave the results in a folder of their own until they are published.")
    wait: bool = Field(False, description="Wait while another job works at the output, instead of ending.")
    workers: int | None = Field(None, ge=1, le=1024, description="Processes that edit. Default: GPUs, or cores.")
    webhook: str | None = Field(
        None, min_length=1, max_length=2048, description="URL that is told when the job has ended."
    )

    def digest(self) -> str:
        """The same for the same request, however it was spelled."""
        later = {name for name in ("restore", "prompt", "wait") if not getattr(self, name)}
        asked = self.model_dump(exclude=later)  # as before there were such things
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class Counts(BaseModel):
    """Images: total = done + skipped + failed."""

    total: int
    done: int = Field(description="Edited by this job.")
    skipped: int = Field(description="Finished by an earlier one.")
    failed: int


class JobTold(BaseModel):
    """What is known of a job. Times are UTC."""

    id: str
    state: State = Field(description="`failed` with exit code 3: some images failed, all others are done.")
    submitted_at: str
    ended_at: str | None
    seconds: float = Field(description="Since its submission, or until its end.")
    exit_code: int | None = Field(
        description="0 all done, 3 some images failed, 2 nothing was started, 5 another job works there, 1 it broke."
    )
    message: str
    output: str | None = Field(None, description="Where the results are, once the job has ended.")
    report: str | None = Field(None, description="Address of the report, if there is one.")
    manifest: str | None = Field(None, description="Address of the manifest, if there is one.")
    counts: Counts | None = None


class JobList(BaseModel):
    """Jobs, the newest first."""

    data: list[JobTold]
