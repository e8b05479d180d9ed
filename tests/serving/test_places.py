"""Where jobs may read and write: below the prefixes, in whatever way an address is spelled."""

import pytest

from infra.errors import RequestError, UsageError
from serving.access import ANONYMOUS, Caller
from serving.jobs.places import Places

SHOP = Caller(key_id="0" * 16, name="shop", scopes=frozenset({"jobs"}))


@pytest.mark.parametrize(
    "address",
    [
        "s3://shop/../other",
        "s3://shop/a/../../other",
        "s3://shop/..",
        "s3://shop/%2e%2e/other",
        "s3://shop/%252e%252e%252fother",
        "s3://shop/" + "%" + "25" * 9 + "2e",
        "s3://shop/a/%2e",
        "s3://shop/a%2fb",
        "s3://shop/a%00",
        "s3://shop//a",
        "s3://shop/a/./b",
        "s3://shop/a\\b",
        "s3://shop/a\nb",
        "s3://shop/a\ud800",
        "s3://shopping/a",
        "s3://shop.example/a",
        "s3://shop:80/a",
        "s3://shop@other/a",
        "s3://other/shop/a",
        "s3://",
        "S3://shop/a",
        "memory://shop/a",
        "http://shop/a",
        "file://shop/a",
        "file:/srv/shop/a",
        "shop/a",
        "~/a",
        "/srv/shop/../other",
        "/srv/shop/%2e%2e/other",
        "file:///srv/shop/%2e%2e/other",
        "file:///srv/shop/%252e%252e/other",
        "//srv/shop",
        "/srv/shopping",
        "/srv",
        "/",
        "/srv/shop/keys",
        "/srv/shop/keys/x",
        "/srv/shop",  # it holds the keys
        "s3://shop",  # and this the registry
        "s3://shop/registry/lift",
    ],
)
def test_places_outside_the_prefixes_are_refused(address):
    places = Places(("s3://shop", "/srv/shop/"), ("/srv/shop/keys", "s3://shop/registry"))
    with pytest.raises(RequestError):
        places.checked(address, "input", SHOP)


def test_places_below_the_prefixes_have_one_spelling(tmp_path):
    places = Places(("s3://shop/in/", str(tmp_path)))
    for address, place in (
        ("s3://shop/in", "s3://shop/in"),
        ("s3://shop/in/a b%.png/", "s3://shop/in/a b%.png"),
        (f"file://{tmp_path}/a%20b", f"{tmp_path}/a b"),
        (f"{tmp_path}/a..b/...", f"{tmp_path}/a..b/..."),
    ):
        assert places.checked(address, "input", SHOP) == place
    (tmp_path / "away").symlink_to("/etc")
    for address in (f"{tmp_path}/away", f"{tmp_path}/away/passwd", "s3://shop/input", "s3://shop"):
        with pytest.raises(RequestError):
            places.checked(address, "input", SHOP)
    for prefix in ("shop", "memory://shop", "s3://shop/../x", "s3://"):
        with pytest.raises(UsageError, match="--job-prefix"):
            Places((prefix,))


def test_a_prefix_may_be_each_callers_own():
    places = Places(("s3://shops/{name}", "s3://keys/{key}"))
    assert places.checked("s3://shops/shop/a", "input", SHOP) and places.checked(f"s3://keys/{'0' * 16}", "input", SHOP)
    for caller, address in ((SHOP, "s3://shops/other/a"), (ANONYMOUS, "s3://shops/a"), (ANONYMOUS, "s3://keys")):
        with pytest.raises(RequestError):
            places.checked(address, "input", caller)
