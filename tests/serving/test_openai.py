"""The stock `openai` client, unchanged, and the results it gets."""

import base64
import io

import numpy as np
import openai
import pytest
from PIL import Image

from pipelines.transfer import Editor


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
