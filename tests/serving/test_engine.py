"""Whatever company a request has, its result is that of `Editor.edit`, bit for bit; and nobody waits for ever."""

import itertools
import random
import shutil
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from infra.errors import AdapterDamaged, AdapterNotFound, DeadlinePassed, ImageError, Interrupted
from pipelines import adapters, texts
from pipelines.adapters import Worn
from pipelines.catalog.variants import decoded_pair
from pipelines.transfer import Editor, bases
from pipelines.transfer.prompts import GUIDANCE, NEGATIVE, TOKENS, parsed
from serving.engine import Engine, Work
from tests.serving.adapters import picture, publish

SIZES = [(64, 64), (48, 64), (64, 32), (32, 32)]  # 16, 12, 8 and 4 tokens


@pytest.fixture(scope="module")
def worn(tiny_base, tmp_path_factory) -> list[Worn]:
    return eight_adapters(tiny_base, str(tmp_path_factory.mktemp("registry")))


def eight_adapters(base: Path, address: str) -> list[Worn]:
    """Of one base, unlike in rank and layers."""
    return [
        Worn(
            publish(address, f"shop-{seed}", base, seed, rank=4 + seed % 3, targets=["to_q", "to_out.0"] * (seed % 2)),
            0.5 if seed == 7 else 1.0,
        )
        for seed in range(8)
    ]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def engine(tiny_base, cache):
    engine = Engine(str(tiny_base), cache, max_batch=6)
    yield engine
    engine.stop()


@pytest.fixture
def editor(tiny_base, one_thread):
    """What the engine is compared with."""
    return Editor.load(tiny_base)


@pytest.fixture
def one_thread():
    """As an engine has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def inline(seed: int) -> dict:
    before, after = picture(seed), picture(seed + 1)
    return {"pairs": ((before, after),), "shown": ((f"before {seed}", f"after {seed}"),)}


def asked(worn: list[Worn], count: int, seed: int) -> list[Work]:
    """Random requests: adapters, pairs of their own, sizes, steps and seeds."""
    draw = random.Random(seed)
    works = []
    for number in range(count):
        own = draw.random() < 0.3
        wears = None if own and draw.random() < 0.5 else draw.choice(worn)
        works.append(
            Work(
                query=picture(number, draw.choice(SIZES)),
                seed=draw.randrange(2**63),
                worn=wears,
                steps=draw.choice([None, 1, 3, 5]),
                tenant=draw.choice("abc"),
                **(inline(draw.randrange(3) * 2 + 5000) if own else {}),
            )
        )
    return works


def edited(editor: Editor, work: Work, cache: str) -> bytes:
    """The plain way."""
    wears = [work.worn] if work.worn else []
    editor.wear(adapters.loras(wears, Path(cache)))
    pairs = list(work.pairs) or [decoded_pair(file, 10**6) for file in adapters.exemplars(wears)]
    [result] = editor.edit([work.query], editor.remember(pairs), seeds=[work.seed], steps=work.steps)
    return result.tobytes()


def test_mixed_requests_equal_the_editor_bit_for_bit(engine, editor, worn, cache):
    works = asked(worn, 60, seed=1)
    futures = [engine.submit(work) for work in works]
    results = [future.result(120) for future in futures]
    assert max(result.batch for result in results) > 2, "they had no company"
    for work, result in zip(works, results, strict=True):
        assert result.image.tobytes() == edited(editor, work, cache)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_many_mixed_requests_on_the_bundled_base_equal_the_editor_bit_for_bit(tmp_path, cache):
    engine, editor = Engine(None, cache, max_batch=6), Editor.load()
    works = asked(eight_adapters(bases.BUNDLED, str(tmp_path)), 400, seed=2)
    for work, future in [(work, engine.submit(work)) for work in works]:
        assert future.result(300).image.tobytes() == edited(editor, work, cache)
    engine.stop()


def test_texts_of_adapters_and_of_the_base_run_beside_each_other(tmp_path, tiny_base, cache, editor):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    width = bases.text_widths(base)[0]
    words = [torch.randn(1, 2 + n, width, generator=torch.Generator().manual_seed(n)) for n in range(4)]
    said = [save({TOKENS: each}) for each in words[:3]]
    said[1] = save({TOKENS: words[1], NEGATIVE + TOKENS: words[3], GUIDANCE: torch.tensor(3.0)})
    (base / bases.PROMPT).write_bytes(said[2])
    versions = [publish(str(tmp_path / "r"), f"said-{n}", tiny_base, 60 + n, prompt=said[n]) for n in range(2)]
    wears = [Worn(versions[0]), Worn(versions[1]), None]
    engine = Engine(str(base), cache)
    works = [Work(query=picture(n), seed=n, steps=3, worn=wears[n % 3], **inline(5000)) for n in range(6)]
    futures = [engine.submit(work) for work in works]
    results = [future.result(60).image.tobytes() for future in futures]
    assert engine.describe().text == texts.of_base(base)
    engine.stop()
    silent = edited(editor, works[0], cache)
    for number, (work, result) in enumerate(zip(works, results, strict=True)):
        editor.say(parsed(said[number % 3], "text"))
        assert result == edited(editor, work, cache) != silent


@pytest.mark.parametrize("attention", ["full", "joint"])
def test_other_attention_runs_beside_prefix_attention(tmp_path, tiny_base, cache, editor, attention):
    engine = Engine(str(tiny_base), cache)
    version = publish(str(tmp_path), "paper", tiny_base, 50, attention=attention)
    other = Worn(version)
    plain = [Work(query=picture(n), seed=n, steps=3, **inline(5000)) for n in range(3)]
    paper = [Work(query=picture(n), seed=n, steps=3, worn=other) for n in range(3)]
    futures = [engine.submit(work) for work in [*plain, *paper]]
    results = [future.result(60).image.tobytes() for future in futures]
    assert results[:3] == [edited(editor, work, cache) for work in plain]
    whole = Editor.load(tiny_base, attention=attention)
    assert results[3:] == [edited(whole, work, cache) for work in paper]
    engine.stop()


@pytest.mark.parametrize("attention", ["prefix", "joint"])
def test_compact_pairs_run_beside_those_in_full(tmp_path, tiny_base, cache, editor, attention):
    engine = Engine(str(tiny_base), cache)
    versions = [publish(str(tmp_path), f"k{k}", tiny_base, 50, attention=attention, compact=k) for k in (1, 2)]
    works = [Work(query=picture(n), seed=n, steps=3, worn=Worn(versions[n % 2])) for n in range(4)]
    futures = [engine.submit(work) for work in works]
    results = [future.result(60).image.tobytes() for future in futures]
    editors = [Editor.load(tiny_base, attention=attention, compact=compact) for compact in (1, 2)]
    assert results == [edited(editors[n % 2], work, cache) for n, work in enumerate(works)]
    assert results[1] != edited(editors[0], works[1], cache)
    engine.stop()


def test_pairs_are_run_once(engine, worn):
    work = Work(query=picture(1), seed=1, worn=worn[0], **inline(7000))
    assert [engine.submit(work).result(60).prefix_cached for _ in range(3)] == [False, True, True]
    other = Work(query=picture(1), seed=1, worn=worn[1], **inline(7000))
    assert not engine.submit(other).result(60).prefix_cached, "keys and values are those of one adapter"


def test_what_is_kept_is_bounded_and_comes_back_right(tmp_path, tiny_base, cache, editor):
    worn = [Worn(publish(str(tmp_path), f"large-{seed}", tiny_base, seed, rank=8)) for seed in range(8)]
    engine = Engine(str(tiny_base), cache, max_batch=2, adapters_mib=1, prefixes_mib=0)
    size = max(Path(lora.path).stat().st_size for lora in adapters.loras(worn, Path(cache)))
    for _ in range(2):
        for wears in worn:
            work = Work(query=picture(3), seed=4, worn=wears)
            assert engine.submit(work).result(60).image.tobytes() == edited(editor, work, cache)
    state = engine.state()
    assert state["adapter_bytes"] <= 2**20 + 2 * size and state["adapters"] < len(worn) < state["adapters_loaded"]
    assert state["prefixes"] == 1
    engine.stop()


class Halting:
    """Progress that holds the engine's thread at a step until it is let go: a batch that stays busy."""

    def __init__(self, at: int) -> None:
        self.at, self.reached, self.go_on = at, threading.Event(), threading.Event()
        self.steps: list[int] = []

    def __call__(self, progress) -> None:
        self.steps.append(progress.step)
        if progress.step == self.at:
            self.reached.set()
            assert self.go_on.wait(60)


def test_who_comes_joins_the_busy_batch_at_its_next_step(engine, worn):
    halt = Halting(3)
    first = engine.submit(Work(query=picture(1), seed=1, worn=worn[0], steps=40), halt)
    assert halt.reached.wait(60)
    seen: list[int] = []
    second = engine.submit(Work(query=picture(2), seed=2, worn=worn[1], steps=2), lambda _: seen.append(halt.steps[-1]))
    halt.go_on.set()
    second.result(60)
    assert seen[0] in (4, 5) and not first.done()
    first.result(60)
    assert halt.steps == list(range(1, 41))


def test_who_leaves_frees_the_place_and_costs_the_others_nothing(tiny_base, cache, worn, editor):
    engine = Engine(str(tiny_base), cache, max_batch=2)
    halt = Halting(1)
    stays = Work(query=picture(1), seed=1, worn=worn[0], steps=4)
    first = engine.submit(stays, halt)
    assert halt.reached.wait(60)
    endless = [engine.submit(Work(query=picture(n), seed=n, worn=worn[1], steps=10**6)) for n in range(3)]
    waits = engine.submit(Work(query=picture(9), seed=9, worn=worn[2], steps=1))
    halt.go_on.set()
    for each in endless:
        assert each.cancel()
    assert first.result(60).image.tobytes() == edited(editor, stays, cache)
    waits.result(60)
    assert engine.state()["waiting"] == 0
    engine.stop()


def test_a_deadline_ends_what_runs_and_what_waits(tiny_base, cache, worn):
    engine = Engine(str(tiny_base), cache, max_batch=1)
    futures = [engine.submit(Work(query=picture(n), seed=n, worn=worn[0], steps=10**6, seconds=0.5)) for n in range(3)]
    for future in futures:
        with pytest.raises(DeadlinePassed, match=r"0\.5 seconds"):
            future.result(60)
    assert engine.submit(Work(query=picture(1), seed=1, worn=worn[0])).result(60)
    engine.stop()


def test_what_one_request_cannot_have_is_its_own_affair(engine, editor, tmp_path, worn, cache, tiny_base):
    good = [Work(query=picture(n), seed=n, worn=worn[n]) for n in range(4)]
    foreign = Worn(publish(str(tmp_path), "foreign", bases.BUNDLED, 1))
    damaged = Worn(publish(str(tmp_path), "damaged", tiny_base, 60))
    Path(damaged.version.uri, "adapter.safetensors").write_bytes(b"no weights")
    bad = [
        (Work(query=picture(1), seed=1, worn=foreign), AdapterNotFound, "another base"),
        (Work(query=picture(1), seed=1, worn=damaged), AdapterDamaged, "not the file"),
        (Work(query=picture(1), seed=1, worn=worn[0], steps=-1), ValueError, "negative|steps"),
    ]
    futures = [engine.submit(work) for work in itertools.chain(*zip(good, [case[0] for case in bad], strict=False))]
    futures.append(engine.submit(good[-1]))
    for future, (_, kind, sentence) in zip(futures[1::2], bad, strict=False):
        with pytest.raises(kind, match=sentence):
            future.result(60)
    for work, future in zip(good, [*futures[0:6:2], futures[-1]], strict=True):
        assert future.result(60).image.tobytes() == edited(editor, work, cache)


def test_stopping_answers_everybody(tiny_base, cache, worn):
    engine = Engine(str(tiny_base), cache, max_batch=2)
    halt = Halting(1)
    running = engine.submit(Work(query=picture(1), seed=1, worn=worn[0], steps=10**6), halt)
    assert halt.reached.wait(60)
    waiting = [engine.submit(Work(query=picture(2), seed=2, worn=worn[1], steps=10**6)) for _ in range(5)]
    halt.go_on.set()
    engine.stop()
    for future in [running, *waiting, engine.submit(Work(query=picture(2), seed=2, worn=worn[1]))]:
        with pytest.raises(Interrupted):
            future.result(60)


def test_previews_come_on_the_way_and_change_nothing(engine, worn):
    told = []
    plain = Work(query=picture(1), seed=1, worn=worn[0], steps=4)
    shown = Work(query=picture(1), seed=1, worn=worn[0], steps=4, previews=True)
    result = engine.submit(shown, told.append).result(60)
    assert [progress.step for progress in told] == [1, 2, 3, 4]
    assert [progress.preview.size for progress in told] == [(64, 64)] * 4
    assert told[-1].preview.tobytes() == result.image.tobytes() == engine.submit(plain).result(60).image.tobytes()


def test_too_little_memory_makes_smaller_passes(engine, editor, worn, cache, monkeypatch):
    """A transformer that cannot take more than two images at a time, as on a GPU that is nearly full."""
    forward = engine.editor.family.transformer.forward
    seen = []

    def cramped(*args, **kwargs):
        seen.append(len(kwargs["hidden_states"]))
        if seen[-1] > 2:
            raise torch.OutOfMemoryError("no room for more")
        return forward(*args, **kwargs)

    halt = Halting(1)
    first = engine.submit(Work(query=picture(1), seed=1, worn=worn[0], steps=3), halt)
    assert halt.reached.wait(60)
    monkeypatch.setattr(engine.editor.family.transformer, "forward", cramped)
    works = [Work(query=picture(number), seed=number, worn=worn[0], steps=3) for number in range(9)]
    futures = [engine.submit(work) for work in works]
    halt.go_on.set()
    for work, future in zip(works, futures, strict=True):
        assert future.result(60).image.tobytes() == edited(editor, work, cache)
    assert first.result(60) and max(seen) > 2 and engine.batch.most <= 2


def test_a_query_that_is_no_working_size_is_refused(engine, worn):
    with pytest.raises((ImageError, RuntimeError)):
        engine.submit(Work(query=picture(1, (7, 7)), seed=1, worn=worn[0])).result(60)
