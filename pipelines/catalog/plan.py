"""What is left to do: the catalog minus the work that the manifest records as finished."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.catalog import manifest
from pipelines.catalog.listing import Input
from pipelines.catalog.work import Recipe


@dataclass(frozen=True)
class Task:
    """An input to read. `recorded`: its manifest row, good still if its bytes turn out to be the same."""

    input: Input
    recorded: dict[str, Any] | None = None


@dataclass
class Plan:
    """Inputs to do, and how many stay as an earlier run left them."""

    tasks: list[Task] = field(default_factory=list)
    skipped: int = 0
    failed: int = 0


def plan(inputs: Iterable[Input], recorded: pa.Table, recipe: Recipe, retry_failed: bool) -> Plan:
    """Compare every input with its newest manifest row.

    An unchanged etag vouches for the recorded sha256, so the input need not be read to know its work id.
    Where only the etag differs, the row goes along: whoever reads the input decides. Failures stay failures
    unless `retry_failed`. Whether a result file exists is never asked.
    """
    rows = {uri: index for index, uri in enumerate(recorded["uri"].to_pylist())}
    known = recorded.select(["input_etag", "input_sha256", "work_id", "status"]).to_pylist()
    result = Plan()
    for found in inputs:
        row = known[rows[found.uri]] if found.uri in rows else None
        same_work = row is not None and row["work_id"] == recipe.work_id(row["input_sha256"])
        if row is None or not same_work:
            result.tasks.append(Task(found))
        elif row["status"] == manifest.FAILED:
            _plan_failed(result, found, unchanged=row["input_etag"] == found.etag and not retry_failed)
        elif row["input_etag"] == found.etag:
            result.skipped += 1
        else:
            result.tasks.append(Task(found, recorded.slice(rows[found.uri], 1).to_pylist()[0]))
    return result


def _plan_failed(result: Plan, found: Input, unchanged: bool) -> None:
    if unchanged:
        result.failed += 1
    else:
        result.tasks.append(Task(found))
