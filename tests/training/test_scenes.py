"""Procedural scenes: seeded, exact, and honest about what is held out."""

import pytest
import torch

from training.scenes import (
    COMPOSITIONS,
    EVERY_FAMILY,
    FAMILIES,
    HELD_OUT_CLASSES,
    PRODUCTS,
    RESERVED,
    SUBJECTS,
    UNSEEN_COMPOSITIONS,
    draw_parameters,
    draw_scenes,
    draw_subjects,
    draw_tuples,
    join_scenes,
    parameter_distance,
    render,
)

SIZE = (48, 64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("family", EVERY_FAMILY.values(), ids=lambda family: family.name)
def test_the_same_seed_gives_the_same_pictures_and_every_edit_shows(family):
    first, again, other = (draw_tuples(family, 3, 3, SIZE, seeded(seed)) for seed in (1, 1, 2))
    assert first.before.shape == (3, 3, 3, *SIZE)
    assert torch.equal(first.after, again.after) and not torch.equal(first.after, other.after)
    assert first.after.min() >= 0 and first.after.max() <= 1
    changed = (first.before - first.after).abs().amax((2, 3, 4))
    assert (changed > 0.02).all()


@pytest.mark.parametrize("family", EVERY_FAMILY.values(), ids=lambda family: family.name)
def test_held_out_parameters_are_never_drawn_in_training(family):
    seen = draw_parameters(family, 4000, seeded())[:, 0]
    held = draw_parameters(family, 400, seeded(), held_out=True)[:, 0]
    if family.choices:
        assert len(seen.unique()) == family.choices
        return
    low, high = family.band
    assert not ((seen > low) & (seen < high)).any()
    assert ((held >= low) & (held <= high)).all()
    assert seen.min() < 0.05 and seen.max() > 0.95


def test_held_out_classes_families_and_compositions_stay_apart():
    for trained, held_out in SUBJECTS.values():
        assert trained and held_out and not set(trained) & set(held_out)
        assert not set(trained) & set(HELD_OUT_CLASSES)
    groups = (FAMILIES, COMPOSITIONS, UNSEEN_COMPOSITIONS, RESERVED)
    assert len(EVERY_FAMILY) == sum(len(group) for group in groups) and len(RESERVED) == 2
    parts = {name for pair in COMPOSITIONS | UNSEEN_COMPOSITIONS for name in pair.split("+")}
    assert parts <= set(FAMILIES)


def test_a_background_edit_leaves_the_object_alone_and_a_recolour_the_background():
    scene = draw_scenes(8, SIZE, seeded(), classes=("phone",))  # no seams through which a backdrop would shine
    dark = scene.with_(light=scene.light * 0)
    object_mask = (render(dark, SIZE) != render(dark.with_(parts=scene.parts * 0), SIZE)).all(1)
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


@pytest.mark.parametrize(
    ("name", "there", "back"),
    [
        ("translate", [0.1, 0.7], [0.6, 0.7]),
        ("rotate", [0.9], [0.1]),
        ("scale", [0.8], [0.2]),
        ("mirror", [0.0], [0.0]),
        ("mirror", [1 / 3], [1 / 3]),
        ("bend", [0.9], [0.9]),
    ],
)
def test_there_and_back_is_no_edit(name, there, back):
    scene = draw_scenes(4, SIZE, seeded())
    edit = FAMILIES[name].apply
    returned = edit(edit(scene, torch.tensor([there] * 4)), torch.tensor([back] * 4))
    if name == "bend":  # a warp is set, not added: the second one changes nothing more
        returned = returned.with_(warp=scene.warp)
    torch.testing.assert_close(render(returned, SIZE), render(scene, SIZE), atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["translate", "add", "lid", "bend", "pose"])
def test_directions_are_those_of_the_picture_also_on_mirrored_objects(name):
    """The mirror image of a mirrored object's edit is another edit: left stays left in the picture."""
    family = EVERY_FAMILY[name]
    scene = draw_subjects(family, 6, (64, 64), seeded(5))
    centred = torch.zeros_like(scene.pose)
    centred[:, 0, 0] = centred[:, 1, 1] = 1.0
    plain = scene.with_(pose=centred, light=scene.light * 0, texture=scene.texture * 0)
    if name == "pose":
        symmetric = plain.with_(parts=torch.tensor([part[:8] for part in PRODUCTS["figure"]]).expand(6, -1, -1))
    else:
        symmetric = plain.with_(parts=plain.parts * torch.tensor([0, 1, 1, 1, 1, 1, 0, 0.0]))
    mirrored = symmetric.with_(pose=centred * torch.tensor([[-1.0], [1.0]]))
    torch.testing.assert_close(render(mirrored, (64, 64)), render(symmetric, (64, 64)), atol=1e-4, rtol=0)
    p = draw_parameters(family, 6, seeded(6))
    straight, other = (render(family.apply(side, p), (64, 64)) for side in (symmetric, mirrored))
    torch.testing.assert_close(other, straight, atol=1e-3, rtol=0)


def test_removing_takes_the_patch_at_one_site_and_nothing_else():
    family = FAMILIES["remove"]
    scene = draw_subjects(family, 4, (64, 64), seeded(2))
    pose = torch.eye(2, 3).repeat(4, 1, 1)
    pose[:, 0, 0] = scene.handedness
    centred = scene.with_(pose=pose, light=scene.light * 0)
    for choice in range(family.choices):
        after = family.apply(centred, torch.full((4, 1), choice / (family.choices - 1)))
        changed = (render(centred, (64, 64)) - render(after, (64, 64))).abs().amax(1) > 0.02
        rows, columns = changed.any(2), changed.any(1)
        third = slice(0, 29) if choice < 2 else slice(25, 40) if choice < 4 else slice(37, 64)
        half = slice(0, 33) if choice % 2 == 0 else slice(31, 64)
        assert rows.any() and not rows.index_fill(1, torch.arange(64)[third], False).any()
        assert not columns.index_fill(1, torch.arange(64)[half], False).any()


def test_joined_scenes_look_as_they_did_apart():
    scenes = [draw_subjects(EVERY_FAMILY[name], 3, SIZE, seeded(4)) for name in ("remove", "tone", "pose", "add")]
    together = render(join_scenes(scenes), SIZE)
    torch.testing.assert_close(together, torch.cat([render(scene, SIZE) for scene in scenes]), atol=1e-5, rtol=0)


def test_distances_go_the_short_way_round():
    hue, tone = FAMILIES["recolour"], FAMILIES["tone"]
    a, b = torch.tensor([0.05, 0.5, 0.5, 0.5]), torch.tensor([0.95, 0.5, 0.6, 0.5])
    assert parameter_distance(hue, a[:3], b[:3]) == pytest.approx(0.1)
    assert parameter_distance(tone, a, b) == pytest.approx(0.9)


def test_photographs_are_split():
    trained, held = (draw_scenes(6, SIZE, seeded(), photo_share=1.0, held_out=held) for held in (False, True))
    torch.testing.assert_close(render(trained, SIZE), trained.photo, atol=1e-5, rtol=0)
    assert trained.photo.std() > 0.05 and not torch.equal(trained.photo, held.photo)
