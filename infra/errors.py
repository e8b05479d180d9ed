"""The one error tree, and the only place that maps errors to exit codes and HTTP statuses.

    EditTransferError         exit 1, HTTP 500   the program itself went wrong
    ├── UsageError            exit 2, HTTP 400   asked for something impossible: nothing was started
    │   ├── SettingError                         a bad value in the environment
    │   ├── PairError                            a before/after pair that cannot be used
    │   ├── BaseNotFound      HTTP 404           no such pretrained base
    │   ├── AdapterNotFound   HTTP 404           no such adapter, or not one for this base
    │   ├── RegistryError                        the registry cannot do what it was asked for
    │   │   ├── AdapterDamaged HTTP 500          what is stored is not what was published
    │   │   ├── AliasMoved    HTTP 409           somebody else moved the alias in between
    │   │   └── AdapterInUse  HTTP 409           an alias points to the version that was to be deleted
    │   ├── CatalogError                         the input of a job cannot be listed
    │   ├── OutputError                          the output of a job cannot be written
    │   ├── NoCluster         HTTP 503           no Ray cluster answers where one should be
    │   ├── JobNotFound       HTTP 404           no such job on a Ray cluster
    │   ├── RequestError                         the endpoint cannot do what a request asks for; `param` says which part
    │   │   ├── Unauthorized  HTTP 401           no key, or none that is valid
    │   │   ├── Forbidden     HTTP 403           a valid key that may not do this
    │   │   ├── NoSuchThing   HTTP 404           nothing at that path, or nothing that this key may see
    │   │   ├── TooSlow       HTTP 408           the request did not arrive in time
    │   │   ├── Conflict      HTTP 409           the same idempotency key, another request
    │   │   ├── TooLarge      HTTP 413           the request has more bytes, or parts, than are taken
    │   │   ├── WrongMedia    HTTP 415           a content type that is not understood here
    │   │   └── TooMany       HTTP 429           over the limits of the key, or more than can be queued: try again later
    │   └── StoreError                           a folder or bucket does not answer as it should
    │       ├── NotInStore    HTTP 404           no object at that address
    │       └── StoreUnavailable HTTP 503        the next object would fare no better: stop, and go on later
    ├── LeaseHeld             exit 5, HTTP 409   somebody else is at this very work
    ├── Interrupted           HTTP 503           what worked on a request went away: send it again
    ├── DeadlinePassed        HTTP 504           a request was not done in the time that it was given
    └── ImageError            exit 3, HTTP 422   one image cannot be edited; its neighbours can

Messages are sentences for the person who typed the command: what happened, where, and what to do about it.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_OK = 0
EXIT_BROKEN = 1
EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
EXIT_REFUSED = 4  # the work was done, and its outcome is not good enough to be used
EXIT_BUSY = 5  # somebody else is at this work: try again later
EXIT_INTERRUPTED = 130


class EditTransferError(Exception):
    """Anything raised on purpose: `code` is for machines and stays, the message is for people.

    `param` names the field of a request that it is about, where there is one.
    """

    code: str = "internal"
    param: str | None = None
    exit_code: int = EXIT_BROKEN
    http_status: int = 500


class UsageError(EditTransferError):
    """Something that stops a job or a request before it starts."""

    code = "usage"
    exit_code = EXIT_USAGE
    http_status = 400


class SettingError(UsageError):
    """A value in the environment cannot be used; the message names the key."""

    code = "bad_setting"


class PairError(UsageError):
    """A before/after pair is missing, unreadable, or not two views of one framing."""

    code = "bad_pair"


class BaseNotFound(UsageError):
    """No pretrained base under that path or Hub id, or it is not one we can run."""

    code = "base_not_found"
    http_status = 404


class AdapterNotFound(UsageError):
    """No such adapter, or it does not fit the base."""

    code = "adapter_not_found"
    http_status = 404


class RegistryError(UsageError):
    """The registry cannot do what it was asked for: a bad name, nothing to go back to, a file that is not there."""

    code = "registry"


class AdapterDamaged(RegistryError):
    """What is stored of an adapter is not what was published; the message names the file."""

    code = "adapter_damaged"
    http_status = 500


class AliasMoved(RegistryError):
    """An alias does not point any more to what it pointed to when the decision to move it was taken."""

    code = "alias_moved"
    http_status = 409


class AdapterInUse(RegistryError):
    """A version cannot be deleted while an alias points to it."""

    code = "adapter_in_use"
    http_status = 409


class CatalogError(UsageError):
    """The images to edit cannot be listed, or there are none."""

    code = "bad_catalog"


class OutputError(UsageError):
    """Results cannot be written where they should go."""

    code = "bad_output"


class NoCluster(UsageError):
    """No Ray cluster that takes jobs answers at an address."""

    code = "no_cluster"
    http_status = 503


class JobNotFound(UsageError):
    """No job of that id on a Ray cluster."""

    code = "job_not_found"
    http_status = 404


class RequestError(UsageError):
    """The endpoint cannot do what a request asks for."""

    code = "invalid_request"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Unauthorized(RequestError):
    """The request has no key, or none that is valid."""

    code = "invalid_api_key"
    http_status = 401


class Forbidden(RequestError):
    """The key is valid, but not for this."""

    code = "insufficient_scope"
    http_status = 403


class NoSuchThing(RequestError):
    """There is nothing under that address, or nothing that this key may see."""

    code = "not_found"
    http_status = 404


class TooSlow(RequestError):
    """The request did not arrive in time."""

    code = "upload_timeout"
    http_status = 408


class Conflict(RequestError):
    """An idempotency key that was used for another request."""

    code = "idempotency_conflict"
    http_status = 409


class TooLarge(RequestError):
    """The request has more bytes, or more parts, than are taken."""

    code = "request_too_large"
    http_status = 413


class WrongMedia(RequestError):
    """The content type is none that is understood here."""

    code = "unsupported_media_type"
    http_status = 415


class TooMany(RequestError):
    """Over the limits of a key, or more than can be queued. `retry_after`: seconds until it is worth another try."""

    code = "rate_limit_exceeded"
    http_status = 429

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreError(UsageError):
    """A folder or bucket is unreachable, forbidden, or of an unknown kind."""

    code = "store"


class NotInStore(StoreError):
    """There is no object at the address that was read."""

    code = "not_in_store"
    http_status = 404


class StoreUnavailable(StoreError):
    """The store does not answer, or not to these credentials, or is full: the next object would fare no better."""

    code = "store_unavailable"
    http_status = 503


class LeaseHeld(EditTransferError):
    """Somebody else holds the lease on this work; the message says who, since when and until when."""

    code = "lease_held"
    exit_code = EXIT_BUSY
    http_status = 409


class Interrupted(EditTransferError):
    """What worked on a request went away before it was done."""

    code = "interrupted"
    http_status = 503


class DeadlinePassed(EditTransferError):
    """A request was not done in the time that it was given."""

    code = "deadline_passed"
    http_status = 504


class ImageError(EditTransferError):
    """One image cannot be edited. `code` says which way, e.g. `truncated`, `not_an_image`, `too_small`."""

    exit_code = EXIT_SOME_FAILED
    http_status = 422

    def __init__(self, message: str, code: str = "unreadable") -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        return type(self), (str(self), self.code)


@contextmanager
def about(param: str) -> Iterator[None]:
    """Errors of the block for which a request is to blame are about this field of it, unless they name one."""
    try:
        yield
    except EditTransferError as error:
        if error.param or error.http_status >= 500:
            raise
        named = copy.copy(error)  # others, who asked for the same under other names, may have got this very error
        named.param = param
        raise named from error
