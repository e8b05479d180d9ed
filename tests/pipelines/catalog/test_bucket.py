"""A job whose photos, pair and results are in a bucket of a real S3 server, and what can go wrong with it."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from PIL import Image
from typer.testing import CliRunner

from infra import store
from infra.cli import app
from infra.store import s3 as s3_store
from tests import faults, s3

IMAGES = 12


@pytest.fixture
def shop(ceph_bucket, scene) -> str:
    """A bucket with a pair, good photos, a broken one and a note."""
    for number in range(IMAGES):
        put(f"{ceph_bucket}/photos/{number % 3}/{number:02}.png", scene(number, (64, 48)))
    store.write(f"{ceph_bucket}/photos/broken.jpg", b"\xff\xd8\xff")
    store.write(f"{ceph_bucket}/photos/notes.txt", b"Edit these.")
    put(f"{ceph_bucket}/pair/before.png", scene(100))
    put(f"{ceph_bucket}/pair/after.png", scene(101))
    return ceph_bucket


def put(uri: str, image: Image.Image) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    store.write(uri, buffer.getvalue())


def arguments(shop: str, base: Path, *more: str, output: str = "") -> list[str]:
    pair = ["--pair", f"{shop}/pair/before.png", f"{shop}/pair/after.png"]
    return ["apply", *pair, "--base", str(base), "--json", "--output", output or f"{shop}/out", *more]


def rows_of(output: str) -> dict[str, dict[str, Any]]:
    filesystem, path = store.arrow(f"{output}/manifest")
    rows = ds.dataset(path, filesystem=filesystem, format="parquet").to_table().to_pylist()
    assert len({row["uri"] for row in rows}) == len(rows)
    return {row["uri"]: row for row in rows}


def command(told: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process, with a Ray, of its own."""
    run = [sys.executable, "-c", "from infra.cli import main; main()", *told]
    return subprocess.run(run, capture_output=True, text=True, env=os.environ | environment, check=False)


def test_a_job_in_a_bucket_leaves_everything_there_and_tells_no_secret(shop, ceph, tiny_base):
    """Once as a prefix, then as a table; what it leaves, what it says and what Ray logs is searched for the keys."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ray-") as ray_folder:  # short: sockets have short names
        told = command(arguments(shop, tiny_base, "--input", f"{shop}/photos", "--workers", "1"), RAY_TMPDIR=ray_folder)
        logs = b"".join(path.read_bytes() for path in Path(ray_folder).rglob("*") if path.is_file())
    summary = json.loads(told.stdout)
    assert (told.returncode, summary["done"], summary["failed"]) == (3, IMAGES, 1), told.stderr
    rows = rows_of(f"{shop}/out")
    assert len(rows) == IMAGES + 1 and rows[f"{shop}/photos/broken.jpg"]["error_code"] == "truncated"
    for row in rows.values():
        if row["status"] == "done":
            data = store.read(row["result_uri"])
            assert hashlib.sha256(data).hexdigest() == row["result_sha256"]
            assert row["input_etag"] == store.stat(row["uri"]).etag and row["job_id"] == summary["job_id"]
            Image.open(io.BytesIO(data)).load()
    left = b"".join(store.read(stored.uri) for stored in store.list_objects(f"{shop}/out"))
    secrets = [ceph[name].encode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    assert logs and left
    for place in (logs, left, told.stdout.encode(), told.stderr.encode()):
        assert not any(secret in place for secret in secrets)


@pytest.mark.slow
def test_a_table_of_addresses_is_done_and_not_done_again(ray_cluster, shop, tiny_base, scene):
    """Rows with the same photo ask for their own pair and seed; a second run looks at every photo and edits none."""
    put(f"{shop}/pair/other.png", scene(102))
    names = [f"{shop}/same/{name}.png" for name in ("plain", "plain too", "pair", "seed", "gone", "bad")]
    for name in (*names[:4], names[5]):
        put(name, scene(7, (64, 48)))
    wishes = [",,", ",,", "pair/before.png,pair/other.png,", ",,5", ",,", "pair/nothing.png,pair/nothing.png,"]
    lines = [f"{name},{wish}" for name, wish in zip(names, wishes, strict=True)]
    store.write(f"{shop}/table.csv", "\n".join(["uri,before,after,seed", *lines]).encode())
    asked = arguments(shop, tiny_base, "--input", f"{shop}/table.csv", "--workers", "1")
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 3, told.stderr
    rows = rows_of(f"{shop}/out")
    assert {name: row["error_code"] for name, row in rows.items() if row["status"] == "failed"} == {
        names[4]: "unreadable", names[5]: "bad_override",
    }  # fmt: skip
    assert all(rows[name]["input_etag"] == store.stat(name).etag for name in names[:4])
    plain, same, *others = [rows[name]["result_sha256"] for name in names[:4]]
    assert plain == same and len({plain, *others}) == 3

    summary = json.loads(CliRunner().invoke(app, asked).stdout)
    assert (summary["done"], summary["skipped"], summary["failed"]) == (0, 4, 2)
    again = rows_of(f"{shop}/out")
    assert [again[name] for name in names[:4]] == [rows[name] for name in names[:4]]


def refuse_writing(bucket: str) -> None:
    """Let nobody write into this bucket."""
    name = bucket.removeprefix("s3://")
    statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{name}/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    s3_store._s3_client().put_bucket_policy(Bucket=name, Policy=policy)


@pytest.mark.parametrize(
    ("wrong", "source", "output", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "{shop}/photos", "{shop}/out", "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "NOBODY"}, "{shop}/photos", "{shop}/out", "AWS_ACCESS_KEY_ID"),
        ({}, "s3://no-such-bucket-anywhere/photos", "{shop}/out", "no such bucket"),
        ({}, "{shop}/photos", "s3://no-such-bucket-anywhere/out", "no such bucket"),
        ({}, "{shop}/photos", "{closed}/out", "may not do that"),
        ({}, "{shop}/nothing", "{shop}/out", "no images"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "{shop}/photos", "{shop}/out", "AWS_ENDPOINT_URL"),
    ],
    ids=["secret", "key", "input", "output", "read-only", "empty", "no server"],
)
def test_what_cannot_work_stops_before_the_first_edit(shop, ceph, tiny_base, pair, wrong, source, output, said):
    with s3.new_bucket(ceph) as closed:
        refuse_writing(closed)
        places = {"shop": shop, "closed": closed}
        told = ["apply", "--pair", *pair, "--base", str(tiny_base), "--json"]
        told += ["--input", source.format(**places), "--output", output.format(**places)]
        with s3.reached(ceph | wrong):
            outcome = CliRunner().invoke(app, told)
    assert outcome.exit_code == 2 and said in outcome.stderr and not outcome.stdout
    assert len(outcome.stderr.strip().splitlines()) == 1 and ceph["AWS_SECRET_ACCESS_KEY"] not in outcome.stderr
    assert not list(store.list_objects(f"{shop}/out"))


@pytest.mark.slow
def test_credentials_that_expire_stop_the_job_and_lose_nothing(shop, ceph, tiny_base):
    """A proxy forwards until the first results are recorded, and then says that the credentials have expired."""
    rates: dict[str, float] = {}
    asked = arguments(shop, tiny_base, "--input", f"{shop}/photos", "--workers", "1", "--batch-size", "1")
    slowly = [*asked, "--steps", "60"]
    with faults.faulty(ceph, rates, 0) as through:
        run = [sys.executable, "-c", "from infra.cli import main; main()", *slowly]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        job = subprocess.Popen(run, **pipes, env=os.environ | {"AWS_ENDPOINT_URL": through["AWS_ENDPOINT_URL"]})
        while not list(store.list_objects(f"{shop}/out/manifest")):
            with pytest.raises(subprocess.TimeoutExpired):
                job.wait(0.05)
        rates["expired"] = 1.0
        _, said = job.communicate(timeout=120)
    assert job.returncode == 1 and "have expired" in said and "Traceback" not in said, said
    kept = rows_of(f"{shop}/out")
    assert kept and all(row["status"] == "done" or row["error_code"] == "truncated" for row in kept.values())
    again = command(slowly)
    assert again.returncode == 3 and json.loads(again.stdout)["skipped"] >= len(kept) - 1
    assert len(rows_of(f"{shop}/out")) == IMAGES + 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_through_a_bad_network_nothing_is_lost(shop, ceph, tiny_base):
    """5 % each of errors, SlowDown, resets, silence of 30 s and answers that break off, for every request of a job."""
    counts: Counter[str] = Counter()
    asked = arguments(shop, tiny_base, "--input", f"{shop}/photos", "--batch-size", "2")
    with faults.faulty(ceph, faults.FIVE_PERCENT_EACH, 0, counts=counts) as through:
        told = command(asked, AWS_ENDPOINT_URL=through["AWS_ENDPOINT_URL"])
    assert told.returncode == 3, told.stderr
    assert all(counts[kind] for kind in faults.FIVE_PERCENT_EACH), counts
    rows = rows_of(f"{shop}/out")
    assert Counter(row["status"] for row in rows.values()) == {"done": IMAGES, "failed": 1}
    assert rows[f"{shop}/photos/broken.jpg"]["error_code"] == "truncated"
    for row in rows.values():
        if row["status"] == "done":
            assert hashlib.sha256(store.read(row["result_uri"])).hexdigest() == row["result_sha256"]
