from pathlib import Path

import pytest

from infra.errors import SettingError
from infra.settings import Settings, from_environment


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
