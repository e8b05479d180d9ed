"""What the endpoint may be told. One document: `args` of a Serve config, or the options of `edit-transfer serve`."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

ENGINE = "serving.engine:Engine"


class Limits(BaseModel):
    """What a request may bring along. Bytes, seconds, counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body_bytes: int = Field(default=50 * 1024 * 1024, ge=1, description="of a request's whole body")
    upload_seconds: float = Field(default=60, gt=0, description="for the whole body to arrive")
    fields: int = Field(default=64, ge=8, description="parts of a form that are no files")
    files: int = Field(default=64, ge=3, description="parts of a form that are files")
    pairs: int = Field(default=16, ge=1, description="inline pairs")
    json_depth: int = Field(default=16, ge=2, description="nested lists and objects in a JSON body")
    json_values: int = Field(default=2000, ge=100, description="texts, brackets and commas in a JSON body")
    steps: int = Field(default=200, ge=1, description="denoising steps")
    seconds: float = Field(default=300, gt=0, description="a request may take; one may ask for less")
    open: int = Field(default=256, ge=1, description="requests that are being received or answered at a time")
    open_bytes: int = Field(default=2**30, ge=1, description="bytes of the bodies of those requests")
    open_pixels: int = Field(default=400_000_000, ge=1, description="of images that are decoded at a time")
    decoding: int = Field(default=4, ge=1, description="images that are decoded or encoded at a time")


class Options(BaseModel):
    """How the endpoint runs. None takes what the environment says, or what the machine has.

    engine, engine_options  import path of the engine's class, and its own keyword arguments beside `base` and `cache`
    serving                 address of the store with the API keys
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str | None = None
    registry: str | None = None
    cache: str | None = None
    serving: str | None = None
    engine: str = ENGINE
    engine_options: dict[str, Any] = Field(default_factory=dict)
    gpus: float | None = Field(default=None, ge=0, description="of each replica; one where the cluster has any")
    cpus: float = Field(default=1, ge=0, description="of each replica")
    replicas: int = Field(default=1, ge=1)
    max_replicas: int | None = Field(default=None, ge=1, description="more than `replicas` scales with the traffic")
    ingresses: int = Field(default=1, ge=1, description="processes that decode, encode and answer")
    ongoing: int = Field(
        default=32, ge=1, description="requests that one replica has at a time; its engine batches them"
    )
    max_queued: int = Field(default=64, ge=1, description="requests that wait for a replica; the next gets 429")
    drain_seconds: float = Field(default=120, gt=0, description="requests under way are given when a replica is to end")
    watch_seconds: float = Field(default=5, ge=0, description="for which an alias that has not moved is not read again")
    jobs: str | None = Field(default=None, description="dashboard of the cluster that runs jobs; None: as settings say")
    job_prefixes: tuple[str, ...] = Field(default=(), description="where jobs may read and write; none: no jobs")
    webhooks: tuple[str, ...] = Field(default=(), description="URLs below which webhooks may go")
    max_pixels: int | None = Field(default=None, ge=1)
    limits: Limits = Limits()
