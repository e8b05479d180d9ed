"""Memory of the job over its run: the driver and Ray's object store must not grow with the number of images."""

import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from tests.benchmarks.catalogs import write_catalog

COUNTS = (100, 1000)


def run() -> None:
    print("one step, batches of 8, 1 worker; each row is a job in a process of its own\n")
    print("| images | driver MB after the first batch | after the last | object store peak MB |")
    print("| ---: | ---: | ---: | ---: |")
    for count in COUNTS:
        first, last, store = _measure(count)
        print(f"| {count} | {first:.0f} | {last:.0f} | {store:.1f} |")
    print(f"\nover {COUNTS[-1]} images the driver grows {last / first:.3f}x")


def _measure(images: int) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory() as folder:
        write_catalog(Path(folder), images)
        command = [sys.executable, "-m", "tests.benchmarks.memory", folder]
        line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    first, last, store = map(float, line.split())
    return first, last, store


def _job(folder: Path) -> None:
    """Run the job in this process; print its memory after the first and the last batch and the store's peak, in MB."""
    from rich.console import Console

    from infra import cluster, settings
    from pipelines.catalog import job
    from pipelines.catalog.graph import CPUS_BESIDE_EDITS
    from pipelines.catalog.progress import Meter

    options = job.Options(
        pairs=[(str(folder / "before.png"), str(folder / "after.png"))],
        input=str(folder / "catalog"),
        output=str(folder / "out"),
        workers=1,
        steps=1,
    )
    resident: list[float] = []
    stored: list[float] = []

    class Watch(Meter):
        def add(self, counts) -> None:
            super().add(counts)
            resident.append(psutil.Process().memory_info().rss / 1e6)
            stored.append(_object_store_bytes() / 1e6)

    environment = settings.from_environment()
    with cluster.connected(1 + 2 * CPUS_BESIDE_EDITS):
        prepared = job.prepare(options, environment)
        with Watch(len(prepared.plan.tasks), Console(quiet=True)) as watch:
            job.work(prepared, options, environment, "benchmark", watch)
    print(resident[0], resident[-1], max(stored))


def _object_store_bytes() -> float:
    import ray

    total = ray.cluster_resources().get("object_store_memory", 0)
    return total - ray.available_resources().get("object_store_memory", total)


if __name__ == "__main__":
    _job(Path(sys.argv[1]))
