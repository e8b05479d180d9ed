"""An engine whose base takes less memory: the same as the Editor's with that tuning, and what it refuses."""

import pytest
import torch
import yaml
from typer.testing import CliRunner

from infra.cli import app
from infra.errors import UsageError
from pipelines.adapters import Worn
from pipelines.transfer import Editor, Tuning, bases
from serving.engine import Engine
from tests.serving.adapters import publish
from tests.serving.test_engine import asked, edited


def test_mixed_requests_on_light_weights_equal_the_editor_bit_for_bit(tmp_path):
    cache = str(tmp_path / "cache")
    worn = [Worn(publish(str(tmp_path / "registry"), f"shop-{seed}", bases.BUNDLED, seed)) for seed in range(3)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    editor = Editor.load(tuned=Tuning(weights="int8"))
    engine = Engine(None, cache, max_batch=6, tuned={"weights": "int8"})
    try:
        assert engine.describe().tuning == "int8"
        works = asked(worn, 16, seed=3)
        results = [future.result(120) for future in [engine.submit(work) for work in works]]
        assert max(result.batch for result in results) > 1, "they had no company"
        for work, result in zip(works, results, strict=True):
            assert result.image.tobytes() == edited(editor, work, cache)
    finally:
        engine.stop()
        torch.set_num_threads(threads)


@pytest.mark.parametrize("tuned", [{"compile": True}, {"step_cache": "taylorseer"}])
def test_what_needs_batches_that_end_together_is_refused(tmp_path, tuned):
    with pytest.raises(UsageError, match="without step caches"):
        Engine(None, str(tmp_path), tuned=tuned)


def test_serve_hands_its_tuning_to_the_engine():
    told = CliRunner().invoke(app, ["serve", "--show-config", "--weights", "float8", "--attention-backend", "native"])
    [application] = yaml.safe_load(told.stdout)["applications"]
    assert application["args"]["engine_options"]["tuned"] == {"weights": "float8", "attention_backend": "native"}
    assert CliRunner().invoke(app, ["serve", "--show-config", "--compile"]).exit_code == 2
