"""Buckets for tests, on servers that really answer: moto (quick, checks no signatures) and Ceph (`tests/rgw.py`)."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import pytest

from infra.store import s3

_MAKE_CLIENT = s3._s3_client.__wrapped__


@contextmanager
def moto_served() -> Iterator[dict[str, str]]:
    """moto's server in a thread of this process: the AWS environment to reach it with."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield environment(f"http://127.0.0.1:{server.get_host_and_port()[1]}", "anybody", "anything")
    finally:
        server.stop()


def environment(endpoint: str, access: str, secret: str) -> dict[str, str]:
    """What boto3, pyarrow and this project read to reach an S3 server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": access,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",  # pyarrow's default is not understood by Ceph
    }


@cache
def _client(_server: tuple[tuple[str, str], ...]) -> Callable[[], Any]:
    """The store's own client, made once for each server: making one costs more than most tests."""
    return lru_cache(maxsize=1)(_MAKE_CLIENT)


@contextmanager
def reached(environment: dict[str, str]) -> Iterator[None]:
    """This process, and those it starts, speak to that server while the block lasts."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        patch.setattr(s3, "_s3_client", _client(tuple(sorted(environment.items()))))
        yield


@contextmanager
def new_bucket(environment: dict[str, str]) -> Iterator[str]:
    """The address of an empty bucket on a server that this process speaks to while the block lasts."""
    with reached(environment):
        name = f"tests-{uuid.uuid4()}"
        s3._s3_client().create_bucket(Bucket=name)
        yield f"s3://{name}"
