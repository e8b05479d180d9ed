"""The directories of a TIFF file: enough of them to tell whether it is whole.

    directories(data)   the pages, as the whole numbers among their tags
    is_raw(data)        a camera's raw file, of which the first page is a preview
    tile(data)          width and height of the tiles of the first page
    lacks_tags(data)    values of the first page lie beyond the end of the file

Nothing here trusts a number that it has read.
"""

import struct
from collections.abc import Iterator
from itertools import chain

BITS, COMPRESSION, SAMPLE_FORMAT, TILE_WIDTH, TILE_LENGTH = 258, 259, 339, 322, 323
KIND, PAGES_WITHIN, DNG_VERSION = 254, 330, 50706
STRIPS = ((273, 279), (324, 325))  # offsets and byte counts, of strips and of tiles
WANTED = {BITS, COMPRESSION, SAMPLE_FORMAT, TILE_WIDTH, TILE_LENGTH, KIND, PAGES_WITHIN, DNG_VERSION, *chain(*STRIPS)}

BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
ENOUGH = 2_000_000  # tags and values; a file with more of them is only looked at so far

Directory = dict[int, tuple[int, ...]]
Entry = tuple[int, int, int, int]  # tag, type, number of values, where they are


class Beyond(Exception):
    """Something lies beyond the end of the file."""


def directories(data: bytes) -> Iterator[Directory]:
    """The pages of a TIFF or BigTIFF, each once. Raises Beyond."""
    reader = _Reader(data)
    position, seen, read = reader.first(), set[int](), 0
    while position and position not in seen and read < ENOUGH:
        seen.add(position)
        directory: Directory = {}
        for tag, kind, values, place in reader.entries(position):
            read += 1
            if tag in WANTED and kind in INTEGERS and tag not in directory:
                directory[tag] = reader.unpack(f"{values}{INTEGERS[kind]}", place)
                read += values
        yield directory
        position = reader.next(position)


def tile(data: bytes) -> tuple[int, int]:
    """Pixels; (0, 0) where there are no tiles, or the file does not say."""
    try:
        first = next(directories(data), {})
    except Beyond:
        return 0, 0
    return max(first.get(TILE_WIDTH) or (0,)), max(first.get(TILE_LENGTH) or (0,))


def is_raw(data: bytes) -> bool:
    """Whether it is what a camera recorded (DNG, NEF, ARW): the first page is a preview then, and the photo within."""
    try:
        first = next(directories(data), {})
    except Beyond:
        return False
    return DNG_VERSION in first or (PAGES_WITHIN in first and first.get(KIND, (0,))[:1] == (1,))


def lacks_tags(data: bytes) -> bool:
    """Whether some are missing. Most can be done without: this explains a failure, and is none."""
    reader = _Reader(data)
    try:
        entries = reader.entries(reader.first())
        return any(place + values * BYTES.get(kind, 0) > len(data) for _, kind, values, place in entries)
    except Beyond:
        return True


class _Reader:
    """Numbers at places of a file, in its byte order. Every method raises Beyond."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = data[2:4] in (b"+\0", b"\0+")
        self.offset, self.count = ("Q", "Q") if self.big else ("I", "H")
        self.size = 20 if self.big else 12

    def unpack(self, format: str, place: int) -> tuple[int, ...]:
        try:
            if place + struct.calcsize(self.order + format) > len(self.data):  # before room is made for the values
                raise Beyond
            return struct.unpack_from(self.order + format, self.data, place)
        except (struct.error, OverflowError):
            raise Beyond from None

    def first(self) -> int:
        return self.unpack(self.offset, 8 if self.big else 4)[0]

    def entries(self, position: int) -> Iterator[Entry]:
        (number,) = self.unpack(self.count, position)
        start = position + struct.calcsize(self.order + self.count)
        for place in range(start, start + number * self.size, self.size):
            tag, kind, values = self.unpack(f"HH{self.offset}", place)
            inline = struct.calcsize(self.order + self.offset)
            place += self.size - inline
            if values * BYTES.get(kind, 0) > inline:
                (place,) = self.unpack(self.offset, place)
            yield tag, kind, values, place

    def next(self, position: int) -> int:
        (number,) = self.unpack(self.count, position)
        start = position + struct.calcsize(self.order + self.count)
        return self.unpack(self.offset, start + number * self.size)[0]
