"""What the tests share: one embedded Ray, S3 servers, a small base with random weights, photographs of many kinds."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Before torch is imported: threads of several processes on few cores would wait for each other, and burn time doing so.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tests import quiet, rgw, s3  # noqa: F401 - the first is there for what it does
from tests.skips import pytest_sessionfinish, pytest_terminal_summary  # noqa: F401
from tests.tiny import make_tiny_base


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that use Ray come first: they take longest, and workers that share the files should end together."""
    slow = {item.path for item in items if "ray_cluster" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in slow)


RAY = {
    "RAY_idle_worker_killing_time_threshold_ms": "120000",  # the processes of one job's tasks serve the next job too
    "RAY_num_workers_soft_limit": "8",
    "RAY_metrics_report_interval_ms": "500",
}


@pytest.fixture(scope="session")
def ray_cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ray with room for two edit actors and what runs beside them; every job of the tests joins it.

    Its processes reach Ceph, where there is one.
    """
    from infra import cluster

    with ExitStack() as running:
        with pytest.MonkeyPatch.context() as patch:
            for key, value in (RAY | _ceph_or_nothing(request)).items():
                patch.setenv(key, value)
            running.enter_context(cluster.connected(cpus=3))
        yield


def _ceph_or_nothing(request: pytest.FixtureRequest) -> dict[str, str]:
    try:
        return request.getfixturevalue("ceph")
    except pytest.skip.Exception:
        return {}


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
