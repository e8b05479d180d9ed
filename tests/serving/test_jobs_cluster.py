"""/v1/jobs with a real job on a real cluster."""

import io
import json
import os
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from infra import store
from infra.jobs import Jobs
from infra.settings import Settings
from pipelines.catalog import manifest
from serving.jobs import JobsConfig
from tests import clusters
from tests.serving.jobs import app_for, header, refused


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
