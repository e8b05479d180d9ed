"""The job with photos and results in a bucket of a real S3 server: Ceph on this machine, one object daemon in memory.

actors    are the edit actors ever without work, and how much do two do more than one?
resume    how long does a finished job of many images take to find out that it is finished?
first     how soon is there work for an edit actor, against listing everything first?
"""

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from infra import cluster, settings, store
from infra.store import s3 as s3_store
from pipelines.catalog import graph, job
from pipelines.catalog.feed import batches
from tests import rgw
from tests.benchmarks.catalogs import write_catalog
from tests.benchmarks.watch import watched

IMAGES, FINISHED, KEYS = 640, 10_000, 100_000
STEPS = {2: 640, 20: 384}  # steps of an edit, and images: an easy one, and one that takes the time of an edit
PUTS = 16  # at a time


@contextmanager
def _bucket() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder, rgw.served(Path(folder)) as environment:
        os.environ.update(environment)
        s3_store._s3_client.cache_clear()
        s3_store._s3_client().create_bucket(Bucket="shop")
        yield "s3://shop"


def _fill(bucket: str, prefix: str, files: list[bytes], number: int) -> None:
    with ThreadPoolExecutor(PUTS) as pool:
        write = store.write
        list(pool.map(lambda at: write(f"{bucket}/{prefix}/{at:06}.jpg", files[at % len(files)]), range(number)))


def _files(number: int) -> tuple[list[bytes], list[bytes]]:
    """JPEG queries of 64 px, and a pair."""
    with tempfile.TemporaryDirectory() as folder:
        catalog = write_catalog(Path(folder), number)
        pair = [(Path(folder) / f"{name}.png").read_bytes() for name in ("before", "after")]
        return [path.read_bytes() for path in sorted(catalog.iterdir())], pair


def _options(bucket: str, source: str, output: str, **more) -> job.Options:
    pairs = [(f"{bucket}/pair/before.png", f"{bucket}/pair/after.png")]
    return job.Options(pairs=pairs, input=f"{bucket}/{source}", output=f"{bucket}/{output}", **more)


def _with_pair(bucket: str, pair: list[bytes]) -> None:
    for name, data in zip(("before", "after"), pair, strict=True):
        store.write(f"{bucket}/pair/{name}.png", data)


def actors() -> None:
    files, pair = _files(IMAGES)
    with _bucket() as bucket:
        _with_pair(bucket, pair)
        _fill(bucket, "photos", files, IMAGES)
        print("JPEGs of 64 px, the bundled base, batches of 8, in and out of the bucket, which is on the same cores\n")
        print("| steps | images | edit actors | images/s, steady | of one actor | busy |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
        for steps, images in STEPS.items():
            rates: dict[int, float] = {}
            for workers in (1, 2):
                more = {"workers": workers, "batch_size": 8, "steps": steps, "limit": images}
                watch, summary = watched(_options(bucket, "photos", f"out-{steps}-{workers}", **more))
                rates[workers] = watch.rate(workers)
                share = rates[workers] / rates[1]
                told = f"{rates[workers]:.1f} | {share:.2f}x | {100 * (summary.busy or 0):.1f} %"
                print(f"| {steps} | {images} | {workers} | {told} |")
    print("\ntargets: busy 95 %; two actors 1.8x of one, where cores allow")


def resume() -> None:
    files, pair = _files(200)
    with _bucket() as bucket:
        _with_pair(bucket, pair)
        _fill(bucket, "photos", files, FINISHED)
        options = _options(bucket, "photos", "out", steps=1)
        took = []
        for _ in range(2):
            began = time.perf_counter()
            _, summary = watched(options)
            took.append((time.perf_counter() - began, summary))
    (first, done), (again, skipped) = took
    print("| | s | edited | finished before |\n| --- | ---: | ---: | ---: |")
    print(f"| {FINISHED} images, one step | {first:.0f} | {done.done} | {done.skipped} |")
    print(f"| the same command again | {again:.1f} | {skipped.done} | {skipped.skipped} |")
    print(f"\nthe second run takes {again / first:.3f} of the first (target: under 30 s, nothing edited)")


def first() -> None:
    files, pair = _files(1)
    with _bucket() as bucket:
        _with_pair(bucket, pair)
        _fill(bucket, "photos", files, KEYS)
        options = _options(bucket, "photos", "out")
        prepared = job.prepare(options, settings.from_environment())
        client = s3_store._s3_client()
        began = time.perf_counter()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="shop", Prefix="photos/")
        naive = [found["Key"] for page in pages for found in page["Contents"]]
        one_by_one = time.perf_counter() - began
        began = time.perf_counter()
        everything = list(store.list_objects(options.input))
        parallel = time.perf_counter() - began
        feed = replace(prepared.feed, folder=f"{bucket}/out/jobs/benchmark/catalog")
        began = time.perf_counter()
        stream = batches(feed, 32)
        next(stream)
        soon = time.perf_counter() - began
        listed = sum(len(batch) for batch in stream if isinstance(batch, list)) + 32
        whole = time.perf_counter() - began
        edited = _first_edited(prepared, options)
    assert len(naive) == len(everything) == listed == KEYS
    print(f"{KEYS} keys under one prefix\n")
    print("| | s | ratio |\n| --- | ---: | ---: |")
    print(f"| listing everything, a page after the other | {one_by_one:.2f} | {one_by_one / soon:.0f}x |")
    print(f"| listing everything, in parallel | {parallel:.2f} | {parallel / soon:.0f}x |")
    print(f"| until the first batch of the stream, listed and written down | {soon:.3f} | 1x |")
    print(f"| until the last batch of the stream | {whole:.2f} | |")
    print(f"| from the start of Ray and the base until the first edited images | {edited:.1f} | |")
    print(f"\nwork is there {parallel / soon:.0f}x sooner than with listing everything first (target 20x); with all")
    print(f"that has to start, the first edited image comes {(parallel + edited) / edited:.1f}x sooner")


def _first_edited(prepared: job.Prepared, options: job.Options) -> float:
    environment = settings.from_environment()
    began = time.perf_counter()
    with cluster.connected(1 + graph.CPUS_BESIDE):
        work = job.job_of(prepared, options, environment, workers=1, job_id="benchmark")
        next(counts for counts in graph.run(work, prepared.glance.inputs) if counts.done)
        return time.perf_counter() - began
