"""Misaligned pairs are told and mended; moved objects and other edits are not taken for misalignment."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from typer.testing import CliRunner

from infra.cli import app
from pipelines.pairs.alignment import measure
from pipelines.pairs.check import check_pairs
from training.scenes import EVERY_FAMILY, draw_parameters, draw_subjects, photos, render

MANY = 10**8
SPATIAL = ("translate", "rotate", "scale", "mirror", "viewpoint", "pose", "bend", "swirl", "lid")
NAMES = ("astronaut", "brick", "china", "flower")


def photo(name="coffee", size=(256, 208)):
    with Image.open(photos.FOLDER / f"{name}.jpg") as image:
        return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def moved(name="coffee", size=(256, 208), *, x=0.0, y=0.0, zoom=1.0, turn=0.0, margin=1 / 8):
    """A photograph, and the same seen by a camera that is off: both resampled once from more pixels, so that
    neither has an invented border."""
    finer = 4 if max(size) < 600 else 2
    large = photo(name, tuple(round(finer * side * (1 + 2 * margin)) for side in size))
    turned = large.rotate(-turn, Image.Resampling.BICUBIC) if turn else large
    return _window(large, size, finer, 0, 0), _window(turned, size, finer / zoom, x, y)


def _window(large, size, finer, x, y):
    middle_x, middle_y = large.width / 2 - finer * x, large.height / 2 - finer * y
    half_x, half_y = (finer * side / 2 for side in size)
    box = (middle_x - half_x, middle_y - half_y, middle_x + half_x, middle_y + half_y)
    return large.resize(size, Image.Resampling.LANCZOS, box=box)


def edited(image):
    """A local edit: a red ball on a quarter of the picture."""
    image, (width, height) = image.copy(), image.size
    ImageDraw.Draw(image).ellipse((0.3 * width, 0.3 * height, 0.7 * width, 0.75 * height), fill=(200, 40, 60))
    return image


def jpeg(image, quality=85):
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data).convert("RGB")


def noisy(image, sigma=4):
    noise = np.random.default_rng(0).normal(0, sigma, np.asarray(image).shape)
    return Image.fromarray((np.asarray(image) + noise).round().clip(0, 255).astype(np.uint8))


def toned(image):
    return image.point(lambda value: 255 * (value / 255) ** 0.8 * 0.9)


def write(folder, name, before, after, suffix="png", **options):
    folder.mkdir(exist_ok=True)
    before.save(folder / f"{name}_before.png")
    after.save(folder / f"{name}_after.{suffix}", **options)


def check(folder, **options):
    return {each.name: each for each in check_pairs(str(folder), MANY, **options)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "motion",
    [
        {"x": 8.0},
        {"x": 0.5},
        {"y": -0.5},
        {"zoom": 1.01},
        {"zoom": 1.07},
        {"zoom": 0.93},
        {"turn": 0.5},
        {"x": -3.0, "y": 2.0, "zoom": 1.03, "turn": 0.8},
    ],
    ids=str,
)
def test_a_motion_of_the_camera_is_found_beside_an_edit(name, motion):
    before, after = moved(name, **motion)
    found = measure(before, edited(after))
    assert found and found.off
    assert found.shift_x == pytest.approx(motion.get("x", 0), abs=0.1)
    assert found.shift_y == pytest.approx(motion.get("y", 0), abs=0.1)
    assert found.zoom == pytest.approx(motion.get("zoom", 1), abs=0.001)
    assert found.turn == pytest.approx(motion.get("turn", 0), abs=0.06)


@pytest.mark.parametrize("spoil", [jpeg, noisy, toned, ImageOps.invert, lambda image: jpeg(toned(noisy(image)))])
@pytest.mark.parametrize("motion", [{"x": 0.5}, {"zoom": 1.01}, {"x": -6.0, "zoom": 1.04}], ids=str)
def test_compression_noise_and_another_tone_hide_no_misalignment(motion, spoil):
    before, after = moved(**motion)
    found = measure(before, spoil(edited(after)))
    assert found and found.off and found.shift_x == pytest.approx(motion.get("x", 0), abs=0.1)
    assert found.zoom == pytest.approx(motion.get("zoom", 1), abs=0.002)


@pytest.mark.parametrize("spoil", [jpeg, noisy, toned, lambda image: image])
@pytest.mark.parametrize("name", NAMES)
def test_a_local_edit_of_an_aligned_photograph_is_no_misalignment(name, spoil):
    image = photo(name)
    found = measure(image, spoil(edited(image)))
    assert found and not found.off and found.apart < 0.15


@pytest.mark.parametrize("size", [(257, 131), (512, 384), (2048, 1365), (96, 128)], ids=str)
def test_pictures_of_any_size_are_measured_in_their_own_pixels(size):
    before, after = moved(size=size, x=0.5, y=-1.5, margin=1 / 32)
    found = measure(before, edited(after))
    assert found and found.off
    assert (found.shift_x, found.shift_y) == pytest.approx((0.5, -1.5), abs=0.1)


def scenes(family, count, side=128):
    kind, generator = EVERY_FAMILY[family], torch.Generator().manual_seed(1)
    before = draw_subjects(kind, count, (side, side), generator)
    after = kind.apply(before, draw_parameters(kind, count, generator))
    return zip(*(map(_image, render(each, (side, side))) for each in (before, after)), strict=True)


def _image(pixels):
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


@pytest.mark.parametrize("family", [name for name in EVERY_FAMILY if name != "pan"])  # which a camera does as well
def test_edits_of_scenes_are_not_taken_for_misalignment(family):
    found = [measure(before, after) for before, after in scenes(family, 6)]
    assert not any(each and each.off for each in found)


@pytest.mark.slow
@pytest.mark.parametrize("family", SPATIAL)
def test_five_hundred_spatial_edits_of_a_family_raise_no_alarm(family):
    assert not any(found and found.off for found in (measure(*pair) for pair in scenes(family, 500)))


def ball(image, x, y, radius):
    image = image.copy()
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=(200, 40, 60))
    return image


@pytest.mark.parametrize("step", [0.5, 2, 8, 20])
def test_an_object_that_moves_or_grows_a_little_is_an_edit_before_any_backdrop(step):
    label = photo("brick", (100, 100))
    for backdrop in (
        Image.new("RGB", (256, 256), "white"),
        noisy(Image.new("RGB", (256, 256), "grey")),
        photo("china", (256, 256)),
    ):
        before, shifted, grown = backdrop.copy(), backdrop.copy(), backdrop.copy()
        before.paste(label, (70, 80))
        shifted.paste(_shifted(label, step % 1), (70 + int(step), 80))
        grown.paste(label.resize((100 + math.ceil(step),) * 2), (70, 80))
        for after in (shifted, grown):
            found = measure(before, after)
            assert not (found and found.off)


def _shifted(image, x):
    wide = ImageOps.expand(image, 2, (0, 0, 0))
    return wide.resize(image.size, Image.Resampling.BICUBIC, box=(2 - x, 2, 2 - x + image.width, 2 + image.height))


SIBLINGS = {
    "mirrored": lambda image: ImageOps.mirror(image),
    "upside down": lambda image: image.rotate(180),
    "another picture": lambda image: photo("flower", image.size),
    "a new background, the object as it was": lambda image: _composed(photo("brick", image.size), image),
    "zoomed far in": lambda image: image.crop((64, 52, 192, 156)).resize(image.size),
    "panned far": lambda image: photo(size=(320, 208)).crop((64, 0, 320, 208)),
    "black": lambda image: Image.new("RGB", image.size),
    "noise alone": lambda image: noisy(Image.new("RGB", image.size, "grey"), 40),
    "a plain colour": lambda image: Image.new("RGB", image.size, "teal"),
    "blurred": lambda image: image.resize((64, 52)).resize(image.size),
}


def _composed(backdrop, image):
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse((60, 40, 200, 170), fill=255)
    return Image.composite(image, backdrop, mask)


@pytest.mark.parametrize("after", SIBLINGS.values(), ids=SIBLINGS)
def test_what_is_no_small_motion_of_the_camera_is_not_called_one(after):
    found = measure(photo(), after(photo()))
    assert not (found and found.off)


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (40, 17), (2048, 40), (33, 900)], ids=str)
def test_pictures_with_little_to_see_are_no_trouble(size):
    before = photo(size=size)
    found = measure(before, edited(before))
    assert not (found and found.off)
    assert measure(Image.new("RGB", size, "white"), Image.new("RGB", size, "red")) is None


def test_the_note_says_by_how_much_and_what_would_mend_it(tmp_path):
    for name, motion in {"shift": {"x": 8.0}, "zoom": {"zoom": 1.07}, "turn": {"turn": 1.0}, "fine": {}}.items():
        before, after = moved("china", **motion)
        write(tmp_path, name, before, edited(after))
    found = check(tmp_path)
    assert all(each.pair for each in found.values()) and found["fine"].note is None
    assert "after is shifted by 8.0 px to the right: --align would mend it" in found["shift"].note
    assert "after is zoomed by 7.0 %: --align would mend it" in found["zoom"].note
    assert "after is turned by 1.0° clockwise: --align would mend it" in found["turn"].note


def residual(pair):
    """Root of the mean square difference beside the ball."""
    before, after = (np.asarray(image, float) for image in (pair.before, pair.after))
    return float(np.sqrt(((before - after)[: len(before) // 5] ** 2).mean()))


@pytest.mark.parametrize(
    "motion",
    [
        {"x": 8.0},
        {"x": -0.5, "y": 0.5},
        {"zoom": 1.07},
        {"zoom": 0.95},
        {"turn": 1.0},
        {"x": 3, "zoom": 1.02, "turn": -0.7},
    ],
    ids=str,
)
def test_align_shows_both_sides_the_same_part_of_the_scene(tmp_path, motion):
    before, after = moved("china", **motion)
    write(tmp_path, "a", before, edited(after))
    raw, mended = check(tmp_path)["a"].pair, check(tmp_path, align=True)["a"].pair
    assert mended.before.size == mended.after.size and min(mended.after.size) > 0.85 * 208
    assert residual(mended) < 6 and residual(raw) > 2 * residual(mended)
    assert mended.digest != raw.digest and mended.mended == raw.sha256 and raw.mended is None
    assert mended.digest == check(tmp_path, align=True)["a"].pair.digest
    again = measure(mended.before, mended.after)
    assert again and not again.off


def test_a_shift_by_whole_pixels_is_mended_without_inventing_any(tmp_path):
    large = photo("china", (300, 220))
    before, after = large.crop((20, 10, 276, 210)), large.crop((12, 13, 268, 213))
    write(tmp_path, "a", before, edited(after))
    mended = check(tmp_path, align=True)["a"]
    assert mended.pair.before.size == (248, 197)
    assert np.array_equal(np.asarray(mended.pair.before)[:30], np.asarray(mended.pair.after)[:30])
    assert "mended, 248x197 are left" in mended.note


def test_aligned_pairs_stay_as_they_are_with_align(tmp_path):
    write(tmp_path, "a", photo(), edited(photo()))
    assert check(tmp_path, align=True)["a"].pair == check(tmp_path)["a"].pair


def test_a_pair_that_differs_by_misalignment_alone_has_no_edit_left(tmp_path):
    for name, motion in {"whole": {"x": 4.0}, "zoom": {"zoom": 1.03}}.items():
        write(tmp_path, name, *moved("astronaut", **motion))
    assert all(each.pair and "--align" in each.note for each in check(tmp_path).values())
    assert {each.code for each in check(tmp_path, align=True).values()} <= {"only_noise", "no_change"}


def test_files_of_every_kind_are_measured_as_they_are_seen(tmp_path):
    before, after = moved("china", x=4.0)
    after = edited(after)
    write(tmp_path / "larger", "a", before, after.resize((512, 416), Image.Resampling.LANCZOS))
    write(tmp_path / "box", "a", before, after.resize((768, 624), Image.Resampling.BOX))
    write(tmp_path / "grey", "a", before.convert("L"), after.convert("L"))
    write(tmp_path / "alpha", "a", before, _with_alpha(after))
    write(tmp_path / "palette", "a", before, after.quantize(128))
    write(tmp_path / "jpeg", "a", before, after, "jpg", quality=70)
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "turned", "a", before, after.rotate(90, expand=True), "jpg", quality=95, exif=exif)
    for folder in sorted(tmp_path.iterdir()):
        [each] = check(folder).values()
        assert each.pair and "shifted by 4.0 px to the right" in each.note, folder.name


def _with_alpha(image):
    image = image.convert("RGBA")
    image.putalpha(Image.new("L", image.size, 255))
    return image


def test_a_side_cropped_and_enlarged_again_is_mended(tmp_path):
    image = photo("china")
    after = edited(image).crop((4, 0, 256, 208)).resize(image.size, Image.Resampling.LANCZOS)
    write(tmp_path, "a", image, after)
    raw, mended = check(tmp_path)["a"], check(tmp_path, align=True)["a"]
    assert "shifted by 2.0 px to the left" in raw.note and "stretched" in raw.note
    assert residual(mended.pair) < residual(raw.pair) / 2


def test_the_command_tells_numbers_and_mends(tmp_path):
    before, after = moved("china", x=8.0)
    write(tmp_path / "pairs", "a", before, edited(after))
    command = ["pairs", "check", str(tmp_path / "pairs"), "--sheet", str(tmp_path / "sheet.png")]
    [row] = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)["pairs"]
    assert row["usable"] and row["misaligned"] and row["shift_x"] == pytest.approx(8, abs=0.1)
    assert (row["shift_y"], row["zoom"], row["turn"]) == pytest.approx((0, 1, 0), abs=0.1)
    shown = CliRunner().invoke(app, [*command, "--align"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0 and "mended, 248x208 are left" in shown.stdout
    assert Path(tmp_path / "sheet.png").exists()
