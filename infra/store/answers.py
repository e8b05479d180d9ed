"""What S3 answers when something is wrong: what passes if one waits, what does not, and the sentence for each.

botocore's own retries are off. They count attempts, not time; they do not cover a body that breaks off while it is
read; and their quota is used up where a good share of all requests fails for as long as a job runs. Here a request is
sent again until it has been tried for so many seconds. That is long for a server that has served this process before,
and short at first contact, where somebody waits to hear that an address is wrong.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeVar

from infra.errors import NotInStore, StoreError, StoreUnavailable

# Seconds. The last try may begin a pause later, and take as long as the server keeps silent (READ_SECONDS).
PATIENCE = 60  # with a server that has served this process before
FIRST_CONTACT = 12  # with one that has not
NOBODY_THERE = 2  # and that refuses the connection, or has a name that nobody knows
FIRST_PAUSE, FIRST_PAUSE_THROTTLED, LONGEST_PAUSE = 0.1, 1, 10  # upper bounds: every pause is drawn at random

PASSING_STATUS = {429, 500, 502, 503, 504}
THROTTLED = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "429"}
PASSING = THROTTLED | {"RequestTimeout", "IncompleteBody", "BadDigest"}  # the last two: broken on the way there

REFUSED_OBJECT = {
    "AccessDenied": "these credentials may not do that",
    "403": "these credentials may not do that",
    "KeyTooLongError": "the name is too long",
    "EntityTooLarge": "this is too large for one request",
}
REFUSED_ALL = {
    "NoSuchBucket": "there is no such bucket; create it, or look at the address",
    "InvalidAccessKeyId": "the access key is not known there; look at AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key does not match the access key; look at AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the credentials have expired; get new ones",
    "ExpiredTokenException": "the credentials have expired; get new ones",
    "TokenRefreshRequired": "the credentials have expired; get new ones",
    "InvalidToken": "the session token is not valid there; look at AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "PermanentRedirect": "the bucket is in another region; look at AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region; look at AWS_REGION",
    "QuotaExceeded": "the quota is used up; make room, or raise it",
    "XMinioStorageFull": "the server's disks are full",
    "AccountProblem": "something is wrong with the account; ask its provider",
}

T = TypeVar("T")
_known: set[str] = set()  # the servers that have served this process
_worker = False
_jitter = random.SystemRandom()  # nobody's seed, and not the same after a fork


def be_patient() -> None:
    """For processes that work on what another one has begun: no server is at first contact, all have been reached."""
    global _worker
    _worker = True


def insist(server: str, request: Callable[[], T], pause: Callable[[float], Any] = time.sleep) -> T:
    """What the request returns, sent again after a random pause while what is wrong may pass. Raises its last error."""
    began = time.monotonic()
    for tries in count():
        try:
            answer = request()
        except _failures() as error:
            patience = _patience(server, error)
            if not _passes(error) or time.monotonic() - began > patience:
                raise
            first = FIRST_PAUSE_THROTTLED if _code(error) in THROTTLED else FIRST_PAUSE
            pause(_jitter.uniform(0, min(LONGEST_PAUSE, patience / 4, first * 2**tries)))
        else:
            _known.add(server)
            return answer
    raise AssertionError("never reached")


@contextmanager
def s3_errors(what: str) -> Iterator[None]:
    """What goes wrong in the block as StoreError, in a sentence about the object or prefix."""
    try:
        yield
    except _failures() as error:
        raise _refusal(what, error) from None


def check_length(operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
    """For botocore's `before-parse`: refuse a body that broke off. A listing cut to nothing would look empty."""
    from botocore.exceptions import IncompleteReadError

    body, announced = response_dict["body"], response_dict["headers"].get("content-length")
    if (
        isinstance(body, bytes)
        and announced
        and operation_model.http["method"] != "HEAD"
        and len(body) < int(announced)
    ):
        raise IncompleteReadError(actual_bytes=len(body), expected_bytes=int(announced))


def status_of(error: Any) -> int:
    """The HTTP status of a botocore ClientError."""
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def _failures() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError  # some get past botocore while a body is read

    return ClientError, BotoCoreError, ResponseParserError, HTTPError, OSError, ValueError


def _patience(server: str, error: Exception) -> float:
    from botocore.exceptions import EndpointConnectionError

    if _worker or server in _known:
        return PATIENCE
    return NOBODY_THERE if isinstance(error, EndpointConnectionError) else FIRST_CONTACT


def _passes(error: Exception) -> bool:
    from botocore import exceptions
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    if isinstance(error, exceptions.ClientError):
        return _code(error) in PASSING or (status_of(error) in PASSING_STATUS and _code(error) not in REFUSED_ALL)
    broken = exceptions.IncompleteReadError, exceptions.FlexibleChecksumError, ResponseParserError, HTTPError, OSError
    return isinstance(error, (exceptions.HTTPClientError, exceptions.ConnectionError, *broken))


def _code(error: Exception) -> str | None:
    """What the server answered; None if the error is not its answer."""
    from botocore.exceptions import ClientError

    return str(error.response.get("Error", {}).get("Code")) if isinstance(error, ClientError) else None


def _refusal(what: str, error: Exception) -> StoreError:
    from botocore import exceptions

    code = _code(error)
    if code is None:
        of_this_one = isinstance(error, exceptions.ParamValidationError | UnicodeError)
        return (StoreError if of_this_one else StoreUnavailable)(f"{what}: {_unreachable(error)}.")
    if code in REFUSED_ALL:
        return StoreUnavailable(f"{what}: {REFUSED_ALL[code]}.")
    if status_of(error) == 404:
        return NotInStore(f"{what}: there is no such object.")
    if _passes(error):
        return StoreUnavailable(f"{what}: the bucket kept answering {code}; try again later.")
    return StoreError(f"{what}: {REFUSED_OBJECT.get(code, f'the bucket answered {code}')}.")


def _unreachable(error: Exception) -> str:
    from botocore import exceptions

    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return "there are no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(error, exceptions.IncompleteReadError | exceptions.ResponseStreamingError):
        return f"the S3 server's answers break off ({type(error).__name__}); look at the network"
    if _passes(error):
        return f"the S3 server does not answer ({type(error).__name__}); look at AWS_ENDPOINT_URL and the network"
    return f"the bucket could not be asked ({str(error).rstrip('.')})"
