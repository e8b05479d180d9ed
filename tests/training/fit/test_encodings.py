"""Encoded views: the same however they come, encoded once, and never taken for others."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines.pairs.check import Pair
from pipelines.transfer import Editor
from training.fit.encodings import Encodings
from training.fit.views import PART, encode, glances, look_at


@pytest.fixture(scope="module")
def editor(tiny_base):
    return Editor.load(tiny_base)


@pytest.fixture
def pairs(scene):
    """pairs(count): of several sizes, in turn."""
    sizes = ((64, 64), (96, 64), (64, 96), (40, 200))

    def make(count):
        found = ((str(seed), scene(seed, sizes[seed % len(sizes)])) for seed in range(count))
        return [Pair(name, "", image, image.rotate(180), ("", ""), (name, "")) for name, image in found]

    return make


def tensors(views):
    return [each for view in views for each in (view.before, view.after, *(view.shown or ()))]


def same(first, second):
    equal = all(torch.equal(*both) for both in zip(tensors(first), tensors(second), strict=True))
    return equal and [view.grid for view in first] == [view.grid for view in second]


def files(folder):
    return {path.name: path.stat().st_mtime_ns for path in Path(folder).iterdir()}


@pytest.mark.parametrize("compact", [1, 2])
def test_what_is_found_again_is_what_was_encoded_to_the_bit(tiny_base, pairs, tmp_path, compact):
    editor, told = Editor.load(tiny_base, compact=compact), []
    encodings, wanted = Encodings(str(tmp_path / "kept"), lambda *counts: told.append(counts)), glances(pairs(9), 8)
    first = encodings(editor, wanted)
    written = files(tmp_path / "kept")
    again = encodings(editor, wanted)
    assert same(first, encode(editor, wanted)) and same(first, again) and len(first) == 72
    assert [view.shown is None for view in again] == [compact == 1] * 72
    assert told == [(32, 0, 72), (64, 0, 72), (72, 0, 72), (32, 32, 72), (64, 64, 72), (72, 72, 72)]
    assert files(tmp_path / "kept") == written and len(written) == 3


def test_views_that_go_together_are_those_that_go_alone(editor, pairs):
    wanted = glances(pairs(6), 3, mirrored=True, seed=4)
    alone = [view for glance in wanted for view in encode(editor, [glance])]
    together = encode(editor, wanted)
    for one, other in zip(tensors(alone), tensors(together), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    looks = look_at(editor, pairs(6), 3, mirrored=True, seed=4)
    assert same([view for look in looks for view in look.views], together)


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: b"", lambda data: data[:-1] + b"\x7f"])
def test_a_damaged_file_is_made_again(editor, pairs, tmp_path, damage):
    told = []
    encodings, wanted = Encodings(str(tmp_path), lambda *counts: told.append(counts)), glances(pairs(8), 5)
    first = encodings(editor, wanted)
    [path, _] = sorted(tmp_path.iterdir())
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert same(encodings(editor, wanted), first) and path.read_bytes() == whole
    assert told[-1] in {(40, 40 - PART, 40), (40, PART, 40)}  # the other file was found


def test_a_training_killed_while_it_encodes_goes_on_there(editor, pairs, tmp_path):
    class Killed(Exception):
        pass

    def kill(*counts):
        raise Killed

    wanted, told = glances(pairs(8), 8), []
    with pytest.raises(Killed):
        Encodings(str(tmp_path), kill)(editor, wanted)
    Encodings(str(tmp_path), lambda *counts: told.append(counts))(editor, wanted)
    assert told == [(32, 32, 64), (64, 32, 64)]


def test_where_nothing_can_be_written_views_are_encoded_every_time(editor, pairs, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    wanted, told = glances(pairs(2), 2), []
    for _ in range(2):
        views = Encodings(str(tmp_path / "file" / "kept"), lambda *counts: told.append(counts))(editor, wanted)
        assert same(views, encode(editor, wanted))
    assert told == [(4, 0, 4)] * 2


def test_nothing_is_taken_for_something_else(editor, tiny_base, pairs, tmp_path):
    """Other views, seeds and bases, and pictures of which something else is seen by now, have files of their own."""
    first, *others = pairs(4)
    cropped = replace(first, before=first.before.crop((0, 0, 48, 48)), after=first.after.crop((0, 0, 48, 48)))
    works = [
        (editor, glances([first, *others], 2)),
        (editor, glances([first, *others], 3)),
        (editor, glances([*others, first], 2)),
        (editor, glances([first, *others], 2, mirrored=True)),
        (editor, glances([first, *others], 2, seed=1)),
        (editor, glances([cropped, *others], 2)),
        (editor, glances([replace(first, edit="lift"), *others], 2)),
        (Editor.load(tiny_base, max_area=48 * 48), glances([first, *others], 2)),
        (Editor.load(tiny_base, compact=2), glances([first, *others], 2)),
    ]
    for which, wanted in works:
        views = Encodings(str(tmp_path), lambda *counts: None)(which, wanted)
        assert same(views, encode(which, wanted))
    assert len(files(tmp_path)) == len(works)
