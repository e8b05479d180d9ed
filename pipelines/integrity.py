"""Whether an image file is whole. Decoders forgive much: half an animation, a damaged chunk, a zeroed disk sector.

    claimed_sizes(data)   what a decoder would make room for before anybody could look at the size of the image
    check_whole(data)     raises ImageError: `truncated` if the file was cut, `unreadable` if it was damaged
    explained(data, e)    the ImageError for a file that could not be opened or decoded

Where a format has an end, it must be there: a file that was cut anywhere is called truncated. Formats without
checksums hide damage in their pixels (WebP, BMP, TIFF, most of JPEG): it is edited like anything else there.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NoReturn

from PIL.TiffImagePlugin import COMPRESSION_INFO

from infra.errors import ImageError
from pipelines import heif, tiff

MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"RIFF": "WEBP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
}
FOREIGN = {
    b"8BPS": "PSD",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"<svg": "SVG",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\1\0": "ICO",
    b"v/1\1": "OpenEXR",
}
RAW = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM", b"IIII\x1a\0\0\0HEAPCCDR")

BOXED = ("HEIF", "AVIF")
SHORTEST = 32  # bytes; no image is smaller
MAX_SCANS = 500  # of a JPEG: ten are usual, and each costs the time of the whole image
SECTOR = bytes(64)  # zeros that stand for a lost piece of a file
IEND = b"\0\0\0\0IEND\xaeB`\x82"
# A marker of a JPEG: 0xff, then neither a stuffed zero, nor a restart, nor filling.
MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
SOI, EOI, SOS, DHT = 0xD8, 0xD9, 0xDA, 0xC4
FRAMES = {*range(0xC0, 0xD0)} - {DHT, 0xC8, 0xCC}


def format_of(data: bytes) -> str | None:
    """The format whose magic number the data starts with, or is the start of."""
    names = (name for magic, name in MAGIC.items() if data.startswith(magic) or (data and magic.startswith(data)))
    name = next(names, None)
    if name == "WEBP" and not b"WEBP".startswith(data[8:12]):  # a sound or a film
        return None
    if name is None:
        return heif.format_of(data)
    if name == "BMP" and len(data) >= 18 and not 12 <= int.from_bytes(data[14:18], "little") <= 124:  # a word
        return None
    return name


def check_developed(data: bytes) -> None:
    """Raises ImageError for a camera's raw file: what opens of one is a preview, by whatever name it goes."""
    canon = (data.startswith(b"II*\0") and data[8:12] == b"CR\2\0") or b"crx " in heif.brands(data)
    if canon or data.startswith(RAW) or (format_of(data) == "TIFF" and tiff.is_raw(data)):
        raise ImageError("This is a camera raw file; develop it first, into a JPEG, PNG or TIFF.", "unsupported")


def claimed_sizes(data: bytes) -> list[tuple[int, int]]:
    """Width and height, in pixels, of a WebP's canvas, a TIFF's tiles or the images of a HEIF or AVIF."""
    name = format_of(data)
    if name in BOXED:
        return heif.sizes(data)
    if name == "TIFF":
        return [tiff.tile(data)]
    if name == "WEBP" and data[12:16] == b"VP8X" and len(data) >= 30:
        return [(int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1)]
    if name == "WEBP" and data[12:16] == b"VP8 " and len(data) >= 30:
        return [(int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF)]
    if name == "WEBP" and data[12:16] == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return [((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)]
    return []


def check_whole(data: bytes) -> None:
    """Look at the parts of a file without decoding them. Raises ImageError if some are missing or damaged."""
    check = {"JPEG": _check_jpeg, "PNG": _check_png, "WEBP": _check_webp, "TIFF": _check_tiff, "GIF": _check_gif,
             "HEIF": _check_boxes, "AVIF": _check_boxes}  # fmt: skip
    name = format_of(data)
    if name in check:
        check[name](data)


def explained(data: bytes, error: Exception) -> ImageError:
    """Why Pillow raised this: the file is something else, it was cut, it is beyond us, or it is damaged."""
    name = format_of(data)
    if name is None:
        return _foreign(data)
    try:
        check_whole(data)
        if len(data) < SHORTEST or not any(data[-len(SECTOR) :]) or (name not in BOXED and _ends_early(error)):
            _cut()
        if name == "TIFF" and tiff.lacks_tags(data):
            _cut()
        if (name == "JPEG" and _odd_jpeg(data)) or (name == "TIFF" and _odd_tiff(data)):
            return ImageError(f"{name} files of this kind are not supported; save it with 8 bits.", "unsupported")
        if name in BOXED and heif.unread(data):
            return ImageError(f"{name} files with this codec are not supported; save it as JPEG or PNG.", "unsupported")
    except ImageError as better:
        return better
    return ImageError(f"The file is damaged and cannot be decoded ({type(error).__name__}).", "unreadable")


def _ends_early(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, EOFError) or any(sign in text for sign in ("truncated", "not enough image data"))


def _foreign(data: bytes) -> ImageError:
    head = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()
    name = next((name for magic, name in FOREIGN.items() if data.startswith(magic) or head.startswith(magic)), None)
    if head.startswith(b"<?xml") and b"<svg" in head:
        name = "SVG"
    if name:
        return ImageError(f"{name} is not supported; convert the file to JPEG or PNG.", "unsupported")
    return ImageError("This is not a JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP or GIF image.", "not_an_image")


def _cut() -> NoReturn:
    raise ImageError("The file ends before the image does; copy it again from its source.", "truncated")


def _damaged(what: str) -> NoReturn:
    raise ImageError(f"The file is damaged: {what}. Copy it again from its source.", "unreadable")


def _check_jpeg(data: bytes) -> None:
    first_symbols: dict[int, int] = {}
    scans = 0
    for marker, payload, stop in _segments(data):
        if marker == DHT:
            first_symbols |= _first_symbols(payload)
        elif marker == SOS:
            scans += 1
            if scans > MAX_SCANS:
                _damaged(f"it has more than {MAX_SCANS} scans")
            if _never_zero(payload, first_symbols) and _hole(data, stop):
                _damaged("a piece of it was replaced by zeros")


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marker, payload and end of the payload of every segment up to the end of the image."""
    position = 2
    while match := MARKER.search(data, position):
        marker, position = match[1][0], match.end()
        if marker == EOI:
            return
        if marker in (1, SOI):
            continue
        length = int.from_bytes(data[position : position + 2])
        if position + length > len(data):
            break
        yield marker, data[position + 2 : position + length], position + length
        position += max(length, 2)
    if data.endswith(b"\xff\xd9"):
        _damaged("its segments do not fit together")
    _cut()


def _hole(data: bytes, start: int) -> bool:
    """Zeros in the scan that starts there. One without an end was cut, which is found out later."""
    following = MARKER.search(data, start)
    return following is not None and data.find(SECTOR, start, following.start()) >= 0


def _first_symbols(payload: bytes) -> dict[int, int]:
    """Of every Huffman table, by class and number, what zeros are decoded to: its first symbol, by construction."""
    symbols, position = {}, 0
    while position + 17 < len(payload):
        symbols[payload[position]] = payload[position + 17]
        position += 17 + sum(payload[position + 1 : position + 17])
    return symbols


def _never_zero(scan: bytes, first_symbols: dict[int, int]) -> bool:
    """Whether zeros would be blocks that no photograph has: every coefficient of every block the same.

    They are fine where zeros end a block (flat images), and where they refine coefficients of an earlier scan.
    """
    if len(scan) < 4 or len(scan) != 4 + 2 * scan[0] or scan[-2] == 0 or scan[-1] >> 4:
        return False
    tables = (0x10 | scan[2 + 2 * number] & 0x0F for number in range(scan[0]))
    return any(first_symbols.get(table, 0) & 0x0F for table in tables)


def _odd_jpeg(data: bytes) -> bool:
    """12 bits, lossless, or another number of colours than 1, 3 and 4."""
    frames = [payload for marker, payload, _ in _segments(data) if marker in FRAMES and len(payload) > 5]
    return any(payload[0] != 8 or payload[5] not in (1, 3, 4) for payload in frames)


def _check_png(data: bytes) -> None:
    view, position = memoryview(data), 8
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if not name.isalpha():
            _cut() if not any(view[position:]) else _damaged("there is something else among its chunks")
        if end > len(data):
            break
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            _cut() if not any(view[-len(SECTOR) :]) else _damaged(f"the checksum of its {name.decode()} chunk is wrong")
        if name == b"IEND":
            return
        position = end
    if data.endswith(IEND):
        _damaged("its chunks do not fit together")
    _cut()


def _check_webp(data: bytes) -> None:
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        _cut()


def _check_gif(data: bytes) -> None:
    try:
        position = 13 + _colour_table(data[10])
        while data[position] in (0x21, 0x2C):
            if data[position] == 0x21:
                position += 2
            else:
                position += 11 + _colour_table(data[position + 9])
            while data[position]:
                position += 1 + data[position]
            position += 1
        if not any(data[position:]):  # where there should be another block
            _cut()
    except IndexError:
        _cut()


def _colour_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _check_tiff(data: bytes) -> None:
    try:
        for directory in tiff.directories(data):
            for offsets, counts in tiff.STRIPS:
                pieces = zip(directory.get(offsets, ()), directory.get(counts, ()), strict=False)
                if any(offset + count > len(data) for offset, count in pieces):
                    _cut()
    except tiff.Beyond:
        _cut()


def _odd_tiff(data: bytes) -> bool:
    """More than 16 bits, or no whole numbers, or compressed in a way that nobody here knows."""
    first = next(tiff.directories(data), {})
    if not set(first.get(tiff.COMPRESSION, ())) <= set(COMPRESSION_INFO):
        return True
    return max(first.get(tiff.BITS) or (1,)) > 16 or max(first.get(tiff.SAMPLE_FORMAT) or (1,)) > 1


def _check_boxes(data: bytes) -> None:
    try:
        names, end = heif.ended(data)
    except heif.Beyond:
        _cut()
    if not names & {b"meta", b"moov"}:
        _damaged("its boxes do not fit together") if len(data) >= end + 8 and any(data[end:]) else _cut()
    try:
        pieces = {piece for piece in heif.pieces(data) if piece[1] < piece[2]}
    except heif.Beyond:
        _damaged("its boxes do not fit together")
    if any(stop > len(data) for _, _, stop in pieces):
        _cut()
    _check_coded(data, [piece for piece in pieces if piece[0] in heif.CODED])


def _check_coded(data: bytes, pieces: list[heif.Piece]) -> None:
    """Compressed images never end in zeros; those of HEVC have no run of them, those of AV1 none that is long."""
    if any(not any(data[max(start, stop - len(SECTOR)) : stop]) for _, start, stop in pieces):
        _cut()
    if sum(stop - start for _, start, stop in pieces) > 2 * len(data):
        _damaged("its images lie in one another")
    holes = {b"av01": 8 * SECTOR}
    if any(data.find(holes.get(kind, SECTOR), start, stop) >= 0 for kind, start, stop in pieces):
        _damaged("a piece of it was replaced by zeros")
