"""Memory of the driver over the size of the catalog: the graph alone, with nothing read, edited or written.

A table names images that are nowhere; in the place of the stages stand some that only hand on. All else is the job:
listing, the catalog table, the anti-join, Ray Data's graph, counting.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.catalog.graph import Job, Steps
from pipelines.catalog.manifest import DONE
from pipelines.catalog.plan import Task
from pipelines.catalog.stages import Item
from tests.benchmarks.catalogs import write_catalog

ROWS = (10_000, 1_000_000)
BATCH = 256


def read(tasks: Sequence[Task], max_pixels: int) -> list[Item]:
    return [Item(task.input, task.variant) for task in tasks]


def bench(job: Job) -> None:
    return None


def edit(items: Sequence[Item], bench: None) -> list[Item]:
    return list(items)


def write(items: Sequence[Item], output: str, job_id: str, after: datetime | None) -> list[dict[str, Any]]:
    return [{"status": DONE} for _ in items]


def run() -> None:
    print(f"batches of {BATCH}, four of them travelling together, 1 worker; a process for each row\n")
    print("| catalog rows | driver MB at the first batch | largest | last | s |\n| ---: | ---: | ---: | ---: | ---: |")
    largest = {}
    for rows in ROWS:
        line = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.driver", str(rows)], check=True, capture_output=True, text=True
        ).stdout.splitlines()[-1]
        first, largest[rows], last, seconds = map(float, line.split())
        print(f"| {rows} | {first:.0f} | {largest[rows]:.0f} | {last:.0f} | {seconds:.0f} |")
    print(f"\n{ROWS[1]} rows take {largest[ROWS[1]] / largest[ROWS[0]]:.2f}x the memory of {ROWS[0]} (target 1.2x)")


def _driver(rows: int) -> None:
    import time

    from infra import cluster, settings
    from pipelines.catalog import graph, job

    with tempfile.TemporaryDirectory() as folder:
        write_catalog(Path(folder), 1)
        table = Path(folder) / "table.parquet"
        with pq.ParquetWriter(table, pa.schema([("uri", pa.string())])) as writer:
            for start in range(0, rows, 10_000):
                names = [f"s3://nowhere/photos/{number:09}.jpg" for number in range(start, start + 10_000)]
                writer.write_table(pa.table({"uri": names}))
        options = job.Options(
            pairs=[(f"{folder}/before.png", f"{folder}/after.png")],
            input=str(table),
            output=f"{folder}/out",
            workers=1,
            batch_size=BATCH,
        )
        environment = settings.from_environment()
        prepared = job.prepare(options, environment)
        work = job.job_of(prepared, options, environment, workers=1, job_id="benchmark")
        resident, done, began = [], 0, time.perf_counter()
        with cluster.connected(1 + graph.CPUS_BESIDE):
            for counts in graph.run(work, steps=Steps(read, bench, edit, write)):
                done += counts.done
                resident.append(psutil.Process().memory_info().rss / 1e6)
        assert done == rows
    print(resident[0], max(resident), resident[-1], time.perf_counter() - began)


if __name__ == "__main__":
    _driver(int(sys.argv[1]))
