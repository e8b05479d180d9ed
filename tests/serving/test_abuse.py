"""Bad input and bad manners: the right status, OpenAI's shape, and the endpoint stays up."""

import io
import json
import socket
import zlib

import pytest
import requests
from PIL import Image

from tests.serving.conftest import BODY


def check(answer: requests.Response, status: int, code: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    told = answer.json()["error"]
    assert set(told) == {"message", "type", "param", "code"} and "Traceback" not in told["message"]
    if code:
        assert told["code"] == code


@pytest.fixture(autouse=True)
def stays_up(endpoint):
    yield
    assert requests.get(f"{endpoint.url}/readyz").json()["ready"]


@pytest.fixture(scope="module")
def url(endpoint):
    return f"{endpoint.url}/v1/transfers"


def bomb() -> bytes:
    """A PNG that says it has 400 million pixels."""
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def raw(endpoint, data: bytes, *, close: bool = False) -> tuple[int, dict]:
    """What is answered to these bytes."""
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=30) as connection:
        connection.sendall(data)
        if close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while b"}}" not in answer and (more := connection.recv(65536)):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])


def head(endpoint, length: int | str = "", media: str = "application/json", more: str = "") -> bytes:
    lines = [
        "POST /v1/transfers HTTP/1.1",
        f"Host: localhost:{endpoint.port}",
        f"Content-Type: {media}",
        f"Content-Length: {length}" if length != "" else "Transfer-Encoding: chunked",
    ]
    return ("\r\n".join(lines) + f"\r\n{more}\r\n").encode()


def test_a_bomb_is_not_decoded(url):
    check(requests.post(url, files={"query": bomb()}, data={"adapter": "invert"}), 422, "too_many_pixels")


def test_a_compressed_body_is_not_inflated(url):
    body = zlib.compress(json.dumps({"query": "A" * 1000}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "deflate"}
    check(requests.post(url, data=body, headers=headers), 400)


@pytest.mark.parametrize(
    ("body", "media", "status"),
    [
        (b"{", "application/json", 400),
        (b"[" * 100, "application/json", 413),
        (b'{"query": NaN}', "application/json", 400),
        (b'"text"', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"x=1", "application/x-www-form-urlencoded", 415),
        (b"x", "text/plain", 415),
        (b"x", "", 415),
        (b"x", "multipart/form-data", 400),
        (b"--b\r\nContent-Disposition: form-data; name=query; filename=a", "multipart/form-data; boundary=b", 400),
        (b"no boundary anywhere", "multipart/form-data; boundary=b", 400),
        (b"--b\r\n\r\n\r\n--b--\r\n", "multipart/form-data; boundary=b", 400),
    ],
)
def test_broken_bodies(url, body, media, status):
    check(requests.post(url, data=body, headers={"Content-Type": media}), status)


def test_ten_thousand_parameters(url, png):
    check(requests.post(url, files={"query": png()}, data={f"p{number}": "1" for number in range(10_000)}), 400)
    check(requests.post(url, json={f"p{number}": 1 for number in range(10_000)}), 413)


def test_too_many_files(url, png):
    check(requests.post(url, files=[("query", (f"{number}.png", b"x")) for number in range(100)]), 400)


def test_a_body_that_says_it_is_large(endpoint):
    status, told = raw(endpoint, head(endpoint, BODY + 1))
    assert (status, told["error"]["code"]) == (413, "request_too_large")


def test_a_body_that_does_not_say_it_is_large(endpoint):
    chunk = b"100000\r\n" + b"A" * 0x100000 + b"\r\n"
    status, told = raw(endpoint, head(endpoint) + chunk * (BODY // 0x100000 + 1))
    assert (status, told["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize("media", ["application/json", "multipart/form-data; boundary=b"])
def test_a_body_that_never_comes(endpoint, media):
    status, told = raw(endpoint, head(endpoint, 1000, media) + b"--b\r\n")
    assert (status, told["error"]["code"]) == (408, "upload_timeout")


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/images", "/../etc/passwd", "/v1/models/%00"])
def test_unknown_paths(endpoint, path):
    check(requests.get(f"{endpoint.url}{path}"), 404)


def test_a_wrong_method(endpoint):
    check(requests.delete(f"{endpoint.url}/v1/transfers"), 405)


def test_a_page_that_rebinds_its_name_is_refused(endpoint):
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example"):
        check(requests.get(f"{endpoint.url}/v1/models", headers={"Host": host}), 403, "insufficient_scope")
    assert requests.get(f"{endpoint.url}/healthz", headers={"Host": "10.0.0.7:8000"}).status_code == 200


def test_metrics_count(endpoint):
    requests.get(f"{endpoint.url}/v1/models")
    text = requests.get(f"{endpoint.url}/metrics").text
    assert 'edit_transfer_requests_total{method="GET",route="/v1/models",status="200"}' in text
    assert "edit_transfer_engine_" in text


def test_json_that_is_made_to_take_long(url):
    for body in (b'{"query": "' + b'\\"' * 1_000_000, b"[" + b"[]," * 1_000_000, b'{"a":' + b'"",' * 1_000_000):
        answer = requests.post(url, data=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 413), body[:20]
        check(answer, answer.status_code)


def test_a_url_is_never_fetched(url):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(0)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/a.png"
        check(requests.post(url, json={"query": address, "adapter": "invert"}), 400)
        check(requests.post(url, files={"query": (None, address)}, data={"adapter": "invert"}), 400)
        with pytest.raises(BlockingIOError):
            listening.accept()
