"""Adapters as people name them: refs with scales, for the right base, and never another file than was published."""

import hashlib
from pathlib import Path

import pytest

from infra import registry
from infra.errors import AdapterDamaged, AdapterNotFound, UsageError
from pipelines import adapters

REVISION = "r" * 64


@pytest.fixture
def place(tmp_path):
    address = str(tmp_path / "registry")
    files = {"adapter.safetensors": b"weights", "pairs/a_before.png": b"before", "pairs/a_after.png": b"after"}
    pair = {"name": "a", "before": "pairs/a_before.png", "after": "pairs/a_after.png"}
    about = {"base": {"name": "b", "revision": REVISION}, "pairs": [pair], "exemplars": ["a"], "attention": "prefix"}
    registry.publish(address, "lift", files, about)
    registry.publish(address, "lift", files, about | {"attention": "full"})
    registry.publish(address, "lift", files, about | {"compact": 2})
    registry.promote(address, "lift", 1)
    return address


@pytest.mark.parametrize(
    ("ref", "scale", "told"),
    [
        ("lift", 1.0, "lift@1"),
        ("lift@2", 1.0, "lift@2"),
        ("lift@production:0.7", 1.0, "lift@1:0.7"),
        ("lift@1:0.5", 0.5, "lift@1:0.25"),
        ("lift:-1", 1.0, "lift@1:-1"),
    ],
)
def test_a_ref_may_have_a_scale(place, ref, scale, told):
    [worn] = adapters.find(place, [ref], scale, REVISION)
    assert worn.told == told and worn.digest.startswith(worn.version.digest)


@pytest.mark.parametrize(
    ("refs", "error", "said"),
    [
        (["lift:much"], UsageError, "must be a number"),
        (["lift:1.2.3"], UsageError, "must be a number"),
        (["lift@1", "lift@2"], UsageError, "different attention"),
        (["lift@1", "lift@3"], UsageError, "different scale: lift@1 with compact 1, lift@3 with compact 2"),
        (["lfit"], AdapterNotFound, "did you mean lift"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(place, refs, error, said):
    with pytest.raises(error, match=said):
        adapters.find(place, refs, 1.0, REVISION)


def test_an_adapter_of_another_base_is_refused(place):
    with pytest.raises(AdapterNotFound, match=r"lift@1 was trained on another base, b \(revision rrrrrrrrrrrr"):
        adapters.find(place, ["lift"], 1.0, "s" * 64)


def test_files_are_copied_once_and_checked_every_time(place, tmp_path):
    worn = adapters.find(place, ["lift"], 1.0, REVISION)
    [lora] = adapters.loras(worn, tmp_path / "cache")
    assert lora.path.read_bytes() == b"weights"
    first = lora.path.stat().st_mtime_ns
    assert adapters.loras(worn, tmp_path / "cache")[0].path.stat().st_mtime_ns == first
    lora.path.write_bytes(b"tampered")
    assert adapters.loras(worn, tmp_path / "cache")[0].path.read_bytes() == b"weights"
    assert adapters.exemplars(worn) == [("lift@1 a", b"before", b"after")]
    stored = Path(worn[0].version.uri)
    (stored / "adapter.safetensors").write_bytes(b"wEights")
    (stored / "pairs" / "a_after.png").unlink()
    with pytest.raises(AdapterDamaged, match=r"adapter\.safetensors"):
        adapters.loras(worn, tmp_path / "other")
    with pytest.raises(AdapterDamaged, match="a_after"):
        adapters.exemplars(worn)
    assert hashlib.sha256(b"weights").hexdigest() == worn[0].version.files["adapter.safetensors"]["sha256"]
