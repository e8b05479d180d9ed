"""Jobs of which something is killed, with everything in a bucket, and run again."""

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow.dataset as ds
import pytest
from PIL import Image

from infra import store
from infra.store import s3

IMAGES, BATCH, WORKERS = 48, 4, 2
# A batch of an edit actor, one that it has handed on and one that is being written: so much may be lost with each.
IN_FLIGHT = 3 * WORKERS


def command(source: str, output: str, base: Path, pair: tuple[str, str], *more: str) -> list[str]:
    arguments = ["--pair", *pair, "--base", str(base), "--input", source, "--output", output]
    options = ["--steps", "40", "--batch-size", str(BATCH), "--json", *more]
    return [sys.executable, "-c", "from infra.cli import main; main()", "apply", *arguments, *options]


def started(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    """The job, in a process of its own."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(arguments, process_group=0, env=os.environ | environment, **pipes)


def wait_for(true: Callable[[], bool], job: subprocess.Popen[str]) -> None:
    """Wait until something is true of a job that runs."""
    deadline = time.monotonic() + 120
    while not true():
        assert job.poll() is None, job.stderr.read() if job.stderr else ""
        assert time.monotonic() < deadline, "The job does not get there."
        time.sleep(0.02)


def rows_of(output: str) -> list[dict[str, Any]]:
    filesystem, path = store.arrow(f"{output}/manifest")
    return ds.dataset(path, filesystem=filesystem, format="parquet").to_table().to_pylist()


def has_parts(output: str, number: int) -> bool:
    """Whether the manifest has so many parts."""
    return len(list(store.list_objects(f"{output}/manifest"))) >= number


def digests(output: str) -> dict[str, str]:
    """What the results are, each of them an image."""
    found = {}
    for stored in store.list_objects(f"{output}/images"):
        data = store.read(stored.uri)
        Image.open(io.BytesIO(data)).load()
        found[stored.uri.removeprefix(output)] = hashlib.sha256(data).hexdigest()
    return found


@pytest.fixture
def photos(ceph_bucket, scene) -> str:
    """A prefix of images, in a bucket that keeps every version of an object."""
    name = ceph_bucket.removeprefix("s3://")
    s3._s3_client().put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    for number in range(IMAGES):
        buffer = io.BytesIO()
        scene(number, (64, 64)).save(buffer, "PNG")
        store.write(f"{ceph_bucket}/photos/{number % 4}/{number:03}.png", buffer.getvalue())
    return f"{ceph_bucket}/photos"


def written_twice(output: str) -> int:
    """How many results were written again."""
    bucket, _, prefix = output.removeprefix("s3://").partition("/")
    pages = s3._s3_client().get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=f"{prefix}/images/")
    versions = Counter(version["Key"] for page in pages for version in page.get("Versions", ()))
    return sum(versions.values()) - len(versions)


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Two nodes on this machine. What RAY_ADDRESS would find elsewhere plays no part."""
    from ray.cluster_utils import Cluster

    Path("/tmp/ray").mkdir(exist_ok=True)  # Cluster leaves a note there
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        try:
            cluster.add_node(num_cpus=2)
            yield cluster
        finally:
            cluster.shutdown()


def edit_actors(cluster: Any) -> list[psutil.Process]:
    """The processes of this cluster that edit."""
    found = []
    for node in cluster.list_all_nodes():
        for started in node.all_processes.get("raylet", ()):
            children = psutil.Process(started.process.pid).children()
            found += [child for child in children if "_Edit" in "".join(child.cmdline())]
    return found


def kill_an_actor(cluster: Any, job: subprocess.Popen[str], chance: random.Random) -> None:
    wait_for(lambda: bool(edit_actors(cluster)), job)
    chance.choice(edit_actors(cluster)).kill()


def kill_a_node(cluster: Any, job: subprocess.Popen[str], chance: random.Random) -> None:
    (other,) = [node for node in cluster.list_all_nodes() if not node.head]
    cluster.remove_node(other, allow_graceful=False)
    cluster.add_node(num_cpus=2)


def kill_the_driver(cluster: Any, job: subprocess.Popen[str], chance: random.Random) -> None:
    job.kill()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_whatever_is_killed_nothing_is_lost_nor_done_twice(photos, ceph_bucket, pair, tiny_base):
    """Ten jobs on two nodes; of each something is killed at a random moment, and then it is run again."""
    undisturbed = f"{ceph_bucket}/undisturbed"
    done = subprocess.run(
        command(photos, undisturbed, tiny_base, pair), check=True, capture_output=True, env=os.environ
    )
    assert json.loads(done.stdout)["done"] == IMAGES
    expected, twice = digests(undisturbed), []
    inputs = sorted(stored.uri for stored in store.list_objects(photos))
    with two_nodes() as cluster:
        for number in range(10):
            chance, output = random.Random(number), f"{ceph_bucket}/{number}"
            kill = (kill_an_actor, kill_a_node, kill_the_driver)[number % 3]
            arguments = command(photos, output, tiny_base, pair, "--workers", str(WORKERS))
            job = started(arguments, RAY_ADDRESS=cluster.address)
            moment = chance.randrange(5)  # parts of the manifest
            wait_for(partial(has_parts, output, moment), job)
            kill(cluster, job, chance)
            _, said = job.communicate(timeout=240)
            again = subprocess.run(arguments, capture_output=True, env=os.environ | {"RAY_ADDRESS": cluster.address})
            assert again.returncode == 0, (kill.__name__, again.stderr.decode(), said)
            assert sorted(row["uri"] for row in rows_of(output)) == inputs
            assert digests(output) == expected
            twice.append((kill.__name__, moment, job.returncode, written_twice(output)))
            assert written_twice(output) <= IN_FLIGHT * BATCH, twice
            if kill is not kill_the_driver:
                assert job.returncode == 0, said
    print(twice)  # noqa: T201  told by pytest if it fails, and with -s


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_a_job_that_is_stopped_goes_on_where_it_was(scene, pair, tiny_base, tmp_path, how, code):
    photos, output = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for number in range(IMAGES):
        scene(number, (64, 64)).save(photos / f"{number:02}.png")
    arguments = command(str(photos), str(output), tiny_base, pair, "--workers", "1")
    job = started(arguments)
    wait_for(lambda: any((output / "manifest").glob("*.parquet")), job)
    os.kill(job.pid, how)
    _, said = job.communicate()
    assert job.returncode == code and (code < 0 or "Run the same command again" in said)
    kept = rows_of(str(output))
    assert 0 < len(kept) < IMAGES and all(Path(row["result_uri"]).is_file() for row in kept)

    again = json.loads(subprocess.run(arguments, capture_output=True, check=True).stdout)
    rows = rows_of(str(output))
    assert (again["total"], again["failed"]) == (IMAGES, 0) and again["skipped"] >= len(kept)
    assert sorted(row["uri"] for row in rows) == sorted(map(str, photos.iterdir()))
    finished = {row["uri"]: row["finished_at"] for row in rows}
    assert all(finished[row["uri"]] == row["finished_at"] for row in kept)
