"""A registry of each kind, and something to publish."""

import pytest

FILES = {"adapter.safetensors": b"weights" * 1000, "pairs/a_before.png": b"before", "card.md": b"# Card\n"}
ABOUT = {"base": {"name": "bundled", "revision": "r", "class": "C"}, "rank": 8, "scores": {"recovered": 0.5, "a": 1.0}}


@pytest.fixture(params=["local", "memory", "moto", "ceph"])
def registry(request, tmp_path):
    if request.param in ("moto", "ceph"):
        return request.getfixturevalue(f"{request.param}_bucket") + "/a registry"
    return str(tmp_path / "registry") if request.param == "local" else f"memory://{tmp_path.name}"


@pytest.fixture
def local(tmp_path) -> str:
    """A registry in a folder."""
    return str(tmp_path / "registry")


@pytest.fixture
def files() -> dict[str, bytes]:
    return dict(FILES)


@pytest.fixture
def about() -> dict:
    return dict(ABOUT)
