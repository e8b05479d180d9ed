"""The stock `openai` client, unchanged, and the results it gets."""

import base64
import io

import numpy as np
import openai
import pytest
from PIL import Image
from typer.testing import CliRunner

from infra import registry
from infra.cli import app
from pipelines.catalog import job
from pipelines.catalog.work import sha256
from pipelines.transfer import Editor
from tests.serving.adapters import lora_bytes


@pytest.fixture(scope="session")
def client(endpoint):
    return openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="session")
def editor(endpoint):
    return Editor.load(endpoint.base)


def opened(b64: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(b64)))


def image_of(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_an_image_is_edited_as_a_pair_shows(client, editor, png):
    files = [("before.png", png(1)), ("after.png", png(1, negative=True)), ("query.png", png(5))]
    answer = client.images.edit(model="", image=files, prompt="not used", extra_body={"seed": 7})
    prefix = editor.remember([(image_of(files[0][1]), image_of(files[1][1]))])
    [expected] = editor.edit([image_of(files[2][1])], prefix, seeds=[7])
    assert np.array_equal(np.asarray(opened(answer.data[0].b64_json)), np.asarray(expected))
    assert answer.data[0].seed == 7 and answer.edit_transfer["prompt_used"] is False


def test_without_a_seed_the_result_is_the_jobs(client, editor, png, endpoint):
    data = png(6)
    answer = client.images.edit(model="invert", image=data, prompt="", n=2)
    told = answer.edit_transfer["adapter"]
    assert (told["name"], told["version"]) == ("invert", 1)
    version = job.adapters.registry.resolve(endpoint.registry, "invert")
    options = job.Options(pairs=[], input="", output="", adapters=["invert"])
    worn = job.adapters.find(endpoint.registry, ["invert"], 1.0, editor.revision)
    shown = [(sha256(before), sha256(after)) for _, before, after in job.adapters.exemplars(worn)]
    for number, one in enumerate(answer.data):
        recipe = job._recipe(job.replace(options, seed=number), str(endpoint.base), worn, shown)
        assert one.seed == recipe.seed_for(sha256(data))
    assert told["digest"] == version.digest


def test_an_imported_adapter_shows_its_edit_by_the_pairs_that_came_with_it(client, endpoint, png, pair, tmp_path):
    """OpenAI's client has no way to send pairs beside a model."""
    file = tmp_path / "theirs.safetensors"
    file.write_bytes(lora_bytes(endpoint.base, 77))
    options = ["--base", str(endpoint.base), "--attention", "prefix", "--registry", endpoint.registry]
    arguments = ["adapters", "import", str(file), "--name", "imported", "--pair", *pair, *options]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    answer = client.images.edit(model="imported", image=png(6), prompt="", extra_body={"seed": 7})
    editor = Editor.load(endpoint.base, adapter=file, attention="prefix")
    prefix = editor.remember([tuple(Image.open(path).convert("RGB") for path in pair)])
    [expected] = editor.edit([image_of(png(6))], prefix, seeds=[7])
    assert np.array_equal(np.asarray(opened(answer.data[0].b64_json)), np.asarray(expected))


def test_models_are_the_base_and_the_adapters_with_their_aliases(client, endpoint):
    known = {model.id for model in client.models.list()}
    names = registry.names(endpoint.registry)
    aliases = {f"{name}@{alias}" for name in names for alias in registry.aliases(endpoint.registry, name)}
    assert {"invert", "invert@production", "other"} <= known == {endpoint.base.name, *names, *aliases}
    assert client.models.retrieve("invert@1").owned_by == "edit-transfer"
    assert client.models.retrieve(endpoint.base.name).id == endpoint.base.name
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


@pytest.mark.parametrize(
    ("arguments", "kind", "param"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model"),
        ({"model": "Not A Name"}, openai.BadRequestError, "model"),
        ({"model": "invert", "image": b"no image at all"}, openai.UnprocessableEntityError, "image"),
        ({"model": "invert", "mask": b"mask"}, openai.BadRequestError, "mask"),
        ({"model": "invert", "size": "1024x1024"}, openai.BadRequestError, "size"),
        ({"model": "invert", "size": "big"}, openai.BadRequestError, "size"),
        ({"model": "invert", "n": 11}, openai.BadRequestError, "n"),
        ({"model": "invert", "response_format": "url"}, openai.BadRequestError, "response_format"),
        ({"model": "invert", "extra_body": {"seed": "soon"}}, openai.BadRequestError, "seed"),
        ({"model": "invert", "image": [b"x", b"y"]}, openai.BadRequestError, "image"),
        ({"model": "invert", "image": [b"x"] * 3}, openai.UnprocessableEntityError, "image"),
    ],
)
def test_what_cannot_be_done_is_a_typed_exception(client, png, arguments, kind, param):
    with pytest.raises(kind) as raised:
        client.images.edit(**{"image": png(0), "prompt": "", **arguments})
    assert raised.value.body["param"] == param and raised.value.body["message"].endswith((".", "?"))
    assert "/tmp" not in raised.value.body["message"]


def test_a_size_of_the_same_proportions_is_given(client, png):
    answer = client.images.edit(model="invert", image=png(0), prompt="", size="96x64", output_format="webp")
    assert opened(answer.data[0].b64_json).size == (96, 64) and answer.size == "96x64"
    assert opened(answer.data[0].b64_json).format == "WEBP"
