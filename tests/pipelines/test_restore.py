"""Full resolution out: photographs of up to 12 megapixels, local and global edits, real round trips of the base."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import training.scenes
from pipelines import change, codec, restore
from pipelines.restore import Draft
from pipelines.transfer import Editor

PHOTOGRAPHS = Path(training.scenes.__file__).parent / "photographs"
RECOLOURED = np.array([0.5, 0.8, 1.3], np.float32)
DRIFT = np.array([2.0, -2.0, 1.5])


def photograph(name: str, size: tuple[int, int]) -> Image.Image:
    """A photograph of this size, (width, height), with all its fine structure: mirrored again and again."""
    pixels = np.asarray(Image.open(PHOTOGRAPHS / f"{name}.jpg").convert("RGB"))
    more = [(0, max(0, want - have)) for want, have in zip(size[::-1], pixels.shape, strict=False)]
    return Image.fromarray(np.pad(pixels, [*more, (0, 0)], "symmetric")[: size[1], : size[0]])


def mosaic() -> Image.Image:
    """12 megapixels: six photographs side by side."""
    whole = Image.new("RGB", (4000, 3000))
    names = ("china", "flower", "chelsea", "coffee", "astronaut", "brick")
    for index, name in enumerate(names):
        whole.paste(photograph(name, (1334, 1500)), (index % 3 * 1333, index // 3 * 1500))
    return whole


def recoloured(query: Image.Image) -> Image.Image:
    """Another colour in a part of the image, with a soft edge, and nowhere else a pixel changed."""
    width, height = query.size
    rows, columns = np.ogrid[:height, :width]
    distance = ((columns / width - 0.45) / 0.12) ** 2 + ((rows / height - 0.4) / 0.15) ** 2
    amount = np.clip((1 - distance) * 4, 0, 1).astype(np.float32)[..., None]
    pixels = np.asarray(query, np.float32)
    return Image.fromarray(np.rint((pixels * (1 - amount + amount * RECOLOURED)).clip(0, 255)).astype(np.uint8))


def shifted(image: Image.Image, levels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint((np.asarray(image) + levels).clip(0, 255)).astype(np.uint8))


def root_mean_square(difference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


@dataclass(frozen=True)
class Case:
    """A query, its true edit in full resolution, and what a perfect base would make of both."""

    query: Image.Image
    true: Image.Image
    draft: Draft

    @property
    def touched(self) -> np.ndarray:
        return (np.asarray(self.query) != np.asarray(self.true)).any(2)


def case(editor: Editor, query: Image.Image, true: Image.Image) -> Case:
    seen = editor.fit(query)
    return Case(query, true, Draft(editor.coded(editor.fit(true)), seen, editor.coded(seen)))


@pytest.fixture(scope="module")
def editor() -> Editor:
    return Editor.load(max_area=2**18)


@pytest.fixture(scope="module")
def large(editor) -> Case:
    query = mosaic()
    return case(editor, query, recoloured(query))


@pytest.fixture(scope="module")
def restored(large) -> restore.Restored:
    return restore.restore(large.query, large.draft)


@pytest.fixture(scope="module", params=["flower", "coffee"])
def small(request, editor) -> Case:
    query = photograph(request.param, (1200, 900))
    return case(editor, query, recoloured(query))


def test_untouched_pixels_of_12_megapixels_are_the_originals_in_the_file(large, restored):
    query = np.asarray(large.query)
    written = np.asarray(Image.open(io.BytesIO(codec.encode(codec.Photo(large.query, "PNG"), restored.image))))
    same = (written == query).all(2)
    untouched = 1 - large.touched.mean()
    assert untouched - 0.04 < restored.kept < untouched
    assert same.mean() >= restored.kept
    reach = np.asarray(Image.fromarray(large.touched).resize((400, 300), Image.Resampling.BOX)) > 0
    near = change.box(reach.astype(np.float32), 10) > change.LIMIT  # 100 pixels of the photograph
    assert same.reshape(300, 10, 400, 10).all((1, 3))[~near].all()


def test_the_edited_region_is_closer_to_the_true_edit_than_enlargement_is(large, restored):
    true, touched = np.asarray(large.true, np.float32), large.touched
    plain = large.draft.result.resize(large.query.size, Image.Resampling.LANCZOS)
    ours, enlarged = (root_mean_square((np.asarray(each) - true)[touched]) for each in (restored.image, plain))
    assert ours < 0.7 * enlarged
    unedited = root_mean_square((np.asarray(large.query) - true)[touched])
    assert ours < 0.35 * unedited


def test_no_seam_is_left_where_kept_pixels_end(large, restored):
    """Across the border of what was kept, the image is no rougher than the original is there."""
    alpha = np.asarray(Image.fromarray(restored.mask).resize(large.query.size, Image.Resampling.BILINEAR))
    kept, query, result = alpha == 0, np.asarray(large.query, np.float32), np.asarray(restored.image, np.float32)
    for axis in (0, 1):
        border = np.diff(kept, axis=axis)
        rough, before = (np.abs(np.diff(each, axis=axis))[border] for each in (result, query))
        assert border.sum() > 500 and rough.mean() < 1.02 * before.mean()
        feathering = np.diff(result - query, axis=axis)[border]
        assert np.abs(feathering).max() <= 2 and abs(feathering.mean()) < 0.1


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("drift", [0 * DRIFT, DRIFT])
def test_a_result_without_an_edit_is_the_original_whatever_the_autoencoder_did(small, drift, known):
    draft = Draft(shifted(small.draft.coded, drift), small.draft.seen, small.draft.coded if known else None)
    result = restore.restore(small.query, draft)
    assert result.kept == 1 and result.image.tobytes() == small.query.tobytes()
    same = Draft(shifted(small.draft.seen, drift), small.draft.seen)
    assert restore.restore(small.query, same).image.tobytes() == small.query.tobytes()


def test_a_drift_of_the_whole_image_changes_little_of_what_is_kept(small):
    steady = restore.restore(small.query, small.draft)
    drifted = Draft(shifted(small.draft.result, DRIFT), small.draft.seen, small.draft.coded)
    result = restore.restore(small.query, drifted)
    assert abs(result.kept - steady.kept) < 0.01 and steady.kept > 0.85
    assert root_mean_square(np.asarray(result.image, np.float32) - np.asarray(steady.image)) < 1


def test_of_a_global_edit_nothing_is_claimed_to_be_kept(editor):
    query = photograph("chelsea", (1200, 900))
    for levels in (lambda x: x * 0.6, lambda x: 255 - x, lambda x: x * 0.8 + 45):
        edited = case(editor, query, Image.fromarray(levels(np.asarray(query, np.float32)).astype(np.uint8)))
        for draft in (edited.draft, Draft(edited.draft.result, edited.draft.seen)):
            assert restore.restore(query, draft).kept < 0.02


def test_specks_are_no_edit_but_what_is_larger_is(small):
    seen = small.draft.seen
    for side, changed in ((1, False), (24, True)):
        pixels = np.array(small.draft.coded)
        for row, column in ((60, 80), (200, 300), (350, 420)):
            pixels[row : row + side, column : column + side] ^= 96
        result = restore.restore(small.query, Draft(Image.fromarray(pixels), seen, small.draft.coded))
        assert (result.kept < 1) == changed and result.kept > 0.9


def test_the_mask_turns_with_the_image_and_does_not_mind_the_order_of_its_channels(small):
    arrays = [np.asarray(image, np.float32) for image in (small.draft.result, small.draft.seen, small.draft.coded)]
    mask = change.change_mask(*arrays)
    assert 0 < mask.mean() < 0.2 and mask.min() == 0 and mask.max() == 1
    for turn in (np.flipud, np.fliplr, np.rot90):
        assert np.abs(change.change_mask(*map(turn, arrays)) - turn(mask)).max() < 1e-3
    assert np.abs(change.change_mask(*(array[..., ::-1] for array in arrays)) - mask).max() < 1e-3


def test_strips_are_an_affair_of_memory_alone(small, monkeypatch):
    whole = np.asarray(restore.restore(small.query, small.draft).image, np.int16)
    monkeypatch.setattr(restore, "ROWS", 37)
    strips = np.asarray(restore.restore(small.query, small.draft).image, np.int16)
    assert np.abs(whole - strips).max() <= 1 and (whole != strips).mean() < 1e-3


@pytest.mark.parametrize("size", [(20, 17), (64, 64), (70, 50), (500, 63), (900, 1201)])
def test_queries_of_any_size_and_proportions_are_restored(size):
    """The base's working size may be larger than the query, or of slightly other proportions."""
    editor = Editor.load()
    query = photograph("coffee", size)
    seen = editor.fit(query)
    coded = editor.coded(seen)
    assert restore.restore(query, Draft(coded, seen, coded)).image.tobytes() == query.tobytes()
    pixels = np.array(coded)
    pixels[:6, :6] = (255, 0, 255)
    result = restore.restore(query, Draft(Image.fromarray(pixels), seen, coded))
    painted, untouched = np.asarray(result.image), np.asarray(query)
    assert result.image.size == size and 0 <= result.kept < 1
    assert np.abs(painted[0, 0].astype(int) - (255, 0, 255)).max() < 40
    if min(seen.size) >= 32:
        assert result.kept > 0.5 and (painted[-1, -1] == untouched[-1, -1]).all()


def test_images_of_a_draft_have_one_size(small):
    with pytest.raises(ValueError, match="differ in size"):
        restore.restore(small.query, Draft(small.draft.result, small.query, small.draft.coded))


def test_components_are_those_that_a_flood_finds():
    generator = np.random.default_rng(0)
    for density in (0.2, 0.4, 0.6):
        mask = generator.random((23, 31)) < density
        labels = np.full(mask.shape, -1)
        labels[mask] = change.components(mask)
        for number in np.unique(labels[mask]):
            flood = np.zeros_like(mask)
            flood.flat[np.flatnonzero(labels == number)[0]] = True
            while True:
                padded = np.pad(flood, 1)
                grown = mask & np.any([padded[a : a + 23, b : b + 31] for a in range(3) for b in range(3)], 0)
                if (grown == flood).all():
                    break
                flood = grown
            assert (flood == (labels == number)).all()
    assert not change.components(np.zeros((4, 4), bool)).size
