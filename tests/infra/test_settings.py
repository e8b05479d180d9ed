import os
from pathlib import Path

import pytest

from infra import store
from infra.errors import SettingError, StoreError
from infra.settings import COMPILED, Settings, from_environment, keep_compiled


def test_an_empty_environment_gives_the_defaults():
    assert from_environment({}) == Settings() == from_environment({"EDIT_TRANSFER_MAX_PIXELS": ""})


def test_values_are_read():
    read = from_environment({"EDIT_TRANSFER_BASE": "a/b", "EDIT_TRANSFER_MAX_PIXELS": "5000", "RAY_ADDRESS": "auto"})
    assert read == Settings(base="a/b", max_pixels=5000, ray="auto")
    assert from_environment({"RAY_API_SERVER_ADDRESS": "http://head:8265"}) == Settings(jobs="http://head:8265")


def test_the_registry_is_below_home_unless_it_is_told_elsewhere():
    assert from_environment({}).registry == str(Path.home() / ".edit-transfer/registry")
    for told, read in (("~/r", str(Path.home() / "r")), ("s3://bucket/r", "s3://bucket/r")):
        assert from_environment({"EDIT_TRANSFER_REGISTRY": told}).registry == read


def test_the_endpoint_keeps_its_things_below_home_unless_it_is_told_elsewhere():
    assert from_environment({}).serving == str(Path.home() / ".edit-transfer/serving")
    assert from_environment({"EDIT_TRANSFER_SERVING": "s3://bucket/s"}).serving == "s3://bucket/s"


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_bad_value_names_its_key(value):
    with pytest.raises(SettingError, match="EDIT_TRANSFER_MAX_PIXELS"):
        from_environment({"EDIT_TRANSFER_MAX_PIXELS": value})


@pytest.mark.parametrize("place", ["registry", "serving", "cache"])
def test_a_usual_place_that_cannot_be_written_says_what_to_set(tmp_path, monkeypatch, place):
    (tmp_path / "home").touch()  # a file, where nothing can be written, not even by root
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    key = f"EDIT_TRANSFER_{place.upper()}"
    with pytest.raises(StoreError, match=f"Set {key} to a place that can be used"):
        store.write(f"{getattr(from_environment({}), place)}/a/b.json", b"{}")
    elsewhere = from_environment({key: str(tmp_path / "elsewhere")})
    store.write(f"{getattr(elsewhere, place)}/a/b.json", b"{}")
    with pytest.raises(StoreError) as told:
        store.write(f"{tmp_path}/home/photos/a.png", b"")
    assert "EDIT_TRANSFER" not in str(told.value)  # that is no place of ours


def test_compiled_kernels_are_kept_where_there_is_a_place_for_them(tmp_path, monkeypatch):
    monkeypatch.setenv(COMPILED, "there")
    monkeypatch.delenv(COMPILED)  # and put back to what it was
    (tmp_path / "file").touch()
    keep_compiled(str(tmp_path / "file"))
    assert COMPILED not in os.environ
    keep_compiled(str(tmp_path / "cache"))
    assert os.environ[COMPILED] == str(tmp_path / "cache/compiled")
    keep_compiled(str(tmp_path / "other"))
    assert os.environ[COMPILED] == str(tmp_path / "cache/compiled")
