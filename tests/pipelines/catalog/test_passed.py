"""What lies beside photos: counted by kind, with a word on what to do; and the photos beside it are listed."""

import io

import pytest
from rich.console import Console

from infra.errors import CatalogError
from pipelines.catalog.listing import Input, list_catalog
from pipelines.catalog.passed import Passed
from pipelines.catalog.screen import show_passed

PHONE = ["IMG_1.HEIC", "IMG_1.MOV", "IMG_1.AAE", "IMG_2.heic", "IMG_2.xmp", "._IMG_2.heic", ".DS_Store", "Thumbs.db"]
CAMERA = ["1.JPG", "1.CR2", "2.dng", "3.NEF", "4.arw", "5.RAF", "6.orf", "7.Rw2", "8.cr3", "9.pef", "10.srw", "11.3fr"]
KINDS = {
    "a.cr3": "1 camera raw file: develop it first",
    "a.SVG": "1 vector drawing: export it as PNG first",
    "favicon.ico": "1 icon: export it as PNG first",
    "a.TGA": "1 image in a format that is not read: convert it to PNG or TIFF first",
    "a.exr": "1 image in a format that is not read: convert it to PNG or TIFF first",
    "live.mov": "1 film: only photos are edited",
    "a.jpg.xmp": "1 sidecar file: changes described in it are not applied",
    "IMG_1.AAE": "1 sidecar file: changes described in it are not applied",
    "notes.txt": "Not images, ignored: 1 (notes.txt)",
    "noextension": "Not images, ignored: 1 (noextension)",
}


def listed(folder, names, format: str | None = None) -> tuple[list[Input], Passed]:
    for name in names:
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).touch()
    catalog = list_catalog(str(folder / "in"), str(folder / "out"), format)
    return list(catalog), catalog.passed


def test_a_phone_has_photos_films_and_sidecars(tmp_path):
    inputs, passed = listed(tmp_path, PHONE)
    assert [found.relative_path for found in inputs] == ["IMG_1.HEIC", "IMG_2.heic"]
    assert all(found.error is None for found in inputs)
    assert passed.told() == [
        "1 film: only photos are edited",
        "2 sidecar files: changes described in them are not applied",
    ]


def test_raw_files_beside_jpegs_are_counted_as_such(tmp_path):
    inputs, passed = listed(tmp_path, CAMERA)
    assert [found.relative_path for found in inputs] == ["1.JPG"]
    assert passed.told() == ["11 camera raw files: develop them first"] and passed.ignored == 0


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_has_its_sentence(tmp_path, name):
    _, passed = listed(tmp_path, ["photo.png", name])
    assert passed.told() == [KINDS[name]]


@pytest.mark.parametrize(
    "name", ["Thumbs.db", "desktop.ini", "._a.jpg", ".DS_Store", "__MACOSX/._a.jpg", ".thumb/a.jpg"]
)
def test_what_file_managers_leave_is_not_worth_a_word(tmp_path, name):
    inputs, passed = listed(tmp_path, ["photo.png", name])
    assert len(inputs) == 1 and passed == Passed()


@pytest.mark.parametrize(
    "name",
    ["a.HEIC", "a.heif", "a.HIF", "a.heics", "a.avif", "a.AVIFS", "a.jfif", "a.jpe", "a.JIF", "a.jfi", "a.apng",
     "a.jxl", "a.jp2", "a.psd"],
)  # fmt: skip
def test_photos_of_every_name_are_listed_even_those_that_can_only_be_refused(tmp_path, name):
    inputs, passed = listed(tmp_path, [name])
    assert [found.relative_path for found in inputs] == [name] and passed == Passed()


def test_a_folder_without_photos_says_what_is_there(tmp_path):
    with pytest.raises(CatalogError, match=r"no images in it\. 2 camera raw files: develop them first\. 1 other files"):
        listed(tmp_path, ["1.cr2", "2.nef", "notes.txt"])
    with pytest.raises(CatalogError, match=r"no images in it\. 1 camera raw file: develop it first\.$"):
        catalog = list_catalog(str(tmp_path / "in" / "1.cr2"), str(tmp_path / "out"))
        list(catalog)


def test_counts_survive_being_written_and_those_of_earlier_versions_are_read(tmp_path):
    _, passed = listed(tmp_path, ["a.png", "1.cr2", "2.cr2", "a.mov", "notes.txt"])
    assert Passed.from_json(passed.to_json()) == passed
    old = b'{"ignored": 8, "names": ["a.txt", "b.txt"], "repeated": 1, "blank": 0, "left_out": 2}'
    assert Passed.from_json(old) == Passed(8, ("a.txt", "b.txt"), 1, 0, 2)


def test_the_screen_shows_a_line_for_each_kind(tmp_path):
    _, passed = listed(tmp_path, ["a.png", "1.cr2", "2.cr2", "notes.txt"])
    shown = io.StringIO()
    show_passed(Console(file=shown, width=200), passed)
    assert shown.getvalue().splitlines() == [
        "Not images, ignored: 1 (notes.txt)",
        "2 camera raw files: develop them first",
    ]
