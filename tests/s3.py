"""Buckets for tests, on servers that really answer: moto (quick, checks no signatures) and Ceph (`tests/rgw.py`)."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest

from infra.store import s3


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


@contextmanager
def reached(environment: dict[str, str]) -> Iterator[None]:
    """This process, and those it starts, speak to that server while the block lasts."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        s3._s3_client.cache_clear()
        yield
    s3._s3_client.cache_clear()


@contextmanager
def new_bucket(environment: dict[str, str]) -> Iterator[str]:
    """The address of an empty bucket on a server that this process speaks to while the block lasts."""
    with reached(environment):
        name = f"tests-{uuid.uuid4()}"
        boto3.Session().client("s3").create_bucket(Bucket=name)
        yield f"s3://{name}"
