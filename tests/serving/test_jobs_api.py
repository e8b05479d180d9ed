"""/v1/jobs: what may be asked for, who sees what, and a real job on a real cluster."""

import io
import json
import os
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Barrier

import pytest
import typer.main
from fastapi.testclient import TestClient

from infra import store
from infra.cli import app as command_line
from infra.errors import UsageError
from infra.jobs import Jobs
from infra.registry import publish
from infra.settings import Settings
from pipelines.catalog import manifest
from serving.access import Caller, keys
from serving.jobs import JobsConfig
from tests import clusters
from tests.serving.jobs import Cluster, app_for

PAIR = {"before": "s3://shop/a.png", "after": "s3://shop/b.png"}
BODY = {"input": "s3://shop/photos", "output": "s3://shop/out", "pairs": [PAIR]}
SHOP = Caller(key_id="0" * 16, name="shop", scopes=frozenset({"jobs"}))


@pytest.fixture
def config(tmp_path) -> JobsConfig:
    return JobsConfig(
        serving=str(tmp_path / "serving"),
        registry=str(tmp_path / "registry"),
        prefixes=("s3://shop", str(tmp_path)),
        webhooks=("https://shop.example/hooks",),
    )


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def client(config, cluster):
    with TestClient(app_for(config, cluster)) as client:
        yield client


def header(config: JobsConfig, *scopes: str) -> dict[str, str]:
    _, token = keys.create(config.serving, "shop", scopes or ["jobs"])
    return {"Authorization": f"Bearer {token}"}


def asked(cluster: Cluster, job_id: str) -> dict[str, object]:
    """What `apply` understands of the command of a job."""
    words = shlex.split(cluster.jobs[job_id].command)
    assert words[:4] == ["python", "-m", "pipelines.catalog", "apply"]
    return typer.main.get_command(command_line).commands["apply"].make_context("apply", words[4:]).params


def refused(answer, status: int = 400) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


def test_a_job_is_what_apply_would_be_asked_for(client, cluster, config):
    publish(config.registry, "lift", {"adapter.safetensors": b"w"}, {})
    pair = {"before": "s3://shop/a b;touch x.png", "after": "s3://shop/$(id)'.png"}
    options = {"seed": 7, "steps": 3, "format": "jpeg", "limit": 5, "retry_failed": True, "fresh": True, "stage": True}
    more = {"scale": 0.5, "workers": 2, "adapter": ["lift@1:0.7", "lift"], "prompt": "s3://shop/words.safetensors"}
    answer = client.post("/v1/jobs", json=BODY | {"pairs": [PAIR, pair]} | options | more)
    assert answer.status_code == 202 and answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    told = asked(cluster, answer.json()["id"])
    assert told.items() >= (options | more).items()
    assert (told["source"], told["output"], told["registry"]) == ("s3://shop/photos", "s3://shop/out", config.registry)
    assert told["pair"] == [PAIR["before"], PAIR["after"], pair["before"], pair["after"]]
    assert told["yes"] and told["as_json"] and not told["dry_run"]


def test_a_job_is_told_of_until_its_results_are_there(client, cluster):
    job = client.post("/v1/jobs", json=BODY).json()
    assert (job["state"], job["output"], job["counts"]) == ("pending", None, None)
    places = {"report": "s3://shop/out/report.html", "manifest": "s3://shop/out/manifest"}
    cluster.end(job["id"], "failed", 3, total=4, done=2, skipped=1, failed=1, **places)
    told = client.get(f"/v1/jobs/{job['id']}").json()
    assert told.items() >= ({"state": "failed", "exit_code": 3, "output": "s3://shop/out"} | places).items()
    assert told["counts"] == {"total": 4, "done": 2, "skipped": 1, "failed": 1} and "images failed" in told["message"]
    assert [each["id"] for each in client.get("/v1/jobs").json()["data"]] == [job["id"]]
    assert set(told) == {*job}


def test_what_a_log_says_of_another_job_is_not_believed(client, cluster):
    job = client.post("/v1/jobs", json=BODY).json()
    cluster.end(job["id"], total=1, report="s3://elsewhere/report.html", job_id="another")
    assert client.get(f"/v1/jobs/{job['id']}").json()["report"] is None


def test_cancelling_stops_a_job_and_leaves_one_that_has_ended(client, cluster):
    for verb, path in ((client.post, "/v1/jobs/{}/cancel"), (client.delete, "/v1/jobs/{}")):
        job_id = client.post("/v1/jobs", json=BODY).json()["id"]
        assert verb(path.format(job_id)).status_code == 202
        assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "stopped"
        cluster.end(job_id, "succeeded")
        assert verb(path.format(job_id)).json()["state"] == "succeeded"


def test_jobs_are_their_keys_own_and_an_admins(client, cluster, config):
    mine, other, admin = header(config), header(config), header(config, "admin")
    job_id = client.post("/v1/jobs", json=BODY, headers=mine).json()["id"]
    client.post("/v1/jobs", json=BODY, headers=other)
    cluster.submit("python secret.py", "not-from-here", {})
    for who, seen in ((mine, 1), (other, 1), (admin, 2)):
        assert len(client.get("/v1/jobs", headers=who).json()["data"]) == seen
    assert len(client.get("/v1/jobs?limit=1", headers=admin).json()["data"]) == 1
    for verb, path in ((client.get, ""), (client.delete, ""), (client.post, "/cancel")):
        sentences = {
            refused(verb(f"/v1/jobs/{each}{path}", headers=other), 404)["message"].replace(each, "")
            for each in (job_id, "not-there", "not-from-here")
        }
        assert len(sentences) == 1 and "10.0.0.1" not in sentences.pop()
    assert cluster.jobs[job_id].state == cluster.jobs["not-from-here"].state == "pending"
    assert refused(client.get("/v1/jobs/not-from-here", headers=admin), 404)
    assert client.delete(f"/v1/jobs/{job_id}", headers=admin).status_code == 202


def test_keys_are_asked_for_and_need_the_scope(client, config):
    transfer = header(config, "transfer")
    assert refused(client.post("/v1/jobs", json=BODY), 401)["code"] == "invalid_api_key"
    assert refused(client.get("/v1/jobs", headers=transfer), 403)["code"] == "insufficient_scope"


def test_the_same_idempotency_key_is_the_same_job(client, cluster, config):
    mine, other = header(config), header(config)
    key = {"Idempotency-Key": "order-7"}
    first = client.post("/v1/jobs", json=BODY, headers=mine | key)
    again = client.post("/v1/jobs", json=BODY | {"seed": 0, "scale": 1}, headers=mine | key)  # as by default
    assert (first.status_code, again.status_code) == (202, 200) and first.json() == again.json()
    told = refused(client.post("/v1/jobs", json=BODY | {"seed": 1}, headers=mine | key), 409)
    assert told["code"] == "idempotency_conflict"
    theirs = client.post("/v1/jobs", json=BODY | {"seed": 1}, headers=other | key)
    assert theirs.status_code == 202 and len(cluster.jobs) == 2
    for bad in ("", "a b", "x" * 256):
        assert client.post("/v1/jobs", json=BODY, headers=mine | {"Idempotency-Key": bad}).status_code == 422


def test_twins_that_come_together_are_one_job(client, cluster, config, monkeypatch):
    """Both look, and find no job yet; the cluster takes one of them."""
    status, looked, both = cluster.status, count(), Barrier(2)

    def late(job_id: str):
        if next(looked) < 2:
            both.wait()
            return status("not-there")
        return status(job_id)

    monkeypatch.setattr(cluster, "status", late)
    mine = header(config) | {"Idempotency-Key": "order-7"}
    with ThreadPoolExecutor() as threads:
        answers = [threads.submit(client.post, "/v1/jobs", json=BODY, headers=mine) for _ in range(2)]
        statuses = sorted(answer.result().status_code for answer in answers)
    assert statuses == [200, 202] and len(cluster.jobs) == 1


def test_what_a_cluster_says_is_not_passed_on(client, cluster, monkeypatch):
    def refuse(*asked: object) -> None:
        raise UsageError("The Ray cluster at http://10.0.0.1:8265 refused: /root/secret")

    monkeypatch.setattr(cluster, "submit", refuse)
    assert "10.0.0.1" not in refused(client.post("/v1/jobs", json=BODY), 500)["message"]
    monkeypatch.setattr(cluster, "all", refuse)
    told = refused(client.get("/v1/jobs"), 503)
    assert told["code"] == "no_cluster" and "10.0.0.1" not in told["message"]


def test_a_job_brings_no_keys(client, cluster, monkeypatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "EDIT_TRANSFER_SERVING"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3")
    assert client.post("/v1/jobs", json=BODY).status_code == 202
    [environment] = cluster.environments
    assert environment["env_vars"] == {"AWS_ENDPOINT_URL": "http://s3"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"unknown": 1},
        {"registry": "s3://shop/r"},
        {"input": ""},
        {"input": 7},
        {"seed": -1},
        {"seed": 2**63},
        {"seed": True},
        {"seed": "7"},
        {"steps": 0},
        {"format": "gif"},
        {"scale": 1e9},
        {"workers": 10**6},
        {"adapter": "--registry"},
        {"adapter": "a@b@c"},
        {"adapter": "../x"},
        {"adapter": ["lift"] * 9},
        {"pairs": [PAIR] * 65},
        {"pairs": [{"before": "s3://shop/a.png"}]},
        {"pairs": [PAIR | {"c": 1}]},
        {"input": "s3://shop/" + "x" * 2000},
    ],
)
def test_malformed_requests_are_told_which_part_is_wrong(client, cluster, wrong):
    answer = client.post("/v1/jobs", json=BODY | wrong)
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"][1] in wrong
    assert not cluster.jobs


@pytest.mark.parametrize(
    ("wrong", "param", "words"),
    [
        ({"pairs": []}, "adapter", "`adapter` or with `pairs`"),
        ({"input": "s3://shop/list.csv"}, "input", "table"),
        ({"input": "s3://shop/list.PARQUET/"}, "input", "table"),
        ({"input": "s3://other/photos"}, "input", "may not work there"),
        ({"output": "s3://shop/*"}, "output", "wildcards"),
        ({"output": "out"}, "output", "absolute path"),
        ({"pairs": [PAIR | {"after": "/etc/passwd"}]}, "pairs.after", "may not work there"),
        ({"prompt": "s3://other/words.safetensors"}, "prompt", "may not work there"),
        ({"webhook": "https://other.example/hooks"}, "webhook", "may not send"),
        ({"webhook": "https://shop.example/hooks/x"}, "webhook", "a key is needed"),
    ],
)
def test_what_is_not_allowed_is_refused_in_a_sentence(client, cluster, wrong, param, words):
    told = refused(client.post("/v1/jobs", json=BODY | wrong))
    assert told["param"] == param and words in told["message"] and not cluster.jobs


def test_an_unknown_adapter_is_not_found(client):
    assert refused(client.post("/v1/jobs", json=BODY | {"adapter": "none"}), 404)["code"] == "adapter_not_found"


def test_without_prefixes_no_job_and_without_a_list_no_webhook(config, cluster):
    plain = JobsConfig(serving=config.serving, registry=config.registry)
    with TestClient(app_for(plain, cluster)) as client:
        assert "--job-prefix" in refused(client.post("/v1/jobs", json=BODY))["message"]
    with TestClient(app_for(replace(config, webhooks=()), cluster)) as client:
        told = refused(client.post("/v1/jobs", json=BODY | {"webhook": "https://shop.example/hooks"}))
        assert "--webhook" in told["message"]


def png(image) -> bytes:
    image.save(data := io.BytesIO(), "PNG")
    return data.getvalue()


@pytest.fixture
def on_a_cluster(ray_cluster, ceph, monkeypatch):
    """Two nodes, reachable from this process, which has a Ray of its own."""
    with clusters.served(ceph, own_token=False) as reached:
        for name, value in reached.items():
            monkeypatch.setenv(name, value)
        yield Jobs(os.environ["RAY_API_SERVER_ADDRESS"], Settings())


def ended(client, job_id: str, headers: dict[str, str]) -> dict:
    """The job once it has ended; how long that may take is the test's own limit."""
    while not (told := client.get(f"/v1/jobs/{job_id}", headers=headers).json())["ended_at"]:
        assert told["state"] in ("pending", "running")
        time.sleep(0.2)
    return told


@pytest.mark.slow
def test_a_real_cluster_edits_once_and_tells_where(on_a_cluster, ceph_bucket, pair, tiny_base, scene, monkeypatch):
    monkeypatch.setenv("EDIT_TRANSFER_BASE", str(tiny_base))
    for number in range(2):
        store.write(f"{ceph_bucket}/photos/{number}.png", png(scene(number, (64, 64))))
    store.write(f"{ceph_bucket}/photos/broken.png", b"no image")
    folder = str(Path(pair[0]).parent)
    config = JobsConfig(
        serving=f"{ceph_bucket}/serving", registry=f"{ceph_bucket}/registry", prefixes=(ceph_bucket, folder)
    )
    shown = [{"before": pair[0], "after": pair[1]}]
    body = {"input": f"{ceph_bucket}/photos", "output": f"{ceph_bucket}/out", "pairs": shown, "workers": 1}
    with TestClient(app_for(config, on_a_cluster)) as client:
        mine, other = header(config) | {"Idempotency-Key": "order-7"}, header(config)
        first = client.post("/v1/jobs", json=body, headers=mine)
        again = client.post("/v1/jobs", json=body, headers=mine)
        assert (first.status_code, again.status_code) == (202, 200), first.text + again.text
        job_id = first.json()["id"]
        assert again.json()["id"] == job_id
        assert refused(client.post("/v1/jobs", json=body | {"seed": 1}, headers=mine), 409)
        told = ended(client, job_id, mine)
        assert (told["state"], told["exit_code"]) == ("failed", 3), on_a_cluster.logs(job_id)
        assert told["counts"] == {"total": 3, "done": 2, "skipped": 0, "failed": 1}
        assert store.stat(told["report"]) and told["output"] == body["output"]
        rows = manifest.read(told["manifest"]).to_pylist()
        assert sorted(row["status"] for row in rows) == ["done", "done", "failed"]
        assert {row["job_id"] for row in rows} == {job_id}

        another = client.post("/v1/jobs", json=body | {"fresh": True}, headers=other).json()["id"]
        assert refused(client.delete(f"/v1/jobs/{another}", headers=mine), 404)
        assert client.delete(f"/v1/jobs/{another}", headers=other).status_code == 202
        assert ended(client, another, other)["state"] == "stopped"
    described = json.dumps([job.metadata for job in on_a_cluster.all()])
    assert "whsec" not in described and "et_" not in described
