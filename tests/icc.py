"""Colour profiles for tests, made here: an RGB one with swapped primaries, and one for inks."""

import struct
from collections.abc import Sequence
from functools import cache
from itertools import product

from PIL import Image, ImageCms


@cache
def srgb_profile() -> bytes:
    """The same bytes every time: a profile tells the second it was made in."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """sRGB with red and blue exchanged: ignoring it is plain to see."""
    profile = srgb_profile()
    return profile.replace(b"rXYZ", b"tmpX").replace(b"bXYZ", b"rXYZ").replace(b"tmpX", b"bXYZ")


def ink_profile() -> bytes:
    """A CMYK printer whose tables are the naive conversion (to Lab through sRGB), on coarse grids."""
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    to_rgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    inks = product(range(0, 256, 51), repeat=4)
    lab = [_apply(to_lab, "RGB", [(255 - ink) * (255 - k) // 255 for ink in (c, m, y)]) for c, m, y, k in inks]
    colours = product(range(0, 256, 15), repeat=3)
    cmyk = [(*(255 - value for value in _apply(to_rgb, "LAB", colour)), 0) for colour in colours]
    return _profile({b"A2B0": _table(4, 3, 6, lab), b"B2A0": _table(3, 4, 18, cmyk)})


def _apply(transform: ImageCms.ImageCmsTransform, mode: str, colour: Sequence[int]) -> tuple[int, ...]:
    return ImageCms.applyTransform(Image.new(mode, (1, 1), tuple(colour)), transform).getpixel((0, 0))


def _table(channels_in: int, channels_out: int, grid: int, entries: list[tuple[int, ...]]) -> bytes:
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 if i in (0, 4, 8) else 0 for i in range(9)))
    head = b"mft1" + bytes(4) + bytes([channels_in, channels_out, grid, 0]) + matrix
    return head + ramp * channels_in + bytes(v for entry in entries for v in entry) + ramp * channels_out


def _profile(tags: dict[bytes, bytes]) -> bytes:
    tags = {b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)} | tags
    position, index, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        index += name + struct.pack(">II", position + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    whole = struct.pack(">I", len(tags)) + index + body
    head = struct.pack(">I4sI4s4s4s", 128 + len(whole), b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + whole
