"""`edit-transfer train` and `retrain` as people run them, on real Ray, with a small base."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow.dataset as ds
import pytest
import ray
from safetensors.torch import load_file
from typer.testing import CliRunner

from infra import registry, store
from infra.cli import app
from pipelines.pairs.check import check_pairs, usable

STEPS = ["--steps", "8", "--rate", "1e-2", "--rank", "4"]


@pytest.fixture
def place(tmp_path, tiny_base, scene, monkeypatch):
    """A folder of five pairs, an empty registry, and the small base as the default."""
    monkeypatch.setenv("EDIT_TRANSFER_BASE", str(tiny_base))
    monkeypatch.setenv("EDIT_TRANSFER_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setenv("EDIT_TRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    add_pairs(tmp_path / "pairs", scene, range(5))
    return tmp_path


def add_pairs(folder, scene, seeds, edited=lambda image: image.point(lambda level: 255 - level)):
    folder.mkdir(exist_ok=True)
    for seed in seeds:
        scene(seed, (64, 64)).save(folder / f"p{seed}_before.png")
        edited(scene(seed, (64, 64))).save(folder / f"p{seed}_after.png")


def command(*arguments):
    told = CliRunner().invoke(app, [*arguments, "--json"])
    assert told.exception is None or isinstance(told.exception, SystemExit), told.exception
    return told.exit_code, json.loads(told.stdout) if told.stdout.strip() else {}, told.stderr


def train(*options):
    return command("train", "--name", "turn", "--pairs", "pairs", "--workers", "1", *STEPS, *options)


def retrain(*options):
    return command("retrain", "turn", "--pairs", "pairs", "--workers", "1", "--steps", "8", "--rank", "4", *options)


def test_pairs_become_a_version_that_apply_uses(place, ray_cluster, scene):
    code, first, beside = train("--workers", "2")
    assert code == 0 and (first["version"], first["new"], first["production"]) == (1, True, True), beside
    version = registry.resolve(str(place / "registry"), "turn@production")
    about = version.about
    assert {pair["role"] for pair in about["pairs"]} == {"train", "held_out"} and len(about["pairs"]) == 5
    assert set(version.files) >= {"adapter.safetensors", "samples.png", "card.md"} and len(version.files) == 13
    assert about["scores"]["held_out_pairs"] == 1 and about["training"]["curve"][-1]["step"] == 8
    assert "held out" in registry.read_file(version, "card.md").decode()
    assert list((place / "runs" / "turn").glob("events*")) and len(list((place / "runs/turn/samples").iterdir())) == 2
    assert not list((place / "registry/turn/runs").iterdir())  # what is published needs no checkpoint, and no encodings
    assert "loading the base" in beside and "encoding 32 of 32 views" in beside
    assert about["scores"]["scored_pairs"] == 1 and first["scores"] == about["scores"]

    again = train("--workers", "2")[1]  # the same work is not done again
    assert (again["version"], again["new"], again["digest"]) == (1, False, first["digest"])
    told = CliRunner().invoke(app, ["train", "--name", "turn", "--pairs", "pairs", "--workers", "2", *STEPS]).stdout
    assert f"score            {about['scores']['balanced']:.1f} dB on 1 held-out pair; base alone" in told

    (place / "photos").mkdir()
    scene(77, (96, 64)).save(place / "photos" / "a.png")
    results = {}
    for name, options in {"worn": [], "stacked": ["--adapter", "turn@1:0.5"]}.items():
        job = ["apply", "--adapter", "turn@production", "--input", "photos", "--output", name, *options]
        code, told, beside = command(*job)
        assert code == 0 and told["done"] == 1, beside
        results[name] = (place / name / "images" / "a.png").read_bytes()
    assert results["worn"] != results["stacked"]
    [row] = ds.dataset(place / "stacked" / "manifest").to_table().to_pylist()
    digest = first["digest"]
    assert (row["adapter"], row["adapter_version"]) == ("turn@1+turn@1:0.5", None)
    assert row["adapter_digest"] == f"{digest}+{digest}:0.5"


KILLED = """
import sys
from infra.cli import main
sys.argv = ["edit-transfer", "train", "--name", "turn", "--pairs", "pairs", "--workers", "1", "--json", "--rank", "4",
            "--rate", "1e-2", "--steps", "120"]
main()
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_trainer_goes_on_and_ends_as_if_nothing_had_happened(place, tmp_path):
    """kill -9 after the first checkpoint; the same command then ends bit-equal to a run that was not disturbed."""
    environment = os.environ | {"EDIT_TRANSFER_REGISTRY": str(place / "registry")}

    def start():
        return subprocess.Popen([sys.executable, "-c", KILLED], cwd=place, env=environment, stdout=-1, stderr=-1)

    first = start()
    runs = place / "registry" / "turn" / "runs"
    while first.poll() is None and not list(runs.rglob("state.pt")):
        time.sleep(0.05)
    assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not list((place / "registry").rglob("adapter.json"))
    second = start()
    out, err = second.communicate()
    assert second.returncode == 0, err.decode()
    assert "encoding 32 of 32 views (32 kept from an earlier run)" in err.decode()
    killed = json.loads(out)
    assert killed["version"] == 1
    environment["EDIT_TRANSFER_REGISTRY"] = str(place / "undisturbed")
    out, err = start().communicate()
    whole = json.loads(out)
    weights = [load_file(Path(told["uri"]) / "adapter.safetensors") for told in (killed, whole)]
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[1]) and killed["scores"] == whole["scores"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lost_worker_is_replaced_and_goes_on_from_the_checkpoint(place):
    """kill -9 of the worker alone: the same command ends by itself, with all of its steps."""
    environment = os.environ | {"EDIT_TRANSFER_REGISTRY": str(place / "registry")}
    running = subprocess.Popen([sys.executable, "-c", KILLED], cwd=place, env=environment, stdout=-1, stderr=-1)
    runs = place / "registry" / "turn" / "runs"
    while running.poll() is None and not list(runs.rglob("state.pt")):
        time.sleep(0.05)
    [worker] = [
        child for child in psutil.Process(running.pid).children(recursive=True) if "RayTrainWorker" in child.name()
        or any("RayTrainWorker" in part for part in child.cmdline())
    ]  # fmt: skip
    worker.kill()
    out, err = running.communicate()
    assert running.returncode == 0, err.decode()
    version = registry.resolve(str(place / "registry"), "turn@1")
    assert json.loads(out)["new"] and version.about["training"]["steps_taken"] == 120
    assert [point["step"] for point in version.about["training"]["curve"]] == [*range(0, 121, 15)]


def share(rank, base, pairs, place):
    """What one of two processes that train together does to prepare itself."""
    import torch.distributed as dist

    from pipelines.transfer import Editor
    from training.fit.encodings import Encodings
    from training.fit.views import glances

    told = []
    dist.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=2)
    try:
        views = Encodings(f"{place}/kept", lambda *counts: told.append(counts))(Editor.load(base), glances(pairs, 8))
    finally:
        dist.destroy_process_group()
    return told, [view.before.numpy() for view in views]


def test_processes_that_train_together_encode_a_share_each(place, ray_cluster, tiny_base):
    pairs = usable(check_pairs("pairs", 10**6), "")
    pairs += [replace(pair, edit=edit) for edit in "abc" for pair in pairs]
    asked = ray.remote(num_cpus=1)(share)
    first, second = ray.get([asked.remote(rank, str(tiny_base), pairs, str(place)) for rank in (0, 1)])
    assert (first[0], second[0]) == ([(32, 0, 160), (64, 0, 160), (96, 0, 160)], [(32, 0, 160), (64, 0, 160)])
    assert len(list((place / "kept").iterdir())) == 5
    assert all((one == other).all() for one, other in zip(first[1], second[1], strict=True))


@pytest.mark.slow
def test_retraining_follows_the_pairs_that_arrive(place, ray_cluster, scene):
    """One training for new pairs, none without; a candidate that is not better is refused, and not trained again."""
    train()
    code, told, _ = retrain()
    assert (code, told["outcome"], told["trained"], told["new_pairs"]) == (0, "nothing_new", False, 0)
    add_pairs(place / "pairs", scene, range(20, 22))
    assert retrain()[1]["outcome"] == "nothing_new"
    add_pairs(place / "pairs", scene, range(22, 23))
    code, told, _ = retrain("--min-gain", "100")
    assert (code, told["outcome"], told["trained"], told["production"]) == (4, "refused", True, 1)
    assert "not better by 100 dB" in told["why"] and told["new_pairs"] == 3
    code, again, _ = retrain("--min-gain", "100")
    assert (code, again["trained"], again["candidate"], again["score"]) == (4, False, 2, told["score"])
    assert registry.resolve(str(place / "registry"), "turn@production").number == 1
    code, told, _ = retrain("--min-gain", "-100")
    assert (code, told["outcome"], told["trained"]) == (0, "promoted", False)
    assert retrain()[1]["outcome"] == "nothing_new"  # the pairs that judged it count as seen
    version = registry.resolve(str(place / "registry"), "turn@production")
    assert version.number == 2 and len(version.about["pairs"]) == 8
    assert [pair["role"] for pair in version.about["pairs"]].count("judged") == 1
    assert registry.history(str(place / "registry"), "turn")[-1].why.startswith("version 2 scores")


def test_two_trainings_of_one_adapter_never_run_at_once(place, ray_cluster):
    with registry.lease(str(place / "registry"), "turn", "training", 60):
        for told in (retrain(), train()):
            assert told[0] == 5 and "turn" in told[2] and "Traceback" not in told[2]
    assert registry.versions(str(place / "registry"), "turn") == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--name", "Not A Name"], "cannot be the name"),
        (["--pairs", "nowhere"], "no such folder"),
        (["--base", "no/such/base"], "no/such/base"),
        (["--precision", "int3"], "float32 or bfloat16"),
        (["--keep", "nowhere"], "no such folder"),
        (["--registry", "memory://m"], "folder or a bucket"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(place, ray_cluster, options, said):
    code, _, beside = train(*options)
    assert code == 2 and said in beside.splitlines()[-1] and "Traceback" not in beside


@pytest.mark.slow
def test_pairs_of_many_edits_train_one_adapter_that_needs_to_be_shown_which(place, ray_cluster, scene):
    for edit, change in {"dark": 0.5, "light": 1.5, "mid": 0.8, "high": 1.2}.items():
        folder = place / "many" / edit
        folder.mkdir(parents=True)
        add_pairs(folder, scene, range(2), lambda image, change=change: image.point(lambda level: int(level * change)))
    code, told, _ = train("--pairs", "many")
    assert code == 0 and told["scores"]["held_out_pairs"] == 2
    assert registry.resolve(str(place / "registry"), "turn").about["exemplars"] == []
    code, _, beside = command("apply", "--adapter", "turn", "--input", "pairs", "--output", "out")
    assert code == 2 and "--pair BEFORE AFTER" in beside


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_pairs_registry_and_checkpoints_may_all_lie_in_a_bucket(place, ceph_bucket, ceph):
    """Trained by one process, applied by another; nothing but the bucket between them."""
    for path in (place / "pairs").iterdir():
        store.write(f"{ceph_bucket}/pairs/{path.name}", path.read_bytes())
    environment = os.environ | ceph | {"EDIT_TRANSFER_REGISTRY": f"{ceph_bucket}/adapters"}

    def run(*arguments):
        ran = subprocess.run([sys.executable, "-c", MAIN, *arguments, "--json"], cwd=place, env=environment,
                             capture_output=True, text=True)  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    training = ("train", "--name", "turn", "--pairs", f"{ceph_bucket}/pairs", "--workers", "1", *STEPS)
    told = run(*training)
    assert (told["version"], told["new"], told["production"]) == (1, True, True)
    assert not [found for found in store.list_objects(f"{ceph_bucket}/adapters") if "/runs/" in found.uri]
    assert run(*training)["new"] is False
    edited = run("apply", "--adapter", "turn@production", "--input", "pairs", "--output", "out")
    assert edited["done"] == 10


MAIN = "from infra.cli import main; main()"
