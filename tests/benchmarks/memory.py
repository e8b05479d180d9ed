"""Decoded images wait for the edit in Ray's object store: does what waits there grow with the catalog?

The driver's own memory is measured by `driver`.
"""

import tempfile
from pathlib import Path

import ray

from pipelines.catalog.counts import Counts
from pipelines.catalog.options import Options
from tests.benchmarks.catalogs import write_catalog
from tests.benchmarks.watch import Watch, watched

COUNTS = (300, 1200)
SIZE = (320, 240)


class StoreWatch(Watch):
    """A meter that asks for the size of the object store whenever a batch is finished."""

    peak = 0.0  # bytes

    def add(self, counts: Counts) -> None:
        super().add(counts)
        whole = ray.cluster_resources().get("object_store_memory", 0)
        self.peak = max(self.peak, whole - ray.available_resources().get("object_store_memory", whole))


def run() -> None:
    print(f"JPEGs of {SIZE[0]}x{SIZE[1]}, one step, batches of 8, 1 worker\n")
    print("| images | MB when decoded | object store peak MB |\n| ---: | ---: | ---: |")
    peaks = []
    for count in COUNTS:
        peaks.append(_peak(count))
        print(f"| {count} | {count * SIZE[0] * SIZE[1] * 3 / 1e6:.0f} | {peaks[-1] / 1e6:.1f} |")
    print(f"\n{COUNTS[1] / COUNTS[0]:.0f} times the images fill {peaks[1] / peaks[0]:.2f}x of the object store")


def _peak(images: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        catalog = write_catalog(Path(folder), images, SIZE)
        options = Options(
            pairs=[(f"{folder}/before.png", f"{folder}/after.png")],
            input=str(catalog),
            output=f"{folder}/out",
            workers=1,
            batch_size=8,
            steps=1,
        )
        watch, summary = watched(options, StoreWatch)
        assert summary.done == images and isinstance(watch, StoreWatch)
        return watch.peak
