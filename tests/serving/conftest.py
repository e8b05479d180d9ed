"""One endpoint for all tests: Serve on the session's Ray, a small base, adapters in a registry of its own."""

import io
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from infra import registry
from serving.app import Options, build
from serving.app.options import Limits
from serving.jobs import JobsConfig
from tests.serving.adapters import publish
from tests.serving.doors import Clock
from tests.serving.jobs import Cluster, app_for

BODY, UPLOAD = 4 * 2**20, 2.0
MINUTES_OF_STEPS = 1_000_000


@dataclass(frozen=True)
class Endpoint:
    """Where it answers, and what is behind it."""

    url: str
    registry: str
    serving: str
    base: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@pytest.fixture(scope="session")
def endpoint(
    ray_cluster: None, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory, png: Callable[..., bytes]
) -> Iterator[Endpoint]:
    """The endpoint, with the adapters `invert` (production: 1) and `other`."""
    from ray import serve

    folder = tmp_path_factory.mktemp("endpoint")
    place = str(folder / "registry")
    for number, name in enumerate(("invert", "other")):
        publish(place, name, tiny_base, number)
    registry.promote(place, "invert", 1)
    options = Options(
        base=str(tiny_base),
        registry=place,
        serving=str(folder / "serving"),
        cache=str(folder / "cache"),
        watch_seconds=0.2,
        max_pixels=2_000_000,
        cpus=0,  # what the session's Ray has is for the jobs of other tests
        limits=Limits(body_bytes=BODY, upload_seconds=UPLOAD, steps=MINUTES_OF_STEPS),
    )
    port = _free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(options), name="endpoint", route_prefix="/")
    yield Endpoint(f"http://localhost:{port}", place, options.serving or "", tiny_base)
    serve.shutdown()


@pytest.fixture(scope="session")
def png(scene: Callable[..., Image.Image]) -> Callable[..., bytes]:
    """png(seed, size, negative): a file."""

    def make(seed: int = 0, size: tuple[int, int] = (48, 32), negative: bool = False, format: str = "PNG") -> bytes:
        image = scene(seed, size)
        buffer = io.BytesIO()
        (image.point(lambda value: 255 - value) if negative else image).save(buffer, format)
        return buffer.getvalue()

    return make


@pytest.fixture
def config(tmp_path: Path) -> JobsConfig:
    """Of an app with nothing but jobs."""
    return JobsConfig(
        serving=str(tmp_path / "serving"),
        registry=str(tmp_path / "registry"),
        prefixes=("s3://shop", str(tmp_path)),
        webhooks=("https://shop.example/hooks",),
    )


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def client(config: JobsConfig, cluster: Cluster) -> Iterator[TestClient]:
    with TestClient(app_for(config, cluster)) as client:
        yield client


@pytest.fixture(params=["local", "moto"])
def serving(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a store for keys, of each kind."""
    if request.param == "moto":
        return request.getfixturevalue("moto_bucket") + "/the endpoint"
    return str(tmp_path / "serving")


@pytest.fixture
def local(tmp_path: Path) -> str:
    """The address of one in a folder."""
    return str(tmp_path / "serving")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
