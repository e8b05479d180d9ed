"""An adapter that was imported can be production: retraining goes on from its pairs, whose training nobody knows."""

from safetensors.torch import save_file
from typer.testing import CliRunner

from infra import registry
from infra.cli import app
from infra.settings import Settings as Environment
from pipelines.transfer import loading
from tests.loras import random_lora
from training.fit import contest, retrain
from training.fit.options import Options


def test_retraining_goes_on_from_an_imported_adapter(tiny_base, tmp_path, pair, scene):
    place, pairs = str(tmp_path / "registry"), tmp_path / "pairs"
    save_file(random_lora(loading.skeleton(tiny_base)), tmp_path / "theirs.safetensors")
    pairs.mkdir()
    scene(3).save(pairs / "more_before.png")
    scene(4).save(pairs / "more_after.png")
    arguments = [
        "--base",
        str(tiny_base),
        "--registry",
        place,
        "--compact",
        "2",
        "--pairs",
        str(pairs),
        "--pair",
        *pair,
    ]
    done = CliRunner().invoke(
        app, ["adapters", "import", str(tmp_path / "theirs.safetensors"), "--name", "theirs", *arguments]
    )
    assert done.exit_code == 0, done.stderr
    version, environment = registry.resolve(place, "theirs"), Environment(registry=place)
    options = Options(name="theirs", pairs=str(pairs), registry=place, rank=8)
    asked = retrain._as_before(options, version)
    assert (asked.rank, asked.rate, asked.compact) == (8, options.rate, 2)
    assert [each.name for each in contest._shown_by(version, environment)] == ["before"]
    known = contest.pairs_of(version, environment.max_pixels)
    assert [each.name for each in known] == ["before", "more"]
    assert retrain._seen(version) == {each.sha256 for each in known}
