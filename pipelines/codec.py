"""Bytes to an image that can be edited, and back to a file like the one that came in.

    decode(bytes) -> Photo       upright, 8 bits, sRGB; what the file needs again is kept beside it
    encode(photo, result, ...)   the result in the input's format, with its profile, EXIF and alpha

Greyscale photos come back in colour, since an edit may bring some. Of several frames the first counts, of several
images the one that the file calls its primary. HEIF (HEIC) is read only: results of such photos are JPEG.
"""

import ctypes
import io
import logging
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image, ImageOps, PngImagePlugin

from infra.errors import ImageError
from pipelines import colour, heif, integrity, nclx

MIN_SIDE = 16  # pixels: one token of every base we know
MAX_ASPECT = 8  # longer side over shorter side

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")
OUTPUT_FORMATS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "tiff": "TIFF", "avif": "AVIF"}
EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".hif", ".heics", ".heifs"),
}
WRITTEN_AS = {"HEIF": "jpeg"}  # formats that are read only, and what their results are where nobody says otherwise
WRITES_CMYK = ("JPEG", "TIFF")
WRITES_ALPHA = ("PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF")
WRITES_EXIF = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")

ORIENTATION = 0x0112
PHOTOMETRIC = 0x0106
# A TIFF keeps the layout of its file among its EXIF tags; only what describes the photograph travels on.
DESCRIPTIVE = {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825}

Image.MAX_IMAGE_PIXELS = None  # Pillow only warns up to twice its limit; ours is checked before decoding
PngImagePlugin.MAX_TEXT_CHUNK = 8 << 20  # bytes; Pillow's own limit is smaller than some colour profiles
warnings.filterwarnings("ignore", module="PIL")  # what matters about a damaged file is in its ImageError
logging.getLogger("PIL").addHandler(logging.NullHandler())  # and not on stderr
pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
with suppress(OSError, AttributeError):  # libtiff tells stderr about damage, beyond Python's reach
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


@dataclass(frozen=True)
class Header:
    """What a file says of itself before it is decoded. `width` and `height` in pixels, as stored."""

    format: str
    width: int
    height: int


@dataclass(frozen=True)
class Photo:
    """A decoded photograph.

    image     RGB, 8 bits, sRGB, upright: what the Editor gets
    alpha     transparency of the same size (mode L), or None
    format    Pillow's name of the file's format, e.g. JPEG
    cmyk      the file held inks, and gets inks again where its format can hold them
    lossless  the file lost nothing to compression (WebP can be either)
    icc       the colour profile the pixels came in and can go back to, None for sRGB
    exif      EXIF block without orientation, maybe empty
    dpi       resolution to write again, or None
    """

    image: Image.Image
    format: str
    alpha: Image.Image | None = None
    cmyk: bool = False
    lossless: bool = False
    icc: bytes | None = None
    exif: bytes = b""
    dpi: tuple[float, float] | None = None


def read_header(data: bytes, max_pixels: int) -> Header:
    """Format and size, without decoding. Raises ImageError for a file that is sure to fail."""
    opened = _opened(data, max_pixels)
    return Header(_format(opened), *opened.size)


def decode(data: bytes, max_pixels: int, *, around: int | None = None) -> Photo:
    """The photograph in a file. Raises ImageError with a code and a sentence.

    `around`: a preview with sides of about that many pixels will do; JPEG then decodes many times faster.
    """
    opened = _opened(data, max_pixels)
    integrity.check_whole(data)
    if around:
        opened.draft(None, (around, around))
    white_is_zero = opened.format == "TIFF" and opened.getexif().get(PHOTOMETRIC) == 0
    image, exif = _upright(_loaded(opened, data))
    _check_size(*image.size, max_pixels)  # once more: a HEIF may hold another size than it says
    pixels, alpha = _separated(_eight_bits(image, white_is_zero))
    embedded = image.info.get("icc_profile")
    named = heif.nclx(data) if not embedded and opened.format in integrity.BOXED else None
    profile = colour.usable_profile(embedded or (nclx.profile_of(*named) if named else None), pixels.mode)
    rgb = colour.converted(pixels, profile, "RGB", to_srgb=True)
    rgb.info = {}  # Pillow would write what it finds there again
    return Photo(
        image=rgb,
        format=_format(opened),
        alpha=alpha,
        cmyk=pixels.mode == "CMYK",
        lossless=b"VP8L" in _webp_chunks(data),
        icc=profile if profile and colour.leads_back(profile) and not (named and nclx.is_hdr(named[1])) else None,
        exif=exif,
        dpi=_dpi(image.info.get("dpi")),
    )


def encode(photo: Photo, result: Image.Image, format: str | None = None) -> bytes:
    """The result (RGB, sRGB, the photo's size) as a file: in `written_format`."""
    if result.size != photo.image.size:
        raise ValueError(f"The result is {result.size}, its photo {photo.image.size}.")
    name = written_format(photo.format, format)
    image, profile = _in_file_colours(photo, result, inks=photo.cmyk and name in WRITES_CMYK)
    if photo.alpha is not None:
        image = _with_alpha(image, photo.alpha, name)
    buffer = io.BytesIO()
    image.save(buffer, name, **_save_options(photo, name, profile))
    return buffer.getvalue()


def written_format(of: str, wanted: str | None) -> str:
    """Pillow's name of the format of a result: one of OUTPUT_FORMATS if wanted, else the photo's if that is written."""
    wanted = wanted or WRITTEN_AS.get(of)
    return OUTPUT_FORMATS[wanted] if wanted else of


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise ImageError("The file is empty.", "empty_file")
    integrity.check_developed(data)
    for width, height in integrity.claimed_sizes(data):
        _check_pixels(width, height, max_pixels)
    try:
        opened = _open(data)
    except Exception as error:  # Pillow's readers raise anything on broken headers
        raise integrity.explained(data, error) from None
    _check_size(*opened.size, max_pixels)
    return opened


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception:
        if integrity.format_of(data) != "AVIF":
            raise
    return Image.open(io.BytesIO(heif.without_exif(data)), formats=FORMATS)


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        size = f"{width} x {height} pixels are more than the limit of {max_pixels:,} pixels"
        raise ImageError(f"{size} (EDIT_TRANSFER_MAX_PIXELS).", "too_many_pixels")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    _check_pixels(width, height, max_pixels)
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width} x {height} pixels: a side needs at least {MIN_SIDE}.", "too_small")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{width} x {height} pixels: more than {MAX_ASPECT} to 1.", "aspect_ratio")


def _format(opened: Image.Image) -> str:
    return "JPEG" if opened.format == "MPO" else str(opened.format)  # MPO: a JPEG with more JPEGs behind it


def _loaded(opened: Image.Image, data: bytes) -> Image.Image:
    try:
        opened.load()
    except Exception as error:  # as above: damaged pixels surface as anything
        raise integrity.explained(data, error) from None
    return opened


def _upright(image: Image.Image) -> tuple[Image.Image, bytes]:
    """The image turned as its EXIF says, and the EXIF that stays true of it.

    The pixels of a HEIF have been turned as its boxes say, and EXIF has no say; of an AVIF Pillow lets EXIF say what
    the boxes do, but would ask XMP next.
    """
    try:
        if image.format == "AVIF":
            image.info.pop("xmp", None)
        turned = image if image.format == "HEIF" else ImageOps.exif_transpose(image)
        exif = image.getexif()
        for tag in set(exif) - DESCRIPTIVE if image.format == "TIFF" else set(exif) & {ORIENTATION}:
            del exif[tag]
        return turned, exif.tobytes() if exif else b""
    except Exception:  # damaged EXIF is no reason to refuse a photograph
        return image, b""


def _eight_bits(image: Image.Image, white_is_zero: bool) -> Image.Image:
    if image.mode.startswith("I;16"):
        values = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)  # Pillow itself would clip
        return Image.fromarray(255 - values if white_is_zero else values)
    if image.mode in ("I", "F"):
        raise ImageError("32 bits per pixel are not supported; save the image with 8 or 16.", "unsupported")
    return image


def _separated(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colour as RGB, L or CMYK, and the alpha channel if there is one."""
    if image.has_transparency_data:
        whole = image.convert("RGBA")
        alpha = whole.getchannel("A")
        opaque = whole.convert("RGB")
        # What lies under full transparency is often garbage that nobody was meant to see.
        opaque.paste((255, 255, 255), mask=alpha.point(lambda value: 255 * (value == 0)))
        return opaque, alpha
    if image.mode in ("RGB", "CMYK", "L"):
        return image, None
    try:
        return image.convert("L" if image.mode == "1" else "RGB"), None
    except ValueError:
        raise ImageError(f"Images in {image.mode} colours are not supported.", "unsupported") from None


def _in_file_colours(photo: Photo, result: Image.Image, inks: bool) -> tuple[Image.Image, bytes | None]:
    """The result in the colours of the photo's file, and the profile that goes with them."""
    if photo.icc is None:
        return result.convert("CMYK" if inks else "RGB"), None
    space = colour.space_of(photo.icc)
    if space == "RGB" or (space == "CMYK" and inks):
        return colour.converted(result, photo.icc, space, to_srgb=False), photo.icc
    return result.convert("RGB"), None


def _with_alpha(image: Image.Image, alpha: Image.Image, name: str) -> Image.Image:
    if name in WRITES_ALPHA:
        image = image.copy()
        image.putalpha(alpha)
        return image
    paper = Image.new(image.mode, image.size, "white")
    paper.paste(image, mask=alpha)
    return paper


def _save_options(photo: Photo, name: str, profile: bytes | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "WEBP": {"lossless": True, "exact": True} if photo.lossless else {"quality": 95},
        # One thread, or the bytes would depend on how many there are; 0.2 s per megapixel.
        "AVIF": {"quality": 90, "subsampling": "4:4:4", "speed": 9, "max_threads": 1, "advanced": {"a:lossless": "1"}},
        "PNG": {"compress_level": 4},  # photographs come out as small as at Pillow's 6, smooth images 3x sooner
        # libtiff, which compresses, cannot write EXIF; Pillow's own writer can.
        "TIFF": {"compression": "raw" if photo.exif else "tiff_adobe_deflate"},
    }.get(name, {})
    if profile:
        options["icc_profile"] = profile
    if photo.exif and name in WRITES_EXIF and (name != "JPEG" or len(photo.exif) < 65_000):
        options["exif"] = photo.exif
    if photo.dpi:
        options["dpi"] = photo.dpi
    return options


def _dpi(value: Any) -> tuple[float, float] | None:
    try:
        across, down = (float(number) for number in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if min(across, down) > 1 and max(across, down) < 65_535 else None


def _webp_chunks(data: bytes) -> list[bytes]:
    """Names of the chunks of a WebP file, none for other files."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return []
    names, position = [], 12
    while position + 8 <= len(data):
        names.append(data[position : position + 4])
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + size + size % 2
    return names
