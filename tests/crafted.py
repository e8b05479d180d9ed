"""Image files byte by byte: kinds that Pillow cannot write, and damage that is done to a whole file.

A `Make` makes one file: extension, content, and the error code that it should get, None for a good one.
"""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

Random = np.random.Generator
Made = tuple[str, bytes, str | None]
Make = Callable[[Random], Made]
Change = Callable[[bytes, Random], bytes]

QUICK: dict[str, dict[str, Any]] = {
    "HEIF": {"enc_params": {"preset": "ultrafast"}},
    "AVIF": {"speed": 10, "max_threads": 1},
}  # what takes these encoders longer than need be


def photo(rng: Random, mode: str = "RGB") -> Image.Image:
    """Smooth with a little noise, 64 to 160 pixels a side."""
    width, height = (int(side) for side in rng.integers(64, 161, 2))
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    noisy = np.asarray(coarse).astype(int) + rng.integers(-12, 13, (height, width, 3))
    image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(rng.integers(0, 256, (6, 8), dtype=np.uint8)).resize(image.size))
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


def file_of(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **QUICK.get(format, {}) | options)
    return buffer.getvalue()


def saved(extension: str, format: str, mode: str = "RGB", frames: int = 1, **options: Any) -> Make:
    """A good file as Pillow writes it."""

    def make(rng: Random) -> Made:
        image = photo(rng, mode)
        others = [image.rotate(180 // frames * number) for number in range(1, frames)]
        more = {"save_all": True, "append_images": others} if others else {}
        return extension, file_of(image, format, **options, **more), None

    return make


def made(extension: str, content: Callable[[Random], bytes], code: str | None = None) -> Make:
    return lambda rng: (extension, content(rng), code)


def changed(make: Make, change: Change, code: str | None, extension: str = "") -> Make:
    """A file of that kind after something happened to it."""

    def damaged(rng: Random) -> Made:
        kind, data, _ = make(rng)
        return extension or kind, change(data, rng), code

    return damaged


# PNG: chunks with checksums


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes, interlaced: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def png_rows(pixels: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def png_48_bits(rng: Random) -> bytes:
    pixels = np.asarray(photo(rng)).astype(">u2") * 257
    return png(pixels.shape[1], pixels.shape[0], 16, 2, png_rows(pixels))


def png_interlaced(rng: Random) -> bytes:
    pixels = np.asarray(photo(rng))
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(png_rows(pixels[y::down, x::across]) for y, x, down, across in passes)
    return png(pixels.shape[1], pixels.shape[0], 8, 2, rows, interlaced=1)


def with_chunk(name: bytes, data: bytes) -> Change:
    """Another chunk behind the header of a PNG."""
    return lambda whole, rng: whole[:33] + chunk(name, data) + whole[33:]


def flipped_in(name: bytes) -> Change:
    """One bit of the content of the first PNG chunk of that name."""

    def flip(data: bytes, rng: Random) -> bytes:
        start = data.index(name) + 4
        length = int.from_bytes(data[start - 8 : start - 4])
        return flip_bit(data, start + int(rng.integers(length)), int(rng.integers(8)))

    return flip


def flip_bit(data: bytes, position: int, bit: int = 0) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


def less_pixels(data: bytes, rng: Random) -> bytes:
    """A PNG whose checksums are right and whose pixels stop half way."""
    start = data.index(b"IDAT") - 4
    length = int.from_bytes(data[start : start + 4])
    return data[:start] + chunk(b"IDAT", data[start + 8 : start + 8 + length // 2]) + chunk(b"IEND", b"")


# TIFF: directories of tags


def tiff(tags: dict[int, Any], body: bytes = b"", order: str = "<") -> bytes:
    """One page: the header, `body` at byte 8, the values of the tags, the directory.

    A tag is a number, a list of numbers, or what its entry shall say: type, number of values, their place.
    """
    start, values, entries = 8 + len(body), b"", b""
    for tag, value in sorted(tags.items()):
        if isinstance(value, list):
            value, values = (4, len(value), start + len(values)), values + struct.pack(f"{order}{len(value)}I", *value)
        kind, number, place = value if isinstance(value, tuple) else (4, 1, value)
        entries += struct.pack(order + "HHII", tag, kind, number, place)
    directory = struct.pack(order + "H", len(tags)) + entries + bytes(4)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start + len(values))
    return head + body + values + directory


def grey_tags(side: int, **more: Any) -> dict[int, Any]:
    """The tags of a square greyscale image in one strip behind the header; `t258=16` and the like replace some."""
    usual = {256: side, 257: side, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: side, 279: side * side}
    return usual | {int(name[1:]): value for name, value in more.items()}


def grey_tiff(**more: Any) -> Callable[[Random], bytes]:
    return lambda rng: tiff(grey_tags(64, **more), rng.bytes(64 * 64))


def big_endian_tiff(rng: Random) -> bytes:
    return tiff(grey_tags(64), rng.bytes(64 * 64), order=">")


def tiled_tiff(rng: Random) -> bytes:
    pixels = np.asarray(photo(rng).resize((96, 64)))
    tiles = [zlib.compress(pixels[y : y + 32, x : x + 32].tobytes()) for y in (0, 32) for x in (0, 32, 64)]
    offsets = [8 + sum(map(len, tiles[:number])) for number in range(len(tiles))]
    tags = {256: 96, 257: 64, 258: [8, 8, 8], 259: 8, 262: 2, 277: 3}
    return tiff(tags | {322: 32, 323: 32, 324: offsets, 325: [len(tile) for tile in tiles]}, b"".join(tiles))


def tiff_loop(rng: Random) -> bytes:
    data = tiff(grey_tags(64), rng.bytes(64 * 64))
    return data[:-4] + data[4:8]


def overlapping_tiff(rng: Random) -> bytes:
    """Two thousand tags that all hold the whole image: 400 MB."""
    return tiff(grey_tags(450) | {40_000 + number: (7, 450**2, 8) for number in range(2000)}, rng.bytes(450**2))


def overlapping_exif() -> bytes:
    """As many tags as an EXIF block has room for, each of them the other half of it: 75 MB."""
    return b"Exif\0\0" + tiff({40_000 + number: (7, 30_000, 8) for number in range(2500)}, bytes(30_000))


# JPEG: segments between markers


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def with_segment(marker: int, payload: bytes) -> Change:
    return lambda data, rng: data[:2] + segment(marker, payload) + data[2:]


def with_frame_size(height: int, width: int) -> Change:
    """Another size in the frame header of a baseline JPEG."""

    def change(data: bytes, rng: Random) -> bytes:
        at = data.index(b"\xff\xc0") + 5
        return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]

    return change


def without_scan(data: bytes, rng: Random) -> bytes:
    return data[: data.index(b"\xff\xda")] + b"\xff\xd9"


def zeros_in_scan(data: bytes, rng: Random) -> bytes:
    """A lost sector in the pixels of a JPEG."""
    start = data.index(b"\xff\xda") + 64
    return data[:start] + bytes(512) + data[start + 512 :]


def twelve_bits(data: bytes, rng: Random) -> bytes:
    at = data.index(b"\xff\xc0") + 4
    return data[:at] + b"\x0c" + data[at + 1 :]


def many_scans(rng: Random) -> bytes:
    data = file_of(photo(rng, "L"), "JPEG", progressive=True)
    start = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    stop = data.index(b"\xff\xc4", start)
    return data[:start] + data[start:stop] * 2000 + data[stop:]


# HEIF and AVIF: boxes


def broken_exif(data: bytes, rng: Random) -> bytes:
    """EXIF that starts like nothing known."""
    return data.replace(b"II*\0", b"XX*\0").replace(b"MM\0*", b"XX\0*")


def with_extent(side: int) -> Change:
    """Another size in every `ispe` box of a HEIF or AVIF."""

    def change(data: bytes, rng: Random) -> bytes:
        first, *others = data.split(b"ispe")
        return b"ispe".join([first, *(each[:4] + struct.pack(">II", side, side) + each[12:] for each in others)])

    return change


# What happens to files


def cut(share: float = 0.0, at: int | None = None) -> Change:
    return lambda data, rng: data[: at if at is not None else int(len(data) * share)]


def zeros_from(share: float) -> Change:
    """A download that had reserved its place on the disk."""
    return lambda data, rng: data[: int(len(data) * share)].ljust(len(data), b"\0")


def zeros_between(data: bytes, rng: Random) -> bytes:
    third = len(data) // 3
    return data[:third] + bytes(third) + data[2 * third :]


def put(at: int, piece: bytes) -> Change:
    return lambda data, rng: data[:at] + piece + data[at + len(piece) :]


def gif(width: int, height: int, frame: tuple[int, int], pixels: bytes) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF0, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + pixels + b"\0;"


def riff(name: bytes, payload: bytes) -> bytes:
    body = b"WEBP" + name + struct.pack("<I", len(payload)) + payload
    return b"RIFF" + struct.pack("<I", len(body)) + body


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif
