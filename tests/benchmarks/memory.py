"""Memory of the job over its run: the driver and Ray's object store must not grow with the number of images."""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.catalogs import write_catalog

COUNTS = (100, 1000)


def run() -> None:
    print("one step, batches of 8, 1 worker; each row is a job in a process of its own\n")
    print("| images | driver peak MB | object store peak MB |\n| ---: | ---: | ---: |")
    peaks = {count: _measure(count) for count in COUNTS}
    for count, (driver, store) in peaks.items():
        print(f"| {count} | {driver:.0f} | {store:.1f} |")
    few, many = (peaks[count] for count in COUNTS)
    print(f"\n{COUNTS[1] // COUNTS[0]} times the images: driver {many[0] / few[0]:.2f}x")


def _measure(images: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        write_catalog(Path(folder), images)
        command = [sys.executable, "-m", "tests.benchmarks.memory", folder]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(lines[-2]), float(lines[-1])


def _job(folder: Path) -> None:
    """Run the job in this process, then print its peak memory and the object store's, in MB."""
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
    peak = 0.0

    class Watch(Meter):
        def add(self, counts) -> None:
            nonlocal peak
            super().add(counts)
            peak = max(peak, _object_store_bytes() / 1e6)

    environment = settings.from_environment()
    with cluster.connected(1 + 2 * CPUS_BESIDE_EDITS):
        prepared = job.prepare(options, environment)
        with Watch(len(prepared.plan.tasks), Console(quiet=True)) as watch:
            job.work(prepared, options, environment, "benchmark", watch)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, peak)


def _object_store_bytes() -> float:
    import ray

    total = ray.cluster_resources().get("object_store_memory", 0)
    return total - ray.available_resources().get("object_store_memory", total)


if __name__ == "__main__":
    _job(Path(sys.argv[1]))
