"""A large prefix is listed by several threads: in order, whole, nothing twice, whatever the keys look like."""

import random
import re
import threading
import time
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor

import pytest

from infra import store
from infra.errors import StoreUnavailable
from infra.store import listing
from infra.store.protocol import Stored

ROOT = "s3://bucket/"
LAST = "\U0010ffff"
ODD = "aZ09-_.!*'()&$@=;:+ ,?\\{}^%`[]\"<>~#|\t\n\x7f/éü中文字￿\U0001f600\U0010fffe\U0010ffff"
# moto has no route to a line feed; Ceph puts the last key of a page into its XML as it is, where no client can read it
UNREADABLE = {"moto": re.compile("\n"), "ceph": listing.NOT_IN_XML}


def numbered(draw: random.Random, many: int) -> set[str]:
    start = draw.choice([0, 9_990, 99_000])
    return {f"photo-{start + number:06d}.jpg" for number in range(many)}


def nested(draw: random.Random, many: int) -> set[str]:
    return {f"{draw.randrange(30)}/{draw.choice('abc')}/{draw.randrange(10**6)}.png" for _ in range(many)}


def odd(draw: random.Random, many: int) -> set[str]:
    return {"k" + "".join(draw.choices(ODD, k=draw.randrange(1, 12))) + "k" for _ in range(many)}


def ideographs(draw: random.Random, many: int) -> set[str]:
    return {f"{chr(draw.randrange(0x4E00, 0x9FA5))}{draw.randrange(10)}" for _ in range(many)}


def skewed(draw: random.Random, many: int) -> set[str]:
    return {f"main/{draw.getrandbits(64):016x}.jpg" for _ in range(many)} | {"main", "a", "old/1", "z/z"}


def comb(draw: random.Random, many: int) -> set[str]:
    return {"a/" + "x" * draw.randrange(200) + str(number) for number in range(many)}


def around_cuts(draw: random.Random, many: int) -> set[str]:
    """Each key, and its neighbours on both sides, where a range may end."""
    keys = {f"{draw.randrange(100):02d}/{draw.randrange(100):02d}" for _ in range(many // 4)}
    return keys | {key[:cut] + end for key in keys for cut, end in ((1, LAST), (4, LAST), (5, "\x01"))}


def long(draw: random.Random, many: int) -> set[str]:
    return {"/".join(["folder" * 20] * draw.randrange(1, 8)) + f"/{number}" for number in range(many)}


KINDS = [numbered, nested, odd, ideographs, skewed, comb, around_cuts, long]


class Bucket:
    """Answers requests of a listing from a sorted list, after a while, and counts them."""

    def __init__(self, keys: set[str], seconds: float = 0.0005) -> None:
        self.uris = sorted(ROOT + key for key in keys)
        self.seconds = seconds
        self.asked = self.under_way = self.peak = 0
        self.lock = threading.Lock()
        self.failing_after: str | None = None

    def __call__(self, after, token, limit, pause):
        with self.lock:
            self.asked += 1
            self.under_way += 1
            self.peak = max(self.peak, self.under_way)
        time.sleep(self.seconds * random.random())
        with self.lock:
            self.under_way -= 1
        begin = int(token) if token else bisect_right(self.uris, after)
        end = begin + limit
        found = self.uris[begin:end]
        if self.failing_after and found and found[-1] > self.failing_after:
            raise StoreUnavailable("It is gone.")
        return [Stored(uri, 1, "") for uri in found], str(end) if end < len(self.uris) else None


def listers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "listing"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_every_key_is_listed_once_and_in_order(kind, seed, monkeypatch):
    draw = random.Random(seed)
    monkeypatch.setattr(listing, "PAGE", draw.choice([1, 3, 10, 50]))
    monkeypatch.setattr(listing, "READY", draw.choice([1, 4, 32]))
    bucket = Bucket(kind(draw, draw.choice([1, 40, 600])))
    assert [found.uri for found in listing.listed(bucket, ROOT)] == bucket.uris
    assert not listers()


def test_the_first_page_is_one_request_and_starts_no_thread():
    bucket = Bucket(numbered(random.Random(0), 5000))
    found = listing.listed(bucket, ROOT)
    assert [next(found).uri for _ in range(listing.PAGE)] == bucket.uris[: listing.PAGE]
    assert bucket.asked == 1 and not listers()


def test_a_listing_that_is_given_up_leaves_no_threads_behind():
    bucket = Bucket(numbered(random.Random(0), 60_000))
    found = listing.listed(bucket, ROOT)
    for _ in range(listing.PAGE + 1):
        next(found)
    assert listers()
    found.close()
    assert not listers()


def test_no_more_is_kept_than_a_consumer_needs(monkeypatch):
    monkeypatch.setattr(listing, "PAGE", 10)
    monkeypatch.setattr(listing, "READY", 5)
    bucket = Bucket(numbered(random.Random(0), 20_000))
    found = listing.listed(bucket, ROOT)
    seen = [next(found).uri for _ in range(11)]
    waiting = threading.Event()
    waiting.wait(0.2)  # the listers run as far ahead as they may
    assert bucket.asked < 100
    assert seen + [each.uri for each in found] == bucket.uris


@pytest.mark.parametrize("kind", [numbered, nested, ideographs, skewed])
def test_the_work_is_shared_out_without_many_more_requests(kind, monkeypatch):
    monkeypatch.setattr(listing, "PAGE", 50)
    bucket = Bucket(kind(random.Random(0), 10_000), seconds=0.01)
    assert [found.uri for found in listing.listed(bucket, ROOT)] == bucket.uris
    assert bucket.peak >= listing.THREADS // 2
    assert bucket.asked < 3 * len(bucket.uris) / listing.PAGE


def test_what_was_listed_before_an_error_is_handed_out_before_it():
    bucket = Bucket(numbered(random.Random(0), 20_000))
    bucket.failing_after = bucket.uris[12_345]
    seen = []
    with pytest.raises(StoreUnavailable, match="gone"):
        for found in listing.listed(bucket, ROOT):
            seen.append(found.uri)
    assert seen == bucket.uris[: len(seen)] and len(seen) >= 12_345 - listing.PAGE and not listers()


@pytest.mark.parametrize("server", ["moto", "ceph"])
def test_buckets_list_every_key_once_and_in_order(request, server, monkeypatch):
    monkeypatch.setattr(listing, "PAGE", 10)
    root = request.getfixturevalue(f"{server}_bucket")
    draw = random.Random(7)
    keys = {f"{kind.__name__}/{key}" for kind in KINDS for key in kind(draw, 60)}
    put = {key for key in keys if len(key.encode()) <= 1024 and not UNREADABLE[server].search(key)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.write(f"{root}/{key}", b""), put))
    visible = sorted(f"{root}/{key}" for key in put if not key.endswith("/") and "/." not in f"/{key}")
    assert [found.uri for found in store.list_objects(root)] == visible
    for folder in [*(kind.__name__ for kind in KINDS), "nothing"]:
        below = [uri for uri in visible if uri.startswith(f"{root}/{folder}/")]
        assert [found.uri for found in store.list_objects(f"{root}/{folder}")] == below
    assert not listers()
