import io

import numpy as np
import pytest
from PIL import Image

from infra.errors import ImageError
from pipelines import codec
from tests import icc

LIMIT = 1_000_000


def file_of(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference in levels."""
    return float(np.abs(np.asarray(one).astype(int) - np.asarray(other)).mean())


def with_alpha(image: Image.Image) -> Image.Image:
    image = image.copy()
    ramp = np.tile(np.linspace(0, 255, image.width).astype(np.uint8), (image.height, 1))
    image.putalpha(Image.fromarray(ramp))
    return image


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"])
def test_every_format_comes_back_as_itself(scene, format):
    data = file_of(scene(), format, **({"quality": 95} if format in ("JPEG", "WEBP", "AVIF") else {}))
    photo = codec.decode(data, LIMIT)
    back = opened(codec.encode(photo, photo.image))
    assert (photo.format, photo.image.mode, photo.image.size) == (format, "RGB", scene().size)
    assert (back.format, back.size) == (format, scene().size)
    kept = 12 if format == "GIF" else 4  # 256 colours
    assert difference(photo.image, scene()) < kept and difference(back.convert("RGB"), photo.image) < kept


@pytest.mark.parametrize("format", codec.OUTPUT_FORMATS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "L", "LA", "P", "1", "I;16"])
def test_every_mode_can_be_written_in_every_format(scene, mode, format):
    image = scene()
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = (with_alpha(image) if mode.endswith("A") else image).convert(mode)
    photo = codec.decode(file_of(image, "TIFF" if mode == "CMYK" else "PNG"), LIMIT)
    back = opened(codec.encode(photo, photo.image, format))
    assert back.format == codec.OUTPUT_FORMATS[format] and back.size == image.size


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_greyscale_is_scaled_and_not_clipped(format):
    ramp = np.tile(np.arange(0, 65536, 1024, dtype=np.uint16), (32, 1))
    photo = codec.decode(file_of(Image.fromarray(ramp), format), LIMIT)
    assert np.array_equal(np.asarray(photo.image)[..., 0], (ramp >> 8).astype(np.uint8))


def test_palettes_with_transparency_keep_it(scene):
    photo = codec.decode(file_of(with_alpha(scene()).quantize(), "PNG"), LIMIT)
    back = opened(codec.encode(photo, photo.image))
    assert photo.alpha is not None and back.mode == "RGBA"
    assert difference(back.getchannel("A"), photo.alpha) == 0


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_alpha_comes_back_and_what_it_hides_is_white_for_the_edit(scene, format):
    image = with_alpha(scene())
    photo = codec.decode(file_of(image, format, **({"lossless": True} if format == "WEBP" else {})), LIMIT)
    assert photo.image.getpixel((0, 0)) == (255, 255, 255)
    back = opened(codec.encode(photo, photo.image))
    assert difference(back.getchannel("A"), image.getchannel("A")) == 0
    assert difference(opened(codec.encode(photo, photo.image, "jpeg")).crop((0, 0, 1, 32)), 255) < 3


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation_is_applied_and_other_exif_is_kept(scene, format, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "A camera"
    photo = codec.decode(file_of(scene(), format, exif=exif), LIMIT)
    turned = orientation >= 5
    assert photo.image.size == (scene().size[::-1] if turned else scene().size)
    back = opened(codec.encode(photo, photo.image))
    assert back.getexif().get(0x0112, 1) == 1 and back.getexif()[0x010F] == "A camera"
    assert difference(back, photo.image) < 3


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_profile_is_applied_for_the_edit_and_embedded_again(scene, format):
    options = {"quality": 98} if format in ("JPEG", "WEBP", "AVIF") else {}
    photo = codec.decode(file_of(scene(), format, icc_profile=icc.swapped_profile(), **options), LIMIT)
    red, green, blue = scene().split()
    assert difference(photo.image, Image.merge("RGB", (blue, green, red))) < 6
    back = opened(codec.encode(photo, photo.image))
    assert back.info["icc_profile"] == icc.swapped_profile()
    assert difference(back, scene()) < 6


def test_a_broken_profile_is_ignored(scene):
    photo = codec.decode(file_of(scene(), "PNG", icc_profile=b"broken" * 50), LIMIT)
    assert photo.icc is None and difference(photo.image, scene()) == 0
    assert "icc_profile" not in opened(codec.encode(photo, photo.image)).info


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
@pytest.mark.parametrize("profile", [None, icc.ink_profile()])
def test_inks_stay_inks(scene, format, profile):
    inks = scene().convert("CMYK")
    options = ({"icc_profile": profile} if profile else {}) | ({"quality": 98} if format == "JPEG" else {})
    photo = codec.decode(file_of(inks, format, **options), LIMIT)
    assert photo.cmyk and photo.icc == profile and difference(photo.image, scene()) < 12
    back = opened(codec.encode(photo, photo.image))
    assert back.mode == "CMYK" and back.info.get("icc_profile") == profile
    assert difference(codec.decode(codec.encode(photo, photo.image), LIMIT).image, photo.image) < 12
    screen = opened(codec.encode(photo, photo.image, "png"))
    assert screen.mode == "RGB" and "icc_profile" not in screen.info


def test_lossless_webp_stays_lossless(scene):
    photo = codec.decode(file_of(scene(), "WEBP", lossless=True), LIMIT)
    assert difference(opened(codec.encode(photo, photo.image)), scene()) == 0


def test_a_preview_of_a_jpeg_is_smaller(scene):
    data = file_of(scene(size=(800, 600)), "JPEG")
    assert codec.decode(data, LIMIT, around=100).image.width <= 200


BROKEN = {
    "empty_file": lambda scene: b"",
    "not_an_image": lambda scene: b"A letter, not a picture. " * 20,
    "unsupported": lambda scene: b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100),
    "too_small": lambda scene: file_of(scene(size=(1, 1)), "PNG"),
    "aspect_ratio": lambda scene: file_of(scene(size=(400, 20)), "PNG"),
    "too_many_pixels": lambda scene: file_of(Image.new("1", (2000, 501)), "PNG"),
}


@pytest.mark.parametrize("code", BROKEN)
def test_what_cannot_be_edited_says_why(scene, code):
    with pytest.raises(ImageError) as raised:
        codec.decode(BROKEN[code](scene), LIMIT)
    assert raised.value.code == code and str(raised.value).endswith(".")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_truncated_files_are_called_truncated(scene, format, share):
    data = file_of(scene(size=(160, 120)), format)
    with pytest.raises(ImageError) as raised:
        codec.decode(data[: int(len(data) * share)], LIMIT)
    assert raised.value.code == "truncated"


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF"])
def test_no_damage_raises_anything_but_an_image_error(scene, format):
    data = bytearray(file_of(with_alpha(scene()) if format in ("PNG", "WEBP", "AVIF", "HEIF") else scene(), format))
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 8):
            damaged[position] = rng.integers(256)
        try:
            photo = codec.decode(bytes(damaged), LIMIT)
        except ImageError:
            continue
        assert codec.encode(photo, photo.image)


def test_a_bomb_is_refused_before_it_is_decoded():
    import tracemalloc

    bomb = file_of(Image.new("1", (9000, 9000)), "PNG")
    tracemalloc.start()
    with pytest.raises(ImageError, match="EDIT_TRANSFER_MAX_PIXELS"):
        codec.decode(bomb, LIMIT)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_the_header_alone_tells_format_and_size(scene):
    data = file_of(scene(size=(640, 480)), "JPEG")
    assert codec.read_header(data[: len(data) // 2], LIMIT) == codec.Header("JPEG", 640, 480)


def test_a_profile_that_leads_one_way_is_applied_and_not_embedded_again(scene):
    """Scanners and cameras have such profiles: into a common space, and none back."""
    one_way = icc.ink_profile().replace(b"B2A0", b"zzzz")
    inks = file_of(scene().convert("CMYK"), "JPEG", icc_profile=one_way, quality=98)
    photo = codec.decode(inks, LIMIT)
    assert photo.icc is None and difference(photo.image, scene()) < 12
    back = opened(codec.encode(photo, photo.image))
    assert back.mode == "CMYK" and "icc_profile" not in back.info
