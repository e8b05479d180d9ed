"""Objects in an S3 bucket, through boto3; credentials and endpoint come from the AWS environment."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from infra.errors import NotInStore, StoreError
from infra.store.protocol import Stored

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


@lru_cache(maxsize=1)
def _s3_client() -> Any:
    import boto3

    return boto3.client("s3")


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
        if _status(error) == 404:
            raise NotInStore(f"{uri}: there is no such object.") from None
        raise StoreError(f"{uri}: the bucket answered {error.response['Error'].get('Code')}.") from None
    except BotoCoreError as error:
        raise StoreError(f"{uri}: the bucket could not be asked ({type(error).__name__}).") from None


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
        from botocore.exceptions import ClientError

        bucket, key = _bucket_key(uri)
        with _s3_errors(uri):
            try:
                _s3_client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
            except ClientError as error:
                if _status(error) == 412:
                    return False
                if _status(error) == 409:  # another conditional write is under way, and may yet fail
                    return self.write_if_absent(uri, data)
                raise
            return True

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

    def delete(self, uri: str) -> None:
        bucket, key = _bucket_key(uri)
        with _s3_errors(uri):
            _s3_client().delete_object(Bucket=bucket, Key=key)

    def arrow(self, uri: str) -> tuple["FileSystem", str]:
        from pyarrow.fs import S3FileSystem

        return S3FileSystem(), "/".join(_bucket_key(uri))
