"""The catalog job against a bare loop over Editor: the same images, one worker, one thread each, steady state."""

import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from pipelines.catalog.options import Options
from pipelines.transfer import Editor
from tests.benchmarks.catalogs import write_catalog
from tests.benchmarks.watch import watched

IMAGES, STEPS, BATCH = 240, 8, 8
TARGET = 0.85


def run() -> None:
    with tempfile.TemporaryDirectory() as folder:
        catalog = write_catalog(Path(folder), IMAGES)
        print(f"{IMAGES} images of 64 px, {STEPS} steps, batches of {BATCH}\n")
        before = _loop(catalog)
        through_job = _job(catalog, Path(folder) / "out")
        after = _loop(catalog)
    alone = (before + after) / 2
    print("| | images/s |\n| --- | ---: |")
    print(f"| bare loop over Editor, before | {before:.1f} |\n| the job, 1 worker | {through_job:.1f} |")
    print(f"| bare loop over Editor, after | {after:.1f} |")
    print(f"\nthe job reaches {through_job / alone:.2f} of the loop (target {TARGET})")


def _loop(catalog: Path) -> float:
    torch.set_num_threads(1)
    editor = Editor.load()
    pair = [Image.open(catalog.parent / name) for name in ("before.png", "after.png")]
    prefix = editor.remember([(pair[0], pair[1])])
    paths = sorted(catalog.iterdir())
    editor.edit([Image.open(path) for path in paths[:BATCH]], prefix, seeds=range(BATCH), steps=STEPS)
    began = time.perf_counter()
    for start in range(0, len(paths), BATCH):
        queries = [Image.open(path) for path in paths[start : start + BATCH]]
        editor.edit(queries, prefix, seeds=range(len(queries)), steps=STEPS)
    return len(paths) / (time.perf_counter() - began)


def _job(catalog: Path, output: Path) -> float:
    watch, summary = watched(
        Options(
            pairs=[(str(catalog.parent / "before.png"), str(catalog.parent / "after.png"))],
            input=str(catalog),
            output=str(output),
            workers=1,
            batch_size=BATCH,
            steps=STEPS,
        )
    )
    assert summary.done == IMAGES
    return watch.rate(workers=1)
