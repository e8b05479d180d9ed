"""The one error tree, and the only place that maps errors to exit codes and HTTP statuses.

    EditTransferError         exit 1, HTTP 500   the program itself went wrong
    ├── UsageError            exit 2, HTTP 400   asked for something impossible: nothing was started
    │   ├── SettingError                         a bad value in the environment
    │   ├── PairError                            a before/after pair that cannot be used
    │   ├── BaseNotFound      HTTP 404           no such pretrained base
    │   ├── AdapterNotFound   HTTP 404           no such adapter, or not one for this base
    │   ├── CatalogError                         the input of a job cannot be listed
    │   ├── OutputError                          the output of a job cannot be written
    │   └── StoreError                           a folder or bucket does not answer as it should
    │       └── NotInStore    HTTP 404           no object at that address
    └── ImageError            exit 3, HTTP 422   one image cannot be edited; its neighbours can

Messages are sentences for the person who typed the command: what happened, where, and what to do about it.
"""

EXIT_OK = 0
EXIT_BROKEN = 1
EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130


class EditTransferError(Exception):
    """Anything raised on purpose: `code` is for machines and stays, the message is for people."""

    code: str = "internal"
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


class CatalogError(UsageError):
    """The images to edit cannot be listed, or there are none."""

    code = "bad_catalog"


class OutputError(UsageError):
    """Results cannot be written where they should go."""

    code = "bad_output"


class StoreError(UsageError):
    """A folder or bucket is unreachable, forbidden, or of an unknown kind."""

    code = "store"


class NotInStore(StoreError):
    """There is no object at the address that was read."""

    code = "not_in_store"
    http_status = 404


class ImageError(EditTransferError):
    """One image cannot be edited. `code` says which way, e.g. `truncated`, `not_an_image`, `too_small`."""

    exit_code = EXIT_SOME_FAILED
    http_status = 422

    def __init__(self, message: str, code: str = "unreadable") -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        return type(self), (str(self), self.code)
