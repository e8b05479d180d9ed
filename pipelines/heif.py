"""The boxes of a HEIF (HEIC) or AVIF file: enough of them to tell what it is, how large, and whether it is whole.

    format_of(data)      "HEIF" or "AVIF" by its brands, None for other files
    sizes(data)          what the images in it claim to measure
    nclx(data)           the numbers of its colour primaries and transfer function
    ended(data)          where its boxes end
    pieces(data)         where the items lie
    without_exif(data)   the same file with its EXIF out of sight

Nothing here trusts a number that it has read. Source: ISO/IEC 14496-12 and 23008-12.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from pipelines import av1

AVIF = {b"avif", b"avis", b"MA1A", b"MA1B"}
HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
ANY = {b"mif1", b"msf1", b"mif2", b"miaf"}  # a container that does not say of what
CODED = {b"hvc1", b"hev1", b"av01"}  # items that are compressed images
READ = CODED | {b"grid", b"iden", b"iovl", b"Exif", b"mime", b"uri ", b"tmap"}
ENOUGH = 100_000  # boxes, items and extents; a file with more of them is only looked at so far

Box = tuple[bytes, int, int]  # name, start and end of its content
Piece = tuple[bytes, int, int]  # type of its item, start and end


class Beyond(Exception):
    """Something lies beyond the end of the file, or of what it is a part of."""


def brands(data: bytes) -> list[bytes]:
    """The brands of an ISO media file, the one that it names first at first; none for other files."""
    if data[4:8] != b"ftyp":
        return []
    end = min(int.from_bytes(data[:4]), len(data), 512)
    return [data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))]


def format_of(data: bytes) -> str | None:
    """What the file is, as far as its first bytes tell: the first brand counts more than the others."""
    found = brands(data)
    if found and len(found[0]) < 4:  # cut within it
        return next((name for name, some in (("AVIF", AVIF), ("HEIF", HEIC | ANY)) if _starts(found[0], some)), None)
    for brand in found:
        if brand in AVIF or brand in HEIC:
            return "AVIF" if brand in AVIF else "HEIF"
    return "HEIF" if ANY & {*found} else None


def _starts(start: bytes, some: set[bytes]) -> bool:
    return any(brand.startswith(start) for brand in some)


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes between two places, up to what is none. Raises Beyond where one is longer than the place for it."""
    end = len(data) if end is None else end
    for _ in range(ENOUGH):
        if start + 8 > end:
            return
        size, name = struct.unpack_from(">I4s", data, start)
        head = 16 if size == 1 else 8
        if size == 1:
            (size,) = _unpack(">Q", data, start + 8)
        if not name.isalnum() or 0 < size < head:
            return
        stop = start + size if size else end
        if stop > end:
            raise Beyond
        yield name, start + head, stop
        start = stop


def ended(data: bytes) -> tuple[set[bytes], int]:
    """Names of the outermost boxes, and where the last of them ends. Raises Beyond."""
    found = list(boxes(data))
    return {name for name, _, _ in found}, found[-1][2] if found else 0


def sizes(data: bytes) -> list[tuple[int, int]]:
    """Width and height, in pixels, of every image and tile, as far as the file can be read.

    libheif goes by what the boxes say; what decodes AV1 goes by the stream.
    """
    found = []
    with suppress(Beyond):
        for start, _ in _within(data, b"meta", b"iprp", b"ipco", b"ispe"):
            found.append(_unpack(">II", data, start + 4))
    with suppress(Beyond):
        places = [place for kind, place, _ in pieces(data) if kind == b"av01"]
        frames = (av1.frame_size(data[place : place + 256]) for place in (*places, *_samples(data)))
        found += [size for size in frames if size]
    return found


def nclx(data: bytes) -> tuple[int, int] | None:
    """Colour primaries and transfer function, in numbers of ISO/IEC 23091-2; None where the file does not say."""
    with suppress(Beyond):
        for start, _ in _within(data, b"meta", b"iprp", b"ipco", b"colr"):
            kind, primaries, transfer = _unpack(">4sHH", data, start)
            if kind == b"nclx":
                return primaries, transfer
    return None


def pieces(data: bytes) -> Iterator[Piece]:
    """Where the items lie, which may be beyond the end of the file. Raises Beyond where their table makes no sense."""
    kinds = {number: kind for number, kind, _ in _items(data)}
    for start, _ in islice(_within(data, b"meta", b"iloc"), 1):
        for number, place, length in islice(_extents(data, start), ENOUGH):
            yield kinds.get(number, b""), place, place + length


def unread(data: bytes) -> set[bytes]:
    """The types of items that nobody here decodes: other codecs."""
    with suppress(Beyond):
        return {kind for _, kind, _ in _items(data)} - READ
    return set()


def without_exif(data: bytes) -> bytes:
    """The same file with another name on its EXIF: decoders refuse a whole AVIF for it."""
    bare = bytearray(data)
    with suppress(Beyond):
        for _, kind, place in _items(data):
            if kind == b"Exif":
                bare[place : place + 4] = b"none"
    return bytes(bare)


def _within(data: bytes, *path: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Start and end of the content of all boxes at a path. Raises Beyond."""
    for name, begin, stop in boxes(data, start, end):
        if name == path[0] and len(path) == 1:
            yield begin, stop
        elif name == path[0]:
            yield from _within(data, *path[1:], start=begin + 4 * (name == b"meta"), end=stop)


def _samples(data: bytes) -> Iterator[int]:
    """Where the tracks of an animation start. Raises Beyond."""
    for start, _ in _within(data, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stco"):
        yield _unpack(">I", data, start + 8)[0]


def _items(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Number and type of every item, and where the type stands. Raises Beyond."""
    for start, end in _within(data, b"meta", b"iinf"):
        head = 6 if data[start : start + 1] == b"\0" else 8
        for name, begin, _ in boxes(data, start + head, end):
            (version,) = _unpack(">B", data, begin)
            if name == b"infe" and version in (2, 3):
                number, _, kind = _unpack(">HH4s" if version == 2 else ">IH4s", data, begin + 4)
                yield number, kind, begin + (8 if version == 2 else 10)


def _extents(data: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Item, place in the file and length of every extent of an `iloc` box. Raises Beyond."""
    version, sizes = _unpack(">B3xH", data, at)
    at += 6
    offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    idat = next((start for start, _ in _within(data, b"meta", b"idat")), 0)
    wide = 4 if version == 2 else 2
    items, at = _number(data, at, wide)
    for _ in range(items):
        number, at = _number(data, at, wide)
        method, at = _number(data, at, 2) if version else (0, at)
        origin, at = _number(data, at + 2, base)
        count, at = _number(data, at, 2)
        for _ in range(count):
            place, at = _number(data, at + (index if version else 0), offset)
            size, at = _number(data, at, length)
            origins = {0: origin, 1: origin + idat}
            yield (number, origins[method & 15] + place, size) if method & 15 in origins else (number, 0, 0)


def _number(data: bytes, at: int, size: int) -> tuple[int, int]:
    """A number of so many bytes, and what comes after it. Raises Beyond."""
    if at + size > len(data):
        raise Beyond
    return int.from_bytes(data[at : at + size]), at + size


def _unpack(format: str, data: bytes, at: int) -> tuple:
    if at + struct.calcsize(format) > len(data):
        raise Beyond
    return struct.unpack_from(format, data, at)
