"""`edit-transfer adapters import` with pairs and ranks: what it keeps is used as what a training keeps."""

import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from infra import registry, store
from infra.cli import app
from infra.settings import Settings
from pipelines import adapters
from pipelines.catalog import job
from pipelines.catalog.variants import decoded_pair
from pipelines.transfer import Editor, bases, loading
from tests.loras import pairs_of, random_lora
from tests.pipelines.transfer.test_lycoris import KINDS, of_peft
from tests.tiny import tiny_transformer
from training.scenes import photos as photographs


@pytest.fixture
def place(tmp_path, monkeypatch) -> str:
    monkeypatch.setenv("EDIT_TRANSFER_REGISTRY", str(tmp_path / "registry"))
    return str(tmp_path / "registry")


@pytest.fixture(scope="module")
def lora(tmp_path_factory, tiny_base) -> Path:
    file = tmp_path_factory.mktemp("lora") / "theirs.safetensors"
    save_file(random_lora(loading.skeleton(tiny_base)), file)
    return file


@pytest.fixture
def photos(tmp_path, scene):
    """`photos(1, 2)`: a folder of so many pairs."""

    def make(*seeds: int, folder: str = "pairs") -> Path:
        place = tmp_path / folder
        place.mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            before = scene(seed, (64, 48))
            before.save(place / f"n{seed}_before.png")
            before.point(lambda value: 255 - value).save(place / f"n{seed}_after.jpg")
        return place

    return make


def taken_in(file: Path, base: Path, *more: str, name: str = "theirs"):
    return CliRunner().invoke(
        app, ["adapters", "import", str(file), "--name", name, "--base", str(base), "--attention", "prefix", *more]
    )


def both(folder: Path, seed: int) -> tuple[str, str]:
    return str(folder / f"n{seed}_before.png"), str(folder / f"n{seed}_after.jpg")


def kept(version) -> list[tuple[str, bytes, bytes]]:
    return [
        (pair["name"], registry.read_file(version, pair["before"]), registry.read_file(version, pair["after"]))
        for pair in version.about["pairs"]
    ]


def found(folder: Path, seed: int) -> tuple[str, bytes, bytes]:
    before, after = both(folder, seed)
    return f"n{seed}", Path(before).read_bytes(), Path(after).read_bytes()


def test_pairs_are_kept_as_they_were_found_and_all_that_were_given_are_shown(place, lora, tiny_base, photos):
    folder = photos(1, 2, 3, 4)
    done = taken_in(lora, tiny_base, "--pair", *both(folder, 3), "--pair", *both(folder, 2))
    assert done.exit_code == 0, done.stderr
    version = registry.resolve(place, "theirs")
    assert kept(version) == [found(folder, 3), found(folder, 2)]
    assert version.about["exemplars"] == ["n3", "n2"] and version.about["edits"] == [""]
    assert {pair["role"] for pair in version.about["pairs"]} == {"shown"}
    card = registry.read_file(version, "card.md").decode()
    assert all(pair["before"] in card for pair in version.about["pairs"]) and "not known here" in card


@pytest.mark.parametrize("table", [False, True])
def test_of_a_folder_or_table_the_first_is_shown(place, lora, tiny_base, photos, tmp_path, table):
    source = folder = photos(1, 2, 3)
    if table:
        source = tmp_path / "pairs.csv"
        columns = zip(*(both(folder, seed) for seed in (1, 2, 3)), strict=True)
        pyarrow.csv.write_csv(pa.table(dict(zip(("before", "after"), columns, strict=True))), source)
    assert taken_in(lora, tiny_base, "--pairs", str(source)).exit_code == 0
    version = registry.resolve(place, "theirs")
    assert [each[1:] for each in kept(version)] == [found(folder, seed)[1:] for seed in (1, 2, 3)]
    assert version.about["exemplars"] == [version.about["pairs"][0]["name"]]


def test_pairs_may_lie_in_a_store(place, lora, tiny_base, photos):
    folder = photos(1)
    for path in folder.iterdir():
        store.write(f"memory://import-pairs/{path.name}", path.read_bytes())
    assert taken_in(lora, tiny_base, "--pairs", "memory://import-pairs").exit_code == 0
    assert kept(registry.resolve(place, "theirs")) == [found(folder, 1)]


def test_a_given_pair_is_shown_and_the_folders_are_kept(place, lora, tiny_base, photos):
    """What is in both counts once."""
    folder = photos(1, 2, 3)
    done = taken_in(lora, tiny_base, "--pairs", str(folder), "--pair", *both(folder, 2))
    assert done.exit_code == 0 and "left out: n2: It is the same files as n2." in done.stderr
    version = registry.resolve(place, "theirs")
    assert kept(version) == [found(folder, seed) for seed in (2, 1, 3)] and version.about["exemplars"] == ["n2"]


def test_pairs_of_several_edits_show_none_by_default(place, lora, tiny_base, photos, tmp_path):
    photos(1, folder="pairs/red")
    photos(2, folder="pairs/blue")
    assert taken_in(lora, tiny_base, "--pairs", str(tmp_path / "pairs")).exit_code == 0
    about = registry.resolve(place, "theirs").about
    assert about["edits"] == ["blue", "red"] and len(about["pairs"]) == 2 and about["exemplars"] == []


def test_what_cannot_be_used_of_a_folder_is_told_and_left_out(place, lora, tiny_base, photos):
    folder = photos(1, 2)
    (folder / "n1_after.jpg").write_bytes(b"no picture")
    done = taken_in(lora, tiny_base, "--pairs", str(folder))
    assert done.exit_code == 0 and "left out: n1: n1_after.jpg" in done.stderr
    assert kept(registry.resolve(place, "theirs")) == [found(folder, 2)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--pair", "n1_before.png", "n1_before.png"], "look the same"),
        (["--pair", "n1_before.png", "gone.png"], "gone.png"),
        (["--pair", "n1_before.png", "square.png"], "framing|proportion|aspect"),
        (["--pair", "n1_before.png"], "takes two images"),
        (["--pair=n1_before.png"], "takes two images"),
        (["--pairs", "gone"], "no such folder"),
        (["--pairs", "empty"], "there are no pairs"),
        (["--pairs", "broken"], "none of 1 pairs can be used"),
        (["--rank", "4"], "is a LoRA already"),
        (["--rank", "0"], "Invalid value"),
    ],
    ids=str,
)
def test_what_cannot_be_imported_leaves_no_version(place, lora, tiny_base, photos, scene, monkeypatch, arguments, said):
    folder = photos(1)
    scene(5, (48, 96)).save(folder / "square.png")
    (folder / "empty").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "a_before.png").write_bytes(b"")
    monkeypatch.chdir(folder)
    done = taken_in(lora, tiny_base, *arguments)
    assert done.exit_code == 2 and "Traceback" not in done.stderr
    assert re.search(said, done.stderr), done.stderr
    assert registry.names(place) == []


def test_without_pairs_it_is_what_it_was(place, lora, tiny_base):
    assert taken_in(lora, tiny_base).exit_code == 0
    version = registry.resolve(place, "theirs")
    assert [version.about[key] for key in ("edits", "pairs", "exemplars")] == [[], [], []]
    assert "approximation" not in version.about and set(version.files) == {"adapter.safetensors", "card.md"}
    assert registry.read_file(version, "card.md").decode() == (
        f"# theirs\n\nImported from `theirs.safetensors`, for the base `{tiny_base}`. Its training is not known here.\n"
    )


def test_a_job_takes_its_pairs_from_it(place, lora, tiny_base, photos, tmp_path, scene):
    """The same pixels as with the pair on the command line."""
    folder = photos(1, 2)
    taken_in(lora, tiny_base, "--pair", *both(folder, 1))
    (tmp_path / "catalog").mkdir()
    scene(9, (64, 48)).save(tmp_path / "catalog" / "a.png")
    options = job.Options(
        pairs=[],
        input=str(tmp_path / "catalog"),
        output=str(tmp_path / "out"),
        adapters=["theirs"],
        base=str(tiny_base),
    )
    prepared = job.prepare(options, Settings(registry=place))
    edits = prepared.feed.edits
    assert len(edits.pairs) == 1
    loras = adapters.loras(prepared.worn, tmp_path / "cache")
    editor = Editor.load(tiny_base, adapter=loras, attention="prefix")
    other = Editor.load(tiny_base, adapter=lora, attention="prefix")
    pair = decoded_pair(found(folder, 1), 10**6)
    results = [
        each.edit([scene(9, (64, 48))], each.remember(pairs), seeds=[5])[0].tobytes()
        for each, pairs in ((editor, edits.pairs), (other, [pair]))
    ]
    assert results[0] == results[1]


# -------------------------------------------------------------------------------------------------------------- ranks


def test_how_far_off_a_rank_is_is_told_and_kept(place, tiny_base, tmp_path):
    entries, gains = of_peft(tiny_transformer(), KINDS["whole"])
    save_file(entries, tmp_path / "lokr.safetensors")
    done = taken_in(tmp_path / "lokr.safetensors", tiny_base, "--rank", "6")
    assert done.exit_code == 0, done.stderr
    version = registry.resolve(place, "theirs")
    told = version.about["approximation"]
    registry.fetch(version, tmp_path / "fetched")
    weights = load_file(tmp_path / "fetched" / "adapter.safetensors")
    off = {
        name.removeprefix("transformer."): float((up @ down - gains[name.removeprefix("transformer.")]).norm())
        for name, (down, up) in pairs_of(weights).items()
    }
    worst = max(off, key=lambda layer: off[layer] / float(gains[layer].norm()))
    assert told["worst_layer"] == worst and version.about["rank"] == 6
    assert told["worst_error"] == pytest.approx(off[worst] / float(gains[worst].norm()), abs=1e-4)
    whole = torch.tensor([float(gain.norm()) for gain in gains.values()]).norm()
    assert told["error"] == pytest.approx(float(torch.tensor(list(off.values())).norm() / whole), abs=1e-4)
    said = f"{told['error']:.1%} of the adapter it was made of"
    assert said in done.stdout and said in registry.read_file(version, "card.md").decode()
    as_json = json.loads(taken_in(tmp_path / "lokr.safetensors", tiny_base, "--rank", "6", "--json").stdout)
    assert as_json["approximation"] == told


def test_what_a_lokr_became_is_exported_and_comes_back(place, tiny_base, tmp_path):
    """Through the names of ai-toolkit, as any LoRA."""
    entries, gains = of_peft(tiny_transformer(), KINDS["second"])
    save_file(entries, tmp_path / "lokr.safetensors")
    assert taken_in(tmp_path / "lokr.safetensors", tiny_base).exit_code == 0
    file = tmp_path / "exported.safetensors"
    done = CliRunner().invoke(app, ["adapters", "export", "theirs", str(file), "--format", "ai-toolkit"])
    assert done.exit_code == 0, done.stderr
    assert taken_in(file, tiny_base, name="back").exit_code == 0
    assert registry.resolve(place, "back").about["base"]["revision"] == bases.revision_of(tiny_base)
    registry.fetch(registry.resolve(place, "back"), tmp_path / "fetched")
    weights = load_file(tmp_path / "fetched" / "adapter.safetensors")
    for name, (down, up) in pairs_of(weights).items():
        gain = gains[name.removeprefix("transformer.")]
        assert (up @ down - gain).norm() <= 1e-5 * gain.norm()
    assert len(pairs_of(weights)) == len(gains)


def test_a_shifted_pair_is_told_and_kept_mended_if_asked_for(place, lora, tiny_base, tmp_path):
    before, after = shifted(8)
    pair = [str(tmp_path / name) for name in ("before.png", "after.png")]
    before.save(pair[0])
    after.save(pair[1])
    told = taken_in(lora, tiny_base, "--pair", *pair)
    assert "shifted by 8.0 px to the right: --align would mend it" in told.stderr
    [(_, *raw)] = kept(registry.resolve(place, "theirs"))
    mended = taken_in(lora, tiny_base, "--pair", *pair, "--align")
    assert mended.exit_code == 0 and "mended" in mended.stderr
    [(_, *files)] = kept(registry.resolve(place, "theirs"))
    sides = [Image.open(io.BytesIO(file)) for file in files]
    assert files != raw and {side.size for side in sides} == {(before.width - 8, before.height)}


def shifted(pixels: int) -> tuple[Image.Image, Image.Image]:
    """A photograph with a ball on it, seen by a camera that stands aside."""
    with Image.open(photographs.FOLDER / "coffee.jpg") as photo:
        large = photo.convert("RGB").resize((280, 208))
    before, after = (large.crop((at, 0, at + 256, 208)) for at in (16, 16 - pixels))
    ImageDraw.Draw(after).ellipse((90, 60, 170, 150), fill=(200, 40, 60))
    return before, after
