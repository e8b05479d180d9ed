import json
import socket
import subprocess
import sys
from contextlib import suppress

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


JOB = """
from infra import cluster
from infra.jobs import Jobs
from infra.settings import from_environment

with cluster.connected(1, dashboard=True) as ray:
    jobs = Jobs(f"http://{ray.dashboard}", from_environment())
    jobs.submit("echo done", "job-beside", {})
    print(jobs.follow("job-beside", print).state)
"""


@pytest.mark.slow
def test_an_embedded_ray_takes_jobs_beside_another_one():
    """The other one has the port on which agents listen by default; if it is taken already, so much the better."""
    with socket.socket() as taken:
        with suppress(OSError):
            taken.bind(("127.0.0.1", 52365))
            taken.listen()
        told = subprocess.run([sys.executable, "-c", JOB], capture_output=True, text=True, timeout=120)
    assert told.stdout.split()[-1:] == ["succeeded"], told.stderr
