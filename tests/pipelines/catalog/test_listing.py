import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import CatalogError, UsageError
from pipelines.catalog.listing import Input, Own, Passed, list_catalog, result_name


@pytest.fixture
def folder(tmp_path):
    names = ["b.JPG", "a b.png", "ü/ñ.tiff", "notes.txt", ".hidden.png", ".cache/x.png", "sub/phone.heic"]
    for name in names:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "photos"


def catalog_of(source, output, format: str | None = None) -> tuple[list[Input], Passed]:
    catalog = list_catalog(str(source), str(output), format)
    return list(catalog), catalog.passed


def listed(source, output) -> list[str]:
    return [found.relative_path for found in catalog_of(source, output)[0]]


def test_a_folder_lists_images_of_every_case_and_kind_but_nothing_hidden(folder, tmp_path):
    inputs, passed = catalog_of(folder, tmp_path / "out")
    assert [found.relative_path for found in inputs] == ["a b.png", "b.JPG", "sub/phone.heic", "ü/ñ.tiff"]
    assert (passed.ignored, passed.names) == (1, ("notes.txt",))
    assert all(found.uri == str(folder / found.relative_path) and found.etag for found in inputs)
    assert [found.size for found in inputs] == [len(found.relative_path.encode()) for found in inputs]


def test_an_etag_changes_with_the_file(folder, tmp_path):
    before, _ = catalog_of(folder, tmp_path / "out")
    (folder / "b.JPG").write_bytes(b"other")
    after, _ = catalog_of(folder, tmp_path / "out")
    assert [old.etag == new.etag for old, new in zip(before, after, strict=True)] == [True, False, True, True]


def test_globs_and_single_images(folder, tmp_path):
    out = tmp_path / "out"
    assert listed(folder / "**" / "*.png", out) == ["a b.png"]
    assert listed(folder / "*" / "*", out) == ["sub/phone.heic", "ü/ñ.tiff"]
    assert listed(folder / "b.JPG", out) == ["b.JPG"]


def test_the_output_folder_is_left_out_of_an_input_around_it(folder):
    inputs, passed = catalog_of(folder, folder / "sub")
    assert [found.relative_path for found in inputs] == ["a b.png", "b.JPG", "ü/ñ.tiff"]
    assert passed.left_out == 1


@pytest.mark.parametrize("inside", ["", "sub", "*.png"])
def test_an_input_inside_the_output_is_refused(folder, inside):
    with pytest.raises(CatalogError, match="inside the output"):
        catalog_of(folder / inside, folder)


def test_nothing_to_edit_is_an_error_that_names_what_was_there(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "list.txt").write_text("")
    for source, said in (("in", "list.txt"), ("missing", "no such folder"), ("*.png", "no images")):
        with pytest.raises(CatalogError, match=said):
            catalog_of(tmp_path / source, tmp_path / "out")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_name_images_relative_to_themselves(folder, tmp_path, kind):
    rows = {
        "uri": ["photos/b.JPG", str(folder / "a b.png"), "photos/b.JPG"],
        "relative_path": ["x/1.jpg", None, "2"],
    }
    if kind == "csv":
        paths = [path or "" for path in rows["relative_path"]]
        lines = [f"{uri},{path}" for uri, path in zip(rows["uri"], paths, strict=True)]
        (tmp_path / "t.csv").write_text("\n".join(["uri,relative_path", *lines]))
    else:
        pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    inputs, passed = catalog_of(tmp_path / f"t.{kind}", tmp_path / "out")
    found = {found.relative_path: found.uri for found in inputs}
    assert found == {"x/1.jpg": str(folder / "b.JPG"), str(folder / "a b.png")[1:]: str(folder / "a b.png")}
    assert passed.repeated == 1


@pytest.mark.parametrize("content", [b"no,such\n1,2\n", b"PAR1 broken"])
def test_a_table_without_uris_is_an_error(tmp_path, content):
    path = tmp_path / ("t.csv" if content.startswith(b"no") else "t.parquet")
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=path.name):
        catalog_of(path, tmp_path / "out")


def test_paths_that_lead_out_of_the_output_fail(folder, tmp_path):
    rows = ["photos/b.JPG,../up.jpg", "photos/a b.png,/root.png", "photos/ü/ñ.tiff,a/../../up.tiff"]
    (tmp_path / "t.csv").write_text("\n".join(["uri,relative_path", *rows]))
    assert [found.error_code for found in catalog_of(tmp_path / "t.csv", "out")[0]] == ["bad_path"] * 3


def test_a_name_that_is_not_utf8_fails_under_a_readable_name(tmp_path):
    (tmp_path / "in").mkdir()
    with open(os.fsencode(tmp_path / "in") + b"/caf\xe9.png", "wb"):  # noqa: PTH123  paths of bytes
        pass
    (found,), _ = catalog_of(tmp_path / "in", tmp_path / "out")
    assert (found.relative_path, found.error_code) == ("caf\\xe9.png", "bad_path")


def test_links_in_a_circle_end(folder, tmp_path):
    (folder / "sub" / "again").symlink_to(folder)
    assert len(listed(folder, tmp_path / "out")) == 4


def test_a_new_format_is_appended_so_that_names_stay_apart():
    names = ["mug.jpg", "mug.png", "mug.JPEG", "mug"]
    assert [result_name(name, None) for name in names] == names
    assert [result_name(name, "jpeg") for name in names] == ["mug.jpg", "mug.png.jpg", "mug.JPEG", "mug.jpg"]


def test_of_rows_with_one_result_the_later_fails_and_both_are_named(tmp_path):
    (tmp_path / "t.csv").write_text("uri,relative_path\n/1/a.jpg,a.jpg\n/2/a.jpg,a.jpg\n/1/A.jpg,A.jpg\n")
    (first, second, third), _ = catalog_of(tmp_path / "t.csv", tmp_path / "out")
    assert first.error is None and third.error is None
    assert (second.uri, second.error_code, second.etag) == ("/2/a.jpg", "duplicate_path", "")
    assert "/1/a.jpg" in second.error


def test_a_file_named_like_the_result_of_another_fails_and_names_it(tmp_path):
    for name in ("mug.jpg", "mug.jpg.png", "other.jpg.png", "cup.png"):
        (tmp_path / name).touch()
    for source in (tmp_path, tmp_path / "*"):
        inputs, _ = catalog_of(source, tmp_path / "out", "png")
        assert {found.relative_path: found.error_code for found in inputs} == {
            "mug.jpg": None, "mug.jpg.png": "duplicate_path", "other.jpg.png": None, "cup.png": None,
        }  # fmt: skip
        assert all(found.error is None for found in catalog_of(source, tmp_path / "out")[0])


def test_rows_say_what_they_want_otherwise_than_the_rest(tmp_path):
    (tmp_path / "t.csv").write_text(
        "uri,before,after,seed,adapter\na.jpg,p/1.png,p/2.png,007,\nb.jpg,,,,lift@2\nc.jpg,,,,\n"
    )
    inputs, _ = catalog_of(tmp_path / "t.csv", tmp_path / "out")
    assert [found.own for found in inputs] == [
        Own(before=str(tmp_path / "p/1.png"), after=str(tmp_path / "p/2.png"), seed="007"),
        Own(adapter="lift@2"),
        Own(),
    ]


def test_numbers_in_a_table_are_names(tmp_path):
    (tmp_path / "t.csv").write_text("uri,relative_path\n0012,001\na.jpg,1.10\nb.jpg,1.1\n")
    inputs, _ = catalog_of(tmp_path / "t.csv", tmp_path / "out")
    assert [found.relative_path for found in inputs] == ["001", "1.10", "1.1"]
    assert inputs[0].uri == str(tmp_path / "0012")


@pytest.mark.parametrize(
    "content",
    ["uri\nüx.jpg\n".encode("latin-1"), "uri\na.jpg\n".encode("utf-16"), b"uri,uri\na,b\n", b"", b"\0\1\2"],
    ids=["latin-1", "utf-16", "column twice", "empty", "no text"],
)
def test_an_unreadable_table_is_one_sentence(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(CatalogError, match=r"t\.csv"):
        catalog_of(tmp_path / "t.csv", tmp_path / "out")


@pytest.mark.parametrize("values", [[1.5, 2.0], [["a"], ["b"]], [b"\xff", b"b"]], ids=["numbers", "lists", "bytes"])
def test_uris_are_text(tmp_path, values):
    pq.write_table(pa.table({"uri": values}), tmp_path / "t.parquet")
    with pytest.raises(CatalogError, match="not text"):
        catalog_of(tmp_path / "t.parquet", tmp_path / "out")


def test_rows_without_a_uri_are_counted(tmp_path):
    pq.write_table(pa.table({"uri": [None, "a.jpg", "", "./a.jpg"]}), tmp_path / "t.parquet")
    inputs, passed = catalog_of(tmp_path / "t.parquet", tmp_path / "out")
    assert (len(inputs), passed.blank, passed.repeated) == (1, 2, 1)


def test_a_link_to_itself_costs_nobody_else_anything(folder, tmp_path):
    (folder / "self.jpg").symlink_to(folder / "self.jpg")
    assert {"self.jpg", "b.JPG"} <= set(listed(folder, tmp_path / "out"))


def test_results_are_no_inputs_by_any_name(folder):
    result = folder / "out" / "images" / "b.JPG"
    result.parent.mkdir(parents=True)
    result.write_bytes(b"result")
    (folder / "link.jpg").symlink_to(result)
    inputs, passed = catalog_of(folder, folder / "out")
    assert passed.left_out == 2
    assert not {"link.jpg", "out/images/b.JPG"} & {found.relative_path for found in inputs}


@pytest.mark.parametrize("place", ["x" * 300, "~nobody-of-that-name/x", "loop"])
def test_hopeless_paths_are_one_sentence(tmp_path, place):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    source = str(tmp_path / place) if place == "loop" else place
    with pytest.raises(UsageError):
        catalog_of(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "format", "result"),
    [
        ("a.HEIC", None, "a.HEIC.jpg"), ("a.heif", None, "a.heif.jpg"), ("b/a.hif", None, "b/a.hif.jpg"),
        ("a.heic", "jpeg", "a.heic.jpg"), ("a.heic", "png", "a.heic.png"), ("a.heic", "avif", "a.heic.avif"),
        ("a.avif", None, "a.avif"), ("a.AVIF", "avif", "a.AVIF"), ("a.jpg", "avif", "a.jpg.avif"),
        ("a.avif", "jpeg", "a.avif.jpg"), ("a.jfif", "jpeg", "a.jfif"), ("a.jif", "jpeg", "a.jif"),
    ],
)  # fmt: skip
def test_results_of_heic_are_named_as_the_jpeg_that_they_are(name, format, result):
    assert result_name(name, format) == result


def test_a_heic_and_a_jpeg_that_would_share_a_result_do_not(tmp_path):
    for name in ("a.heic", "a.heic.jpg", "a.jpg", "b.heic.jpg", "c.avif", "c.avif.jpg"):
        (tmp_path / name).touch()
    for source in (tmp_path, tmp_path / "*"):
        failed = [found.relative_path for found in catalog_of(source, tmp_path / "out")[0] if found.error_code]
        assert failed == ["a.heic.jpg"]
    (tmp_path / "t.csv").write_text("uri\na.heic\na.heic.jpg\n")
    rows = [found.relative_path for found in catalog_of(tmp_path / "t.csv", tmp_path / "out")[0] if found.error_code]
    assert rows == ["a.heic.jpg"]
