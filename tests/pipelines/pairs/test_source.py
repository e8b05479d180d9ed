"""What pairs are called: our naming and that of other trainers, what is none, and what is said of the rest."""

import json

import pytest
from typer.testing import CliRunner

from infra import store
from infra.cli import app
from infra.errors import PairError
from pipelines.pairs.naming import NAMINGS
from pipelines.pairs.source import find_pairs, found_at, read_pairs

EXACTLY = "NAME_before, NAME_after"


@pytest.fixture
def folder(tmp_path):
    """folder(*paths): a folder with these files, which nobody opens."""

    def make(*paths):
        for path in paths:
            place = tmp_path / "pairs" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"")
        return tmp_path / "pairs"

    return make


def told(found, place):
    """Name, edit, and both sides by their paths."""
    return [
        (each.name, each.edit, *([uri.removeprefix(f"{place}/") for uri in uris] for uris in (each.before, each.after)))
        for each in found
    ]


@pytest.mark.parametrize(
    ("naming", "before", "after", "name"),
    [
        (EXACTLY, "a_before.png", "a_after.png", "a"),
        (EXACTLY, "A_BEFORE.JPG", "A_After.jpeg", "A"),
        (EXACTLY, "a__before.png", "a__after.png", "a_"),
        (EXACTLY, "lift/a_before.png", "lift/a_after.webp", "lift/a"),
        (EXACTLY, "a-before.png", "a-after.png", "a"),
        (EXACTLY, "Case-BEFORE.JPG", "Case-After.JPG", "Case"),
        (EXACTLY, "red mug before.png", "red mug after.png", "red mug"),
        (EXACTLY, "a - before.png", "a_after.png", "a"),
        (EXACTLY, "a.before.png", "a.after.png", "a"),
        (EXACTLY, "a (before).png", "a (after).png", "a"),
        (EXACTLY, "a[Before].png", "a[After].png", "a"),
        (EXACTLY, "before_sun_before.png", "before_sun_after.png", "before_sun"),
        ("before_NAME, after_NAME", "before_a.png", "After_a.png", "a"),
        ("before_NAME, after_NAME", "shop/before-a b.png", "shop/after-a b.png", "shop/a b"),
        ("before_NAME, after_NAME", "before1.png", "after1.png", "1"),
        ("before_NAME, after_NAME", "Before (2).jpg", "After (2).jpg", "(2)"),
        ("NAME_start, NAME_end", "photo_start.jpg", "photo_end.png", "photo"),
        ("NAME_start, NAME_end", "week-START.jpg", "week-END.jpg", "week"),
        ("NAME_input, NAME_target", "1_input.png", "1_target.png", "1"),
        ("before/NAME, after/NAME", "before/1.png", "after/1.jpg", "1"),
        ("before/NAME, after/NAME", "lift/Before/x/1.png", "lift/AFTER/x/1.png", "lift/x/1"),
        ("before/NAME, after/NAME", "before/1_before.png", "after/1_after.png", "1"),
        ("before/NAME, after/NAME", "before/before 1.png", "after/1.png", "1"),
        ("control/NAME, target/NAME", "control/1.png", "target/1.png", "1"),
        ("control/NAME, target/NAME", "shine/control/v1.2.png", "shine/target/v1.2.jpg", "shine/v1.2"),
        ("source/NAME, target/NAME", "source/1.png", "target/1.png", "1"),
        ("control_1/NAME, main/NAME", "control_1/1.png", "main/1.png", "1"),
        ("control_1/NAME, main/NAME", "set/Control_1/1.png", "set/Main/1.png", "set/1"),
    ],
)
def test_every_naming_is_read_as_it_is(folder, naming, before, after, name):
    place = folder(before, after, "notes/captions.txt")
    reading = read_pairs(str(place))
    edit = name.rpartition("/")[0]
    assert str(reading.naming) == naming and told(reading.found, place) == [(name, edit, [before], [after])]
    assert (reading.halves, reading.images, reading.files) == ((), (), ())


@pytest.mark.parametrize(
    "photos",
    [
        ["friend.png", "trend.jpg", "restart.png", "the end.png"],
        ["input.png", "target.png", "before.png", "_after.png"],
        ["IMG_start_2.jpg", "IMG_end_2.jpg"],
        ["weekend_end.png", "head_start.png"],
        ["user_input.png", "on_target.png"],
        ["afternoon.png", "beforehand.png"],
        ["domain/1.png", "mainland/1.png", "control_1.png"],
        ["source/1.png", "target/2.png"],
        ["main/1.png", "control_2/1.png"],
        ["a_before.txt", "a_after.txt", "b_start.psb", "b_end.psb"],
    ],
)
def test_what_only_sounds_like_a_pair_is_none_and_changes_no_other(folder, photos):
    """Alone they are no pairs; beside pairs they are left aside, whatever those are called."""
    with pytest.raises(PairError, match="there are no pairs"):
        read_pairs(str(folder(*photos)))
    for before, after in (("shoe_start.png", "shoe_end.png"), ("a_before.png", "a_after.png")):
        place = folder(before, after)
        images = [photo for photo in photos if photo.endswith(("png", "jpg"))]
        reading = read_pairs(str(place))
        assert [(each.before, each.after) for each in reading.found if each.whole] == [
            ((f"{place}/{before}",), (f"{place}/{after}",))
        ]
        named = {*reading.halves, *reading.images} | {path for each in reading.found for path in each.files}
        assert {path.removeprefix(f"{place}/") for path in named} >= {*images}
        for path in (before, after):
            (place / path).unlink()


def test_what_was_read_before_is_read_the_same(folder):
    """Names, edits and order as they were, so that old adapters are found again."""
    place = folder(
        "b_before.png", "b_after.png", "a_before.jpg", "a_After.png", "z/a_before.png", "z/a_after.png",
        "alone_before.png", "twice_before.png", "twice_before.jpg", "twice_after.png",
        "deep/er/c_d_before.png", "deep/er/c_d_after.png",
        "target/1_before.png", "target/1_after.png", "control/1_before.png", "control/1_after.png",
        "b-before.png", "photo.png", "target/2.png",
    )  # fmt: skip
    assert told(find_pairs(str(place)), place) == [
        ("a", "", ["a_before.jpg"], ["a_After.png"]),
        ("alone", "", ["alone_before.png"], []),
        ("b", "", ["b_before.png"], ["b_after.png"]),
        ("control/1", "control", ["control/1_before.png"], ["control/1_after.png"]),
        ("deep/er/c_d", "deep/er", ["deep/er/c_d_before.png"], ["deep/er/c_d_after.png"]),
        ("target/1", "target", ["target/1_before.png"], ["target/1_after.png"]),
        ("twice", "", ["twice_before.jpg", "twice_before.png"], ["twice_after.png"]),
        ("z/a", "z", ["z/a_before.png"], ["z/a_after.png"]),
    ]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["a_before.png", "a_after.png", "b_start.png", "b_end.png", "c_start.png", "c_end.png"],
         ["1 pair named NAME_before, NAME_after (the first is a_before.png)", "2 pairs named NAME_start, NAME_end"]),
        (["a_before.png", "a_after.png", "before_b.png", "after_b.png"], ["before_NAME, after_NAME"]),
        (["main/1.png", "control_1/1.png", "target/1.png", "control/1.png"], ["control_1/NAME", "control/NAME"]),
        (["source/1.png", "control/1.png", "target/1.png"], ["source/NAME", "control/NAME"]),
        (["main/1_start.png", "main/1_end.png", "control_1/1_start.png", "control_1/1_end.png"], ["main/NAME"]),
    ],
)  # fmt: skip
def test_a_mixture_is_refused_with_what_was_found(folder, files, said):
    with pytest.raises(PairError, match=r"several namings .* None was taken") as refused:
        find_pairs(str(folder(*files)))
    assert all(part in str(refused.value) for part in said)


def test_a_missing_or_second_side_is_seen_in_every_naming(folder):
    place = folder("target/1.png", "control/1.png", "target/2.png", "control/3.png", "control/1.jpg", "x_before.png")
    reading = read_pairs(str(place))
    assert told(reading.found, place) == [
        ("1", "", ["control/1.jpg", "control/1.png"], ["target/1.png"]),
        ("2", "", [], ["target/2.png"]),
        ("3", "", ["control/3.png"], []),
    ]
    assert reading.halves == ("x_before.png",)


def test_half_a_pair_is_named_where_there_is_no_whole_one(folder):
    place = folder("Case-BEFORE.JPG", "photo.png")
    assert told(find_pairs(str(place)), place) == [("Case", "", ["Case-BEFORE.JPG"], [])]
    (place / "Case-BEFORE.JPG").rename(place / "Case_start.JPG")
    with pytest.raises(PairError, match=r"Case_start\.JPG: this looks like half a pair"):
        find_pairs(str(place))


def rows(*pairs):
    return [{"image": after, "prompt": "make it red", "edit_image": before} for before, after in pairs]


def as_lines(table):
    return "".join(f"{json.dumps(row)}\n" for row in table)


def as_csv(table):
    return "image,prompt,edit_image\n" + "".join(f"{row['image']},red,{row['edit_image']}\n" for row in table)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("metadata.json", json.dumps),
        ("metadata.jsonl", as_lines),
        ("metadata.json", as_lines),
        ("metadata.csv", as_csv),
    ],
)
def test_the_target_of_a_table_is_its_image_and_paths_are_relative_to_it(folder, name, written):
    place = folder("t/1.png", "s/1.png")
    (place / name).write_text(written(rows(("s/1.png", "t/1.png"))))
    expected = [("row 1", "", ["s/1.png"], ["t/1.png"])]
    for source in (place / name, place):  # the folder itself finds its table
        reading = read_pairs(str(source))
        assert told(reading.found, place) == expected and str(reading.naming) == "columns edit_image, image"


def test_a_table_and_file_names_that_tell_the_same_do_not_quarrel(folder):
    place = folder("control/1.png", "control/2.png", "target/1.png", "target/2.png")
    (place / "metadata.jsonl").write_text(as_lines(rows(("control/2.png", "target/2.png"))))
    assert told(find_pairs(str(place)), place) == [("row 1", "", ["control/2.png"], ["target/2.png"])]
    (place / "metadata.jsonl").write_text(as_lines(rows(("control/2.png", "target/1.png"))))
    with pytest.raises(PairError, match=r"columns edit_image, image.*control/NAME"):
        find_pairs(str(place))
    (place / "metadata.jsonl").write_text('{"file_name": "control/1.png", "text": "a mug"}\n')
    reading = read_pairs(str(place))
    assert [each.name for each in reading.found] == ["1", "2"] and reading.files == ("metadata.jsonl",)


def test_json_rows_may_have_an_edit_several_references_or_nothing(folder):
    place = folder("x.png")
    table = [
        {"image": "a.png", "edit_image": ["b.png"], "edit": "lift"},
        {"image": "s3://shop/a.png", "edit_image": ["b.png", "c.png"], "edit": 7},
        {"image": None, "edit_image": "b.png"},
    ]
    (place / "list.json").write_text("\ufeff" + json.dumps(table))
    assert told(find_pairs(str(place / "list.json")), place) == [
        ("row 1", "lift", ["b.png"], ["a.png"]),
        ("row 2", "7", ["b.png", "c.png"], ["s3://shop/a.png"]),
        ("row 3", "", ["b.png"], []),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"before": "a.png"}', r"needs a column `after`; it has before"),
        ('{"before": "a.png", "after": "b.png"}\n{"before": ', "line 2 is not JSON"),
        ('["a.png", "b.png"]', "takes a list of objects"),
        ('[{"before": {"bytes": 1}, "after": "b.png"}]', "`before` holds an object"),
        ('[{"before": [["a.png"]], "after": "b.png"}]', "lists of lists"),
        ('[{"before": "\\ud800.png", "after": "b.png"}]', "not in UTF-8"),
        ("[]", "needs a column"),
        ("", "needs a column"),
    ],
)
def test_a_json_table_that_is_none_is_one_sentence(folder, text, said):
    place = folder("x.png") / "pairs.jsonl"
    place.write_text(text)
    with pytest.raises(PairError, match=said):
        find_pairs(str(place))


@pytest.mark.parametrize(
    ("before", "name"),
    [("x/shoe_before.png", "shoe"), ("shoe-Before.jpg", "shoe"), ("shoe_start.png", "shoe"), ("before.png", "before"),
     ("before_shoe.png", "shoe"), ("before/shoe.png", "shoe"), ("s3://shop/shoe_after.png", "shoe_after")],
)  # fmt: skip
def test_a_pair_that_is_given_by_its_pictures_is_called_as_its_before_image(before, name):
    assert found_at(before, "after.png").name == name


def test_other_namings_are_read_in_any_store(tmp_path):
    place = f"memory://{tmp_path.name}"
    for path in ("set/main/1.png", "set/control_1/1.png", "metadata.json"):
        store.write(f"{place}/{path}", b"[]")
    assert told(find_pairs(place), place) == [("set/1", "set", ["set/control_1/1.png"], ["set/main/1.png"])]
    store.write(f"{place}/metadata.json", json.dumps(rows(("a.png", "b.png"))).encode())
    assert told(find_pairs(f"{place}/metadata.json"), place) == [("row 1", "", ["a.png"], ["b.png"])]


def test_the_command_says_how_it_read_and_what_it_left_aside(folder, scene):
    place = folder("head_start.png", "shoe_start2.png", "shoe.txt", "cover.jpg", "notes.md", "odd\udcff.zip")
    scene(1).save(place / "shoe_start.png")
    scene(2).save(place / "shoe_end.png")
    ran = CliRunner().invoke(app, ["pairs", "check", str(place), "--sheet", str(place / "sheet.png"), "--json"])
    outcome = json.loads(ran.stdout)
    assert outcome["naming"] == "NAME_start, NAME_end" and outcome["usable"] == 1
    assert outcome["left_aside"] == {
        "halves": [],
        "images": ["cover.jpg", "shoe_start2.png"],
        "files": ["notes.md", "odd\udcff.zip"],
    }
    assert [(row["name"], row["usable"]) for row in outcome["pairs"]] == [("head", False), ("shoe", True)]
    shown = CliRunner().invoke(app, ["pairs", "check", str(place), "--sheet", str(place / "sheet.png")]).stdout
    assert "NAME_start, NAME_end" in shown and "cover.jpg, sheet.png, shoe_start2.png" in shown and "notes.md" in shown


def test_help_names_every_naming():
    told = CliRunner().invoke(app, ["pairs", "check", "--help"]).stdout
    called = {side.replace("/NAME", "/") for naming in NAMINGS for side in (naming.before, naming.after)}
    assert [side for side in sorted(called) if side not in told] == []
