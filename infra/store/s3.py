"""Objects in an S3 bucket, through boto3; credentials and endpoint come from the AWS environment."""

import secrets
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from infra.errors import NotInStore, StoreError
from infra.store.answers import check_length, insist, s3_errors, status_of
from infra.store.listing import listed
from infra.store.protocol import Stored

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

CONNECT_SECONDS, READ_SECONDS = 2, 10
CONNECTIONS = 32  # kept open: as many threads of one process as may use the store at the same time without waiting
TABLE_ATTEMPTS = 12  # of one request of pyarrow, which retries by itself
UNDECIDED = 8  # times a conditional write is asked again while another one is under way
WRITER = "writer"  # metadata of a conditional write: tells the writer its own object from another's

T = TypeVar("T")


@lru_cache(maxsize=1)
def _s3_client() -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": 1},  # `insist` does it
    )
    client = boto3.Session().client("s3", config=config)
    client.meta.events.register("before-parse.s3", check_length)
    return client


def _bucket_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise StoreError(f"{uri}: the bucket is missing; write s3://bucket/folder.")
    return bucket, key


def _ask(what: str, request: Callable[[Any], T], pause: Callable[[float], Any] = time.sleep) -> T:
    """What `request(client)` returns, sent again while what is wrong may pass. Raises StoreError about `what`."""
    with s3_errors(what):
        client = _s3_client()
        return insist(client.meta.endpoint_url, lambda: request(client), pause)


class S3Store:
    """Objects in a bucket. Credentials and endpoint come from the AWS environment."""

    def read(self, uri: str, limit: int | None = None) -> bytes:
        bucket, key = _bucket_key(uri)
        part = {} if limit is None else {"Range": f"bytes=0-{max(limit, 1) - 1}"}
        return _ask(uri, lambda client: _get(client, bucket, key, **part))[:limit]

    def write(self, uri: str, data: bytes) -> None:
        bucket, key = _bucket_key(uri)
        _ask(uri, lambda client: client.put_object(Bucket=bucket, Key=key, Body=data))

    def upload(self, file: BinaryIO, uri: str) -> None:
        """Write or replace an object with what a file of up to 5 GB holds; only a little of it is in memory."""
        bucket, key = _bucket_key(uri)

        def put(client: Any) -> None:
            file.seek(0)
            client.put_object(Bucket=bucket, Key=key, Body=file)

        _ask(uri, put)

    def write_if_absent(self, uri: str, data: bytes) -> bool:
        """A write whose answer got lost is sent again, and then refused: its mark says that it had worked."""
        mark = secrets.token_hex(16)
        for _ in range(UNDECIDED):
            refusal = _ask(uri, lambda client: _put_if_absent(client, uri, data, mark))
            if refusal is None:
                return True
            if refusal == 412:
                return self._marked(uri, mark)
        raise StoreError(f"{uri}: other writers kept the bucket from deciding; try again.")

    def _marked(self, uri: str, mark: str) -> bool:
        try:
            return _ask(uri, lambda client: _head(client, *_bucket_key(uri)))["Metadata"].get(WRITER) == mark
        except NotInStore:  # written by another and deleted since
            return False

    def stat(self, uri: str) -> Stored | None:
        try:
            found = _ask(uri, lambda client: _head(client, *_bucket_key(uri)))
        except NotInStore:
            return None
        return Stored(uri, found["ContentLength"], found["ETag"].strip('"'))

    def list_objects(self, prefix: str) -> Iterator[Stored]:
        bucket, key = _bucket_key(prefix)
        folder = key.rstrip("/") + "/" if key.strip("/") else ""
        root = f"s3://{bucket}/{folder}"
        for found in listed(partial(_page, prefix, bucket, folder), root):
            if "/." not in f"/{found.uri[len(root) :]}" and not found.uri.endswith("/"):
                yield found

    def copy(self, source: str, target: str) -> None:
        bucket, key = _bucket_key(target)
        origin = dict(zip(("Bucket", "Key"), _bucket_key(source), strict=True))
        request = {"Bucket": bucket, "Key": key, "CopySource": origin}
        _ask(f"{source}, to be copied to {target}", lambda client: client.copy_object(**request))

    def leftovers(self, prefix: str) -> Iterator[tuple[Stored, datetime]]:
        return iter(())  # an upload counts when it is complete, or not at all

    def delete(self, uri: str) -> None:
        bucket, key = _bucket_key(uri)
        _ask(uri, lambda client: client.delete_object(Bucket=bucket, Key=key))

    def arrow(self, uri: str) -> tuple["FileSystem", str]:
        """A pickled copy forgets how often it should try: call this in the process that reads or writes."""
        from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

        client = _s3_client().meta  # named outright: a pickled copy, in a worker, forgets what it read
        own = None if client.endpoint_url.endswith(".amazonaws.com") else client.endpoint_url
        filesystem = S3FileSystem(
            endpoint_override=own,
            region=client.region_name,
            connect_timeout=CONNECT_SECONDS,
            request_timeout=READ_SECONDS,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=TABLE_ATTEMPTS),
        )
        return filesystem, "/".join(_bucket_key(uri))


def _get(client: Any, bucket: str, key: str, **part: str) -> bytes:
    from botocore.exceptions import ClientError

    try:
        return client.get_object(Bucket=bucket, Key=key, **part)["Body"].read()
    except ClientError as error:
        if status_of(error) == 416:  # an empty object has no first byte
            return b""
        raise


def _head(client: Any, bucket: str, key: str) -> dict[str, Any]:
    from botocore.exceptions import ClientError

    try:
        return client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if status_of(error) in (400, 403):  # the answer to a HEAD has no body that could say why
            client.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].read()
        raise


def _put_if_absent(client: Any, uri: str, data: bytes, mark: str) -> int | None:
    """The refusal: 412 there is an object, 409 another conditional write is under way and may yet fail."""
    from botocore.exceptions import ClientError

    bucket, key = _bucket_key(uri)
    try:
        client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*", Metadata={WRITER: mark})
    except ClientError as error:
        if status_of(error) in (409, 412):
            return status_of(error)
        raise
    return None


def _page(
    prefix: str, bucket: str, folder: str, after: str, token: str | None, limit: int, pause: Callable[[float], Any]
) -> tuple[list[Stored], str | None]:
    """One request of a listing: what comes after a URI, or where a token says, and the token of the rest."""
    start = {"ContinuationToken": token} if token else {"StartAfter": _bucket_key(after)[1]}
    request = {
        "Bucket": bucket,
        "Prefix": folder,
        "MaxKeys": limit,
        **{name: text for name, text in start.items() if text},
    }
    answer = _ask(prefix, lambda client: client.list_objects_v2(**request), pause)
    found = [
        Stored(f"s3://{bucket}/{each['Key']}", each["Size"], each["ETag"].strip('"'))
        for each in answer.get("Contents", ())
    ]
    return found, answer["NextContinuationToken"] if answer["IsTruncated"] else None
