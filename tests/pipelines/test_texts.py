"""Texts that come with a base or an adapter: which one counts, and that it decides the work and the pixels."""

import asyncio
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from typer.testing import CliRunner

from infra import registry, settings
from infra.cli import app
from infra.errors import ImageError, UsageError
from infra.registry.layout import PROMPT
from pipelines import adapters, texts
from pipelines.catalog import job
from pipelines.catalog.bench import Bench
from pipelines.catalog.listing import Own
from pipelines.catalog.work import sha256
from pipelines.transfer import Editor, bases
from pipelines.transfer.prompts import TOKENS, parsed
from serving.app.desk import Ask, Desk
from serving.app.directory import Directory
from serving.app.options import Limits
from serving.engine.request import Description
from tests.serving.adapters import lora_bytes, publish
from tests.tiny import CONTEXT


def embeddings(seed: int) -> bytes:
    return save({TOKENS: torch.randn(1, 3, CONTEXT, generator=torch.Generator().manual_seed(seed))})


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_base, scene) -> Path:
    """A registry with adapters that bring a text and one that brings none, a base with and one without, and a photo."""
    folder = tmp_path_factory.mktemp("texts")
    shutil.copytree(tiny_base, folder / "base")
    (folder / "base" / PROMPT).write_bytes(embeddings(0))
    address = str(folder / "registry")
    for number, name in enumerate(("lift", "shine")):
        publish(address, name, tiny_base, number, prompt=embeddings(1 + number))
    publish(address, "plain", tiny_base, 3)
    (folder / "asked.safetensors").write_bytes(embeddings(9))
    scene(1, (64, 64)).save(folder / "photo.png")
    return folder


def prepared(place: Path, base: Path, *refs: str, **options: object) -> job.Prepared:
    photo = str(place / "photo.png")
    asked = job.Options(
        pairs=[] if refs else [(photo, photo)],
        input=photo,
        output=str(place / "out"),
        adapters=refs,
        registry=str(place / "registry"),
        base=str(base),
        **options,  # type: ignore[arg-type]
    )
    return job.prepare(asked, settings.from_environment())


def test_what_is_asked_for_comes_before_the_adapters_and_that_before_the_bases(place, tiny_base):
    asked = {"prompt": str(place / "asked.safetensors")}
    with_text = place / "base"
    expected = [
        (prepared(place, with_text, "lift", **asked), embeddings(9)),
        (prepared(place, with_text, "lift"), embeddings(1)),
        (prepared(place, with_text, "lift", "plain"), embeddings(1)),
        (prepared(place, with_text, "plain"), embeddings(0)),
        (prepared(place, with_text), embeddings(0)),
        (prepared(place, tiny_base, "lift"), embeddings(1)),
        (prepared(place, tiny_base, "lift", "shine", **asked), embeddings(9)),
    ]
    for found, text in expected:
        assert found.recipe.prompt == sha256(text)
    assert prepared(place, tiny_base, "plain").recipe.prompt is None
    with pytest.raises(UsageError, match=r"lift@1 and shine@1 each bring a text"):
        prepared(place, tiny_base, "lift", "shine")


@pytest.mark.parametrize(("refs", "said"), [(["lift"], 1), (["plain"], 0), ([], 0)])
def test_an_edit_is_made_with_the_text_that_counts(place, tmp_path, scene, refs, said):
    edits = prepared(place, place / "base", *refs).feed.edits
    bench = Bench(str(place / "base"), edits, str(tmp_path), 1)
    editor = Editor.load(place / "base", adapter=adapters.loras(edits.usual.worn, tmp_path), prompt_embeds=None)
    query, prefix = scene(2, (64, 64)), editor.remember(edits.pairs)
    silent = editor.edit([query], prefix, seeds=[5])[0].tobytes()
    editor.say(parsed(embeddings(said), "text"))
    told = editor.edit([query], editor.remember(edits.pairs), seeds=[5])[0].tobytes()
    assert bench.edit([query], edits.usual, [5])[0].tobytes() == told != silent


def test_a_row_with_an_adapter_of_its_own_gets_its_text(place):
    edits = prepared(place, place / "base", "plain").feed.edits
    choose = edits.chooser()
    assert choose(Own(adapter="shine")).recipe.prompt == sha256(embeddings(2))
    assert choose(Own(adapter="plain", seed="3")).recipe.prompt == sha256(embeddings(0))
    assert choose(Own(prompt=str(place / "asked.safetensors"))).recipe.prompt == sha256(embeddings(9))
    (place / "wide.safetensors").write_bytes(save({TOKENS: torch.zeros(1, 3, CONTEXT + 1)}))
    with pytest.raises(ImageError, match=f"{CONTEXT + 1} wide, but the base takes {CONTEXT}") as refused:
        choose(Own(prompt=str(place / "wide.safetensors")))
    assert refused.value.code == "bad_override"
    asked = prepared(place, place / "base", "plain", prompt=str(place / "asked.safetensors")).feed.edits
    assert asked.chooser()(Own(adapter="shine")).recipe.prompt == sha256(embeddings(9))


def test_a_text_that_changed_since_is_noticed(place, tmp_path, tiny_base):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    (base / PROMPT).write_bytes(embeddings(4))
    text = texts.of_base(base)
    assert texts.read(text, base) is not None
    (base / PROMPT).write_bytes(embeddings(5))
    with pytest.raises(UsageError, match="not those that this edit was begun with"):
        texts.read(text, base)


def test_an_import_takes_a_text_that_fits(place, tmp_path, tiny_base):
    file, wide = tmp_path / "lora.safetensors", tmp_path / "wide.safetensors"
    file.write_bytes(lora_bytes(tiny_base, 7))
    wide.write_bytes(save({TOKENS: torch.zeros(1, 2, CONTEXT + 1)}))
    where = ["--name", "stock", "--base", str(tiny_base), "--registry", str(tmp_path / "registry")]
    refused = CliRunner().invoke(app, ["adapters", "import", str(file), *where, "--prompt", str(wide)])
    assert refused.exit_code == 2 and "wide, but the base takes" in refused.stderr
    told = CliRunner().invoke(
        app, ["adapters", "import", str(file), *where, "--prompt", str(place / "asked.safetensors")]
    )
    assert told.exit_code == 0, told.output
    assert registry.read_file(registry.resolve(str(tmp_path / "registry"), "stock"), PROMPT) == embeddings(9)


def test_the_endpoint_draws_the_noise_that_a_job_would(place):
    base, query = place / "base", (place / "photo.png").read_bytes()
    usual, folder = bases.settings_of(base), str(place / "registry")
    run = Description(
        base="base",
        revision=bases.revision_of(base),
        attention=usual.attention,
        steps=usual.steps,
        max_area=usual.max_area,
        multiple=16,
        text=texts.of_base(base),
    )
    desk = Desk(Directory(folder, run.revision), run, 10**6, Limits())

    async def seed(ref: str) -> int:
        async with desk.order(Ask(query=query, adapter=ref, seconds=60, began=time.monotonic())) as order:
            return order.works[0].seed

    for ref in ("lift", "plain"):
        recipe = prepared(place, base, ref).recipe
        assert recipe.prompt and asyncio.run(seed(ref)) == recipe.seed_for(sha256(query))
