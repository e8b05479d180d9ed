"""/v1/jobs/...: who sees and stops which job, and what is told of it."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier

from infra.errors import UsageError
from tests.serving.jobs import BODY, header, refused


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


def test_a_job_that_met_another_at_its_output_says_what_to_do_and_not_who_that_was(client, cluster):
    job = client.post("/v1/jobs", json=BODY).json()
    cluster.end(job["id"], "failed", 5)
    told = client.get(f"/v1/jobs/{job['id']}").json()
    assert told["exit_code"] == 5 and "`wait`" in told["message"] and "An end." not in told["message"]


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
