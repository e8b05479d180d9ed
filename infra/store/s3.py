"""Objects in an S3 bucket, through boto3; credentials and endpoint come from the AWS environment."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from infra.errors import NotInStore, StoreError
from infra.store.protocol import Stored

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 2, 20, 3
UNDECIDED = 8  # times a conditional write is asked again while another one is under way
WRITER = "writer"  # metadata of a conditional write: tells the writer its own object from another's

REFUSALS = {
    "NoSuchBucket": "there is no such bucket; create it, or look at the address",
    "AccessDenied": "these credentials may not do that",
    "403": "these credentials may not do that",
    "InvalidAccessKeyId": "the access key is not known there; look at AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key does not match the access key; look at AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the credentials have expired; get new ones",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
}


@lru_cache(maxsize=1)
def _s3_client() -> Any:
    import boto3
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": ATTEMPTS}
    return boto3.Session().client(
        "s3", config=Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries=retries)
    )


def _bucket_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise StoreError(f"{uri}: the bucket is missing; write s3://bucket/folder.")
    return bucket, key


@contextmanager
def _s3_errors(uri: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response["Error"].get("Code"))
        if _status(error) == 404 and code != "NoSuchBucket":
            raise NotInStore(f"{uri}: there is no such object.") from None
        raise StoreError(f"{uri}: {REFUSALS.get(code, f'the bucket answered {code}')}.") from None
    except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no address
        raise StoreError(f"{uri}: {_unreachable(error)}.") from None


def _unreachable(error: Exception) -> str:
    from botocore import exceptions

    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return "there are no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        return f"the S3 server does not answer ({type(error).__name__}); look at AWS_ENDPOINT_URL and the network"
    return f"the bucket could not be asked ({str(error).rstrip('.')})"


def _status(error: Any) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


class S3Store:
    """Objects in a bucket. Credentials and endpoint come from the AWS environment."""

    def read(self, uri: str, limit: int | None = None) -> bytes:
        bucket, key = _bucket_key(uri)
        with _s3_errors(uri):
            return _s3_client().get_object(Bucket=bucket, Key=key)["Body"].read(limit)

    def write(self, uri: str, data: bytes) -> None:
        bucket, key = _bucket_key(uri)
        with _s3_errors(uri):
            _s3_client().put_object(Bucket=bucket, Key=key, Body=data)

    def write_if_absent(self, uri: str, data: bytes) -> bool:
        """A write whose answer got lost is sent again, and then refused: its mark says that it had worked."""
        mark = secrets.token_hex(16)
        with _s3_errors(uri):
            for _ in range(UNDECIDED):
                refusal = _put_if_absent(uri, data, mark)
                if refusal is None:
                    return True
                if refusal["HTTPStatusCode"] == 412:
                    return refusal.get("RetryAttempts", 0) > 0 and self._marked(uri, mark)
        raise StoreError(f"{uri}: other writers kept the bucket from deciding; try again.")

    def _marked(self, uri: str, mark: str) -> bool:
        bucket, key = _bucket_key(uri)
        try:
            with _s3_errors(uri):
                return _s3_client().head_object(Bucket=bucket, Key=key)["Metadata"].get(WRITER) == mark
        except NotInStore:  # written by another and deleted since
            return False

    def stat(self, uri: str) -> Stored | None:
        bucket, key = _bucket_key(uri)
        try:
            with _s3_errors(uri):
                found = _s3_client().head_object(Bucket=bucket, Key=key)
        except NotInStore:
            return None
        return Stored(uri, found["ContentLength"], found["ETag"].strip('"'))

    def list_objects(self, prefix: str) -> Iterator[Stored]:
        bucket, key = _bucket_key(prefix)
        folder = key.rstrip("/") + "/" if key.strip("/") else ""
        with _s3_errors(prefix):
            for page in _s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder):
                for found in page.get("Contents", ()):
                    if "/." not in f"/{found['Key'][len(folder) :]}" and not found["Key"].endswith("/"):
                        yield Stored(f"s3://{bucket}/{found['Key']}", found["Size"], found["ETag"].strip('"'))

    def leftovers(self, prefix: str) -> Iterator[tuple[Stored, datetime]]:
        return iter(())  # an upload counts when it is complete, or not at all

    def delete(self, uri: str) -> None:
        bucket, key = _bucket_key(uri)
        with _s3_errors(uri):
            _s3_client().delete_object(Bucket=bucket, Key=key)

    def arrow(self, uri: str) -> tuple["FileSystem", str]:
        from pyarrow.fs import S3FileSystem

        client = _s3_client().meta  # named outright: a pickled copy, in a worker, forgets what it read
        own = None if client.endpoint_url.endswith(".amazonaws.com") else client.endpoint_url
        return S3FileSystem(endpoint_override=own, region=client.region_name), "/".join(_bucket_key(uri))


def _put_if_absent(uri: str, data: bytes, mark: str) -> dict[str, Any] | None:
    """The refusal: 412 there is an object, 409 another conditional write is under way and may yet fail."""
    from botocore.exceptions import ClientError

    bucket, key = _bucket_key(uri)
    try:
        _s3_client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*", Metadata={WRITER: mark})
    except ClientError as error:
        if _status(error) in (409, 412):
            return error.response["ResponseMetadata"]
        raise
    return None
