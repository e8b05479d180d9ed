"""A job whose driver is killed, with its own Ray, and run again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pytest

IMAGES = 60


def command(photos: Path, output: Path, base: Path, pair: tuple[str, str]) -> list[str]:
    arguments = ["--pair", *pair, "--base", base, "--input", photos, "--output", output]
    options = ["--steps", "40", "--workers", "1", "--batch-size", "4", "--json"]
    code = "from infra.cli import main; main()"
    return [sys.executable, "-c", code, "apply", *map(str, arguments), *options]


def watched(arguments: list[str], manifest: Path) -> subprocess.Popen:
    """The job, running, once it has recorded its first results."""
    job = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0)
    while not (manifest.is_dir() and any(manifest.glob("*.parquet"))):
        assert job.poll() is None, job.stderr.read().decode()
        with pytest.raises(subprocess.TimeoutExpired):
            job.wait(0.05)
    return job


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=str)
def test_a_killed_job_goes_on_where_it_stopped(scene, pair, tiny_base, tmp_path, how):
    photos, output = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for number in range(IMAGES):
        scene(number, (64, 64)).save(photos / f"{number:02}.png")
    arguments = command(photos, output, tiny_base, pair)
    job = watched(arguments, output / "manifest")
    os.kill(job.pid, how)
    said = job.communicate()[1].decode()
    if how != signal.SIGKILL:
        assert job.returncode == 130 and said.endswith("Stopped. Run the same command again to go on.\n")
    kept = ds.dataset(output / "manifest").to_table().to_pylist()
    assert 0 < len(kept) < IMAGES and all(Path(row["result_uri"]).is_file() for row in kept)

    again = json.loads(subprocess.run(arguments, capture_output=True, check=True).stdout)
    rows = ds.dataset(output / "manifest").to_table().to_pylist()
    assert (again["total"], again["failed"]) == (IMAGES, 0) and again["skipped"] >= len(kept)
    assert sorted(row["uri"] for row in rows) == sorted(map(str, photos.iterdir()))
    finished = {row["uri"]: row["finished_at"] for row in rows}
    assert all(finished[row["uri"]] == row["finished_at"] for row in kept)
