"""What the tests share: one embedded Ray, S3 servers, a small base with random weights, photographs of many kinds."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import rgw, s3
from tests.tiny import make_tiny_base


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray with room for two edit actors and what runs beside them; every job of the tests joins it."""
    from infra import cluster

    with cluster.connected(cpus=3):
        yield


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The AWS environment of a Ceph gateway, a real S3 server."""
    with rgw.served(tmp_path_factory.mktemp("ceph")) as environment:
        yield environment


@pytest.fixture(scope="session")
def moto() -> Iterator[dict[str, str]]:
    """The AWS environment of a quick S3 server that lets everybody in."""
    with s3.moto_served() as environment:
        yield environment


@pytest.fixture
def ceph_bucket(ceph: dict[str, str]) -> Iterator[str]:
    """The address of an empty bucket on Ceph."""
    with s3.new_bucket(ceph) as address:
        yield address


@pytest.fixture
def moto_bucket(moto: dict[str, str]) -> Iterator[str]:
    """The address of an empty bucket on moto."""
    with s3.new_bucket(moto) as address:
        yield address


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of real classes and no meaning."""
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def scene() -> Callable[..., Image.Image]:
    """scene(seed, size): colours that differ with the seed, smooth enough for lossy formats to keep."""

    def make(seed: int = 0, size: tuple[int, int] = (48, 32)) -> Image.Image:
        corners = np.random.default_rng(seed).integers(20, 236, (3, 4, 3), dtype=np.uint8)
        return Image.fromarray(corners).resize(size, Image.Resampling.BICUBIC)

    return make


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory, scene: Callable[..., Image.Image]) -> tuple[str, str]:
    """Paths of a before and an after image."""
    folder = tmp_path_factory.mktemp("pair")
    before = scene(1000)
    before.save(folder / "before.png")
    before.point(lambda value: 255 - value).save(folder / "after.png")
    return str(folder / "before.png"), str(folder / "after.png")
