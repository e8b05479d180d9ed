from datetime import UTC, datetime, timedelta

import pyarrow.dataset as ds
import pytest

from infra import store
from infra.errors import StoreError
from pipelines.catalog import manifest

START = datetime(2026, 1, 1, tzinfo=UTC)


def row(uri: str, at: int, status: str = "done", **more):
    result = {"result_uri": f"out/{uri}"} if status == "done" else {}
    return {"uri": uri, "status": status, "finished_at": START + timedelta(seconds=at)} | result | more


@pytest.fixture
def folder(tmp_path):
    """Three parts in which `a` was done again, `b` failed and was done, and `c` failed."""
    path = str(tmp_path / "manifest")
    manifest.append(path, [row("a", 1, scores={"change": 0.1}), row("b", 2, "failed")])
    manifest.append(path, [row("b", 3), row("a", 4, scores={"change": 0.2})])
    manifest.append(path, [row("c", 5, "failed", error_code="truncated")])
    return path


def test_the_newest_row_of_a_uri_counts(folder):
    rows = manifest.read(folder, ["uri", "status", "scores"]).to_pylist()
    assert rows == [
        {"uri": "a", "status": "done", "scores": [("change", 0.2)]},
        {"uri": "b", "status": "done", "scores": None},
        {"uri": "c", "status": "failed", "scores": None},
    ]


def test_an_input_whose_result_was_replaced_by_another_input_has_none(folder):
    manifest.append(folder, [row("z", 9, result_uri="out/a")])
    assert manifest.read(folder, ["uri"])["uri"].to_pylist() == ["b", "c", "z"]


def test_compaction_leaves_one_part_that_anyone_can_read(folder, tmp_path):
    counting = manifest.read(folder)
    manifest.compact(folder)
    (part,) = (tmp_path / "manifest").iterdir()
    assert ds.dataset(folder).to_table().equals(counting)
    manifest.compact(folder)
    assert list((tmp_path / "manifest").iterdir()) == [part]


def test_compaction_may_be_killed_after_any_of_its_steps(folder, tmp_path):
    """What a reader sees is the same with the compacted part written and any number of old parts deleted."""
    counting = manifest.read(folder)
    old = [found.uri for found in store.list_objects(folder)]
    kept = {uri: store.read(uri) for uri in old}
    manifest.compact(folder)
    for uri, data in kept.items():
        store.write(uri, data)
    for uri in old:
        assert manifest.read(folder).equals(counting)
        store.delete(uri)
    (tmp_path / "manifest" / ".writing-0123").write_bytes(b"half a part")
    assert manifest.read(folder).equals(counting) and ds.dataset(folder).count_rows() == 3


def test_no_manifest_is_an_empty_one(tmp_path):
    assert manifest.read(str(tmp_path / "none")).num_rows == 0
    manifest.compact(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_damaged_manifest_is_named(folder, tmp_path):
    (tmp_path / "manifest" / "part-x.parquet").write_bytes(b"not parquet")
    with pytest.raises(StoreError, match="--fresh"):
        manifest.read(folder)
    manifest.drop_damaged(folder)
    assert manifest.read(folder).num_rows == 3
