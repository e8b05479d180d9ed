"""Pairs that differ by compression or noise alone are refused, the faintest edit is not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from pipelines.pairs.check import check_pairs
from training.scenes import photos

NAMES = ("astronaut", "china", "chelsea", "rocket")


def photo(name="coffee", size=(256, 192)):
    with Image.open(photos.FOLDER / f"{name}.jpg") as image:
        return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def code(folder, before, after):
    before.save(folder / "a_before.png")
    after.save(folder / "a_after.png")
    [checked] = check_pairs(str(folder), 10**8)
    return checked.code


def saved(image, **options):
    data = io.BytesIO()
    image.save(data, **options)
    return Image.open(data).convert("RGB")


def noisy(image, sigma):
    noise = np.random.default_rng(0).normal(0, sigma, np.asarray(image).shape)
    return Image.fromarray((np.asarray(image) + noise).round().clip(0, 255).astype(np.uint8))


def lifted(image, by, box=None):
    """Lighter by some levels, or darker where there is no room; in a box, or everywhere."""
    pixels = np.asarray(image).astype(int)
    left, top, right, bottom = box or (0, 0, *image.size)
    part = pixels[top:bottom, left:right]
    part += by if part.mean() < 128 else -by
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


NOISE = {
    "jpeg 90": lambda image: saved(image, format="JPEG", quality=90),
    "jpeg 75": lambda image: saved(image, format="JPEG", quality=75),
    "jpeg 50": lambda image: saved(image, format="JPEG", quality=50),
    "jpeg 40, colours in full": lambda image: saved(image, format="JPEG", quality=40, subsampling=0),
    "a JPEG of a JPEG": lambda image: saved(saved(image, format="JPEG", quality=60), format="JPEG", quality=90),
    "webp": lambda image: saved(image, format="WEBP", quality=80),
    "sensor noise": lambda image: noisy(image, 3),
    "a rounding error": lambda image: lifted(image, 1),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spoil", NOISE.values(), ids=NOISE)
def test_compression_and_noise_are_no_edit(tmp_path, name, spoil):
    assert code(tmp_path, photo(name), spoil(photo(name))) in ("only_noise", "no_change")


def test_what_an_ordinary_jpeg_leaves_is_called_noise(tmp_path):
    assert code(tmp_path, photo(), saved(photo(), format="JPEG", quality=50)) == "only_noise"


PATCH = (100, 90, 110, 100)
EDITS = {
    "two levels everywhere": lambda image: lifted(image, 2),
    "three levels everywhere, then a JPEG": lambda image: saved(lifted(image, 3), format="JPEG", quality=85),
    "a small patch": lambda image: lifted(image, 12, PATCH),
    "a small patch, then a JPEG": lambda image: saved(lifted(image, 30, PATCH), format="JPEG", quality=75),
    "a faint half": lambda image: lifted(image, 4, (0, 0, 128, 192)),
    "a little blur": lambda image: image.filter(ImageFilter.GaussianBlur(0.7)),
    "a little sharpening": lambda image: image.filter(ImageFilter.UnsharpMask(1, 60, 0)),
    "more contrast": lambda image: image.point(lambda value: 128 + (value - 128) * 1.1),
    "strong noise": lambda image: noisy(image, 25),
    "a thin line": lambda image: _lined(image),
}


def _lined(image):
    image = image.copy()
    ImageDraw.Draw(image).line((20, 20, 240, 170), fill=(255, 0, 0), width=2)
    return image


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_the_faintest_edit_is_one(tmp_path, name, edit):
    assert code(tmp_path, photo(name), edit(photo(name))) is None


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (64, 64)], ids=str)
def test_small_pictures_are_told_apart_too(tmp_path, size):
    image = photo(size=size)
    assert code(tmp_path, image, image) == "no_change"
    assert code(tmp_path, image, lifted(image, 40, (4, 4, 14, 14))) is None
