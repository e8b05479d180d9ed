import json

from infra import cluster


def test_a_process_knows_its_ray_job(monkeypatch):
    monkeypatch.delenv(cluster.JOB_CONFIG, raising=False)
    assert cluster.submission_id() is None
    for told, known in (({"metadata": {"job_submission_id": "x"}}, "x"), ({"metadata": {}}, None), (None, None)):
        monkeypatch.setenv(cluster.JOB_CONFIG, json.dumps(told))
        assert cluster.submission_id() == known
