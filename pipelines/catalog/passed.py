"""What a listing passed over, and what is said of it where nothing is left."""

import json
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from pipelines.catalog.tables import is_table

IGNORED_NAMED = 3


@dataclass
class Passed:
    """What a listing passed over, counted as it goes.

    ignored   files that are no images, the first few by name
    repeated  rows of a table that name a URI again
    blank     rows of a table that name none
    left_out  files that lie in the output folder
    """

    ignored: int = 0
    names: tuple[str, ...] = ()
    repeated: int = 0
    blank: int = 0
    left_out: int = 0

    def ignore(self, uri: str) -> None:
        self.ignored += 1
        if len(self.names) < IGNORED_NAMED:
            self.names = (*self.names, PurePosixPath(uri).name)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Passed":
        told = json.loads(data)
        return cls(**(told | {"names": tuple(told["names"])}))

    def told(self) -> str:
        """What there was instead of images, to be added to a sentence; empty for nothing."""
        if self.blank:
            return f" Rows with nothing in the column `uri`: {self.blank}."
        if not self.ignored:
            return ""
        table = " To edit what a table names, give the table itself." if any(map(is_table, self.names)) else ""
        return f" {self.ignored} other files are no images, e.g. {self.names[0]}.{table}"
