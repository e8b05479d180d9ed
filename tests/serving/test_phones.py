"""HEIC and AVIF at the endpoint: as queries and pairs of every route, as results, and told of by /openapi.json."""

import base64
import io

import pytest
import requests
from PIL import Image

from tests.crafted import file_of


@pytest.fixture(scope="module")
def url(endpoint):
    return f"{endpoint.url}/v1"


def format_of(data: bytes) -> str | None:
    return Image.open(io.BytesIO(data)).format


@pytest.mark.parametrize(("sent", "given", "media"), [("HEIF", "JPEG", "image/jpeg"), ("AVIF", "AVIF", "image/avif")])
def test_a_query_comes_back_in_its_format_or_as_jpeg(url, scene, sent, given, media):
    files = {"query": ("IMG_1.HEIC", file_of(scene(5), sent), "image/heic")}
    answer = requests.post(f"{url}/transfers", files=files, data={"adapter": "invert"})
    assert answer.status_code == 200 and answer.headers["content-type"] == media
    assert format_of(answer.content) == given


@pytest.mark.parametrize("sent", ["HEIF", "AVIF", "PNG"])
def test_a_result_can_be_asked_for_as_avif(url, scene, sent):
    files = {"query": file_of(scene(5), sent)}
    wanted = requests.post(f"{url}/transfers", files=files, data={"adapter": "invert", "output_format": "avif"})
    accepted = requests.post(
        f"{url}/transfers", files=files, data={"adapter": "invert"}, headers={"Accept": "image/avif, */*"}
    )
    edited = requests.post(
        f"{url}/images/edits", files={"image": files["query"]}, data={"model": "invert", "output_format": "avif"}
    )
    assert wanted.headers["content-type"] == accepted.headers["content-type"] == "image/avif"
    told = edited.json()
    assert told["output_format"] == "avif"
    assert {format_of(wanted.content), format_of(base64.b64decode(told["data"][0]["b64_json"]))} == {"AVIF"}


def test_pairs_may_be_photos_of_phones(url, scene):
    before, after = scene(1), scene(1).point(lambda value: 255 - value)
    pair = [("before", ("b.heic", file_of(before, "HEIF"))), ("after", ("a.avif", file_of(after, "AVIF")))]
    answer = requests.post(f"{url}/transfers", files=[*pair, ("query", ("q.heic", file_of(scene(5), "HEIF")))])
    assert answer.status_code == 200 and format_of(answer.content) == "JPEG"
    images = [("image", part[1]) for part in pair] + [("image", ("q.avif", file_of(scene(5), "AVIF")))]
    assert requests.post(f"{url}/images/edits", files=images).status_code == 200


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (lambda scene: file_of(scene(5), "HEIF")[:-100], "truncated"),
        (lambda scene: file_of(scene(5), "AVIF")[:-100], "truncated"),
        (lambda scene: file_of(Image.new("RGB", (2000, 1500)), "AVIF"), "too_many_pixels"),
        (lambda scene: file_of(Image.new("RGB", (2000, 1500)), "HEIF"), "too_many_pixels"),
        (lambda scene: b"II*\0\x10\0\0\0CR\2\0" + bytes(500), "unsupported"),
        (lambda scene: b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(500), "unsupported"),
    ],
)
def test_what_cannot_be_edited_is_one_error(url, scene, data, code):
    answer = requests.post(f"{url}/transfers", files={"query": data(scene)}, data={"adapter": "invert"})
    error = answer.json()["error"]
    assert answer.status_code == 422 and error["code"] == code and error["param"] == "query"


def test_openapi_names_the_formats(endpoint):
    paths = requests.get(f"{endpoint.url}/openapi.json").json()["paths"]
    form = paths["/v1/transfers"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert "avif" in str(form["properties"]["output_format"])
    assert "image/avif" in paths["/v1/transfers"]["post"]["responses"]["200"]["content"]
