"""What flows into the job: everything that is left, in the same batches when it is asked for again."""

from dataclasses import replace
from itertools import chain

import pytest

from infra import store
from infra.errors import CatalogError
from pipelines.catalog import manifest, parts
from pipelines.catalog.counts import Counts
from pipelines.catalog.feed import Feed, batches
from pipelines.catalog.variants import Edits
from pipelines.catalog.work import Recipe, Variant

RECIPE = Recipe(base="b", revision="1", pairs=(("x", "y"),), attention="prefix", max_area=100, steps=4)
IMAGES = 250


@pytest.fixture
def feed(tmp_path) -> Feed:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(IMAGES):
        (folder / f"{number:03}.png").write_bytes(b"%d" % number)
    (folder / "notes.txt").touch()
    output = str(tmp_path / "out")
    edits = Edits(Variant(RECIPE), (), "", 1.0, 10**6)
    places = {"manifest": f"{output}/manifest", "folder": f"{output}/jobs/test/catalog"}
    return Feed(source=str(folder), output=output, format=None, edits=edits, **places)


def flowed(feed: Feed, size: int = 8) -> tuple[list[list[str]], Counts]:
    """The names in every batch, and the sum of the counts."""
    found, counts = [], Counts()
    for told in batches(feed, size):
        if isinstance(told, Counts):
            counts += told
        else:
            found.append([task.input.relative_path for task in told])
    return found, counts


def record(feed: Feed, names: list[str], status: str = manifest.DONE) -> Feed:
    """The feed, after these images were dealt with."""
    rows = []
    for name in names:
        stored = store.stat(f"{feed.source}/{name}")
        row = {"uri": stored.uri, "input_etag": stored.etag, "input_sha256": "sha", "status": status}
        rows.append(row | {"work_id": RECIPE.work_id("sha"), "result_uri": f"out/{name}" if status == "done" else None})
    manifest.append(feed.manifest, rows)
    return replace(feed, recorded=manifest.parts(feed.manifest))


def test_everything_flows_once_in_full_batches_and_is_written_down(feed):
    found, counts = flowed(feed)
    names = [name for batch in found for name in batch]
    assert sorted(names) == [f"{number:03}.png" for number in range(IMAGES)]
    assert [len(batch) for batch in found] == [8] * (IMAGES // 8) + [IMAGES % 8]
    assert counts.passed.ignored == 1
    table = parts.dataset(feed.folder).to_table()
    assert table["relative_path"].to_pylist() == names


def test_what_is_finished_is_counted_and_the_rest_flows(feed):
    done = record(feed, [f"{number:03}.png" for number in range(0, IMAGES, 2)])
    both = record(done, ["001.png", "003.png"], manifest.FAILED)
    found, counts = flowed(both)
    assert (counts.kept, counts.kept_failed) == (IMAGES // 2, 2)
    assert len([name for batch in found for name in batch]) == IMAGES // 2 - 2
    assert flowed(replace(both, folder=None, retry_failed=True))[1].kept_failed == 0


def test_asked_for_again_it_flows_in_the_same_batches_whatever_has_happened_since(feed, tmp_path):
    """As when Ray runs it again: parts are missing that were not used yet, files and manifest rows are new."""
    before = record(feed, ["000.png", "100.png", "200.png"])
    found, _ = flowed(before)
    written = sorted(stored.uri for stored in store.list_objects(feed.folder))
    for uri in written[1:]:  # all but the first part, of a hundred
        store.delete(uri)
    (tmp_path / "photos" / "000 new.png").write_bytes(b"new")
    record(feed, ["001.png", "101.png"])
    again, _ = flowed(before)
    assert again[:12] == found[:12]
    assert sorted(chain(*again)) == sorted([*chain(*found), "000 new.png"])


def test_rows_of_one_edit_flow_together(feed, tmp_path):
    lines = [f"photos/{number:03}.png,{number % 3}" for number in range(30)]
    (tmp_path / "t.csv").write_text("\n".join(["uri,seed", *lines]))
    told = list(batches(replace(feed, source=str(tmp_path / "t.csv")), 5))
    tasks = [batch for batch in told if not isinstance(batch, Counts)]
    assert [len(batch) for batch in tasks] == [5] * 6
    assert all(len({task.variant.recipe.seed for task in batch}) == 1 for batch in tasks)


def test_what_goes_wrong_while_listing_is_raised_as_it_is(feed, tmp_path):
    (tmp_path / "t.csv").write_bytes(b"uri\n" + b"photos/000.png\n" * 200_000 + b"\xff\xfe\n")
    with pytest.raises(CatalogError, match=r"t\.csv"):
        flowed(replace(feed, source=str(tmp_path / "t.csv")))
