"""The store over a network that does it wrong: nothing is lost, no body is cut short, and giving up is one sentence."""

import hashlib
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra import store
from infra.errors import StoreUnavailable
from infra.store import answers, listing, s3
from tests.faults import FIVE_PERCENT_EACH, faulty
from tests.s3 import reached

SILENCE = 0.3  # seconds after which these tests take a server for silent


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(s3, "READ_SECONDS", SILENCE)
    monkeypatch.setattr(answers, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(answers, "FIRST_PAUSE_THROTTLED", 0.05)


@pytest.fixture(params=["moto", "ceph"])
def server(request):
    """Its AWS environment and the address of an empty bucket on it."""
    return request.getfixturevalue(request.param), request.getfixturevalue(f"{request.param}_bucket")


def content(number: int) -> bytes:
    """Bytes that tell objects apart, from none to some 60 kB."""
    return hashlib.sha256(str(number).encode()).digest() * (number % 50 * 40)


def test_nothing_is_lost_or_cut_short_where_a_quarter_of_all_requests_fails(server, impatient, monkeypatch):
    environment, bucket = server
    monkeypatch.setattr(listing, "PAGE", 20)
    monkeypatch.setattr(answers, "PATIENCE", 60)
    counts: Counter[str] = Counter()
    names = [f"{bucket}/photo-{number:03d}" for number in range(150)]

    def worked(number: int) -> tuple[bytes, bytes, int, bool, bytes]:
        name = names[number]
        store.write(name, content(number))
        won = store.write_if_absent(f"{bucket}/claims/{number}", str(number).encode())
        store.copy(name, f"{bucket}/copies/{number:03d}")
        return (
            store.read(name),
            store.read(name, 100),
            store.stat(name).size,
            won,
            store.read(f"{bucket}/copies/{number:03d}"),
        )

    through = faulty(environment, FIVE_PERCENT_EACH, seed=1, stall_seconds=2 * SILENCE, counts=counts)
    with through as proxied, reached(proxied), ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(worked, range(len(names))))
        assert [found.uri for found in store.list_objects(bucket) if "/photo-" in found.uri] == names
        assert len(list(store.list_objects(f"{bucket}/copies"))) == len(list(store.list_objects(f"{bucket}/claims")))
    for number, outcome in enumerate(outcomes):
        data = content(number)
        assert outcome == (data, data[:100], len(data), True, data)
    assert min(counts[kind] for kind in FIVE_PERCENT_EACH) >= 20
    assert store.read(f"{bucket}/claims/7") == b"7" and len(list(store.list_objects(f"{bucket}/copies"))) == len(names)


def test_of_two_claims_over_a_bad_network_one_wins(ceph, ceph_bucket, impatient):
    claims = [(name, who) for name in range(20) for who in (b"one", b"two")]
    through = faulty(ceph, FIVE_PERCENT_EACH | {"reset": 0.3}, seed=3, stall_seconds=2 * SILENCE)
    with through as proxied, reached(proxied), ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda claim: store.write_if_absent(f"{ceph_bucket}/{claim[0]}", claim[1]), claims))
    winners = {name: who for (name, who), first in zip(claims, won, strict=True) if first}
    assert sum(won) == 20 and winners == {name: store.read(f"{ceph_bucket}/{name}") for name in range(20)}


def test_tables_are_read_and_written_over_a_bad_network(ceph, ceph_bucket, impatient):
    table = pa.table({"uri": [f"s3://bucket/{number}" for number in range(1000)]})
    with faulty(ceph, FIVE_PERCENT_EACH | {"stall": 0}, seed=5) as proxied, reached(proxied):
        for number in range(10):
            filesystem, path = store.arrow(f"{ceph_bucket}/{number}.parquet")
            pq.write_table(table, path, filesystem=filesystem)
            assert pq.read_table(path, filesystem=filesystem) == table


USES = [
    store.read,
    lambda uri: store.read(uri, 10),
    lambda uri: store.write(uri, b"new"),
    lambda uri: store.write_if_absent(uri, b"new"),
    lambda uri: store.copy(uri, f"{uri}-copy"),
    store.stat,
    store.delete,
    lambda uri: list(store.list_objects(uri.rpartition("/")[0])),
]


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("slow_down", r"kept answering (SlowDown|503); try again later\.$"),
        ("error", r"kept answering (InternalError|500); try again later\.$"),
        ("reset", "does not answer .*; look at AWS_ENDPOINT_URL and the network"),
        ("stall", "does not answer .*; look at AWS_ENDPOINT_URL and the network"),
        ("truncate", "break off|does not answer|kept answering"),
    ],
)
def test_what_does_not_pass_ends_in_one_sentence(ceph, ceph_bucket, impatient, monkeypatch, fault, sentence):
    uri, counts = f"{ceph_bucket}/object", Counter()
    store.write(uri, b"exact bytes")
    for patience in ("PATIENCE", "FIRST_CONTACT"):
        monkeypatch.setattr(answers, patience, 0.2)
    with faulty(ceph, {fault: 1}, seed=0, stall_seconds=2 * SILENCE, counts=counts) as proxied, reached(proxied):
        for use in USES:
            with pytest.raises(StoreUnavailable, match=sentence) as told:
                use(uri)
            assert str(told.value).startswith("s3://")
    assert counts[fault] == counts.total() >= len(USES)


def test_expired_credentials_are_told_at_once(ceph, ceph_bucket):
    counts: Counter[str] = Counter()
    with faulty(ceph, {"expired": 1}, seed=0, counts=counts) as proxied, reached(proxied):
        for use in USES:
            with pytest.raises(StoreUnavailable, match="the credentials have expired; get new ones"):
                use(f"{ceph_bucket}/object")
    assert counts["expired"] <= len(USES) + 2  # nothing is tried again; a HEAD is followed by what may say why


def test_a_worker_outlives_what_ends_a_first_contact(ceph, ceph_bucket, impatient, monkeypatch):
    """The proxy appears on a port that refused connections until then."""
    monkeypatch.setattr(answers, "_worker", False)
    monkeypatch.setattr(answers, "NOBODY_THERE", 0)
    store.write(f"{ceph_bucket}/object", b"exact bytes")
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    refusing = ceph | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    with reached(refusing), pytest.raises(StoreUnavailable, match="does not answer"):
        store.read(f"{ceph_bucket}/object")
    store.be_patient()
    with reached(refusing), ThreadPoolExecutor(1) as pool:
        reading = pool.submit(store.read, f"{ceph_bucket}/object")
        with faulty(ceph, {}, seed=0, port=port):
            assert reading.result() == b"exact bytes"
