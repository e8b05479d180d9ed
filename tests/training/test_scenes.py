"""Procedural scenes: seeded, exact, and honest about what is held out."""

import pytest
import torch

from training.scenes import (
    FAMILIES,
    HELD_OUT_CLASSES,
    TRAINING_CLASSES,
    draw_parameters,
    draw_scenes,
    draw_tuples,
    render,
)
from training.scenes.edits import HELD_OUT_BAND

SIZE = (48, 64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_the_same_seed_gives_the_same_pictures_and_every_edit_shows(family):
    first, again, other = (draw_tuples(family, 2, 3, SIZE, seeded(seed)) for seed in (1, 1, 2))
    assert first.before.shape == (2, 3, 3, *SIZE)
    assert torch.equal(first.after, again.after) and not torch.equal(first.after, other.after)
    assert first.after.min() >= 0 and first.after.max() <= 1
    changed = (first.before - first.after).abs().amax((2, 3, 4))
    assert (changed > 0.02).all()


def test_a_background_edit_leaves_the_object_alone_and_a_recolour_the_background():
    scene = draw_scenes(8, SIZE, seeded(), ("box",))
    bare = scene.with_(parts=scene.parts * 0)
    object_mask = (
        render(scene.with_(light=scene.light * 0), SIZE) != render(bare.with_(light=scene.light * 0), SIZE)
    ).all(1)
    inside = object_mask & ~_rim(object_mask)
    before = render(scene, SIZE)
    background = render(FAMILIES["background"].apply(scene, torch.rand(8, 4, generator=seeded())), SIZE)
    recolour = render(FAMILIES["recolour"].apply(scene, torch.rand(8, 3, generator=seeded())), SIZE)
    assert inside.any((1, 2)).all()
    difference = (background - before).abs().amax(1)
    assert difference[inside].max() < 1e-6 < difference[~object_mask].mean()
    assert (recolour - before).abs().amax(1)[~object_mask & ~_rim(object_mask)].max() < 1e-6


def _rim(mask: torch.Tensor) -> torch.Tensor:
    """Pixels within two of the mask's border."""
    pooled = torch.nn.functional.max_pool2d
    grown, shrunk = (pooled(m.float()[:, None], 5, 1, 2)[:, 0] for m in (mask, ~mask))
    return (grown * shrunk).bool()


def test_moving_there_and_back_is_no_edit():
    scene = draw_scenes(4, SIZE, seeded())
    there = FAMILIES["translate"].apply(scene, torch.full((4, 2), 0.7))
    back = FAMILIES["translate"].apply(there, torch.full((4, 2), 0.3))
    torch.testing.assert_close(render(back, SIZE), render(scene, SIZE), atol=1e-4, rtol=0)
    flipped = FAMILIES["flip"].apply(FAMILIES["flip"].apply(scene, torch.zeros(4, 1)), torch.zeros(4, 1))
    torch.testing.assert_close(render(flipped, SIZE), render(scene, SIZE), atol=1e-4, rtol=0)


def test_held_out_parameters_and_classes_are_never_drawn_in_training():
    low, high = HELD_OUT_BAND
    for family in FAMILIES.values():
        if family.choices:
            continue
        seen = draw_parameters(family, 4000, seeded())[:, 0]
        held = draw_parameters(family, 400, seeded(), held_out=True)[:, 0]
        assert not ((seen > low) & (seen < high)).any()
        assert ((held >= low) & (held <= high)).all()
        assert seen.min() < 0.05 and seen.max() > 0.95
    assert not set(HELD_OUT_CLASSES) & set(TRAINING_CLASSES)


def test_photographs_are_split():
    trained, held = (draw_scenes(6, SIZE, seeded(), photo_share=1.0, photo_split=s) for s in ("train", "held_out"))
    assert trained.photo is not None and held.photo is not None
    torch.testing.assert_close(render(trained, SIZE), trained.photo, atol=1e-5, rtol=0)
    assert not torch.equal(trained.photo, held.photo)
