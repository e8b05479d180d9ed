"""`edit-transfer publish` and `revert`, on folders and buckets."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from typer.testing import CliRunner

from infra import store
from infra.cli import app
from infra.errors import EditTransferError, LeaseHeld, StoreUnavailable, UsageError
from infra.registry import lease
from pipelines.catalog import manifest, publication
from tests.pipelines.catalog.shops import NEW, SAYING, STAGED, Shop, stocked


@pytest.fixture
def shop(tmp_path) -> Shop:
    return stocked(str(tmp_path / "out"))


@pytest.fixture
def bucket_shop(ceph_bucket) -> Shop:
    return stocked(f"{ceph_bucket}/it's/out")


@pytest.fixture(params=["shop", "bucket_shop"])
def either(request) -> Shop:
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(publication, "CHUNK", 2)


def test_what_is_done_is_put_in_place_with_its_rows_and_what_failed_is_not(either):
    told = either.publish()
    assert (told.published, told.replaced, told.already, told.left, told.failed) == (5, 3, 0, 0, 1)
    assert either.images == NEW | {"f.jpg": "f1", "g.jpg": "g1"}
    rows = {row["uri"]: row for row in either.rows}
    staged = {row["uri"]: row for row in manifest.read(f"{either.job}/manifest", SAYING).to_pylist()}
    for name in NEW:
        assert rows[f"in/{name}"] == staged[f"in/{name}"] | {"result_uri": f"{either.place}/images/{name}"}
    assert {uri: row["job_id"] for uri, row in rows.items() if row["job_id"] != "staged"} == {
        "in/f.jpg": "first", "in/g.jpg": "first",
    }  # fmt: skip


def test_a_revert_brings_everything_back(either):
    before = either.state
    either.publish()
    told = either.revert()
    assert (told.reverted, told.restored, told.deleted, told.left_alone, told.missing) == (5, 3, 2, 0, 0)
    assert either.state == before
    assert ds.dataset(parts_of(either), filesystem=store.arrow(either.place)[0]).count_rows() == 5


def parts_of(shop: Shop) -> list[str]:
    """The parts of the manifest as any reader of Parquet sees them."""
    return [store.arrow(part)[1] for part in manifest.parts(store.join(shop.place, "manifest"))]


def test_both_may_be_said_twice_and_alternate(either):
    before = either.state
    nothing = either.revert()
    assert (nothing.reverted, nothing.left_alone) == (0, 0) and either.state == before
    either.publish()
    published, parts = either.state, parts_of(either)
    again = either.publish()
    assert (again.published, again.already) == (0, 5) and either.state == published and parts_of(either) == parts
    either.revert()
    parts = parts_of(either)
    assert either.revert().reverted == 0 and either.state == before and parts_of(either) == parts
    assert either.publish().published == 5 and either.state == published
    either.revert()
    assert either.state == before
    left = [found.uri for found in store.list_objects(either.job)]
    assert not [uri for uri in left if "/replaced/" in uri or "/published/" in uri]


def test_publishing_again_copies_nothing_that_is_in_place(shop, monkeypatch):
    shop.publish()
    monkeypatch.setattr(store, "copy", lambda *_: pytest.fail("copied again"))
    assert shop.publish().already == 5


def test_what_a_later_job_has_edited_is_left_alone(either):
    either.publish()
    either.edit(either.place, "later", {"a.jpg": "a3", "d.jpg": "d3"}, at=10**9)
    again = either.publish()
    assert (again.published, again.already, again.left) == (0, 3, 2)
    told = either.revert()
    assert (told.reverted, told.left_alone) == (3, 2)
    assert either.images == {"a.jpg": "a3", "c/c.png": "c1", "d.jpg": "d3", "e.jpg": "e1", "f.jpg": "f1", "g.jpg": "g1"}
    assert {row["uri"]: row["job_id"] for row in either.rows} == {
        "in/a.jpg": "later", "in/b.jpg": "first", "in/d.jpg": "later", "in/f.jpg": "first", "in/g.jpg": "first",
        "elsewhere/e.jpg": "other",
    }  # fmt: skip
    told = either.revert()
    assert (told.reverted, told.left_alone) == (0, 2)


def test_two_staged_jobs_come_out_in_the_order_they_went_in(shop):
    before = shop.state
    shop.publish()
    second = Shop(shop.place)
    second.job = store.join(shop.place, "jobs", "staged-ba9876543210")
    first = shop.state
    second.edit(second.job, "second", {"a.jpg": "a3", "d.jpg": "d3"}, at=5)
    assert second.publish().replaced == 2
    assert shop.revert().left_alone == 2
    second.revert()
    assert shop.images["a.jpg"] == "a2" and shop.images["d.jpg"] == "d2" and "b.jpg" not in shop.images
    assert shop.revert().reverted == 2 and shop.state == before != first


def test_what_was_staged_since_is_published_too_and_all_of_it_reverted(shop):
    before = shop.state
    shop.publish()
    shop.edit(shop.job, "staged again", {"a.jpg": "a9", "f.jpg": "f9"}, at=9)
    told = shop.publish()
    assert (told.published, told.replaced, told.already, told.failed) == (2, 2, 4, 0)
    assert shop.images == NEW | {"a.jpg": "a9", "f.jpg": "f9", "g.jpg": "g1"}
    assert shop.revert().reverted == 7 and shop.state == before


def test_results_that_change_places_come_back(tmp_path):
    """The input that owned a result before has another place in the staged job, and the staged job takes its place."""
    shop = Shop(str(tmp_path / "out"))
    shop.edit(shop.place, "first", {"x.jpg": "old x"}, at=1, uri="in/sub/{}")
    before = shop.state
    shop.edit(shop.job, "staged", {"sub/x.jpg": "new sub/x", "x.jpg": "new x", "y.jpg": "y"}, at=2)
    for _ in range(2):
        assert shop.publish().published == 3
        assert [row["relative_path"] for row in shop.rows] == ["sub/x.jpg", "x.jpg", "y.jpg"]
        shop.revert()
        assert shop.state == before


def test_clocks_that_are_behind_change_nothing(shop):
    shop.edit(shop.place, "ahead", {"a.jpg": "a0"}, at=10**9)
    before = shop.state
    shop.publish()
    assert shop.images["a.jpg"] == "a2" and {row["uri"]: row["job_id"] for row in shop.rows}["in/a.jpg"] == "staged"
    shop.revert()
    assert shop.state == before


def test_staged_results_that_are_gone_are_told_and_the_rest_is_published(shop):
    store.delete(store.join(shop.job, "images", "a.jpg"))
    for published, already in ((4, 0), (0, 4)):
        told = shop.publish()
        assert (told.published, told.already, told.missing, told.left) == (published, already, 1, 0)
        assert shop.images["a.jpg"] == "a1"
    store.write(store.join(shop.job, "images", "a.jpg"), b"a2")
    assert shop.publish().published == 1


def test_a_store_that_stops_answering_stops_it_with_a_sentence_and_loses_nothing(shop, monkeypatch):
    before, real, copies = shop.state, store.copy, iter(range(7))

    def failing(source: str, target: str) -> None:
        if next(copies, None) is None:
            raise StoreUnavailable("s3://shop: the bucket kept answering SlowDown; try again later.")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(store, "copy", failing)
        with pytest.raises(EditTransferError, match=r"SlowDown; try again later\. Nothing is lost") as stopped:
            shop.publish()
    assert stopped.value.exit_code == 1
    told = shop.publish()
    assert told.published + told.already == 5 and shop.images["e.jpg"] == "e2"
    shop.revert()
    assert shop.state == before


def test_only_one_at_a_time(shop):
    with lease(shop.place, "jobs", "publish"):
        for act in (shop.publish, shop.revert):
            with pytest.raises(LeaseHeld):
                act()
    assert shop.publish().published == 5


def test_a_job_that_has_not_finished_is_published_only_when_asked(shop):
    from pipelines.catalog import parts
    from pipelines.catalog.listing import Catalog, Input

    inputs = [Input(f"in/{name}", name, "") for name in ("a.jpg", "b.jpg", "late.jpg")]
    for _ in parts.written(store.join(shop.job, "jobs", "20260101", "catalog"), Catalog("in", iter(inputs))):
        pass
    with pytest.raises(UsageError, match="1 of the images"):
        shop.publish()
    assert shop.publish(partial=True).published == 5
    shop.edit(shop.job, "staged", {"late.jpg": "late"}, at=4)
    assert shop.publish().published == 1


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (["{place}/jobs/staged-ffffffffffff"], "no such job"),
        (["staged-ffffffffffff", "--output", "{place}"], "no such job"),
        (["staged-0123456789ab"], "no staged job"),
        (["{place}"], "no staged job"),
        (["{place}/jobs/20260101-000000-abcdef"], "no staged job"),
        (["{place}/jobs/staged-0123456789ab", "--output", "{place}"], "--output"),
    ],
)
@pytest.mark.parametrize("command", ["publish", "revert"])
def test_what_is_no_staged_job_is_refused_in_a_sentence(shop, command, job, said):
    told = CliRunner().invoke(app, [command, *(word.format(place=shop.place) for word in job)])
    assert told.exit_code == 2 and said in told.stderr and "Traceback" not in told.stderr


def test_a_job_in_which_nothing_is_done_is_refused(tmp_path):
    shop = Shop(str(tmp_path / "out"))
    shop.edit(shop.job, "staged", {"a.jpg": None}, at=1)
    told = CliRunner().invoke(app, ["publish", shop.job])
    assert told.exit_code == 2 and "nothing in this job is done" in told.stderr


def test_the_command_line_tells_what_it_did(shop):
    by_id = ["--output", shop.place, "--json"]
    told = json.loads(CliRunner().invoke(app, ["publish", STAGED, *by_id]).stdout)
    assert told == {
        "job": shop.job, "images": f"{shop.place}/images",
        "published": 5, "replaced": 3, "already": 0, "left": 0, "missing": 0, "failed": 1,
    }  # fmt: skip
    assert "already" in CliRunner().invoke(app, ["publish", shop.job]).stdout
    told = json.loads(CliRunner().invoke(app, ["revert", STAGED, *by_id]).stdout)
    assert told == {
        "job": shop.job, "images": f"{shop.place}/images",
        "reverted": 5, "restored": 3, "deleted": 2, "left_alone": 0, "missing": 0,
    }  # fmt: skip


@pytest.fixture
def photos(tmp_path, scene) -> Iterator[Path]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        scene(number).save(folder / f"{number}.png")
    (folder / "bad.jpg").write_text("This is not a picture.")
    yield folder


def test_a_staged_job_from_the_first_command_to_the_last(ray_cluster, tiny_base, pair, photos, tmp_path):
    out = tmp_path / "out"
    common = ["apply", "--pair", *pair, "--base", str(tiny_base), "--input", str(photos), "--output", str(out)]

    def apply(*options: str) -> tuple[dict[str, Any], str]:
        told = CliRunner().invoke(app, [*common, "--workers", "1", "--json", *options])
        assert told.exit_code == 3
        return json.loads(told.stdout), told.stderr

    apply("--seed", "5")
    shop = Shop(str(out))
    rows, files = shop.rows, {path: path.read_bytes() for path in (out / "images").iterdir()}
    _, beside = apply("--stage")
    assert (shop.rows, {path: path.read_bytes() for path in (out / "images").iterdir()}) == (rows, files)
    (command,) = [line for line in beside.splitlines() if "edit-transfer publish" in line]
    words = command.partition("edit-transfer ")[2].split()
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.stderr
    summary, beside = apply()
    assert (summary["done"], summary["skipped"], summary["failed"]) == (0, 3, 1) and "publish" not in beside
    assert all(path.read_bytes() != data for path, data in files.items())
    assert CliRunner().invoke(app, ["revert", *words[1:]]).exit_code == 0
    assert {path: path.read_bytes() for path in (out / "images").iterdir()} == files
    assert [row for row in shop.rows if row["status"] == "done"] == [row for row in rows if row["status"] == "done"]
    summary, _ = apply("--seed", "5")
    assert (summary["done"], summary["skipped"]) == (0, 3)
