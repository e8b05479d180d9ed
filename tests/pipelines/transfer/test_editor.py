"""The Editor's promises, on a small random base: sizes, seeds, batches, pairs, and what it refuses."""

import json
import pickle

import pytest
import torch
from PIL import Image, ImageChops

from infra.errors import BaseNotFound, ImageError, PairError
from pipelines.transfer import Editor, bases
from tests.tiny import make_tiny_base


def picture(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 255, (4, 4, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(coarse.numpy()).resize(size)


PAIR = (picture(1), picture(2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module", params=["prefix", "full"])
def editor(request, folder):
    return Editor.load(folder, attention=request.param)


def test_results_have_the_queries_own_sizes_and_order(editor):
    sizes = [(64, 64), (33, 200), (640, 480), (64, 64), (480, 640), (17, 16)]
    results = editor.edit([picture(9, size) for size in sizes], editor.remember([PAIR]), seeds=range(6))
    assert [result.size for result in results] == sizes
    assert {result.mode for result in results} == {"RGB"}


def test_a_result_depends_on_its_image_and_seed_alone(editor):
    prefix = editor.remember([PAIR])
    queries = [picture(seed, size) for seed, size in [(3, (64, 64)), (4, (64, 48)), (5, (64, 64)), (6, (64, 64))]]
    together = editor.edit(queries, prefix, seeds=[7, 8, 9, 7])
    for query, seed, result in zip(queries, [7, 8, 9, 7], together, strict=True):
        assert editor.edit([query], prefix, seeds=[seed])[0].tobytes() == result.tobytes()


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_batch_size_changes_nothing(folder, batch_size):
    queries, seeds = [picture(i) for i in range(5)], [3] * 5
    whole = Editor.load(folder)
    parts = Editor.load(folder, batch_size=batch_size)
    expected = whole.edit(queries, whole.remember([PAIR]), seeds=seeds)
    results = parts.edit(queries, parts.remember([PAIR]), seeds=seeds)
    assert [a.tobytes() for a in expected] == [b.tobytes() for b in results]


def test_seed_pair_and_steps_change_the_result(editor):
    prefix = editor.remember([PAIR])
    swapped = editor.remember([PAIR[::-1]])

    def edit(prefix=prefix, seed=1, steps=2):
        return editor.edit([picture(3)], prefix, seeds=[seed], steps=steps)[0]

    assert edit().tobytes() == edit().tobytes()
    for other in (edit(prefix=swapped), edit(seed=2), edit(steps=3)):
        assert ImageChops.difference(edit(), other).getbbox() is not None


def test_pairs_may_have_any_size_and_join_in_any_order(folder):
    editor = Editor.load(folder)
    pairs = [(picture(1, (200, 100)), picture(2, (400, 200))), (picture(5, (64, 64)), picture(6, (60, 60)))]
    first = editor.edit([picture(3)], editor.remember(pairs), seeds=[1])[0]
    second = editor.edit([picture(3)], editor.remember(pairs[::-1]), seeds=[1])[0]
    extremes = ImageChops.difference(first, second).getextrema()
    assert max(high for _, high in extremes) <= 1  # rounding of sums in another order
    alone = editor.edit([picture(3)], editor.remember(pairs[:1]), seeds=[1])[0]
    assert ImageChops.difference(first, alone).getbbox() is not None


def test_a_prefix_travels_between_processes(editor):
    prefix = editor.remember([PAIR])
    copy = pickle.loads(pickle.dumps(prefix))
    assert editor.edit([picture(3)], copy, seeds=[1])[0].tobytes() == (
        editor.edit([picture(3)], prefix, seeds=[1])[0].tobytes()
    )


def test_clean_latents_are_the_same_before_and_after_sampling(editor):
    """Clean panels never change: what the pair left is bit for bit what it was."""
    prefix = editor.remember([PAIR])
    before = pickle.dumps(prefix)
    editor.edit([picture(3)], prefix, seeds=[1], steps=3)
    assert pickle.dumps(prefix) == before


def test_what_the_editor_refuses(editor):
    with pytest.raises(PairError, match="at least one"):
        editor.remember([])
    with pytest.raises(PairError, match="same framing"):
        editor.remember([(picture(1, (64, 64)), picture(2, (64, 128)))])
    prefix = editor.remember([PAIR])
    with pytest.raises(ImageError) as caught:
        editor.edit([picture(1, (1, 1))], prefix, seeds=[1])
    assert caught.value.code == "too_small"
    with pytest.raises(ValueError, match="seeds"):
        editor.edit([picture(1)], prefix, seeds=[])
    with pytest.raises(ValueError, match="steps"):
        editor.edit([picture(1)], prefix, seeds=[1], steps=0)


def test_unknown_bases_are_named(tmp_path, folder):
    with pytest.raises(BaseNotFound, match="no/such/base"):
        Editor.load("no/such/base")
    (tmp_path / "transformer").mkdir()
    with pytest.raises(BaseNotFound, match="no vae"):
        Editor.load(tmp_path)
    config = folder / "transformer" / "config.json"
    for part in ("vae", "scheduler"):
        (tmp_path / part).mkdir()
    (tmp_path / "transformer" / "config.json").write_text(
        json.dumps(json.loads(config.read_text()) | {"_class_name": "Other"})
    )
    with pytest.raises(BaseNotFound, match="Other"):
        Editor.load(tmp_path)


def test_the_revision_follows_the_content(tmp_path, folder):
    same = make_tiny_base(tmp_path / "same")
    other = make_tiny_base(tmp_path / "other", seed=1)
    assert bases.revision_of(same) == bases.revision_of(folder) == Editor.load(folder).revision
    assert bases.revision_of(other) != bases.revision_of(folder)


def test_precomputed_prompts_are_read(folder):
    from tests.tiny import CONTEXT

    silent = Editor.load(folder)
    told = Editor.load(folder, prompt_embeds=torch.ones(1, 3, CONTEXT))
    results = [editor.edit([picture(3)], editor.remember([PAIR]), seeds=[1])[0] for editor in (silent, told)]
    assert ImageChops.difference(*results).getbbox() is not None


def test_a_draft_is_the_result_before_it_is_enlarged(folder):
    editor = Editor.load(folder)
    prefix, queries = editor.remember([PAIR]), [picture(3, (200, 120)), picture(4, (33, 200))]
    drafts = editor.draft(queries, prefix, seeds=[1, 2])
    results = editor.edit(queries, prefix, seeds=[1, 2])
    for query, draft, result in zip(queries, drafts, results, strict=True):
        assert draft.result.resize(query.size, Image.Resampling.LANCZOS).tobytes() == result.tobytes()
        assert draft.seen.tobytes() == editor.fit(query).tobytes() != draft.coded.tobytes()
        assert draft.coded.size == draft.seen.size == draft.result.size
