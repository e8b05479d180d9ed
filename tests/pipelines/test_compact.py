"""Compact pairs as a setting of an adapter: published, found, and used by all that edits with it."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra import registry, settings
from infra.cli import app
from pipelines import adapters
from pipelines.catalog import job
from pipelines.catalog.bench import Bench
from pipelines.catalog.listing import Own
from pipelines.catalog.work import Recipe, sha256
from pipelines.transfer import Editor, bases
from serving.app.desk import Ask, Desk
from serving.app.directory import Directory
from serving.app.options import Limits
from serving.engine.request import Description
from tests.serving.adapters import lora_bytes, publish


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_base, scene) -> Path:
    """A registry with the same weights twice, trained with compact pairs and without, and a photo."""
    folder = tmp_path_factory.mktemp("compact")
    for compact, name in ((1, "plain"), (2, "small")):
        publish(str(folder / "registry"), name, tiny_base, 3, compact=compact)
    scene(1, (64, 64)).save(folder / "photo.png")
    return folder


def prepared(place: Path, base: Path, ref: str) -> job.Prepared:
    source, output = str(place / "photo.png"), str(place / "out")
    asked = job.Options(
        pairs=[], input=source, output=output, adapters=(ref,), registry=str(place / "registry"), base=str(base)
    )
    return job.prepare(asked, settings.from_environment())


def test_compact_enters_the_work_only_where_it_is_set():
    recipe = Recipe(
        base="b",
        revision="r" * 64,
        pairs=(("p", "q"),),
        attention="prefix",
        max_area=4096,
        steps=8,
        adapter="a",
        adapter_name="lift",
        adapter_version=3,
        prompt="t",
    )
    before_there_was_compact = "a893fafc645bf5c31343647b1840ff68904693d2c7d2f71092e5d75b7acc08db"
    assert recipe.work_id("i") == before_there_was_compact
    assert replace(recipe, compact=2).work_id("i") != recipe.work_id("i")
    assert replace(recipe, compact=2).seed_for("i") != recipe.seed_for("i")


def test_a_job_shows_the_pairs_as_the_adapter_was_trained(place, tmp_path, tiny_base, scene):
    edits = prepared(place, tiny_base, "small").feed.edits
    assert edits.usual.recipe.compact == 2
    loras, query = adapters.loras(edits.usual.worn, tmp_path), scene(2, (64, 64))
    made = Bench(str(tiny_base), edits, str(tmp_path), 1).edit([query], edits.usual, [5])[0].tobytes()
    by_compact = []
    for compact in (1, 2):
        editor = Editor.load(tiny_base, adapter=loras, compact=compact)
        prefix = editor.remember(edits.pairs)
        by_compact.append((prefix.nbytes, editor.edit([query], prefix, seeds=[5])[0].tobytes()))
    (full_bytes, full), (few_bytes, few) = by_compact
    assert few_bytes == full_bytes / 4 and made == few != full


def test_a_row_with_a_compact_adapter_of_its_own_gets_compact_pairs(place, tmp_path, tiny_base, scene):
    edits, query = prepared(place, tiny_base, "plain").feed.edits, scene(2, (64, 64))
    assert edits.usual.recipe.compact == 1
    variant = edits.chooser()(Own(adapter="small"))
    made = Bench(str(tiny_base), edits, str(tmp_path), 1).edit([query], variant, [5])[0].tobytes()
    editor = Editor.load(tiny_base, adapter=adapters.loras(variant.worn, tmp_path), compact=2)
    assert variant.recipe.compact == 2
    assert made == editor.edit([query], editor.remember(edits.shown(variant)), seeds=[5])[0].tobytes()


def test_the_endpoint_draws_the_noise_that_a_job_would(place, tiny_base):
    usual, query = bases.settings_of(tiny_base), (place / "photo.png").read_bytes()
    run = Description(
        base="base",
        revision=bases.revision_of(tiny_base),
        attention=usual.attention,
        steps=usual.steps,
        max_area=usual.max_area,
        multiple=16,
    )
    desk = Desk(Directory(str(place / "registry"), run.revision), run, 10**6, Limits())

    async def seed(ref: str) -> int:
        async with desk.order(Ask(query=query, adapter=ref, seconds=60, began=time.monotonic())) as order:
            return order.works[0].seed

    seeds = [asyncio.run(seed(ref)) for ref in ("plain", "small")]
    assert seeds == [prepared(place, tiny_base, ref).recipe.seed_for(sha256(query)) for ref in ("plain", "small")]
    assert seeds[0] != seeds[1]


def test_pairs_larger_than_the_base_takes_are_shown_alike_by_job_and_endpoint(tiny_base, scene):
    """The endpoint brings pairs to their working size first, the job gives them as they are."""
    editor, pair = Editor.load(tiny_base, compact=2), (scene(1, (200, 120)), scene(2, (200, 120)))
    query = scene(3, (64, 48))
    results = {
        editor.edit([query], editor.remember([shown]), seeds=[1])[0].tobytes()
        for shown in (pair, (editor.fit(pair[0]), editor.fit(pair[1])))
    }
    assert len(results) == 1


def test_an_editor_cannot_be_less_than_full(tiny_base):
    with pytest.raises(ValueError, match="compact must be at least 1, not 0"):
        Editor.load(tiny_base, compact=0)


@pytest.mark.parametrize(("options", "told"), [([], None), (["--compact", "1"], None), (["--compact", "2"], 2)])
def test_an_import_says_how_compact_the_pairs_were(tmp_path, tiny_base, options, told):
    file, address = tmp_path / "lora.safetensors", str(tmp_path / "registry")
    file.write_bytes(lora_bytes(tiny_base, 7))
    where = ["--name", "stock", "--base", str(tiny_base), "--registry", address]
    done = CliRunner().invoke(app, ["adapters", "import", str(file), *where, *options])
    assert done.exit_code == 0, done.output
    assert registry.resolve(address, "stock").about.get("compact") == told
    [worn] = adapters.find(address, ["stock"], 1.0, bases.revision_of(tiny_base))
    assert worn.compact == (told or 1)
