"""Fitting an adapter: what is drawn, what is learned, and that it goes on where it stopped."""

import copy
import dataclasses

import pytest
import torch
from diffusers import Flux2Transformer2DModel
from safetensors.torch import load_file

from infra.errors import EditTransferError, UsageError
from pipelines.pairs.check import Pair
from pipelines.transfer import Editor, Lora
from tests.tiny import tiny_transformer
from training.fit import lora
from training.fit.draw import Draw
from training.fit.fitting import Fit
from training.fit.judge import hold_out, judge, trials
from training.fit.loss import group_loss
from training.fit.settings import Settings, usual_looks, usual_rank, usual_steps
from training.fit.views import look_at


def settings(**changes):
    usual = {"rank": 4, "rate": 1e-2, "steps": 12, "attention": "prefix", "queries": 2, "kept_queries": 2, "views": 3}
    return Settings(**usual | {"judge_every": 4} | changes)


@pytest.fixture
def pairs(scene):
    def make(count, edit="", first=0):
        return [
            Pair(f"{edit}{seed}", edit, scene(seed, (64, 64)), scene(seed, (64, 64)).point(lambda level: 255 - level),
                 ("", ""), (f"{edit} {seed}", ""))
            for seed in range(first, first + count)
        ]  # fmt: skip

    return make


@pytest.fixture
def fit(tiny_base, pairs, tmp_path):
    def make(count=5, kept=(), **changes):
        return Fit(Editor.load(tiny_base), pairs(count), kept, settings(**changes), tmp_path)

    return make


def weights_of(fit):
    return [weight.detach().clone() for weight in fit.weights.weights]


def key(tokens):
    """Names a view by its first numbers."""
    return tuple(tokens.flatten()[:8].tolist())


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_training_lowers_the_loss_and_leaves_the_base_alone(fit):
    fitting = fit(steps=60, judge_every=60)
    frozen = [p.clone() for p in fitting.editor.family.transformer.parameters() if not p.requires_grad]
    losses = [moment.progress.loss for moment in fitting.run() if moment.progress.step]
    assert losses[-1] < 0.9 * losses[0]
    assert equal(frozen, [p for p in fitting.editor.family.transformer.parameters() if not p.requires_grad])


def test_a_killed_training_goes_on_as_if_nothing_had_happened(fit):
    whole = fit()
    *_, last = whole.run()
    half = fit()
    for moment in half.run():
        if moment.judged and moment.progress.step == 4:
            break
    state = copy.deepcopy(half.state())
    resumed = fit()
    resumed.restore(state)
    *_, again = resumed.run()
    assert equal(weights_of(whole), weights_of(resumed)) and last.score == again.score
    assert [point["step"] for point in resumed.curve] == [0, 4, 8, 12]


def test_a_finished_training_only_tells_again_what_came_of_it(fit):
    done = fit()
    *_, last = done.run()
    resumed = fit()
    resumed.restore(copy.deepcopy(done.state()))
    [only] = resumed.run()
    assert only.over and only.score == last.score and equal(weights_of(done), weights_of(resumed))


def test_the_moment_with_the_best_held_out_score_is_kept(fit):
    fitting = fit(steps=24, patience=10)
    good = fitting.draw

    def wrong(generator):
        group = good(generator)
        return dataclasses.replace(group, truth=group.truth + 3)

    for moment in fitting.run():
        if moment.progress.step == 8:
            fitting.draw = wrong  # from here on it learns nonsense
    last = moment
    scores = {point["step"]: point["balanced"] for point in fitting.curve[1:]}
    assert last.score.balanced == pytest.approx(max(scores.values()))
    assert max(scores, key=scores.get) < 24


def test_training_stops_when_the_held_out_pairs_get_worse(fit):
    fitting = fit(steps=400, patience=2)
    good = fitting.draw
    fitting.draw = lambda generator: dataclasses.replace(good(generator), truth=torch.full((2, 16, 128), 3.0))
    *_, last = fitting.run()
    assert last.over and last.progress.step < 400


@pytest.mark.parametrize("steps", [15, 23, 5])
def test_any_number_of_steps_ends_with_a_result(fit, steps):
    *_, last = fit(steps=steps, judge_every=10).run()
    assert last.over and last.progress.step == steps and last.score


def test_a_training_that_diverges_is_refused(fit):
    fitting = fit()
    for moment in fitting.run():
        if moment.progress.step == 0:
            break
    with torch.no_grad():
        fitting.weights.weights[0].fill_(float("nan"))
    with pytest.raises(EditTransferError, match="Lower the --rate"):
        for _ in fitting.run():
            pass


def test_the_same_settings_give_the_same_adapter_and_another_seed_another(fit):
    results = []
    for seed in (0, 0, 1):
        fitting = fit(seed=seed)
        for _ in fitting.run():
            pass
        results.append(weights_of(fitting))
    assert equal(results[0], results[1]) and not equal(results[0], results[2])


def test_what_is_kept_changes_less(fit, pairs, scene):
    """Behind pairs of another edit, an adapter that kept them in training stays nearer to the base."""
    others = [
        Pair(f"o{seed}", "other", scene(seed, (64, 64)), scene(seed + 50, (64, 64)), ("", ""), (f"o{seed}", ""))
        for seed in range(4)
    ]
    moved = []
    for kept in ((), others):
        fitting = fit(kept=kept, steps=40, judge_every=40)
        for _ in fitting.run():
            pass
        draw = Draw(look_at(fitting.editor, others, 1), 3, 1)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            moved.append(float(group_loss(fitting.editor.family, "prefix", 2, draw(generator), generator, keep=True)))
    assert moved[1] < 0.7 * moved[0]


@pytest.mark.parametrize("changes", [{"checkpointing": True}, {"attention": "full"}])
def test_options_that_must_not_change_the_gradient_or_only_as_told(fit, tiny_base, pairs, tmp_path, changes):
    """Checkpointing computes the same twice; full attention is another function of the same weights."""
    gradients = []
    for each in ({}, changes):
        editor = Editor.load(tiny_base, attention=each.get("attention", "prefix"))
        fitting = Fit(editor, pairs(3), (), settings(**each), tmp_path)
        fitting.trainer.step = 1
        with torch.no_grad():
            for weight in fitting.weights.weights:
                weight.add_(0.01)
        fitting._loss(1)[0].backward()
        gradients.append([weight.grad.clone() for weight in fitting.weights.weights])
    same = all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))
    assert same == ("checkpointing" in changes) and any(grad.abs().max() > 0 for grad in gradients[1])


def test_a_quantised_base_in_bfloat16_still_learns(tiny_base, pairs, tmp_path):
    editor = Editor.load(tiny_base, quantised="float8", dtype=torch.bfloat16)
    stored = {p.dtype for name, p in editor.family.transformer.named_parameters() if "attn.to_q.weight" in name}
    fitting = Fit(editor, pairs(5), (), settings(steps=40, judge_every=40, precision="bfloat16"), tmp_path)
    losses = [moment.progress.loss for moment in fitting.run() if moment.progress.step]
    assert stored == {torch.float8_e4m3fn} and losses[-1] < losses[0]


def test_a_single_pair_is_enough_to_try(fit):
    *_, last = fit(count=1).run()
    assert last.over and last.progress.step == 12


def test_every_pair_is_shown_to_every_other_and_never_to_itself(tiny_base, pairs):
    looks = look_at(Editor.load(tiny_base), pairs(4), 2)
    draw, generator, met = Draw(looks, 2, 2), torch.Generator().manual_seed(0), set()
    place = {key(view.before): index for index, look in enumerate(looks) for view in look.views}
    for _ in range(200):
        group = draw(generator)
        shown = {place[key(view.before)] for view in group.pairs}
        asked = {place[key(query)] for query in group.query}
        assert not shown & asked and 1 <= len(group.pairs) <= 2
        met |= {(a, b) for a in shown for b in asked}
    assert len(met) == 4 * 3


def test_edits_are_not_mixed_and_a_lone_pair_learns_from_its_own_views(tiny_base, pairs):
    looks = look_at(Editor.load(tiny_base), [*pairs(3, "a"), *pairs(1, "b", first=7)], 3)
    draw, generator = Draw(looks, 2, 2), torch.Generator().manual_seed(0)
    of = {key(view.before): look for look in looks for view in look.views}
    for _ in range(60):
        group = draw(generator)
        shown = [of[key(view.before)] for view in group.pairs]
        asked = [of[key(query)] for query in group.query]
        assert len({look.edit for look in shown + asked}) == 1
        if asked[0].edit == "b":
            assert not any(torch.equal(query, group.pairs[0].before) for query in group.query)


def test_geometry_is_the_same_inside_a_pair(tiny_base, scene):
    """A pair whose after image is its before image stays one under every crop and mirror."""
    pair = Pair("same", "", scene(1, (96, 64)), scene(1, (96, 64)), ("", ""), ("x", ""))
    [look] = look_at(Editor.load(tiny_base), [pair], 6, mirrored=True)
    assert all(torch.equal(view.before, view.after) for view in look.views)
    assert len({key(view.before) for view in look.views}) == 6


@pytest.mark.parametrize(("count", "held"), [(1, 0), (3, 0), (4, 1), (6, 1), (20, 3), (42, 7)])
def test_pairs_are_held_out_by_their_content_whatever_their_order(pairs, count, held):
    found = pairs(count)
    names = {pair.name for pair in hold_out(found)}
    assert len(names) == held and names == {pair.name for pair in hold_out(found[::-1])}


def test_of_many_edits_with_two_pairs_whole_edits_are_held_out(pairs):
    """The paper's setting: 21 edits of two pairs each."""
    found = [pair for edit in range(21) for pair in pairs(2, f"edit{edit}")]
    held = hold_out(found)
    assert len(held) == 6 and len({pair.edit for pair in held}) == 3
    known = [pair for pair in found if pair not in held]
    for trial in trials(held, known, 2):
        assert [pair.edit for pair in trial.shown] == [trial.asked.edit] and trial.shown[0] is not trial.asked


def test_of_many_held_out_pairs_eight_are_judged(pairs):
    [pair] = pairs(1)
    found = [dataclasses.replace(pair, sha256=(str(number), "")) for number in range(60)]
    held = hold_out(found)
    assert len(held) == 10 and len(trials(held, found, 2)) == 8


def test_pairs_that_are_judged_together_come_out_as_each_alone(tiny_base, pairs):
    editor, found = Editor.load(tiny_base), [*pairs(4, "a"), *pairs(4, "b", first=20)]
    held = hold_out(found)
    tried = trials([*found[:2], *held], [pair for pair in found[2:] if pair not in held], 2)
    assert len({trial.shown[0].digest for trial in tried}) > 1
    together = judge(editor, tried)
    alone = [judge(editor, [trial], seed) for seed, trial in enumerate(tried)]
    assert [row[3].tobytes() for row in together.pictures] == [each.pictures[0][3].tobytes() for each in alone]
    assert together.score.balanced == pytest.approx(sum(each.score.balanced for each in alone) / len(alone))


def test_stock_diffusers_loads_what_we_save_and_computes_the_same(fit, tmp_path):
    fitting = fit(steps=20, judge_every=20)
    for _ in fitting.run():
        pass
    ours = fitting.editor.family.transformer
    path = lora.save(ours, tmp_path / "saved", "pytorch_lora_weights.safetensors")
    stock = tiny_transformer()
    stock.load_lora_adapter(path.parent, weight_name=path.name)
    inputs = {
        "hidden_states": torch.randn(1, 8, 128, generator=torch.Generator().manual_seed(0)),
        "encoder_hidden_states": torch.zeros(1, 1, 16),
        "timestep": torch.full((1,), 0.7),
        "img_ids": torch.cartesian_prod(torch.tensor([0]), torch.arange(2), torch.arange(4), torch.tensor([0])),
        "txt_ids": torch.zeros(1, 4),
        "guidance": None,
    }
    with torch.no_grad():
        expected, plain = (model(**inputs).sample for model in (stock, tiny_transformer()))
        found = ours(**inputs).sample
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (expected - plain).abs().max() > 1e-3
    assert isinstance(stock, Flux2Transformer2DModel) and all("transformer." in key for key in load_file(path))


def test_an_editor_wears_what_was_trained(fit, tmp_path, scene):
    fitting = fit(steps=20, judge_every=20)
    for _ in fitting.run():
        pass
    path = lora.save(fitting.editor.family.transformer, tmp_path / "saved", "adapter.safetensors")
    editor = fitting.editor
    before = editor.edit([scene(9)], editor.remember([(scene(1), scene(2))]), seeds=[3])[0].tobytes()
    fresh = Editor.load(editor.base, adapter=[Lora(path)])
    assert fresh.edit([scene(9)], fresh.remember([(scene(1), scene(2))]), seeds=[3])[0].tobytes() == before


def test_usual_settings_grow_with_the_pairs_and_nonsense_is_refused():
    assert [usual_rank(count) for count in (1, 4, 5, 42)] == [16, 16, 32, 32]
    assert [usual_steps(count, 500) for count in (1, 5, 17, 42)] == [500, 500, 500, 1235]
    assert [usual_looks(steps) for steps in (8, 80, 300, 500)] == [10, 10, 37, 50]
    for changes, said in (
        ({"steps": 0}, "--steps"),
        ({"precision": "int3"}, "float32 or bfloat16"),
        ({"rate": 2}, "--rate"),
    ):
        with pytest.raises(UsageError, match=said):
            settings(**changes)


def test_compact_pairs_are_learned_from_as_they_are_shown(tiny_base, pairs, tmp_path):
    fitting = Fit(Editor.load(tiny_base, compact=2), pairs(5), (), settings(steps=60, judge_every=60), tmp_path)
    [view, *_] = fitting.draw(torch.Generator().manual_seed(0)).pairs
    assert view.shown[0].shape[0] == view.shown[1].shape[0] == view.before.shape[0] / 4
    losses = [moment.progress.loss for moment in fitting.run() if moment.progress.step]
    assert losses[-1] < 0.9 * losses[0]


def test_the_loss_reads_the_compact_pairs(tiny_base, pairs):
    editor = Editor.load(tiny_base, compact=2)
    draw = Draw(look_at(editor, pairs(3), 1), 2, 1)
    group = draw(torch.Generator().manual_seed(1))
    others = {
        "as drawn": group,
        "in full": dataclasses.replace(
            group, pairs=tuple(dataclasses.replace(view, shown=None, compact=1) for view in group.pairs)
        ),
    }
    losses = {
        name: group_loss(editor.family, "prefix", 2, each, torch.Generator().manual_seed(2)).item()
        for name, each in others.items()
    }
    plain = Draw(look_at(Editor.load(tiny_base), pairs(3), 1), 2, 1)(torch.Generator().manual_seed(1))
    expected = group_loss(editor.family, "prefix", 2, plain, torch.Generator().manual_seed(2)).item()
    assert losses["in full"] == expected != losses["as drawn"]
