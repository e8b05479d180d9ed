import json

import pytest

from infra import cluster
from infra.errors import UsageError


def test_a_process_knows_its_ray_job(monkeypatch):
    monkeypatch.delenv(cluster.JOB_CONFIG, raising=False)
    assert cluster.submission_id() is None
    for told, known in (({"metadata": {"job_submission_id": "x"}}, "x"), ({"metadata": {}}, None), (None, None)):
        monkeypatch.setenv(cluster.JOB_CONFIG, json.dumps(told))
        assert cluster.submission_id() == known


def test_the_address_of_a_dashboard_is_for_jobs(monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests may have started one
    with pytest.raises(UsageError, match="edit-transfer submit"), cluster.connected(1, "http://127.0.0.1:9"):
        pass
