"""What the deployment files call exists."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import typer.main
import yaml

from infra import threads
from infra.cli import app
from infra.deploy.environment import runtime_environment

DEPLOY = Path(__file__).parents[2] / "infra" / "deploy"


def known_options(command):
    return {option for parameter in typer.main.get_command(app).commands[command].params for option in parameter.opts}


def test_the_scheduled_commands_and_their_options_exist():
    for name in ("retrain-cronjob.yaml", "retrain.crontab"):
        [told] = re.findall(r"edit-transfer (retrain lift-arms .*?--json)", (DEPLOY / name).read_text(), re.DOTALL)
        command, adapter, *options = shlex.split(told)
        assert adapter == "lift-arms"
        assert {option for option in options if option.startswith("--")} <= known_options(command)


def test_the_cron_job_submits_once_at_a_time_and_takes_its_environment_along():
    job = yaml.safe_load((DEPLOY / "retrain-cronjob.yaml").read_text())
    assert job["kind"] == "CronJob" and job["spec"]["concurrencyPolicy"] == "Forbid"
    [container] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    [script] = container["args"]
    assert subprocess.run(["sh", "-n", "-c", script]).returncode == 0
    assert "python -m infra.deploy.environment" in script and script.startswith("ray job submit")


def test_outcomes_that_are_no_failures_do_not_fail_the_job():
    script = yaml.safe_load((DEPLOY / "retrain-cronjob.yaml").read_text())["spec"]["jobTemplate"]["spec"]["template"]
    inner = re.search(r"sh -c '(.*)'", script["spec"]["containers"][0]["args"][0], re.DOTALL)[1]
    for code, fails in ((0, False), (1, True), (2, True), (4, False), (5, False), (127, True), (137, True)):
        stand_in = re.sub(r"edit-transfer .*?--json", f"(exit {code})", inner, flags=re.DOTALL)
        assert (subprocess.run(["sh", "-c", stand_in]).returncode != 0) == fails


def test_the_environment_says_where_things_are_and_no_keys():
    variables = {"AWS_ENDPOINT_URL": "http://s3", "EDIT_TRANSFER_REGISTRY": "s3://a", "HOME": "/root", "PATH": "/bin"}
    variables["AWS_SECRET_ACCESS_KEY"] = "secret"
    ran = subprocess.run(
        [sys.executable, "-m", "infra.deploy.environment"], capture_output=True, env=variables, cwd=DEPLOY.parents[1]
    )
    places = {"AWS_ENDPOINT_URL": "http://s3", "EDIT_TRANSFER_REGISTRY": "s3://a"}
    assert json.loads(ran.stdout) == {"env_vars": threads.ENVIRONMENT | places}


def test_places_mean_the_same_elsewhere_and_caches_and_keys_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    told = {"EDIT_TRANSFER_REGISTRY": "adapters", "EDIT_TRANSFER_BASE": "base", "EDIT_TRANSFER_CACHE": "/cache"}
    told["EDIT_TRANSFER_SERVING"] = "s3://a/keys"
    places = {"EDIT_TRANSFER_REGISTRY": f"{tmp_path}/adapters", "EDIT_TRANSFER_BASE": f"{tmp_path}/base"}
    assert runtime_environment(told) == {"env_vars": threads.ENVIRONMENT | places}
    hub = {"EDIT_TRANSFER_BASE": "org/base", "EDIT_TRANSFER_REGISTRY": "s3://a"}
    assert runtime_environment(hub) == {"env_vars": threads.ENVIRONMENT | hub}
    assert runtime_environment(hub | {"OMP_WAIT_POLICY": "active"})["env_vars"]["OMP_WAIT_POLICY"] == "active"
