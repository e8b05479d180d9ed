"""What the tests say of what they skip."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import rgw
from tests.skips import FAILED_BY_SKIPS

ROOT = Path(__file__).parents[1]
TESTS = """
import pytest

def test_runs(): pass

@pytest.fixture(scope="session")
def server(): pytest.skip("A server is missing: sudo apt-get install server\\nand a log")

@pytest.mark.parametrize("number", range(5))
def test_served(server, number): pass

@pytest.mark.skip(reason="A mount is not allowed: run as root")
def test_mounts(): pass
"""


def told_of(folder: Path, tests: str, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    (folder / "test_it.py").write_text(tests)
    plain = {key: value for key, value in os.environ.items() if key != "CI" and not key.startswith("PYTEST")}
    plugins = ["-p", "tests.skips", "-p", "xdist"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, "--rootdir", str(folder), *options]
    here = plain | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environment
    return subprocess.run([*command, str(folder / "test_it.py")], capture_output=True, text=True, env=here, cwd=folder)


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "in processes"])
def test_what_is_skipped_is_told_last_with_what_it_needs(tmp_path, options):
    done = told_of(tmp_path, TESTS, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    *_, title, most, least, total = done.stdout.splitlines()
    assert "how to have it" in title and "6 skipped" in total and "1 passed" in total
    assert most == "5 skipped. A server is missing: sudo apt-get install server"
    assert least == "1 skipped. A mount is not allowed: run as root"


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "in processes"])
def test_on_ci_a_skip_fails_the_run(tmp_path, options):
    done = told_of(tmp_path, TESTS, *options, CI="true")
    assert done.returncode == 1 and FAILED_BY_SKIPS in done.stdout
    assert "5 skipped. A server is missing" in done.stdout


def test_where_nothing_is_skipped_nothing_is_told(tmp_path):
    for environment in ({}, {"CI": "true"}):
        done = told_of(tmp_path, "def test_runs(): pass", **environment)
        assert done.returncode == 0 and "skipped" not in done.stdout
    assert told_of(tmp_path, "def test_fails(): assert 0", CI="true").returncode == 1
    assert told_of(tmp_path, TESTS, CI="false").returncode == 0


def test_what_ceph_needs_is_a_line_that_can_be_typed(monkeypatch):
    monkeypatch.setenv("PATH", "")  # nothing is installed, and nothing can be
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception) as told:
        rgw._installed()
    assert str(told.value).splitlines()[0].endswith(": sudo apt-get install ceph-mon ceph-osd radosgw")
