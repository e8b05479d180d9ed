"""A base of the FLUX.1 family in a folder: results, adapters and texts of an Editor, and `apply` on it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops
from typer.testing import CliRunner, Result

from infra.cli import app
from infra.errors import AdapterNotFound
from pipelines.transfer import Editor, Lora, loading, passes, rewriting
from pipelines.transfer import adapters as lora_adapters
from pipelines.transfer.family import Prompt
from pipelines.transfer.layout import layout
from pipelines.transfer.mixture import Mixture
from tests.pipelines.transfer.test_flux1 import PROMPT, drawn
from tests.serving.adapters import lora_bytes, picture, publish
from tests.tiny import POOLED, make_tiny_base, make_tiny_flux1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_flux1(tmp_path_factory.mktemp("flux1"))


@pytest.fixture(scope="module")
def loras(tmp_path_factory, folder) -> dict[str | None, list[Lora]]:
    place, worn = tmp_path_factory.mktemp("loras"), {None: []}
    for seed, options in enumerate([{"rank": 4}, {"targets": ["to_q", "proj_mlp"]}]):
        path = place / f"{seed}.safetensors"
        path.write_bytes(lora_bytes(folder, seed, **options))
        worn[f"worn{seed}"] = [Lora(path, 1.0 - seed / 4)]
    return worn


def edited(editor: Editor) -> Image.Image:
    return editor.edit([picture(3)], editor.remember([(picture(1), picture(2))]), seeds=[5])[0]


@pytest.mark.parametrize("attention", ["prefix", "full"])
def test_a_result_is_the_same_in_any_batch(folder, attention):
    editor = Editor.load(folder, attention=attention)
    prefix, queries = editor.remember([(picture(1), picture(2))]), [picture(3), picture(4), picture(5, (64, 48))]
    together = editor.edit(queries, prefix, seeds=[1, 2, 3])
    for query, seed, result in zip(queries, [1, 2, 3], together, strict=True):
        assert editor.edit([query], prefix, seeds=[seed])[0].tobytes() == result.tobytes()


def test_an_adapter_of_scale_zero_is_the_base(folder, loras):
    editor, [lora] = Editor.load(folder), loras["worn0"]
    base = edited(editor)
    editor.wear([Lora(lora.path, 0.0)])
    assert edited(editor).tobytes() == base.tobytes()
    editor.wear([lora])
    assert ImageChops.difference(edited(editor), base).getbbox() is not None


def test_adapters_are_rewritten_under_the_names_of_the_family(folder, loras, tmp_path):
    made = rewriting.rewritten(loading.skeleton(folder), loras["worn0"][0].path, tmp_path)
    path, rank = made.path, made.rank
    assert rank == 4
    plain, worn = Editor.load(folder, adapter=path), Editor.load(folder, adapter=loras["worn0"])
    assert edited(plain).tobytes() == edited(worn).tobytes()


def test_text_changes_the_result_pooled_or_not(folder):
    editor = Editor.load(folder)
    seen = {edited(editor).tobytes()}
    for prompt in (PROMPT, Prompt(PROMPT.tokens_1TE), Prompt(PROMPT.tokens_1TE[:, :0], PROMPT.pooled_1P)):
        editor.say(prompt)
        seen.add(edited(editor).tobytes())
    assert len(seen) == 4
    with pytest.raises(ValueError, match="pooled prompt embeddings are 13 wide"):
        editor.say(Prompt(PROMPT.tokens_1TE, torch.zeros(1, POOLED + 1)))


@pytest.mark.parametrize("attention", ["prefix", "full"])
@torch.inference_mode()
def test_every_image_of_a_mixed_batch_is_as_if_alone(folder, loras, attention):
    names, levels = ["worn1", None, "worn0"], torch.tensor([1.0, 0.3, 0.7])
    alone, together = Editor.load(folder, attention=attention), Editor.load(folder, attention=attention)
    own = [[(picture(10 + row), picture(20 + row))] for row in range(3)]
    x, query = drawn(50, 3, 16, 64), drawn(51, 3, 16, 64)
    expected = []
    for row, name in enumerate(names):
        alone.wear(loras[name])
        prefix = alone.remember(own[row])
        plan = layout(prefix.grids, (4, 4), attention)
        velocity = passes.velocity_field(alone.family, query[row : row + 1], prefix, plan)
        expected.append(velocity(x[row : row + 1], levels[row : row + 1]))
    family, mixture, prefixes = together.family, Mixture(together.family), []
    for name, [lora] in [(name, worn) for name, worn in loras.items() if name]:
        lora_adapters.hang(family.transformer, lora, name)
    mixture.refresh()
    for name, pairs in zip(names, own, strict=True):
        with mixture.worn([name]):
            prefixes.append(together.remember(pairs))
    with mixture.worn(names):
        plans = [layout(prefix.grids, (4, 4), attention) for prefix in prefixes]
        velocities = passes.velocities(family, x, levels, passes.contexts(family, query, prefixes, plans))
    torch.testing.assert_close(velocities, torch.cat(expected), atol=1e-5, rtol=1e-5)


def test_apply_runs_on_a_folder_of_the_family(ray_cluster, folder, tmp_path):
    told = apply(folder, tmp_path)
    assert told.exit_code == 0 and json.loads(told.stdout)["done"] == 2
    images = [Image.open(path) for path in sorted((tmp_path / "out" / "images").iterdir())]
    assert [image.size for image in images] == [(64, 64), (64, 48)]


def apply(base: Path, place: Path, *options: str) -> Result:
    photos = place / "photos"
    photos.mkdir(parents=True)
    for seed, size in enumerate([(64, 64), (64, 48)]):
        picture(seed, size).save(photos / f"{seed}.png")
    for name, seed in (("before", 8), ("after", 9)):
        picture(seed).save(place / f"{name}.png")
    where = ["--input", str(photos), "--output", str(place / "out"), "--base", str(base), "--workers", "1", "--json"]
    return CliRunner().invoke(
        app, ["apply", "--pair", str(place / "before.png"), str(place / "after.png"), *where, *options]
    )


def refused(told: Result) -> str:
    """The one sentence or two of a refusal, free of line breaks."""
    assert told.exit_code == 2 and "Traceback" not in told.stderr and told.stdout == ""
    return " ".join(told.stderr.split())


def test_apply_says_what_is_wrong_with_a_base(folder, tmp_path):
    other = make_tiny_base(tmp_path / "flux2")
    crossed = shutil.copytree(folder, tmp_path / "crossed")
    shutil.rmtree(crossed / "vae")
    assert "has no vae folder" in refused(apply(crossed, tmp_path / "1"))
    shutil.copytree(other / "vae", crossed / "vae")
    said = refused(apply(crossed, tmp_path / "2"))
    assert "is of class AutoencoderKLFlux2, but a FluxTransformer2DModel needs AutoencoderKL." in said
    config = crossed / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "SD3Transformer2DModel"}))
    assert "is a SD3Transformer2DModel; known are" in refused(apply(crossed, tmp_path / "3"))


def test_an_adapter_of_another_family_is_refused_in_a_sentence(folder, tmp_path):
    other = make_tiny_base(tmp_path / "flux2")
    for base, stranger in ((folder, other), (other, folder)):
        path = tmp_path / f"{base.name}.safetensors"
        path.write_bytes(lora_bytes(stranger, 1))
        with pytest.raises(AdapterNotFound, match="was made for another base"):
            Editor.load(base, adapter=path)
    publish(str(tmp_path / "registry"), "stranger", other, 1)
    told = apply(folder, tmp_path / "apply", "--adapter", "stranger", "--registry", str(tmp_path / "registry"))
    assert "stranger@1 was trained on another base, flux2" in refused(told)
