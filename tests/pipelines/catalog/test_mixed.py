"""A catalog such as people have it: half of it cannot be edited, and says why; the other half is done."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow.dataset as ds
from typer.testing import CliRunner

from infra.cli import app
from pipelines import codec
from pipelines.catalog.listing import result_name
from tests import corrupt

MOST_MEMORY = 2 << 30  # bytes of one process, torch and all; what the bombs claim is 7 GB and more
LIMIT = 100_000_000


def mixed_folder(folder: Path, count: int) -> dict[str, str | None]:
    """Good and bad files, and what is no file although it has the name of an image."""
    expected = corrupt.make_files(folder, count)
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "nowhere.jpg").symlink_to(folder / "gone.jpg")
    (folder / "itself.jpg").symlink_to(folder / "itself.jpg")
    return expected | dict.fromkeys(("pipe.png", "nowhere.jpg", "itself.jpg"), "unreadable")


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """The most memory, in bytes, that any process of Ray has had by its name, as seen while the block runs."""
    peaks: dict[str, int] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            for process in psutil.Process().children(recursive=True):
                try:
                    name = f"{process.pid} {process.name()}"
                    peaks[name] = max(peaks.get(name, 0), process.memory_info().rss)
                except psutil.Error:  # it has just ended
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


def rows_of(output: Path) -> dict[str, dict[str, Any]]:
    rows = ds.dataset(output / "manifest").to_table().to_pylist()
    assert len({row["relative_path"] for row in rows}) == len(rows)
    return {row["relative_path"]: row for row in rows}


def test_good_files_are_done_and_bad_ones_get_their_code(ray_cluster, tiny_base, pair, tmp_path):
    source, output = tmp_path / "photos", tmp_path / "out"
    expected = mixed_folder(source, 500)
    options = ["--base", str(tiny_base), "--input", str(source), "--output", str(output), "--workers", "1"]
    with watched() as peaks:
        told = CliRunner().invoke(app, ["apply", "--pair", *pair, "--json", *options])
    rows = rows_of(output)

    assert told.exit_code == 3 and set(rows) == set(expected)
    assert {name: row["error_code"] for name, row in rows.items()} == expected
    assert all(row["status"] == ("failed" if expected[name] else "done") for name, row in rows.items())
    summary = json.loads(told.stdout)
    bad = sum(code is not None for code in expected.values())
    assert (summary["total"], summary["failed"], summary["done"]) == (len(expected), bad, len(expected) - bad)

    results = {str(path.relative_to(output / "images")) for path in (output / "images").rglob("*") if path.is_file()}
    good = [name for name, code in expected.items() if code is None]
    assert results == {result_name(name, None) for name in good} and len(results) == len(good)
    for name in good:
        photo = codec.decode((output / "images" / result_name(name, None)).read_bytes(), LIMIT)
        assert photo.image.size == (rows[name]["width"], rows[name]["height"])
    assert list(tmp_path.rglob(".*")) == []
    assert peaks and max(peaks.values()) < MOST_MEMORY, peaks
