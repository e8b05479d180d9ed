"""What is left to do: the catalog minus the work that the manifest records as finished."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from pipelines.catalog import manifest
from pipelines.catalog.listing import Input
from pipelines.catalog.work import Variant


@dataclass(frozen=True)
class Task:
    """An input to read, and the edit it is to get.

    recorded: its manifest row, good still if its etag, or its bytes, turn out to be the same.
    """

    input: Input
    variant: Variant
    recorded: dict[str, Any] | None = None


class Settled(Enum):
    """An input that stays as an earlier run left it."""

    DONE = "done"
    FAILED = "failed"


def plan(found: Input, row: dict[str, Any] | None, variant: Variant, retry_failed: bool) -> Task | Settled:
    """Compare an input with its newest manifest row (uri, input_etag, input_sha256, work_id, status at least).

    An unchanged etag vouches for the recorded sha256, so the input need not be read to know its work id.
    Where the etag differs or is not known, the row goes along: whoever reads the input decides. Failures stay
    failures unless `retry_failed`. Whether a result file exists is never asked.
    """
    if row is None or row["work_id"] != variant.recipe.work_id(row["input_sha256"]):
        return Task(found, variant)
    unknown = found.etag is None
    unchanged = row["input_etag"] == found.etag
    if row["status"] == manifest.FAILED:
        if retry_failed or not (unchanged or unknown):
            return Task(found, variant)
        return Settled.FAILED if unchanged else Task(found, variant, row)
    return Settled.DONE if unchanged else Task(found, variant, row)
