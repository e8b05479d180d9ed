"""What HEIC and AVIF have beside pixels: turns, profiles, depth, several images, sizes that are not true."""

import base64
import io
import zlib

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from infra.errors import ImageError
from pipelines import codec, heif
from tests import icc
from tests.crafted import broken_exif, file_of, with_extent

LIMIT = 1_000_000
BOXED = ("HEIF", "AVIF")
ORIENTATION, OTHER = b"MM\0*\0\0\0\x08\0\1\1\x12", b"MM\0*\0\0\0\x08\0\1\1\x11"  # an EXIF block with one entry
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
# A ramp of 0, 33, 66, ..., 1023 in ten bits, without loss, 32 pixels wide: Pillow writes eight bits only.
TEN_BITS = (
    "c-muNU{FXasVqn=%S>Yc0uY^>nP!-qnV9D5Xy^zOdYzkElE?r7iWw<6MNl?FL1uCZ0~+8f$SlbPvlxL`E;A=T8N_h`@fjhajKV;AB@k<5X6B{"
    "A)k*<5sZ3B_Vwr)VbAC=f*siS1f}#Q-?VVYWoDZZ$GK&jRq4p_2u|Pp)MJ7mqnTv}HNbw|=89FyAIDmwNlk;<m@{)5Z7?^;Np#dl)o>`C!^Apf"
    "vER0OeEI{VQ+?2!;AqFlE3qkvT1quqBMza_N7#J?Pp8o8@!gzn~FGjU%#a9i!Etfd$$sGDnbyl2W<m=Ml>q~cVo@V}e{_(xn?__frguZ{Uo0*-"
    "s|Ku*=r|)h(Qq>NXI5lI(p27}=`bAH^6%@s<+Y$7#Oj&84&X&(dWUijLkRM?7XWRA9_nS{v=$(*`U;Sh4bpxG^=TdF`=B>HJQjy$quG;^a<Lob"
    "|*QzpTtj(=+h!ap1&pZqO#H)Z@"
)


def decoded(data: bytes) -> codec.Photo:
    return codec.decode(data, LIMIT)


def off(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference in levels."""
    assert one.size == other.size
    return float(np.abs(np.asarray(one).astype(int) - np.asarray(other)).mean())


def camera(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "A camera"
    return exif.tobytes()


@pytest.mark.parametrize("format", BOXED)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_that_boxes_and_exif_turn_are_turned_once(scene, format, orientation):
    photo = decoded(file_of(scene(), format, exif=camera(orientation)))
    shown = Image.open(io.BytesIO(file_of(scene(), "PNG", exif=camera(orientation))))
    assert off(photo.image, ImageOps.exif_transpose(shown)) < 5
    back = Image.open(io.BytesIO(codec.encode(photo, photo.image)))
    assert back.getexif().get(0x0112, 1) == 1 and back.getexif()[0x010F] == "A camera"
    assert off(back, photo.image) < 4


@pytest.mark.parametrize("format", BOXED)
def test_where_only_the_boxes_turn_they_count(scene, format):
    data = heif.without_exif(file_of(scene(), format, exif=camera(6)))
    assert decoded(data).exif == b"" and decoded(data).image.size == scene().size[::-1]


@pytest.mark.parametrize("format", BOXED)
def test_where_only_exif_would_turn_it_does_not_count(scene, format):
    exif = Image.Exif()
    exif[0x0111] = 6
    data = file_of(scene(), format, exif=exif.tobytes())
    assert data.count(OTHER) == 1
    assert decoded(data.replace(OTHER, ORIENTATION)).image.size == scene().size


@pytest.mark.parametrize("format", BOXED)
def test_damaged_exif_is_no_reason_to_refuse_a_photo(scene, format):
    data = file_of(scene(), format, exif=camera(6))
    damaged = broken_exif(data, np.random.default_rng(0))
    assert damaged != data
    assert decoded(damaged).exif == b"" and decoded(damaged).image.size == scene().size[::-1]


def test_where_only_xmp_would_turn_it_does_not_count(scene):
    assert decoded(file_of(scene(), "AVIF", xmp=XMP)).image.size == scene().size


@pytest.mark.parametrize("format", BOXED)
def test_a_profile_goes_along(scene, format):
    photo = decoded(file_of(scene(), format, icc_profile=icc.swapped_profile(), quality=98))
    red, green, blue = scene().split()
    assert off(photo.image, Image.merge("RGB", (blue, green, red))) < 8
    assert Image.open(io.BytesIO(codec.encode(photo, photo.image))).info["icc_profile"] == icc.swapped_profile()


def named(format: str, colour: tuple[int, int, int], primaries: int, transfer: int) -> bytes:
    """One colour in a file that names what it means by these numbers, in place of sRGB's."""
    data = file_of(Image.new("RGB", (64, 64), colour), format, quality=95)
    assert data.count(b"nclx\0\1\0\r") == 1
    return data.replace(b"nclx\0\1\0\r", b"nclx" + bytes([0, primaries, 0, transfer]))


@pytest.mark.parametrize("format", BOXED)
def test_wide_colours_named_by_number_are_understood_and_kept(format):
    """Display P3, as phones and ImageMagick write it; the numbers are those of the CSS colour specification."""
    photo = decoded(named(format, (200, 100, 100), 12, 13))
    assert np.abs(np.array(photo.image.getpixel((32, 32))) - (215, 93, 97)).max() <= 3
    back = decoded(codec.encode(photo, photo.image))
    assert photo.icc and back.icc == photo.icc and off(back.image, photo.image) < 3
    assert decoded(named(format, (200, 100, 100), 1, 13)).icc is None


@pytest.mark.parametrize("format", BOXED)
@pytest.mark.parametrize(("transfer", "signal"), [(16, 148), (18, 191)])
def test_the_white_of_a_hdr_photo_is_nearly_white_and_the_result_is_no_hdr(format, transfer, signal):
    """203 cd/m² by ITU-R BT.2408: 58 % of PQ and 75 % of HLG."""
    photo = decoded(named(format, (signal,) * 3, 9, transfer))
    dark = decoded(named(format, (signal // 3,) * 3, 9, transfer))
    assert 235 < photo.image.getpixel((32, 32))[1] < 252 and 0 < dark.image.getpixel((32, 32))[1] < 128
    assert photo.icc is None and "icc_profile" not in Image.open(io.BytesIO(codec.encode(photo, photo.image))).info


@pytest.mark.parametrize("mode", ["RGB;16", "L;16"])
def test_ten_bits_become_eight_without_clipping(mode):
    ramp = np.tile(np.arange(0, 65536, 1024, dtype=np.uint16), (32, 1))
    values = ramp[..., None].repeat(3, 2) if mode.startswith("RGB") else ramp
    buffer = io.BytesIO()
    pillow_heif.from_bytes(mode, (64, 32), values.tobytes()).save(buffer, quality=-1, chroma=444)
    assert np.abs(np.asarray(decoded(buffer.getvalue()).image).astype(int)[..., 0] - (ramp >> 8)).max() <= 1


def test_ten_bits_of_an_avif_become_eight_without_clipping():
    photo = decoded(zlib.decompress(base64.b85decode(TEN_BITS)))
    assert np.abs(np.asarray(photo.image).astype(int) - np.arange(0, 1024, 33)[:, None] / 4).max() <= 1


@pytest.mark.parametrize("format", BOXED)
def test_alpha_goes_along(scene, format):
    image = scene()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    photo = decoded(file_of(image, format))
    assert off(photo.alpha, image.getchannel("A")) < 2
    for wanted in ("png", "avif", "webp"):
        back = Image.open(io.BytesIO(codec.encode(photo, photo.image, wanted)))
        assert back.mode == "RGBA" and off(back.getchannel("A"), photo.alpha) == 0
    assert Image.open(io.BytesIO(codec.encode(photo, photo.image, "jpeg"))).mode == "RGB"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_of_several_images_the_primary_counts(scene, number):
    scenes = [scene(seed) for seed in range(3)]
    data = file_of(scenes[0], "HEIF", save_all=True, append_images=scenes[1:], primary_index=number)
    assert off(decoded(data).image, scenes[number]) < 5


def test_of_an_animation_the_first_frame_counts(scene):
    data = file_of(scene(0), "AVIF", save_all=True, append_images=[scene(1), scene(2)], quality=95)
    photo = decoded(data)
    assert off(photo.image, scene(0)) < 5
    assert Image.open(io.BytesIO(codec.encode(photo, photo.image))).format == "AVIF"


def test_results_of_heic_are_jpeg_and_of_avif_are_avif(scene):
    for format, written in (("HEIF", "JPEG"), ("AVIF", "AVIF")):
        photo = decoded(file_of(scene(), format))
        once, again = (codec.encode(photo, photo.image) for _ in range(2))
        assert photo.format == format and Image.open(io.BytesIO(once)).format == written and once == again


@pytest.mark.parametrize("format", BOXED)
def test_the_first_bytes_tell_size_and_format(scene, format):
    data = file_of(scene(size=(640, 480)), format)
    assert codec.read_header(data[: len(data) - 100], LIMIT) == codec.Header(format, 640, 480)


@pytest.mark.parametrize("format", BOXED)
def test_a_file_that_holds_more_pixels_than_it_says_is_refused_before_they_are_decoded(format):
    small = with_extent(64)(file_of(Image.new("RGB", (1280, 960), "red"), format), np.random.default_rng(0))
    with pytest.raises(ImageError) as raised:
        codec.decode(small, 100_000)
    assert raised.value.code == ("too_many_pixels" if format == "AVIF" else "unreadable")


@pytest.mark.parametrize("frames", [1, 2])
def test_an_av1_stream_tells_its_own_size(frames):
    image = Image.new("RGB", (123, 457), "red")
    data = file_of(image, "AVIF", save_all=True, append_images=[image.rotate(180)] * (frames - 1))
    assert heif.sizes(data) == [(123, 457)] * (2 + (frames > 1))
