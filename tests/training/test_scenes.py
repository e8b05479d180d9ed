"""Procedural scenes: seeded, exact, and honest about what is held out."""

import pytest
import torch

from training.scenes import (
    COMPOSITIONS,
    EVERY_FAMILY,
    FAMILIES,
    HELD_OUT,
    HELD_OUT_CLASSES,
    PLAIN,
    PRODUCTS,
    RESERVED,
    SPRITES,
    SUBJECTS,
    TRAINING,
    UNSEEN_COMPOSITIONS,
    Look,
    draw_parameters,
    draw_scenes,
    draw_subjects,
    draw_tuples,
    join_scenes,
    parameter_distance,
    photos,
    render,
    shapes,
)
from training.scenes.uniform import Uniform
from training.scenes.wear import wear

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
    scene = draw_subjects(family, 6, (64, 64), seeded(5), PLAIN)
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
    scene = draw_subjects(family, 4, (64, 64), seeded(2), PLAIN)
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
    looks = (PLAIN, HELD_OUT)
    trained, held = (draw_scenes(40, SIZE, seeded(), photo_share=1.0, look=look) for look in looks)
    names = [{photos.NAMES[index] for index in scene.photo.tolist()} for scene in (trained, held)]
    assert [names[0], names[1]] == [set(photos.SPLITS["train"]), set(photos.SPLITS["held_out"])]
    assert render(trained, SIZE).std((1, 2, 3)).min() > 0.02


def test_a_photograph_goes_on_beyond_what_a_crop_shows():
    scene = draw_scenes(4, SIZE, seeded(), photo_share=1.0)
    wider = FAMILIES["zoom"].apply(scene, torch.zeros(4, 1))
    again = FAMILIES["zoom"].apply(wider, torch.ones(4, 1))
    torch.testing.assert_close(render(again, SIZE), render(scene, SIZE), atol=2e-2, rtol=0)
    assert (render(wider, SIZE)[..., :4] != 0).any((1, 2, 3)).all()


@pytest.mark.parametrize("name", ["rotate", "scale", "mirror", "viewpoint", "swirl", "bend"])
def test_objects_are_edited_about_their_own_middle_wherever_they_stand(name):
    """Moving the object and then editing it is the same as editing it and then moving it."""
    family = EVERY_FAMILY[name]
    scene = draw_scenes(6, SIZE, seeded(3), classes=("mug", "shoe"))
    p, far = draw_parameters(family, 6, seeded(4)), torch.tensor([[0.6, 0.9]] * 6)
    move = FAMILIES["translate"].apply
    one, other = family.apply(move(scene, far), p), move(family.apply(scene, p), far)
    torch.testing.assert_close(render(one, SIZE), render(other, SIZE), atol=1e-3, rtol=0)
    torch.testing.assert_close(family.apply(scene, p).place, scene.place, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["turn", "zoom", "pan", "flip"])
def test_edits_of_the_whole_picture_move_everything_alike(name):
    """What the edit does to the picture is known without the scene: it leads from new places to old ones."""
    family = FAMILIES[name]
    scene = draw_scenes(6, SIZE, seeded(1), look=Look(busy=1.0)).with_(softness=torch.full((6,), 8.0))
    edited = family.apply(scene, draw_parameters(family, 6, seeded(2)))
    middle = torch.tensor([0.0, 0.0, 1.0])
    old = edited.camera @ middle  # the middle of the new picture shows this place of the old one
    seen = scene.with_(camera=torch.cat([torch.eye(2).expand(6, 2, 2), old[..., None]], -1))
    crop = (slice(None), slice(None), slice(23, 25), slice(31, 33))
    new, expected = (render(side, SIZE)[crop].mean((2, 3)) for side in (edited, seen))
    torch.testing.assert_close(new, expected, atol=0.08, rtol=0)  # a zoom also changes how much a pixel averages


def test_the_object_is_the_largest_thing_and_bystanders_stay():
    scene = draw_scenes(60, SIZE, seeded(7), look=Look(busy=1.0))
    size = torch.linalg.det(scene.pose[:, :, :2]).abs().rsqrt()
    others = torch.linalg.det(scene.others[..., :2]).abs().rsqrt()
    assert (others < 0.6 * size[:, None]).all()
    with_company = scene.rows(((scene.owners > 0) & (scene.parts[..., 4] > 0)).any(1))
    assert 10 < len(with_company.parts) < 50
    for family in (FAMILIES["translate"], FAMILIES["scale"], FAMILIES["recolour"]):
        edited = family.apply(with_company, draw_parameters(family, len(with_company.parts), seeded(8)))
        theirs = with_company.owners > 0
        assert torch.equal(edited.parts[theirs], with_company.parts[theirs])
        assert torch.equal(edited.others, with_company.others)
        assert torch.equal(edited.colours[:, 3:], with_company.colours[:, 3:])


def test_busy_scenes_show_all_there_is_and_plain_ones_nothing_of_it():
    plain, busy = (draw_scenes(200, SIZE, seeded(9), look=look) for look in (PLAIN, Look(busy=1.0)))
    for scene, some in ((plain, False), (busy, True)):
        shown = {
            "shapes": scene.forms[..., 0].unique().numel() > 3,
            "bystanders": (scene.owners > 0).any().item(),
            "photographs": (scene.photo >= 0).any().item(),
            "patterns": scene.texture[..., 3].any().item(),
            "sunlight, shadows, highlights": scene.sun[:, 2:].any(0).all().item(),
            "blur": (scene.softness > 1).any().item(),
        }
        assert shown == dict.fromkeys(shown, some)


def test_cast_shadows_turn_with_the_object():
    scene = draw_scenes(4, SIZE, seeded(3), classes=("shoe",))
    sun = torch.tensor([[-0.7, -0.7, 0.0, 0.3, 0.0]]).expand(4, -1)
    hidden = scene.with_(colours=scene.colours * 0, light=scene.light * 0)
    rotate = FAMILIES["rotate"].apply
    shadows = [
        (render(side, SIZE) - render(side.with_(sun=sun), SIZE)).abs().amax(1) > 0.05
        for side in (hidden, rotate(hidden, torch.full((4, 1), 0.9)))
    ]
    assert all(shadow.any((1, 2)).all() for shadow in shadows)
    assert ((shadows[0] != shadows[1]).sum((1, 2)) > shadows[0].sum((1, 2)) / 4).all()


def test_the_held_out_renderer_paints_what_training_never_shows():
    first, again = (draw_scenes(12, (64, 64), seeded(2), look=SPRITES) for _ in range(2))
    assert torch.equal(first.sprite, again.sprite) and not first.own.any()
    assert not len(draw_scenes(4, SIZE, seeded(), look=TRAINING).sprite)
    cover = first.sprite[:, 4]
    assert (cover.mean((1, 2)) > 0.03).all() and not cover[:, :8].any()
    main = FAMILIES["recolour"].apply(first, torch.tensor([[0.3, 0.9, 0.9]] * 12))
    changed = (render(first, (64, 64)) - render(main, (64, 64))).abs().amax(1) > 0.02
    assert (changed.sum((1, 2)) > 20).all()


def test_letters_can_be_told_apart_and_fill_their_cells():
    inside = shapes.letters(torch.device("cpu")) < 0
    assert inside.flatten(1).sum(1).min() > 300
    apart = (inside[:, None] != inside).flatten(2).sum(2) + 10_000 * torch.eye(len(inside), dtype=torch.long)
    assert apart.min() > 40


def test_worn_pictures_are_nearly_the_same_and_some_are_untouched():
    clean = render(draw_scenes(60, (64, 64), seeded(5)), (64, 64))
    worn = wear(clean, Uniform(seeded(6)), 0.3)
    error = (worn - clean).square().mean((1, 2, 3)).sqrt()
    assert 15 < (error == 0).sum() < 45 and error.max() < 0.08
    assert worn.min() >= 0 and worn.max() <= 1
    assert torch.equal(wear(clean, Uniform(seeded(6)), 0.0), clean)
