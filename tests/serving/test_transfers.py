"""`/v1/transfers`: forms and JSON, files and facts, events; adapters with pairs of their own and pairs sent along."""

import base64
import io
import json

import numpy as np
import pytest
import requests
from PIL import Image

from infra import registry
from pipelines import adapters
from pipelines.restore import restore
from pipelines.transfer import Editor
from tests.serving.adapters import publish


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def events(response: requests.Response) -> list[tuple[str, dict]]:
    blocks = [block.split("\n") for block in response.text.strip().split("\n\n")]
    return [(block[0].removeprefix("event: "), json.loads(block[1].removeprefix("data: "))) for block in blocks]


@pytest.fixture(scope="module")
def url(endpoint):
    return f"{endpoint.url}/v1/transfers"


def test_a_form_gives_the_file_and_its_facts(url, png):
    files = {"query": png(5, format="JPEG")}
    answer = requests.post(url, files=files, data={"adapter": "invert", "seed": "7"})
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-edit-transfer-adapter"] == "invert" and answer.headers["x-edit-transfer-seed"] == "7"
    assert Image.open(io.BytesIO(answer.content)).size == (48, 32)


@pytest.mark.parametrize(("accept", "format"), [("image/webp", "WEBP"), ("image/png, */*", "PNG"), ("*/*", "JPEG")])
def test_the_accepted_format_is_given(url, png, accept, format):
    answer = requests.post(
        url, files={"query": png(5, format="JPEG")}, data={"adapter": "invert"}, headers={"Accept": accept}
    )
    assert Image.open(io.BytesIO(answer.content)).format == format


def test_an_adapters_pairs_come_before_those_sent_along(url, png, endpoint, tmp_path):
    mine = {"before": encoded(png(8)), "after": f"data:image/png;base64,{encoded(png(8, negative=True))}"}
    asked = {"query": encoded(png(5)), "pairs": [mine], "adapter": "invert:0.5", "seed": 3, "response_format": "json"}
    told = requests.post(url, json=asked).json()
    worn = adapters.find(endpoint.registry, ["invert"], 0.5, Editor.revision_of(endpoint.base))
    editor = Editor.load(endpoint.base, adapter=adapters.loras(worn, tmp_path))
    files = [each[1:] for each in adapters.exemplars(worn)] + [(png(8), png(8, negative=True))]
    pairs = [tuple(Image.open(io.BytesIO(file)).convert("RGB") for file in pair) for pair in files]
    [expected] = editor.edit([Image.open(io.BytesIO(png(5)))], editor.remember(pairs), seeds=[3])
    assert np.array_equal(pixels(base64.b64decode(told["b64_json"])), np.asarray(expected))
    assert told["adapter"]["scale"] == 0.5 and 0 < told["scores"]["change"] < 1 and told["timings"]["total"] > 0


def test_a_stream_tells_its_progress_and_ends_with_the_result(url, png):
    form = {"adapter": "invert", "seed": "7", "stream": "true", "steps": "3"}
    answer = requests.post(url, files={"query": png(5)}, data=form)
    plain = requests.post(url, files={"query": png(5)}, data=form | {"stream": "false"})
    told = events(answer)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [name for name, _ in told][-1] == "result"
    assert base64.b64decode(told[-1][1]["b64_json"]) == plain.content


@pytest.mark.parametrize(
    ("asked", "status", "param"),
    [
        ({"query": "https://example.com/a.png"}, 400, "query"),
        ({"query": "file:///etc/passwd"}, 400, "query"),
        ({"query": "%%%"}, 400, "query"),
        ({"adapter": "invert"}, 400, "query"),
        ({"query": "QUJD", "adapter": "invert"}, 422, "query"),
        ({"query": "QUJD", "adapter": "nobody"}, 404, "adapter"),
        ({"query": "QUJD", "adapter": "Not A Name"}, 400, "adapter"),
        ({"query": "QUJD"}, 400, "pairs"),
        ({"query": "QUJD", "adapter": 3}, 400, "adapter"),
        ({"query": "QUJD", "adapter": "invert", "scale": 1e9}, 400, "scale"),
        ({"query": "QUJD", "adapter": "invert", "timeout": True}, 400, "timeout"),
        ({"query": "QUJD", "pairs": [{"before": "QUJD"}]}, 400, "pairs.0.after"),
        ({"query": "QUJD", "pairs": "QUJD"}, 400, "pairs"),
    ],
)
def test_what_cannot_be_done_is_said(url, asked, status, param):
    answer = requests.post(url, json=asked)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


@pytest.mark.parametrize("wrong", ["before", "after"])
def test_an_image_of_a_pair_that_cannot_be_used_is_named(url, png, wrong):
    pair = {"before": png(1), "after": png(2)} | {wrong: b"no image"}
    form = [("query", png(0)), ("before", png(1)), ("after", png(2)), *pair.items()]
    told = {side: base64.b64encode(file).decode() for side, file in pair.items()}
    asked = {"query": base64.b64encode(png(0)).decode(), "pairs": [told]}
    answers = requests.post(url, files=form), requests.post(url, json=asked)
    assert [answer.status_code for answer in answers] == [400, 400]
    assert [answer.json()["error"]["param"] for answer in answers] == [wrong, f"pairs.0.{wrong}"]


def test_a_promotion_is_followed_and_never_forgotten(url, png, endpoint):
    publish(endpoint.registry, "moving", endpoint.base, 1)
    publish(endpoint.registry, "moving", endpoint.base, 2)
    registry.promote(endpoint.registry, "moving", 1)

    def version() -> str:
        answer = requests.post(url, files={"query": png(5)}, data={"adapter": "moving"})
        return answer.headers["x-edit-transfer-version"]

    assert version() == "1"
    registry.promote(endpoint.registry, "moving", 2)
    assert {version() for _ in range(3)} == {"2"}


def test_adapters_are_told(endpoint):
    def get(path: str) -> requests.Response:
        return requests.get(f"{endpoint.url}/v1/adapters{path}")

    assert {"invert", "other"} <= set(get("").json()["adapters"])
    assert get("/invert").json()["aliases"]["production"]["version"] == 1
    [version] = get("/invert/versions").json()["versions"]
    assert version == get("/invert/versions/1").json() and version["about"]["attention"] == "prefix"
    assert get("/invert/aliases/production").json()["moves"][0]["version"] == 1
    for path in ("/nobody", "/nobody/versions", "/invert/versions/9", "/invert/aliases/none", "/Bad%20name"):
        assert get(path).status_code == 404, path
        assert endpoint.registry not in get(path).text


def test_a_result_in_full_resolution_is_that_of_the_editor_restored(url, endpoint, scene):
    query, before, after = (scene(seed, (300, 200)) for seed in (5, 6, 7))

    def file(image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    files = [("query", file(query)), ("before", file(before)), ("after", file(after))]
    answer = requests.post(url, files=files, data={"seed": "3", "restore": "true"})
    editor = Editor.load(endpoint.base)
    [draft] = editor.draft([query], editor.remember([(before, after)]), seeds=[3])
    expected = restore(query, draft)
    assert np.array_equal(pixels(answer.content), np.asarray(expected.image))
    assert float(answer.headers["x-edit-transfer-kept"]) == pytest.approx(expected.kept, abs=1e-6)
    plain = requests.post(url, files=files, data={"seed": "3"})
    assert plain.content != answer.content and "x-edit-transfer-kept" not in plain.headers
