"""POST /v1/jobs: what may be asked for."""

import shlex
from dataclasses import replace

import pytest
import typer.main
from fastapi.testclient import TestClient

from infra import threads
from infra.cli import app as command_line
from infra.registry import publish
from serving.jobs import JobsConfig
from serving.jobs.messages import JobRequest
from tests.serving.jobs import BODY, PAIR, Cluster, app_for, refused


def asked(cluster: Cluster, job_id: str) -> dict[str, object]:
    """What `apply` understands of the command of a job."""
    words = shlex.split(cluster.jobs[job_id].command)
    assert words[:4] == ["python", "-m", "pipelines.catalog", "apply"]
    return typer.main.get_command(command_line).commands["apply"].make_context("apply", words[4:]).params


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


def test_a_job_waits_for_another_at_its_output_if_it_is_asked_to(client, cluster):
    """A request that does not say so is the request that it was before there was such a thing."""
    for more, waits in (({}, False), ({"wait": False}, False), ({"wait": True}, True)):
        assert asked(cluster, client.post("/v1/jobs", json=BODY | more).json()["id"])["queue"] is waits
    plain, patient = (JobRequest.model_validate(BODY | more) for more in ({"wait": False}, {"wait": True}))
    assert plain.digest() == JobRequest.model_validate(BODY).digest() != patient.digest()
    assert plain.digest() == "baef231dc049cd2d859dc5af4dff40c9da03c4e7ad63bb8dfdfb3914f2875101"


def test_a_job_brings_no_keys(client, cluster, monkeypatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "EDIT_TRANSFER_SERVING"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3")
    assert client.post("/v1/jobs", json=BODY).status_code == 202
    [environment] = cluster.environments
    assert environment["env_vars"] == threads.ENVIRONMENT | {"AWS_ENDPOINT_URL": "http://s3"}


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
        ({"input": "s3://shop/list.jsonl"}, "input", "table"),
        ({"input": "s3://shop/list.csv.gz"}, "input", "table"),
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
