"""A folder of good and bad image files, and what each of them should be told.

    make_files(folder, count=500, seed=0) -> {relative path: error code, or None for a good file}

The bad ones are made of good ones of every format that the codec reads. Only damage with one right answer is
dealt here: a file without checksums that lost some of its pixels is a good file to everybody but its owner.
"""

import gzip
import io
import json
import struct
import zipfile
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from tests import icc
from tests.crafted import (
    Make,
    Random,
    big_endian_tiff,
    changed,
    cut,
    file_of,
    flip_bit,
    flipped_in,
    gif,
    grey_tags,
    grey_tiff,
    less_pixels,
    made,
    many_scans,
    orientation,
    overlapping_exif,
    overlapping_tiff,
    photo,
    png,
    png_48_bits,
    png_interlaced,
    put,
    riff,
    saved,
    tiff,
    tiff_loop,
    tiled_tiff,
    twelve_bits,
    with_chunk,
    with_extent,
    with_frame_size,
    with_segment,
    without_scan,
    zeros_between,
    zeros_from,
    zeros_in_scan,
)

HUGE = 50_000  # pixels a side: what a bomb claims to have


def make_files(folder: Path, count: int = 500, seed: int = 0) -> dict[str, str | None]:
    """Write `count` files below `folder`, as many good ones as bad ones, of every kind in turn."""
    rng = np.random.default_rng(seed)
    kinds = [[list(some.items())[n] for n in rng.permutation(len(some))] for some in (GOOD, BAD)]
    expected: dict[str, str | None] = {}
    for number in range(count):
        name, make = kinds[number % 2][number // 2 % len(kinds[number % 2])]
        extension, data, code = make(rng)
        path = f"{'abc'[number % 3]}/{number:04d} {name}.{extension}"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        expected[path] = code
    return expected


@cache
def bomb() -> bytes:
    """60 MiB in 60 KB."""
    return zlib.compress(bytes(60 << 20))


def zip_archive(rng: Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("photo.png", file_of(photo(rng), "PNG"))
    return buffer.getvalue()


def page(rng: Random) -> bytes:
    return b"<!DOCTYPE html><html><head><title>403 Forbidden</title></head><body><svg></svg></body></html>"


def refusal(rng: Random) -> bytes:
    return b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>'


def noise(rng: Random) -> bytes:
    return b"\x07" + rng.bytes(int(rng.integers(100, 20_000)))


def thumbnail(rng: Random) -> bytes:
    """A JPEG with another one in its EXIF block."""
    exif = b"Exif\0\0" + tiff({0x0112: 6}) + file_of(photo(rng), "JPEG")
    return file_of(photo(rng), "JPEG", exif=exif)


JPEG, PROGRESSIVE = saved("jpg", "JPEG"), saved("jpg", "JPEG", progressive=True)
PNG, PALETTE, ALPHA = saved("png", "PNG"), saved("png", "PNG", "P"), saved("png", "PNG", "RGBA")
WEBP, LOSSLESS = saved("webp", "WEBP"), saved("webp", "WEBP", lossless=True)
ANIMATED = saved("webp", "WEBP", frames=3)
AVIF, AVIFS = saved("avif", "AVIF"), saved("avif", "AVIF", frames=3)
HEIC, HEICS = saved("HEIC", "HEIF"), saved("heic", "HEIF", frames=3)
RAW, PAGES = saved("tif", "TIFF"), saved("tiff", "TIFF", frames=3, compression="tiff_adobe_deflate")
COMPRESSED = {name: saved("tif", "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits")}
BMP, GIF, GIFS = saved("bmp", "BMP"), saved("gif", "GIF"), saved("gif", "GIF", frames=3)

GOOD: dict[str, Make] = {
    "baseline": JPEG,
    "progressive": PROGRESSIVE,
    "inks": saved("jpeg", "JPEG", "CMYK"),
    "inks with profile": saved("jpg", "JPEG", "CMYK", icc_profile=icc.ink_profile()),
    "grey": saved("JPG", "JPEG", "L"),
    "optimised": saved("jpe", "JPEG", optimize=True, quality=60),
    "restarts": saved("jfif", "JPEG", restart_marker_blocks=3),
    "flat optimised": made("jpg", lambda rng: file_of(Image.new("RGB", (900, 900), "white"), "JPEG", optimize=True)),
    "several in one": saved("jpg", "MPO", frames=2),
    "thumbnail": made("jpg", thumbnail),
    "trailing bytes": changed(JPEG, lambda data, rng: data + rng.bytes(100), None),
    "long comment": saved("jpg", "JPEG", comment=b"\xff\xd8\xff\xd9" * 100),
    **{f"orientation {value}": saved("jpg", "JPEG", exif=orientation(value)) for value in (*range(2, 9), 0, 77)},
    "broken exif": changed(JPEG, with_segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"), None),
    "looping exif": saved("jpg", "JPEG", exif=b"Exif\0\0" + tiff({0x0112: 1, 0x8769: 8})),
    "exif bomb": saved("jpg", "JPEG", exif=overlapping_exif()),
    "broken profile": saved("jpg", "JPEG", icc_profile=b"broken" * 50),
    "profile of inks": saved("png", "PNG", icc_profile=icc.ink_profile()),
    "half a profile": saved("png", "PNG", icc_profile=icc.swapped_profile()[:300]),
    "24 bits": PNG,
    "48 bits": made("png", png_48_bits),
    "16 bits": saved("png", "PNG", "I;16"),
    "1 bit": saved("png", "PNG", "1"),
    "grey png": saved("PNG", "PNG", "L"),
    "grey alpha": saved("png", "PNG", "LA"),
    "alpha": ALPHA,
    "palette": PALETTE,
    "interlaced": made("png", png_interlaced),
    "animated png": saved("png", "PNG", frames=3),
    "unknown chunk": changed(PNG, with_chunk(b"teSt", b"something"), None),
    "trailing bytes png": changed(PNG, lambda data, rng: data + rng.bytes(100), None),
    "png with exif": saved("png", "PNG", exif=orientation(6)),
    "lossy": WEBP,
    "lossless": LOSSLESS,
    "webp with alpha": saved("webp", "WEBP", "RGBA"),
    "animated webp": ANIMATED,
    "webp with broken profile": saved("webp", "WEBP", icc_profile=b"broken" * 50),
    "raw": RAW,
    **COMPRESSED,
    "jpeg in tiff": saved("tif", "TIFF", compression="jpeg"),
    "fax": saved("tif", "TIFF", "1", compression="group4"),
    "tiff inks": saved("tif", "TIFF", "CMYK"),
    "tiff 16 bits": saved("tif", "TIFF", "I;16"),
    "tiff alpha": saved("tif", "TIFF", "RGBA", compression="tiff_lzw"),
    "big tiff": saved("tif", "TIFF", big_tiff=True),
    "lab": saved("tif", "TIFF", "LAB"),
    "pages": PAGES,
    "big endian": made("tif", big_endian_tiff),
    "tiles": made("tif", tiled_tiff),
    "white is zero": made("tif", grey_tiff(t262=0)),
    "looping directory": made("tif", tiff_loop),
    "tag beyond the end": made("tif", grey_tiff(t700=(7, 100, 2**31))),
    "overlapping tags": made("tif", overlapping_tiff),
    "bitmap": BMP,
    "bitmap palette": saved("bmp", "BMP", "P"),
    "gif": GIF,
    "animated gif": GIFS,
    "gif without a screen": changed(GIF, put(6, bytes(4)), None),
    "avif": AVIF,
    "animated avif": AVIFS,
    "avif with alpha": saved("avif", "AVIF", "RGBA"),
    "grey avif": saved("avif", "AVIF", "L"),
    **{f"avif orientation {value}": saved("avif", "AVIF", exif=orientation(value).tobytes()) for value in (3, 6)},
    "avif with broken profile": saved("avif", "AVIF", icc_profile=b"broken" * 50),
    "trailing bytes avif": changed(AVIF, lambda data, rng: data + rng.bytes(100), None),
    "heic": HEIC,
    "several heic": HEICS,
    "heic of ten bits": saved("heif", "HEIF", "I;16"),
    "heic with alpha": saved("heic", "HEIF", "RGBA"),
    "grey heic": saved("hif", "HEIF", "L"),
    "heic of tiles": saved("heic", "HEIF", tile_size=64),
    **{f"heic orientation {value}": saved("heic", "HEIF", exif=orientation(value).tobytes()) for value in (3, 6)},
    "heic with broken profile": saved("heic", "HEIF", icc_profile=b"broken" * 50),
    "trailing bytes heic": changed(HEIC, lambda data, rng: data + rng.bytes(100), None),
    "large heic of one colour": made("heic", lambda rng: file_of(Image.new("RGB", (900, 900), "white"), "HEIF")),
    "large avif of one colour": made("avif", lambda rng: file_of(Image.new("RGB", (900, 900)), "AVIF", quality=100)),
    "a heic by name": changed(JPEG, lambda data, rng: data, None, "heic"),
    "a jpeg by a phone's name": changed(HEIC, lambda data, rng: data, None, "jpg"),
    "an avif by name": changed(HEIC, lambda data, rng: data, None, "avif"),
    **{f"brand {brand.decode()}": changed(HEIC, put(8, brand), None) for brand in (b"mif1", b"heix", b"msf1", b"hevc")},
    **{f"avif of {brand.decode()}": changed(AVIF, put(8, brand), None) for brand in (b"mif1", b"msf1")},
    "a png by name": changed(JPEG, lambda data, rng: data, None, "png"),
    "a jpeg by name": changed(PNG, lambda data, rng: data, None, "jpg"),
    "a webp by name": changed(GIF, lambda data, rng: data, None, "webp"),
    "a tiff by name": changed(WEBP, lambda data, rng: data, None, "tif"),
}

CUT = {
    "baseline": JPEG, "progressive": PROGRESSIVE, "palette": PALETTE, "alpha": ALPHA, "lossy": WEBP,
    "lossless": LOSSLESS, "animated webp": ANIMATED, "raw": RAW, **COMPRESSED, "pages": PAGES, "bitmap": BMP,
    "gif": GIF, "animated gif": GIFS, "avif": AVIF, "animated avif": AVIFS, "heic": HEIC, "several heic": HEICS,
}  # fmt: skip

BAD: dict[str, Make] = {
    "empty": made("jpg", lambda rng: b"", "empty_file"),
    "empty tiff": made("tif", lambda rng: b"", "empty_file"),
    "text": made("jpg", lambda rng: b"This is not a picture. " * 20, "not_an_image"),
    "a word": made("bmp", lambda rng: b"BMW, a catalogue of cars", "not_an_image"),
    "page": made("jpg", page, "not_an_image"),
    "refusal": made("png", refusal, "not_an_image"),
    "record": made("webp", lambda rng: json.dumps({"error": "NoSuchKey"}).encode(), "not_an_image"),
    "noise": made("png", noise, "not_an_image"),
    "zeros": made("jpg", lambda rng: bytes(5000), "not_an_image"),
    "archive": made("png", zip_archive, "not_an_image"),
    "gzip": made("jpg", lambda rng: gzip.compress(file_of(photo(rng), "JPEG")), "not_an_image"),
    "sound": made("webp", lambda rng: b"RIFF" + struct.pack("<I", 500) + b"WAVEfmt " + bytes(488), "not_an_image"),
    "film": made("jpg", lambda rng: b"\0\0\0\x18ftypisom" + rng.bytes(500), "not_an_image"),
    "phone": made("heic", lambda rng: b"\0\0\0\x20ftypheic" + rng.bytes(500), "unreadable"),
    "phone by name": made("jpg", lambda rng: b"\0\0\0\x20ftypmif1" + rng.bytes(500), "unreadable"),
    "other codec": changed(HEIC, lambda data, rng: data.replace(b"hvc1", b"vvc1"), "unsupported"),
    "canon": made("jpg", lambda rng: b"II*\0\x10\0\0\0CR\2\0" + rng.bytes(500), "unsupported"),
    "canon by name": made("jpg", lambda rng: b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + rng.bytes(500), "unsupported"),
    "fuji": made("jpeg", lambda rng: b"FUJIFILMCCD-RAW 0201" + rng.bytes(500), "unsupported"),
    "dng": made("tif", grey_tiff(t50706=1025), "unsupported"),
    "nikon": made("tif", grey_tiff(t254=1, t330=8), "unsupported"),
    "jxl": made("jxl", lambda rng: b"\0\0\0\x0cJXL \r\n\x87\n" + rng.bytes(500), "unsupported"),
    "naked jxl": made("png", lambda rng: b"\xff\x0a" + rng.bytes(500), "unsupported"),
    "jpeg 2000": changed(saved("jp2", "JPEG2000"), lambda data, rng: data, "unsupported"),
    "layers": made("psd", lambda rng: b"8BPS\0\1" + bytes(6) + rng.bytes(500), "unsupported"),
    "vectors": made("png", lambda rng: b'<?xml version="1.0"?>\n<svg xmlns="x"><g/></svg>', "unsupported"),
    "document": made("jpg", lambda rng: b"%PDF-1.7\n" + rng.bytes(500), "unsupported"),
    **{
        f"{name} cut at {share:.0%}": changed(make, cut(share), "truncated")
        for share in (0.02, 0.1, 0.5, 0.9, 0.99)
        for name, make in CUT.items()
    },
    **{
        f"{name} cut at {at}": changed(make, cut(at=at), "truncated")
        for at in (1, 3, 9, 20)
        for name, make in (("baseline", JPEG), ("png", PNG), ("lossy", WEBP), ("raw", RAW), ("bmp", BMP), ("gif", GIF))
    },
    **{
        f"{name} cut at {at}": changed(make, cut(at=at), "truncated")
        for at in (9, 20, 31, 300)
        for name, make in (("avif", AVIF), ("heic", HEIC))
    },
    "without its last bytes": changed(JPEG, cut(at=-2), "truncated"),
    "png without its end": changed(PNG, cut(at=-12), "truncated"),
    "reserved": changed(JPEG, zeros_from(0.6), "truncated"),
    "reserved progressive": changed(PROGRESSIVE, zeros_from(0.6), "truncated"),
    "reserved png": changed(PNG, zeros_from(0.6), "truncated"),
    "reserved gif": changed(GIF, zeros_from(0.6), "truncated"),
    "reserved tiff": changed(COMPRESSED["tiff_lzw"], zeros_from(0.6), "truncated"),
    "reserved heic": changed(HEIC, zeros_from(0.6), "truncated"),
    "reserved avif": changed(AVIF, zeros_from(0.6), "truncated"),
    "lost sector heic": changed(HEIC, zeros_between, "unreadable"),
    "heic without its images": changed(HEIC, lambda data, rng: data[: data.index(b"mdat") - 4], "truncated"),
    "avif without a table": changed(AVIF, lambda data, rng: data.replace(b"iloc", b"free"), "unreadable"),
    "less pixels": changed(PNG, less_pixels, "truncated"),
    "lost sector": changed(JPEG, zeros_in_scan, "unreadable"),
    "lost sectors png": changed(PNG, zeros_between, "unreadable"),
    "flipped header": changed(PNG, flipped_in(b"IHDR"), "unreadable"),
    "flipped pixels": changed(PNG, flipped_in(b"IDAT"), "unreadable"),
    "flipped palette": changed(PALETTE, flipped_in(b"PLTE"), "unreadable"),
    "wrong checksum": changed(PNG, lambda data, rng: flip_bit(data, len(data) - 14), "unreadable"),
    "line ends": changed(PNG, lambda data, rng: data.replace(b"\r\n", b"\n"), "unreadable"),
    "first byte": changed(PNG, put(0, b"?"), "not_an_image"),
    "first bytes": changed(JPEG, put(0, b"\0\0"), "not_an_image"),
    "no scan": changed(JPEG, without_scan, "unreadable"),
    "starts twice": changed(JPEG, lambda data, rng: data[:2] + data, "unreadable"),
    "no height": changed(JPEG, with_frame_size(0, 100), "unreadable"),
    "no tables": changed(JPEG, lambda data, rng: data.replace(b"\xff\xdb", b"\xff\xfe"), "unreadable"),
    "12 bits": changed(JPEG, twelve_bits, "unsupported"),
    "scans without end": made("jpg", many_scans, "unreadable"),
    "webp chunk": changed(WEBP, put(12, b"VP7 "), "unreadable"),
    "webp frame": changed(WEBP, put(23, b"\0\0\0"), "unreadable"),
    "no directory": made("tif", lambda rng: b"II*\0\x08\0\0\0" + bytes(6) + rng.bytes(100), "unreadable"),
    "directory beyond": made("tif", lambda rng: b"II*\0\xff\xff\xff\x7f" + rng.bytes(500), "truncated"),
    "strip beyond": made("tif", grey_tiff(t273=2**31), "truncated"),
    "strip too long": made("tif", grey_tiff(t279=2**31), "truncated"),
    "strips without end": made("tif", grey_tiff(t273=(4, 2**30, 8), t279=(4, 2**30, 8)), "truncated"),
    "damaged strip": changed(COMPRESSED["tiff_adobe_deflate"], put(8, b"\xff" * 64), "unreadable"),
    "unknown compression": made("tif", grey_tiff(t259=34712), "unsupported"),
    "32 bits": made("tif", lambda rng: tiff(grey_tags(64, t258=32, t339=3), bytes(64**2 * 4)), "unsupported"),
    "no colours": changed(BMP, put(28, b"\x07\0"), "unreadable"),
    "no frame": made("gif", lambda rng: gif(64, 64, (64, 64), b"")[:19] + b";", "truncated"),
    "frame of nothing": made("gif", lambda rng: gif(0, 0, (0, 0), b"\2\2\x4c\1"), "unreadable"),
    "dot": made("png", lambda rng: file_of(Image.new("RGB", (1, 1)), "PNG"), "too_small"),
    "dot gif": made("gif", lambda rng: file_of(Image.new("L", (1, 1)), "GIF"), "too_small"),
    "line": made("jpg", lambda rng: file_of(Image.new("RGB", (900, 2)), "JPEG"), "too_small"),
    "banner": made("webp", lambda rng: file_of(Image.new("RGB", (900, 20)), "WEBP"), "aspect_ratio"),
    "tower": made("tif", lambda rng: file_of(Image.new("RGB", (20, 900)), "TIFF"), "aspect_ratio"),
    "bomb png": made("png", lambda rng: png(HUGE, HUGE, 8, 2, bytes(50_000)), "too_many_pixels"),
    "largest png": made("png", lambda rng: png(2**31 - 1, 2**31 - 1, 16, 6, b""), "too_many_pixels"),
    "bomb jpeg": changed(JPEG, with_frame_size(65_500, 65_500), "too_many_pixels"),
    "bomb tiff": made("tif", lambda rng: tiff(grey_tags(64) | {256: HUGE, 257: HUGE}, bytes(4096)), "too_many_pixels"),
    "bomb of tiles": made("tif", grey_tiff(t322=HUGE, t323=HUGE, t324=8, t325=4096), "too_many_pixels"),
    "bomb gif": made("gif", lambda rng: gif(HUGE, HUGE, (HUGE, HUGE), b"\2\2\x4c\1"), "too_many_pixels"),
    "frame off the screen": made("gif", lambda rng: gif(64, 64, (HUGE, HUGE), b"\2\2\x4c\1"), "too_many_pixels"),
    "bomb webp": made(
        "webp", lambda rng: riff(b"VP8X", struct.pack("<I", 2) + 2 * struct.pack("<I", HUGE)[:3]), "too_many_pixels"
    ),
    "bomb lossless": changed(LOSSLESS, put(21, b"\xff\xff\xff\x0f"), "too_many_pixels"),
    "bomb heic": changed(HEIC, with_extent(HUGE), "too_many_pixels"),
    "bomb avif": changed(AVIF, with_extent(HUGE), "too_many_pixels"),
    "dot avif": made("avif", lambda rng: file_of(Image.new("RGB", (1, 1)), "AVIF"), "too_small"),
    "banner heic": made("heic", lambda rng: file_of(Image.new("RGB", (900, 64)), "HEIF"), "aspect_ratio"),
    "bomb bmp": changed(BMP, put(18, struct.pack("<ii", HUGE, HUGE)), "too_many_pixels"),
    "upside down bomb": changed(BMP, put(18, struct.pack("<ii", HUGE, -HUGE)), "too_many_pixels"),
    "text bomb": changed(PNG, with_chunk(b"zTXt", b"a\0\0" + bomb()), "unreadable"),
    "profile bomb": changed(PNG, with_chunk(b"iCCP", b"a\0\0" + bomb()), "unreadable"),
}
