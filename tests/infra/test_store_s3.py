"""What a bucket refuses, and answers that get lost on their way."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from infra import store
from infra.errors import StoreError, StoreUnavailable
from tests.s3 import reached


@pytest.fixture(params=["moto", "ceph"])
def bucket(request):
    return request.getfixturevalue(f"{request.param}_bucket")


def test_a_bucket_that_is_not_there_is_no_missing_object(bucket):
    for use in (store.read, store.list_objects, lambda uri: store.write(uri, b""), store.delete):
        with pytest.raises(StoreUnavailable, match="no such bucket"):
            list(use("s3://there-is-no-bucket-of-this-name/key") or ())


@pytest.mark.parametrize(
    ("key", "sentence"),
    [("AWS_ACCESS_KEY_ID", "access key is not known"), ("AWS_SECRET_ACCESS_KEY", "secret key does not match")],
)
def test_wrong_credentials_are_told_apart(ceph, ceph_bucket, key, sentence):
    with reached(ceph | {key: "wrong"}):
        for use in (
            store.read,
            lambda uri: store.write(uri, b""),
            lambda uri: list(store.list_objects(uri)),
            store.stat,
        ):
            with pytest.raises(StoreUnavailable, match=sentence):
                use(f"{ceph_bucket}/key")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid", "nonsense"])
def test_a_server_that_is_not_there_is_told_within_seconds(ceph, endpoint):
    began = time.monotonic()
    with (
        reached(ceph | {"AWS_ENDPOINT_URL": endpoint}),
        pytest.raises(StoreUnavailable, match=r"s3://bucket/key: .*\.$"),
    ):
        store.read("s3://bucket/key")
    assert time.monotonic() - began < 20


def test_missing_credentials_are_told_at_once(ceph, ceph_bucket, tmp_path, monkeypatch):
    nowhere = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"), "AWS_CONFIG_FILE": str(tmp_path / "none")}
    with reached({**ceph, **nowhere}):
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(key)
        with pytest.raises(StoreUnavailable, match="there are no AWS credentials; set AWS_ACCESS_KEY_ID"):
            store.read(f"{ceph_bucket}/key")


def test_what_is_wrong_with_one_object_is_not_the_stores_fault(ceph_bucket):
    for use in (store.read, lambda uri: store.write(uri, b"")):
        for name in ("x" * 2000, "\udcff"):
            with pytest.raises(StoreError, match=r"^s3://") as told:
                use(f"{ceph_bucket}/{name}")
            assert not isinstance(told.value, StoreUnavailable)


def test_a_part_is_read_of_an_object_whose_checksum_is_known(bucket, monkeypatch):
    environment = {key: os.environ[key] for key in os.environ if key.startswith("AWS_")}
    with reached(environment | {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported"}):
        store.write(f"{bucket}/key", b"exact bytes")
        assert store.read(f"{bucket}/key") == b"exact bytes" and store.read(f"{bucket}/key", 5) == b"exact"


@contextmanager
def losing_the_first_answer(endpoint: str) -> Iterator[str]:
    """A proxy that passes every request on, and hangs up instead of giving back that the first one worked."""
    host, port = endpoint.removeprefix("http://").split(":")
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for lost in (True, *[False] * 100):
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=pass_on, args=(client, lost), daemon=True).start()

    def pass_on(client: socket.socket, lost: bool) -> None:
        with client, socket.create_connection((host, int(port))) as server:
            back = threading.Thread(target=answers, args=(client, server, lost), daemon=True)
            back.start()
            while sent := client.recv(65536):
                server.sendall(sent)

    def answers(client: socket.socket, server: socket.socket, lost: bool) -> None:
        while answer := server.recv(65536):
            if lost and b" 200 OK" in answer:  # not the "100 Continue" before the body is sent
                client.shutdown(socket.SHUT_RDWR)
                return
            client.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.close()


def test_a_conditional_write_whose_answer_is_lost_still_knows_that_it_won(ceph, ceph_bucket):
    uri = f"{ceph_bucket}/name"
    with losing_the_first_answer(ceph["AWS_ENDPOINT_URL"]) as proxy, reached(ceph | {"AWS_ENDPOINT_URL": proxy}):
        assert store.write_if_absent(uri, b"mine")
        assert not store.write_if_absent(uri, b"mine")
    assert store.read(uri) == b"mine"
