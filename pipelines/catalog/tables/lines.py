"""The lines of a text, counted, and never more of one in memory than a line may have."""

from typing import TextIO

from infra.errors import CatalogError

LONGEST = 2**25  # characters


class Lines:
    """An iterator over lines with their ends; `number` is that of the last one, `ended` says that there was no other.

    Raises CatalogError for a line that is too long to be one.
    """

    def __init__(self, text: TextIO) -> None:
        self.text = text
        self.number = 0
        self.ended = False

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = self.text.readline(LONGEST)
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        if len(line) == LONGEST:
            raise CatalogError(
                f"line {self.number} is longer than {LONGEST:,} characters; every image needs its own line."
            )
        return line
