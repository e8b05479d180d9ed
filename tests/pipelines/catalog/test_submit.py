"""`edit-transfer submit` and `edit-transfer jobs` against two nodes, with everything in a bucket."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from infra import store
from infra.cli import app
from infra.deploy import environment
from infra.errors import UsageError
from pipelines.catalog import asking, manifest
from tests import clusters

ROOT = Path(__file__).parents[3]
IMAGES = 6


def png(image) -> bytes:
    image.save(data := io.BytesIO(), "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def cluster(ceph):
    with clusters.served(ceph) as reached:
        yield reached


@pytest.fixture
def catalog(ceph_bucket, scene):
    """A prefix with a few photos."""
    for number in range(IMAGES):
        store.write(f"{ceph_bucket}/photos/{number}.png", png(scene(number, (64, 64))))
    return f"{ceph_bucket}/photos"


def edit_transfer(reached: dict[str, str], *arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, that can reach the cluster, and the bucket."""
    code = "from infra.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | reached | settings, cwd=ROOT)


def job(catalog: str, pair: tuple[str, str], base: Path, *more: object) -> tuple[object, ...]:
    """Options of a job whose results go beside the catalog."""
    places = ("--base", base, "--input", catalog, "--output", catalog.replace("photos", "out"))
    return ("--pair", *pair, *places, *more)


def rows_beside(catalog: str) -> list[dict]:
    return manifest.read(f"{catalog.replace('photos', 'out')}/manifest").to_pylist()


@pytest.mark.slow
def test_a_job_on_two_nodes_edits_a_bucket(cluster, catalog, pair, tiny_base, ceph):
    options = job(catalog, pair, tiny_base, "--workers", 1)
    done = edit_transfer(cluster, "submit", *options, "--wait", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    job_id, *_, summary = done.stdout.splitlines()
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}", job_id)
    assert json.loads(summary)["done"] == IMAGES

    rows = rows_beside(catalog)
    assert len(rows) == IMAGES and {row["status"] for row in rows} == {"done"}
    assert {row["job_id"] for row in rows} == {job_id}
    kept = f"{catalog.replace('photos', 'out')}/jobs/{job_id}/pairs"
    assert [store.read(f"{kept}/1-{name}.png") for name in ("before", "after")] == [Path(p).read_bytes() for p in pair]

    status = json.loads(edit_transfer(cluster, "jobs", "status", job_id, "--json").stdout)
    assert (status["job_id"], status["state"], status["exit_code"]) == (job_id, "succeeded", 0)
    assert job_id in edit_transfer(cluster, "jobs", "list").stdout
    logs = edit_transfer(cluster, "jobs", "logs", job_id).stdout
    assert summary in logs and ceph["AWS_SECRET_ACCESS_KEY"] not in logs + json.dumps(status)


@pytest.mark.slow
def test_a_cancelled_job_is_finished_by_the_next(cluster, catalog, pair, tiny_base, scene):
    for number in range(IMAGES, 60):
        store.write(f"{catalog}/{number}.png", png(scene(number, (64, 64))))
    options = job(catalog, pair, tiny_base, "--steps", 40, "--batch-size", 2)
    job_id = edit_transfer(cluster, "submit", *options).stdout.strip()
    while not (kept := rows_beside(catalog)):
        assert json.loads(edit_transfer(cluster, "jobs", "status", job_id, "--json").stdout)["state"] != "failed"
    told = edit_transfer(cluster, "jobs", "cancel", job_id)
    assert told.returncode == 0 and told.stdout.startswith(f"{job_id}: stopped after ")
    assert "Stopped. Run the same command again to go on." in edit_transfer(cluster, "jobs", "logs", job_id).stdout
    assert "had ended before: stopped" in edit_transfer(cluster, "jobs", "cancel", job_id).stdout

    kept = rows_beside(catalog)
    assert 0 < len(kept) < 60 and {row["job_id"] for row in kept} == {job_id}
    assert all(store.stat(row["result_uri"]) for row in kept)
    again = edit_transfer(cluster, "submit", *options, "--follow", "--json")
    summary = json.loads(again.stdout.splitlines()[-1])
    assert (again.returncode, summary["total"], summary["failed"]) == (0, 60, 0) and summary["skipped"] >= len(kept)
    rows = rows_beside(catalog)
    assert sorted(row["relative_path"] for row in rows) == sorted(f"{number}.png" for number in range(60))
    assert {row["job_id"] for row in rows} == {job_id, again.stdout.splitlines()[0]}


@pytest.mark.slow
@pytest.mark.parametrize("entrypoint", ["python -m pipelines.catalog", "edit-transfer"])
def test_plain_ray_jobs_work_too(cluster, catalog, pair, tiny_base, entrypoint):
    """The variables that say where the bucket is are those of the nodes."""
    ray = Path(sys.executable).with_name("ray")
    asked = ["job", "submit", "--working-dir", ".", "--", *entrypoint.split(), "apply"]
    options = map(str, job(catalog, pair, tiny_base, "--workers", 1))
    done = subprocess.run([ray, *asked, *options], capture_output=True, text=True, env=os.environ | cluster, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    [job_id] = {row["job_id"] for row in rows_beside(catalog)}
    assert job_id.startswith("raysubmit_") and job_id in done.stdout


@pytest.mark.slow
def test_a_job_ends_with_the_exit_code_of_apply(cluster, catalog, pair, tiny_base):
    store.write(f"{catalog}/broken.png", b"no image")
    some = edit_transfer(cluster, "submit", *job(catalog, pair, tiny_base, "--workers", 1), "--wait")
    assert some.returncode == 3 and {row["status"] for row in rows_beside(catalog)} == {"done", "failed"}
    nothing = edit_transfer(cluster, "submit", *job(f"{catalog}-not", pair, tiny_base), "--wait")
    assert nothing.returncode == 2 and "Error: " in nothing.stdout
    told = edit_transfer(cluster, "jobs", "status", nothing.stdout.splitlines()[0]).stdout
    assert "failed after" in told and "exit code 2" in told and "Error: " in told


def test_a_cluster_that_does_not_let_us_in_says_why(cluster):
    for settings, wanted in (
        ({"RAY_AUTH_TOKEN": "0" * 64}, "asks for a token: set RAY_AUTH_MODE"),
        ({"RAY_AUTH_MODE": "disabled"}, "asks for a token: set RAY_AUTH_MODE"),
        ({"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}, "No Ray cluster answers at http://127.0.0.1:9"),
    ):
        refused = edit_transfer(cluster, "jobs", "list", **settings)
        assert refused.returncode == 2 and refused.stdout == ""
        assert (
            refused.stderr.startswith("Error: ") and wanted in refused.stderr and len(refused.stderr.splitlines()) == 1
        )
    unknown = edit_transfer(cluster, "jobs", "cancel", "20260101-000000-abcdef")
    assert unknown.returncode == 2 and "There is no job 20260101-000000-abcdef" in unknown.stderr


def parsed(name: str, words: list[str]) -> dict[str, object]:
    """The options of a command as its parser gives them."""
    return typer.main.get_command(app).commands[name].make_context(name, list(words)).params


def submitted(words: list[str], job_id: str = "1") -> list[str]:
    """What the cluster is asked for, where these words are given to submit."""
    asked = {name: value for name, value in parsed("submit", words).items() if name in parsed("apply", words)}
    return shlex.split(asking.command_for(asking.seen_from_nodes(asked | {"yes": True}, job_id)))


def test_the_cluster_is_asked_for_what_apply_would_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "--pair",
        "s3://a/b c.png",
        "s3://a/d.png",
        "--pair",
        "s3://a/e.png",
        "s3://a/f'.png",
        "--input",
        "s3://a/in",
    ]
    words += ["--output", "s3://a/out", "--seed", "-3", "--format", "jpeg", "--limit", "7", "--scale", "0.5", "--fresh"]
    words += ["--adapter", "lift:0.7", "--adapter", "shine", "--registry", "s3://a/r", "--base", "org/base", "--json"]
    asked = submitted(words)
    assert asked[:4] == ["python", "-m", "pipelines.catalog", "apply"]
    assert parsed("apply", asked[4:]) == parsed("apply", [*words, "--yes"])


def test_local_places_are_absolute_and_pairs_go_to_the_bucket(tmp_path, monkeypatch, moto_bucket, pair):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDIT_TRANSFER_REGISTRY", "adapters")
    (tmp_path / "base").mkdir()
    (tmp_path / "said.safetensors").write_bytes(b"said")
    words = ["--input", "photos/*.png", "--adapter", "lift", "--base", "base", "--pair", *pair]
    words += ["--prompt", "said.safetensors"]
    asked = parsed("apply", submitted([*words, "--output", "out"])[4:])
    assert asked["source"] == str(tmp_path / "photos/*.png") and asked["output"] == str(tmp_path / "out")
    assert asked["registry"] == str(tmp_path / "adapters") and asked["base"] == str(tmp_path / "base")
    assert asked["pair"] == list(pair)
    assert asking.local_places(asked) == [asked[name] for name in asking.PLACES] + [*pair]
    assert asked["prompt"] == str(tmp_path / "said.safetensors")

    asked = parsed("apply", submitted([*words, "--output", f"{moto_bucket}/out"], "7")[4:])
    copies = [f"{moto_bucket}/out/jobs/7/pairs/1-{name}.png" for name in ("before", "after")]
    assert store.read(asked["prompt"]) == b"said" and asked["prompt"].startswith(moto_bucket)
    assert asked["pair"] == copies and [store.read(copy) for copy in copies] == [Path(p).read_bytes() for p in pair]


def test_what_cannot_be_asked_for_is_told_before_anything_is_sent():
    for words, wanted in (
        (["--input", "a"], "--output"),
        (["--input", "a", "--output", "b", "--steps", "none"], "--steps"),
        (["--input", "a", "--output", "b", "--pair", "c"], "--pair takes two images"),
    ):
        refused = CliRunner().invoke(app, ["submit", *words])
        assert refused.exit_code == 2 and wanted in refused.stderr
    with pytest.raises(UsageError, match="memory of this process"):
        submitted(["--input", "memory://a", "--output", "b", "--pair", "c", "d"])


def test_the_source_that_goes_along_runs_by_itself():
    with environment.source() as folder:
        code = "import infra; print(infra.__path__[0])"
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
        assert ran.stdout.strip() == str(folder / "infra")
        assert {each.name for each in folder.iterdir()} == {"infra", "pipelines", "serving", "training"}
        assert not list(folder.rglob("__pycache__")) and list(folder.rglob("miniature/vae/*.safetensors"))


def test_dependencies_are_pinned_to_what_is_installed_without_ray():
    pinned = dict(each.split("==") for each in environment.dependencies())
    assert pinned["diffusers"] == version("diffusers") and "botocore" in pinned
    assert not {"ray", "edit-transfer", "pytest"} & pinned.keys()
    assert "+" not in pinned["torch"]
